//! Two runs side by side: what their probes say of the same test clips, clip by clip, and which options differ.
//!
//! A difference is that of the means over clips that both have; its interval is a 95% bootstrap interval of the mean
//! of the clips' differences, so that what makes a clip hard for both does not widen it. Answers of several seeds are
//! averaged per clip first.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::Float64Type;
use loev_models::metrics::Bootstrap;
use loev_ops::rng::Key;
use loev_sql::{OpenRuns, RunCatalog, Source, quoted};

use crate::error::RunError;
use crate::resume::recipe::differences;

/// Resamples behind an interval.
const REPLICATES: usize = 2000;
/// Differing options that are named; more are counted.
const NAMED: usize = 40;

/// The stages that are compared: of the first run, and of the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// A stage of the first run.
    pub a: String,
    /// A stage of the second.
    pub b: String,
}

/// What was found.
#[derive(Debug)]
pub struct Comparison {
    /// One row per pair of stages, task, metric, probe and subspace: `stage`, `task`, `metric`, `probe`, `subspace`, the
    /// means `a` and `b`, `difference` (b - a) with `lo` and `hi`, `apart` (the interval holds no 0), and `clips`.
    pub rows: RecordBatch,
    /// The options that differ, in words.
    pub options: Vec<String>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Compares two runs, which may be the same.
///
/// # Errors
/// When one is no run, has no finished stage of probes to compare, or shares no answers with the other.
pub async fn compare(a: Source, b: Source, pairing: Option<Pairing>) -> Result<Comparison, RunError> {
    let open = loev_sql::open_runs(&[a, b], 1, None).await?;
    let [(a, first), (b, second)] = open.runs.as_slice() else {
        return Err(RunError::Engine("two runs are needed; files of rows are none".to_owned()));
    };
    let pairings = match pairing {
        Some(pairing) => vec![pairing],
        None => shared(first, second),
    };
    if pairings.is_empty() {
        let message =
            "the runs have no stage of probes in common; name two with --stage and --with".to_owned();
        return Err(RunError::Engine(message));
    }
    let mut notes: Vec<String> = open.notes();
    let mut rows = Vec::new();
    for pairing in &pairings {
        rows.extend(differences_of(&open, (a, b), pairing).await?);
    }
    if rows.is_empty() {
        return Err(RunError::Engine("the runs share no test clip with answers to the same task".to_owned()));
    }
    if let Some(alone) = rows.iter().map(|row| row.alone).max().filter(|alone| *alone > 0) {
        notes.push(format!("up to {alone} clips were answered in one of the runs only; they do not count"));
    }
    let mut options = differences(&first.pipeline, &second.pipeline);
    let more = options.len().saturating_sub(NAMED);
    options.truncate(NAMED);
    if more > 0 {
        options.push(format!("and {more} more"));
    }
    Ok(Comparison { rows: batch(&rows)?, options, notes })
}

/// The stages of probes that both runs have under one name.
fn shared(a: &RunCatalog, b: &RunCatalog) -> Vec<Pairing> {
    let answers = |run: &RunCatalog, stage: &str| run.tables.contains_key(&format!("{stage}_predictions"));
    let stages = a.pipeline_stages().filter(|(_, kind, _)| ["probe", "finetune"].contains(kind));
    let both = stages.filter(|(stage, ..)| answers(a, stage) && answers(b, stage));
    both.map(|(stage, ..)| Pairing { a: stage.to_owned(), b: stage.to_owned() }).collect()
}

/// A difference of two means over the same clips.
struct Row {
    names: [String; 5],
    a: f64,
    b: f64,
    lo: f64,
    hi: f64,
    clips: usize,
    /// Clips that only one of the runs has an answer for.
    alone: i64,
}

/// The scores of the answers of one stage, per clip.
fn scores(run: &str, stage: &str, tolerance: f64) -> String {
    let table = format!("{}.{}", quoted(run), quoted(&format!("{stage}_labelled")));
    let tempo = |function: &str| {
        format!("{function}(try_cast(prediction as double), try_cast(truth as double), {tolerance})")
    };
    let scores = [
        ("key", "accuracy", "score".to_owned()),
        ("key", "mirex_one_sided", "mirex_weighted(prediction, truth)".to_owned()),
        ("tempo", "acc1", tempo("tempo_acc1")),
        ("tempo", "acc2", tempo("tempo_acc2")),
        ("tags", "jaccard", "score".to_owned()),
        ("class", "accuracy", "score".to_owned()),
    ];
    let parts = scores.map(|(task, metric, score)| {
        format!(
            "select subspace, task, probe, '{metric}' as metric, clip_id, avg({score}) as score from {table} \
             where task = '{task}' and truth is not null group by subspace, task, probe, clip_id"
        )
    });
    parts.join(" union all ")
}

async fn differences_of(
    open: &OpenRuns,
    (a, b): (&str, &str),
    pairing: &Pairing,
) -> Result<Vec<Row>, RunError> {
    let of = |run: usize, stage: &str| -> Result<String, RunError> {
        let (name, catalog) = &open.runs[run];
        let options =
            catalog.pipeline_stages().find(|(known, ..)| *known == stage).map(|(.., options)| options);
        let tolerance = options.and_then(|options| options.get("tempo_tolerance")?.as_f64()).unwrap_or(0.04);
        if !catalog.tables.contains_key(&format!("{stage}_predictions")) {
            let probes = shared(catalog, catalog);
            let known: Vec<&str> = probes.iter().map(|pairing| pairing.a.as_str()).collect();
            let message =
                format!("run {name} has no answers of a stage `{stage}`; it has {}", known.join(", "));
            return Err(RunError::Engine(message));
        }
        Ok(scores(name, stage, tolerance))
    };
    let query = format!(
        "with a as ({}), b as ({}) \
         select task, metric, probe, subspace, a.score as a, b.score as b \
         from a full join b using (task, metric, probe, subspace, clip_id) \
         order by task, metric, probe, subspace, clip_id",
        of(0, &pairing.a)?,
        of(1, &pairing.b)?
    );
    let stage = match (pairing.a == pairing.b, a == b) {
        (true, _) => pairing.a.clone(),
        (false, _) => format!("{} / {}", pairing.a, pairing.b),
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    for batch in loev_sql::query(&open.context, &query).await? {
        let text = |index: usize| batch.column(index).as_string::<i32>();
        let number = |index: usize| batch.column(index).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let names = [
                stage.as_str(),
                text(0).value(row),
                text(1).value(row),
                text(2).value(row),
                text(3).value(row),
            ];
            if rows.last().is_none_or(|last| last.names.iter().zip(names).any(|(a, b)| a != b)) {
                close(&mut rows, &mut pairs);
                let names = names.map(str::to_owned);
                rows.push(Row { names, a: 0.0, b: 0.0, lo: 0.0, hi: 0.0, clips: 0, alone: 0 });
            }
            let (a, b) = (number(4), number(5));
            match (a.is_valid(row), b.is_valid(row)) {
                (true, true) => pairs.push((a.value(row), b.value(row))),
                _ => rows.iter_mut().rev().take(1).for_each(|last| last.alone += 1),
            }
        }
    }
    close(&mut rows, &mut pairs);
    rows.retain(|row| row.clips > 0);
    Ok(rows)
}

/// Works out the last row from its pairs.
fn close(rows: &mut [Row], pairs: &mut Vec<(f64, f64)>) {
    if let Some(row) = rows.last_mut().filter(|_| !pairs.is_empty()) {
        let mean = |f: fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / pairs.len() as f64;
        (row.a, row.b, row.clips) = (mean(|pair| pair.0), mean(|pair| pair.1), pairs.len());
        let gains: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
        // One key for all rows: they are resampled alike.
        let plan = Bootstrap::new(gains.len(), REPLICATES, Key::root(0).with_str("compare"));
        let difference = row.b - row.a;
        (row.lo, row.hi) = plan
            .interval_of_mean(&gains)
            .map_or((difference, difference), |interval| (interval.lo, interval.hi));
    }
    pairs.clear();
}

fn batch(rows: &[Row]) -> Result<RecordBatch, RunError> {
    let text = |index: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.names[index])))
    };
    let number = |f: &dyn Fn(&Row) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(f)))
    };
    let apart = rows.iter().map(|row| Some(row.lo > 0.0 || row.hi < 0.0));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("stage", text(0)),
        ("task", text(1)),
        ("metric", text(2)),
        ("probe", text(3)),
        ("subspace", text(4)),
        ("a", number(&|row| row.a)),
        ("b", number(&|row| row.b)),
        ("difference", number(&|row| row.b - row.a)),
        ("lo", number(&|row| row.lo)),
        ("hi", number(&|row| row.hi)),
        ("apart", Arc::new(apart.collect::<BooleanArray>())),
        ("clips", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.clips as i64)))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
