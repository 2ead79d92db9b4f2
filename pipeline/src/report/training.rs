//! Training curves: the loss of each head beside its floor, and how the training went.

use arrow::array::RecordBatch;
use loev_sql::quoted;

use super::ask::{Run, colour};
use super::chart::{Lines, Series, legend, lines, smooth};
use super::figure::{Data, Figure, Section};
use super::html::Html;
use crate::error::RunError;
use crate::exec::columns::number;
use crate::spec::Kind;
use crate::stages::side_table;

/// Points of a curve; longer trainings are shown by means of neighbouring steps.
const POINTS: u64 = 1200;

/// The section, if the pipeline trains.
///
/// # Errors
/// When the user asked to stop.
pub async fn section(run: &Run, spaces: &[String]) -> Result<Option<Section>, RunError> {
    let (training, tuning) = (run.of_kinds(&[Kind::Train]), run.of_kinds(&[Kind::Finetune]));
    let mut section = Section::new(
        "training",
        "Training",
        "The loss of each subspace beside its floor: what a subspace reaches that knows the segment and its factor. Thin lines \
         are single steps, thick ones a moving mean.",
    );
    for stage in run.readable(&training, &["step", "loss"], &mut section.marks) {
        section.take(stage, curves(run, stage, spaces).await)?;
    }
    for stage in tuning {
        let passes = side_table(stage, "passes");
        for table in run.readable(&[&passes], &["pass", "loss", "valid_loss"], &mut section.marks) {
            section.take(table, self::passes(run, stage, table).await)?;
        }
    }
    Ok((!section.is_empty()).then_some(section))
}

async fn curves(run: &Run, stage: &str, spaces: &[String]) -> Result<Option<Figure>, RunError> {
    let Some(schema) = run.schema(stage) else { return Ok(None) };
    let with = |prefix: &str| -> Vec<String> {
        let names = schema.fields().iter().map(|field| field.name());
        names.filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    let heads = with("loss_");
    let mut columns: Vec<String> = vec!["loss".to_owned()];
    for head in &heads {
        columns.extend(["loss_", "floor_"].map(|part| format!("{part}{head}")));
    }
    columns.extend(["lr", "grad_norm", "views_per_s", "wait_share"].map(str::to_owned));
    columns.retain(|column| schema.index_of(column).is_ok());

    let table = quoted(stage);
    let steps = number(&run.ask(&format!("select count(*) as n from {table}")).await?, "n")?;
    let steps = steps.iter().flatten().next().unwrap_or(0.0) as u64;
    if steps == 0 {
        return Err(RunError::Engine("the table has no rows".to_owned()));
    }
    let each = steps.div_ceil(POINTS);
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let sql = match each {
        1 => format!("select step, {} from {table} order by step", names.join(", ")),
        _ => {
            let means: Vec<String> = names.iter().map(|name| format!("avg({name}) as {name}")).collect();
            format!(
                "select min(step) as step, {} from {table} group by (step - 1) / {each} order by 1",
                means.join(", ")
            )
        }
    };
    let rows = run.ask(&sql).await?;
    let colour = |head: &str| colour(spaces, head);
    let mut drawings = Html::new();
    let mut panel = |title: String, shown: &[(String, usize, &'static str)]| -> Result<(), RunError> {
        drawings.add(&lines(&panel(&rows, title, shown)?));
        Ok(())
    };
    for head in &heads {
        let colour = colour(head);
        let mut shown = vec![(format!("loss_{head}"), colour, "")];
        if columns.contains(&format!("floor_{head}")) {
            shown.push((format!("floor_{head}"), colour, "dashed"));
        }
        panel(format!("loss of {head}, nats"), &shown)?;
    }
    if heads.is_empty() {
        panel("loss, nats".to_owned(), &[("loss".to_owned(), 0, "")])?;
    }
    for (column, title) in [
        ("lr", "learning rate"),
        ("grad_norm", "gradient norm, before clipping"),
        ("views_per_s", "views a second"),
    ] {
        if columns.iter().any(|known| known == column) {
            panel(title.to_owned(), &[(column.to_owned(), 7, "")])?;
        }
    }
    let mut body = legend(&heads.iter().map(|head| (head.clone(), colour(head))).collect::<Vec<_>>());
    body.open("div", &[("class", "panels".into())]).add(&drawings).close("div");
    let method = run.option(stage, "method").and_then(|method| method.as_str()).unwrap_or("");
    let mut caption = format!("{steps} steps. Dashed: the floor.");
    if each > 1 {
        caption = format!("{caption} A point is the mean of {each} steps.");
    }
    let title = format!("{stage} ({method})");
    Ok(Some(Figure { title, caption, body, data: Data::of(&rows)?, sql: vec![sql] }))
}

/// A panel of columns over steps; what is drawn plainly is smoothed, with what it comes from behind it.
fn panel(
    rows: &RecordBatch,
    title: String,
    shown: &[(String, usize, &'static str)],
) -> Result<Lines, RunError> {
    let values = |column: &str| -> Result<Vec<f64>, RunError> {
        Ok(number(rows, column)?.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    };
    let x = values("step")?;
    let mut series = Vec::new();
    for (column, colour, class) in shown {
        let y = values(column)?;
        let (x, colour, class) = (x.clone(), *colour, *class);
        let one = Series { name: column.clone(), colour, x, y, class, ..Series::default() };
        let fluctuates = class.is_empty() && column != "lr" && one.y.len() > 8;
        if fluctuates {
            let smoothed = smooth(&one.y, (one.y.len() / 30).max(2));
            series.push(Series { class: "raw", ..one.clone() });
            series.push(Series { y: smoothed, ..one });
        } else {
            series.push(one);
        }
    }
    Ok(Lines { title, x_title: "step".to_owned(), series, ..Lines::default() })
}

async fn passes(run: &Run, stage: &str, table: &str) -> Result<Option<Figure>, RunError> {
    let sql = format!("select pass, loss, valid_loss from {} order by pass", quoted(table));
    let rows = run.ask(&sql).await?;
    let values = |column: &str| -> Result<Vec<f64>, RunError> {
        Ok(number(&rows, column)?.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    };
    let series = |name: &str, colour: usize, y: Vec<f64>| -> Result<Series, RunError> {
        Ok(Series { name: name.to_owned(), colour, x: values("pass")?, y, dots: true, ..Series::default() })
    };
    let series =
        vec![series("training", 0, values("loss")?)?, series("validation", 1, values("valid_loss")?)?];
    let mut body = legend(&[("training".to_owned(), 0), ("validation".to_owned(), 1)]);
    let panel = Lines { title: "loss".to_owned(), x_title: "pass".to_owned(), series, ..Lines::default() };
    body.open("div", &[("class", "panels".into())]).add(&lines(&panel)).close("div");
    let caption = format!("{} passes of fine-tuning; the best on validation rows is kept.", rows.num_rows());
    Ok(Some(Figure {
        title: format!("{stage} (fine-tuning)"),
        caption,
        body,
        data: Data::of(&rows)?,
        sql: vec![sql],
    }))
}
