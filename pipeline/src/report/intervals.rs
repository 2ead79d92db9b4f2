//! Figures with intervals: probes, retrieval, equivariance, leaks.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use loev_sql::quoted;

use super::ask::{Run, colour, rank};
use super::chart::{Dots, Mark, Row, dots};
use super::figure::{Data, Figure, Section};
use super::html::Html;
use super::parts::{Cell, count, details, table};
use crate::error::RunError;
use crate::exec::columns::{number, text};
use crate::spec::Kind;

/// How a kind of table becomes figures: SQL expressions over its columns.
struct Shape {
    id: &'static str,
    title: &'static str,
    lead: &'static str,
    kinds: &'static [Kind],
    /// Columns that a table must have.
    needs: &'static [&'static str],
    /// One figure for each value.
    figure: &'static str,
    /// Before that value, in the title.
    prefix: &'static str,
    /// One panel for each value.
    panel: &'static str,
    /// One dot in a row for each value.
    series: &'static str,
    /// One row for each value, under the stage.
    row: &'static str,
    /// Beside chance.
    reference: &'static str,
    /// How many were scored.
    count: &'static str,
    /// What the reference is called.
    reference_name: &'static str,
}

const SHAPES: [Shape; 4] = [
    Shape {
        id: "probes",
        title: "Probes",
        lead: "What small classifiers read from frozen embeddings of test clips, with 95% bootstrap intervals over clips. The \
               vertical line is chance, the diamond the same probe on mel statistics.",
        kinds: &[Kind::Probe, Kind::Finetune],
        needs: &["subspace", "task", "probe", "metric", "value", "lo", "hi", "chance", "n_test"],
        figure: "task",
        prefix: "Task: ",
        panel: "metric",
        series: "probe",
        row: "subspace",
        reference: "baseline",
        count: "n_test",
        reference_name: "mel statistics",
    },
    Shape {
        id: "retrieval",
        title: "Retrieval",
        lead: "Whether a clip's nearest clips are like it, by cosine, with 95% bootstrap intervals over clips. The vertical line \
               is what random neighbours give, the diamond what mel statistics do.",
        kinds: &[Kind::Retrieve],
        needs: &["subspace", "task", "metric", "k", "value", "lo", "hi", "chance", "n"],
        figure: "task",
        prefix: "Task: ",
        panel: "metric",
        series: "'nearest ' || k",
        row: "subspace",
        reference: "baseline",
        count: "n",
        reference_name: "mel statistics",
    },
    Shape {
        id: "equivariance",
        title: "Equivariance",
        lead: "What two embeddings of views say of what was drawn for them (R\u{b2} of the difference), and how far one embedding \
               and the parameters foretell the other. 0 is what saying nothing gives.",
        kinds: &[Kind::Equivariance],
        needs: &["subspace", "factor", "parameter", "measure", "value", "lo", "hi", "chance", "n_test"],
        figure: "factor || '.' || parameter",
        prefix: "",
        panel: "measure",
        series: "'ridge'",
        row: "subspace",
        reference: "baseline",
        count: "n_test",
        reference_name: "mel statistics",
    },
    Shape {
        id: "leaks",
        title: "Leaks",
        lead: "Whether cues that have nothing to do with the music tell what was done to a segment. Intervals that touch the \
               vertical line tell nothing; the diamond is the same cue of the untouched segment.",
        kinds: &[Kind::Leak],
        needs: &[
            "test",
            "factor",
            "parameter",
            "cue",
            "metric",
            "value",
            "lo",
            "hi",
            "chance",
            "control",
            "n_test",
        ],
        figure: "test",
        prefix: "Test: ",
        panel: "coalesce(factor || '.' || parameter || ', ', '') || metric",
        series: "'linear'",
        row: "cue",
        reference: "control",
        count: "n_test",
        reference_name: "untouched",
    },
];

/// The sections for which the pipeline has stages.
///
/// # Errors
/// When the user asked to stop.
pub async fn sections(run: &Run, spaces: &[String]) -> Result<Vec<Section>, RunError> {
    let mut sections = Vec::new();
    for shape in &SHAPES {
        let mut section = Section::new(shape.id, shape.title, shape.lead);
        let stages = run.readable(&run.of_kinds(shape.kinds), shape.needs, &mut section.marks);
        if !stages.is_empty() {
            let union = union(run, shape, &stages);
            match names(run, &union).await {
                Ok(names) => {
                    for name in names {
                        section.take(&name, figure(run, shape, &union, &name, spaces).await)?;
                    }
                }
                Err(error @ RunError::Interrupted) => return Err(error),
                Err(error) => section.marks.push(error.to_string()),
            }
        }
        if !section.is_empty() {
            sections.push(section);
        }
    }
    Ok(sections)
}

/// The rows of all stages in one form.
fn union(run: &Run, shape: &Shape, stages: &[&str]) -> String {
    let Shape { figure, panel, series, row, reference, count, .. } = shape;
    let of_stage = |stage: &&str| {
        let reference =
            if run.has(stage, &[reference]) { quoted(reference) } else { "cast(null as double)".to_owned() };
        format!(
            "  select '{}' as stage, {figure} as figure, {panel} as panel, {series} as series, {row} as name,\n         \
             value, lo, hi, chance, {reference} as reference, {count} as n from {}",
            stage.replace('\'', "''"),
            quoted(stage)
        )
    };
    stages.iter().map(of_stage).collect::<Vec<_>>().join("\n  union all\n")
}

async fn names(run: &Run, union: &str) -> Result<Vec<String>, RunError> {
    let rows = run.ask(&format!("select distinct figure from (\n{union}\n) order by figure")).await?;
    Ok(text(&rows, "figure")?.iter().flatten().map(str::to_owned).collect())
}

async fn figure(
    run: &Run,
    shape: &Shape,
    union: &str,
    name: &str,
    spaces: &[String],
) -> Result<Option<Figure>, RunError> {
    let sql = format!(
        "select stage, panel, series, name, value, lo, hi, chance, reference, n from (\n{union}\n)\n\
         where figure = '{}' order by panel, stage, name, series",
        name.replace('\'', "''")
    );
    let rows = run.ask(&sql).await?;
    if rows.num_rows() == 0 {
        return Ok(None);
    }
    let rows = Rows::new(&rows)?;
    let order = run.stages();
    let place = |stage: &str| order.iter().position(|(name, _)| *name == stage);
    let mut series: Vec<&str> = rows.series.clone();
    series.sort_by_key(|name| numbered(name));
    series.dedup();
    let mut body = Html::new();
    if series.len() > 1 {
        body.open("p", &[("class", "hint".into())]);
        body.text(&format!(
            "In each row, from above: {}. The first is filled, and its value stands at the right.",
            series.join(", ")
        ));
        body.close("p");
    }
    body.raw("<div class=\"panels wide\">");
    let mut panels: Vec<&str> = rows.panels.clone();
    panels.dedup();
    for panel in panels {
        // By stage, then by subspace or cue.
        let mut of_panel: BTreeMap<(Option<usize>, &str, u8, &str), Row> = BTreeMap::new();
        for row in (0..rows.panels.len()).filter(|row| rows.panels[*row] == panel) {
            let (stage, name) = (rows.stages[row], rows.names[row]);
            let colour = colour(spaces, name);
            let entry = of_panel.entry((place(stage), stage, rank(name), name)).or_insert_with(|| Row {
                group: stage.to_owned(),
                name: name.to_owned(),
                colour,
                marks: vec![None; series.len()],
                chance: rows.chance[row],
                reference: rows.reference[row],
            });
            let at = series.iter().position(|name| *name == rows.series[row]).unwrap_or(0);
            let [value, lo, hi] =
                [&rows.value, &rows.lo, &rows.hi].map(|column| column[row].unwrap_or(f64::NAN));
            entry.marks[at] = Some(Mark { value, interval: (lo, hi) });
        }
        let series = series.iter().map(|name| (*name).to_owned()).collect();
        body.add(&dots(&Dots { title: panel.to_owned(), series, rows: of_panel.into_values().collect() }));
    }
    body.raw("</div>");
    body.add(&details("Table", &rows.table(shape.reference_name)));
    let (caption, title) =
        (format!("Scored: up to {}.", count(rows.most())), format!("{}{name}", shape.prefix));
    Ok(Some(Figure { title, caption, body, data: rows.data, sql: vec![sql] }))
}

/// `nearest 10` after `nearest 5`, and `linear` before `mlp`.
fn numbered(name: &str) -> (u64, String) {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    (digits.parse().unwrap_or(0), name.to_owned())
}

/// The columns of a figure's rows.
struct Rows<'a> {
    stages: Vec<&'a str>,
    panels: Vec<&'a str>,
    series: Vec<&'a str>,
    names: Vec<&'a str>,
    value: Vec<Option<f64>>,
    lo: Vec<Option<f64>>,
    hi: Vec<Option<f64>>,
    chance: Vec<Option<f64>>,
    reference: Vec<Option<f64>>,
    count: Vec<Option<f64>>,
    data: Data,
}

impl<'a> Rows<'a> {
    fn new(rows: &'a RecordBatch) -> Result<Self, RunError> {
        let texts = |name: &str| -> Result<Vec<&'a str>, RunError> {
            let column = rows
                .column_by_name(name)
                .and_then(|c| c.as_any().downcast_ref::<arrow::array::StringArray>());
            let column = column.ok_or_else(|| RunError::Engine(format!("column `{name}` is no text")))?;
            Ok(column.iter().map(|value| value.unwrap_or("")).collect())
        };
        let numbers = |name: &str| -> Result<Vec<Option<f64>>, RunError> {
            Ok(number(rows, name)?.iter().map(|value| value.filter(|v| v.is_finite())).collect())
        };
        Ok(Self {
            stages: texts("stage")?,
            panels: texts("panel")?,
            series: texts("series")?,
            names: texts("name")?,
            value: numbers("value")?,
            lo: numbers("lo")?,
            hi: numbers("hi")?,
            chance: numbers("chance")?,
            reference: numbers("reference")?,
            count: numbers("n")?,
            data: Data::of(rows)?,
        })
    }

    fn most(&self) -> u64 {
        self.count.iter().flatten().copied().fold(0.0, f64::max) as u64
    }

    fn table(&self, reference: &'static str) -> Html {
        let rows = (0..self.names.len()).map(|row| {
            vec![
                Cell::Code(self.stages[row].to_owned()),
                Cell::Text(self.names[row].to_owned()),
                Cell::Text(self.panels[row].to_owned()),
                Cell::Text(self.series[row].to_owned()),
                Cell::number(self.value[row]),
                Cell::number(self.lo[row]),
                Cell::number(self.hi[row]),
                Cell::number(self.chance[row]),
                Cell::number(self.reference[row]),
                Cell::count(self.count[row].unwrap_or(0.0) as u64),
            ]
        });
        let headers = ["stage", "name", "measure", "by", "value", "lo", "hi", "chance", reference, "n"];
        table(&headers, &rows.collect::<Vec<_>>())
    }
}
