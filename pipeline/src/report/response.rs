//! Parameter-response curves: how far an embedding moves when a parameter does and all others stay.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use loev_ops::dist::Scale;
use loev_ops::operator::FactorDef;
use loev_sql::quoted;

use super::ask::{Run, colour};
use super::chart::{Lines, Series, legend, lines, short};
use super::figure::{Data, Figure, Section};
use super::html::Html;
use crate::error::RunError;
use crate::exec::columns::{number, text};
use crate::spec::{Kind, Stage};

/// Steps of a parameter's difference to either side.
const BINS: f64 = 8.0;
/// Pairs that a step must have to be shown.
const PAIRS: u32 = 5;
/// Clips that pairs are taken from.
const CLIPS: u64 = 3000;

/// A parameter that two views of a segment may differ in.
struct Parameter {
    factor: String,
    name: String,
    scale: Scale,
}

impl Parameter {
    /// Its value in a row of `views`.
    fn of(&self, alias: &str) -> String {
        format!("{alias}.{}['{}']", quoted(&self.factor), self.name)
    }

    /// How far the value lies from where the operator does nothing.
    fn strength(&self, alias: &str) -> String {
        match self.scale {
            Scale::Linear => format!("abs({})", self.of(alias)),
            Scale::Log => format!("abs(ln({}))", self.of(alias)),
        }
    }
}

/// The section, if the pipeline has factors.
///
/// # Errors
/// When the user asked to stop.
pub async fn section(run: &Run, spaces: &[String]) -> Result<Option<Section>, RunError> {
    let mut section = Section::new(
        "response",
        "Parameter response",
        "How far embeddings move when one parameter of a view changes and all others stay: cosine distance of two views of one \
         segment against the difference of the parameter, the one nearer to the unchanged sound being the reference. Lines are \
         medians, bands reach from the 10th to the 90th percentile.",
    );
    let embedded = run.embeddings(true);
    if embedded.is_empty() {
        let views = run.of_kinds(&[Kind::Views]);
        let trained = run.of_kinds(&[Kind::Train]);
        if let (Some(views), Some(model)) = (views.first(), trained.first()) {
            section.marks.push(format!(
                "this run embeds no views; a stage such as `moved: {{ embed: {{ from: {views}, model: {model} }} }}` would give \
                 these curves"
            ));
        }
        return Ok((!section.is_empty()).then_some(section));
    }
    for (stage, views) in embedded {
        for stage in run.readable(
            &[stage],
            &["clip_id", "segment", "epoch", "view", "subspace", "embedding"],
            &mut section.marks,
        ) {
            section.take(stage, figure(run, stage, &views, spaces).await)?;
        }
    }
    Ok((!section.is_empty()).then_some(section))
}

async fn figure(run: &Run, stage: &str, views: &str, spaces: &[String]) -> Result<Option<Figure>, RunError> {
    let Some(Stage::Views(options)) = run.pipeline.as_ref().and_then(|pipeline| pipeline.stages.get(views))
    else {
        return Err(RunError::Engine(format!(
            "what `{views}` varies is not known: this version cannot read the pipeline"
        )));
    };
    let chain = options.chain();
    let levels =
        chain.variant.iter().zip(chain.factors()).filter_map(|(spec, factor)| match spec.def().factor {
            FactorDef::Level { param, scale, .. } => {
                Some(Parameter { factor, name: spec.def().params.get(param)?.name.to_owned(), scale })
            }
            FactorDef::OnOff => None,
        });
    let levels: Vec<Parameter> = levels.collect();
    if levels.is_empty() {
        return Ok(None);
    }
    let table = quoted(stage);
    let clips = number(&run.ask(&format!("select count(distinct clip_id) as n from {table}")).await?, "n")?;
    let each = (clips.iter().flatten().next().unwrap_or(0.0) as u64).div_ceil(CLIPS).max(1);
    let of_clips = match each {
        1 => String::new(),
        _ => format!(
            " and clip_id in (\n    select clip_id from (select clip_id, cast(row_number() over (order by clip_id) as bigint) - 1 as place\n    \
             from (select distinct clip_id from {table})) where place % {each} = 0)"
        ),
    };
    let source = format!("select * from {table} where epoch = (select min(epoch) from {table}){of_clips}");

    let (mut panels, mut statements, mut data) = (Html::new(), Vec::new(), Data::default());
    let mut seen: Vec<String> = Vec::new();
    for parameter in &levels {
        let others: Vec<&Parameter> =
            levels.iter().filter(|other| other.factor != parameter.factor).collect();
        let sql = curve_sql(run, &source, parameter, &others).await?;
        let rows = run.ask(&sql).await?;
        let (panel, names) = curve(&rows, parameter, spaces)?;
        panels.add(&lines(&panel));
        names.into_iter().for_each(|name| {
            if !seen.contains(&name) {
                seen.push(name)
            }
        });
        let Data(columns) = Data::of(&rows)?;
        for (i, (name, values)) in columns.into_iter().enumerate() {
            match data.0.get_mut(i) {
                Some((_, all)) => all.extend(values),
                None => data.0.push((name, values)),
            }
        }
        statements.push(sql);
    }
    let elsewhere = elsewhere(run, &source).await?;
    let mut body = legend(&seen.iter().map(|name| (name.clone(), colour(spaces, name))).collect::<Vec<_>>());
    body.raw("<div class=\"panels wide\">").add(&panels).raw("</div>");
    let mut caption = format!("Steps with fewer than {PAIRS} pairs are left out.");
    if !elsewhere.1.is_empty() {
        let words: Vec<String> =
            elsewhere.1.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
        caption = format!(
            "{caption} For comparison, the median distance to the same view of another clip: {}.",
            words.join(", ")
        );
        statements.push(elsewhere.0);
    }
    if each > 1 {
        caption = format!("{caption} One clip in {each} is taken.");
    }
    Ok(Some(Figure { title: stage.to_owned(), caption, body, data, sql: statements }))
}

/// Distances of pairs of views that differ in `parameter` alone, by steps of the difference.
async fn curve_sql(
    run: &Run,
    source: &str,
    parameter: &Parameter,
    others: &[&Parameter],
) -> Result<String, RunError> {
    let value = parameter.of("v");
    let spread =
        run.ask(&format!("select min({value}) as low, max({value}) as high from ({source}) as v")).await?;
    let end = |name: &str| -> Result<f64, RunError> {
        Ok(number(&spread, name)?.iter().flatten().next().unwrap_or(f64::NAN))
    };
    let (low, high) = (end("low")?, end("high")?);
    let width = match parameter.scale {
        Scale::Linear => (high - low) / BINS,
        Scale::Log => (high / low).ln() / BINS,
    };
    if !(width.is_finite() && width > 0.0) {
        return Err(RunError::Engine(format!(
            "`{}` of `{}` does not vary",
            parameter.name, parameter.factor
        )));
    }
    // A width that people can read.
    let width: f64 = format!("{width:.1e}").parse().unwrap_or(width);
    let (from, to) = (parameter.of("a"), parameter.of("b"));
    let difference = match parameter.scale {
        Scale::Linear => format!("round(({to} - {from}) / {width}) * {width}"),
        Scale::Log => format!("exp(round(ln({to} / {from}) / {width}) * {width})"),
    };
    let mut same = String::new();
    for other in others {
        same.push_str(&format!("\n    and {} = {}", other.of("a"), other.of("b")));
    }
    Ok(format!(
        "with views as (\n  {source}\n), pairs as (\n  select a.subspace, {difference} as difference,\n    \
         cosine_distance(a.embedding, b.embedding) as distance\n  from views as a join views as b on a.clip_id = b.clip_id \
         and a.segment = b.segment and a.subspace = b.subspace{same}\n  where {from} <> {to} and {} <= {}\n)\n\
         select subspace, '{}' as parameter, difference, count(*) as pairs, percentile_cont(distance, 0.1) as q10,\n  \
         percentile_cont(distance, 0.5) as median, percentile_cont(distance, 0.9) as q90\n\
         from pairs where distance is not null and not isnan(distance)\n\
         group by subspace, difference having count(*) >= {PAIRS} order by subspace, difference",
        parameter.strength("a"),
        parameter.strength("b"),
        parameter.name
    ))
}

fn curve(
    rows: &RecordBatch,
    parameter: &Parameter,
    spaces: &[String],
) -> Result<(Lines, Vec<String>), RunError> {
    let names = text(rows, "subspace")?;
    let [x, low, middle, high] = ["difference", "q10", "median", "q90"].map(|name| number(rows, name));
    let (x, low, middle, high) = (x?, low?, middle?, high?);
    let mut of_space: BTreeMap<usize, Series> = BTreeMap::new();
    for (row, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        let colour = colour(spaces, name);
        let series = of_space.entry(colour).or_insert_with(|| Series {
            name: name.to_owned(),
            colour,
            band: Some((Vec::new(), Vec::new())),
            dots: true,
            ..Series::default()
        });
        series.x.push(x.value(row));
        series.y.push(middle.value(row));
        if let Some((lows, highs)) = &mut series.band {
            lows.push(low.value(row));
            highs.push(high.value(row));
        }
    }
    let series: Vec<Series> = of_space.into_values().collect();
    let names = series.iter().map(|series| series.name.clone()).collect();
    let between = match parameter.scale {
        Scale::Linear => "difference",
        Scale::Log => "ratio",
    };
    let title = format!("cosine distance by {}", parameter.factor);
    let x_title = format!("{} of {}", between, parameter.name);
    Ok((Lines { title, x_title, series, include: Some(0.0), wide: true }, names))
}

/// How far apart the same view of two clips is: what distances are to be seen against.
async fn elsewhere(run: &Run, source: &str) -> Result<(String, Vec<(String, f64)>), RunError> {
    let sql = format!(
        "with views as (\n  {source}\n)\nselect subspace, percentile_cont(cosine_distance(embedding, other), 0.5) as median from (\n  \
         select subspace, embedding, lag(embedding) over (partition by subspace order by clip_id) as other\n  from views where \
         \"view\" = 0 and segment = 0\n) group by subspace order by subspace"
    );
    let rows = run.ask(&sql).await?;
    let (names, medians) = (text(&rows, "subspace")?, number(&rows, "median")?);
    let found =
        names.iter().zip(medians.iter()).filter_map(|(name, median)| Some((name?.to_owned(), median?)));
    Ok((sql, found.filter(|(_, median)| median.is_finite()).collect()))
}
