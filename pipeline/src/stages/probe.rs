//! `probe`: what small classifiers read from each subspace, with chance and the baseline beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::SessionContext;
use loev_models::probe::{Labels, Metric, ProbeData, ProbeResult, Split, TaskSpec, probe};
use loev_sql::quoted;

use super::embed::BASELINE;
use super::tables::{has_baseline, labels_of, rows, split_of, table, vectors};
use super::{Content, Outcome, side_table};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, text};
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::Context;
use crate::spec::stage::Probe;
use crate::spec::{Kind, Pipeline, Stage};

/// The name under which all subspaces are probed together.
pub const ALL: &str = "all";

/// Clips with a split and labels, ordered by name.
struct Clips {
    names: Vec<String>,
    splits: Vec<Split>,
    labels: Vec<(TaskSpec, Labels)>,
}

/// Mean embeddings of the clips of [`Clips`], in their order.
struct Space {
    name: String,
    dim: usize,
    embeddings: Vec<f32>,
}

/// What a `probe` stage has to make.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Probe) -> Result<Work, RunError> {
    let labels = labels_table(inputs.pipeline, name, options)?;
    let mut columns = vec![CLIP_ID, options.split.as_str()];
    columns.extend(options.tasks.iter().map(TaskSpec::column));
    let mut recipe = Recipe::new(Kind::Probe, 1)
        .options(options, &["from", "labels"])
        .with("seed", inputs.pipeline.seed)
        .with("stage", name)
        .with("embeddings", Content { digest: inputs.content(&options.from, None)? })
        .with("labels", Content { digest: inputs.content(&labels, Some(&columns))? });
    if has_baseline(inputs.pipeline, &options.from) {
        let digest = inputs.content(&side_table(&options.from, "baseline"), None)?;
        recipe = recipe.with("baseline", Content { digest });
    }
    Ok(Work::whole(recipe))
}

/// Fits and scores the probes of a `probe` stage.
///
/// # Errors
/// When columns are missing, a split has no labelled clip, or a table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Probe) -> Result<Outcome, RunError> {
    let labels = labels_table(&context.pipeline, name, options)?;
    let baseline = side_table(&options.from, "baseline");
    let with_baseline = has_baseline(&context.pipeline, &options.from);
    let session = context.session(&[options.from.clone(), labels.clone()]).await?;

    let clips = clips(&session, name, options, &labels).await?;
    let mut spaces = spaces(&session, &options.from, &clips).await?;
    if spaces.len() > 1 {
        spaces.push(concatenated(&spaces, clips.names.len()));
    }
    if with_baseline {
        spaces.extend(self::spaces(&session, &baseline, &clips).await?);
    }

    let stage = context.stage(name, (spaces.len() * clips.labels.len()) as u64, "probes");
    let (clips, spaces) = (Arc::new(clips), Arc::new(spaces));
    let mut answers = Vec::new();
    for task in 0..clips.labels.len() {
        for space in 0..spaces.len() {
            let (clips, spaces, stage) = (Arc::clone(&clips), Arc::clone(&spaces), stage.clone());
            let (config, key) = (options.config.clone(), context.key(name));
            let answer = context.pool.submit(move || {
                stage.interrupt.check()?;
                let (space, labels) = (&spaces[space], &clips.labels[task].1);
                let Space { embeddings, dim, .. } = space;
                let data = ProbeData { embeddings, dim: *dim, split: &clips.splits, labels };
                let results = probe(&data, &config, key);
                stage.bar.add(1);
                Ok::<_, RunError>(results?)
            });
            answers.push((task, space, answer));
        }
    }
    let mut results = Vec::new();
    for (task, space, answer) in answers {
        let answer = answer.await.map_err(|_| RunError::Interrupted)?;
        let found = answer.map_err(|panic| stage.error(format!("a probe panicked: {panic}")))??;
        results.extend(found.into_iter().map(|result| Scored { task, space, result }));
    }
    context.store_batch(job, name, figures(&spaces, &results)?)?;
    let predictions = side_table(name, "predictions");
    context.store_batch(job, &predictions, predictions_batch(&clips, &spaces, &results)?)?;
    stage.bar.finish();
    let mut outcome = Outcome::note(format!("{} clips", clips.names.len()));
    outcome.side_tables.push(predictions);
    Ok(outcome)
}

/// The table with the labels: named by the options, else the one that was embedded.
fn labels_table(pipeline: &Pipeline, name: &str, options: &Probe) -> Result<String, RunError> {
    if let Some(labels) = &options.labels {
        return Ok(labels.clone());
    }
    match pipeline.stages.get(&options.from) {
        Some(Stage::Embed(embed)) => Ok(embed.from.clone()),
        _ => Err(RunError::stage(name, format!("`{}` is no embed stage", options.from))),
    }
}

async fn clips(
    session: &SessionContext,
    stage: &str,
    options: &Probe,
    labels: &str,
) -> Result<Clips, RunError> {
    let (labels, from, split) = (quoted(labels), quoted(&options.from), quoted(&options.split));
    let query = format!(
        "select * from {labels} where {split} is not null and {CLIP_ID} in (select {CLIP_ID} from {from}) \
         order by {CLIP_ID}"
    );
    let table = rows(session, &query).await.map_err(|e| RunError::stage(stage, e.to_string()))?;
    let ids = text(&table, CLIP_ID)?;
    let splits = text(&table, &options.split)?;
    let splits = splits.iter().flatten().map(|word| split_of(stage, &options.split, word));
    let labels = options.tasks.iter().map(|task| {
        let labels = labels_of(&table, task).map_err(|e| RunError::stage(stage, e.to_string()))?;
        Ok((task.clone(), labels))
    });
    Ok(Clips {
        names: ids.iter().flatten().map(str::to_owned).collect(),
        splits: splits.collect::<Result<_, _>>()?,
        labels: labels.collect::<Result<_, RunError>>()?,
    })
}

/// The mean embeddings in `table`, per subspace, of exactly the clips of `clips`.
async fn spaces(session: &SessionContext, table: &str, clips: &Clips) -> Result<Vec<Space>, RunError> {
    let query = format!(
        "select subspace, {CLIP_ID}, embedding from {} where segment is null order by subspace, {CLIP_ID}",
        quoted(table)
    );
    let rows = rows(session, &query).await?;
    let (subspaces, ids) = (text(&rows, "subspace")?, text(&rows, CLIP_ID)?);
    let (values, dim) = vectors(&rows, table)?;
    let row_of: BTreeMap<&str, usize> =
        clips.names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();

    let mut spaces: Vec<Space> = Vec::new();
    let mut found = 0;
    for row in 0..rows.num_rows() {
        let subspace = subspaces.value(row);
        if spaces.last().is_none_or(|space| space.name != subspace) {
            let embeddings = vec![0.0; dim * clips.names.len()];
            spaces.push(Space { name: subspace.to_owned(), dim, embeddings });
        }
        if let (Some(space), Some(clip)) = (spaces.last_mut(), row_of.get(ids.value(row))) {
            let vector = &values.values()[row * dim..(row + 1) * dim];
            space.embeddings[clip * dim..(clip + 1) * dim].copy_from_slice(vector);
            found += 1;
        }
    }
    if found != spaces.len() * clips.names.len() {
        return Err(RunError::Engine(format!("table `{table}` lacks the embedding of some clips")));
    }
    Ok(spaces)
}

/// All subspaces side by side.
fn concatenated(spaces: &[Space], clips: usize) -> Space {
    let rows = 0..clips;
    let embeddings = rows
        .flat_map(|clip| spaces.iter().flat_map(move |s| &s.embeddings[clip * s.dim..(clip + 1) * s.dim]))
        .copied()
        .collect();
    Space { name: ALL.to_owned(), dim: spaces.iter().map(|s| s.dim).sum(), embeddings }
}

struct Scored {
    task: usize,
    space: usize,
    result: ProbeResult,
}

/// The table of figures: one row per subspace, task, probe and metric.
fn figures(spaces: &[Space], results: &[Scored]) -> Result<RecordBatch, RunError> {
    let rows: Vec<(&Scored, &Metric)> =
        results.iter().flat_map(|scored| scored.result.metrics.iter().map(move |m| (scored, m))).collect();
    // The same figure of the baseline, if it was probed.
    let baseline = |(of, metric): &(&Scored, &Metric)| {
        rows.iter().find_map(|(scored, m)| {
            let same =
                scored.task == of.task && scored.result.kind == of.result.kind && m.name == metric.name;
            (same && spaces[scored.space].name == BASELINE).then_some(m.value)
        })
    };
    let texts = |f: &dyn Fn(&(&Scored, &Metric)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(f)))
    };
    let numbers = |f: &dyn Fn(&(&Scored, &Metric)) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(f)))
    };
    let counts = |f: &dyn Fn(&(&Scored, &Metric)) -> usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| f(row) as i64)))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("subspace", texts(&|(s, _)| spaces[s.space].name.clone())),
        ("task", texts(&|(s, _)| s.result.task.to_string())),
        ("probe", texts(&|(s, _)| s.result.kind.name())),
        ("metric", texts(&|(_, m)| m.name.to_owned())),
        ("value", numbers(&|(_, m)| m.value)),
        ("lo", numbers(&|(_, m)| m.lo)),
        ("hi", numbers(&|(_, m)| m.hi)),
        ("chance", numbers(&|(_, m)| m.chance)),
        ("baseline", Arc::new(rows.iter().map(baseline).collect::<Float64Array>())),
        ("n_train", counts(&|(s, _)| s.result.rows.train)),
        ("n_valid", counts(&|(s, _)| s.result.rows.valid)),
        ("n_test", counts(&|(s, _)| s.result.rows.test)),
        ("n_missing", counts(&|(s, _)| s.result.rows.missing)),
        ("n_unseen", counts(&|(s, _)| s.result.rows.unseen)),
    ];
    table(columns, &["baseline"])
}

/// The table of predictions: one row per subspace, task, probe, seed and test clip.
fn predictions_batch(clips: &Clips, spaces: &[Space], results: &[Scored]) -> Result<RecordBatch, RunError> {
    let rows: Vec<_> = results
        .iter()
        .flat_map(|scored| scored.result.predictions.iter().map(move |p| (scored, p)))
        .collect();
    let truth = |scored: &Scored, row: usize| clips.labels[scored.task].1.text(row);
    let texts = |values: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        (CLIP_ID, texts(rows.iter().map(|(_, p)| clips.names[p.row].clone()).collect())),
        ("subspace", texts(rows.iter().map(|(s, _)| spaces[s.space].name.clone()).collect())),
        ("task", texts(rows.iter().map(|(s, _)| s.result.task.to_string()).collect())),
        ("probe", texts(rows.iter().map(|(s, _)| s.result.kind.name()).collect())),
        ("seed", Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, p)| p.seed as i32)))),
        ("truth", Arc::new(rows.iter().map(|(s, p)| truth(s, p.row)).collect::<StringArray>())),
        ("prediction", texts(rows.iter().map(|(_, p)| p.value.clone()).collect())),
        ("confidence", Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, p)| p.confidence)))),
    ];
    table(columns, &["truth"])
}
