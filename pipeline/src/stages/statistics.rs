//! `statistics`: mean and deviation of each mel band over a data set.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::Float32Type;
use futures::StreamExt;
use loev_models::encoder::tokens::{Moments, Normaliser};

use super::features::{Needs, input, needs, plan, unit};
use super::views::views_of;
use super::{Content, Outcome};
use crate::error::RunError;
use crate::exec::columns::primitive;
use crate::exec::scan::{Table, TableFile};
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::Context;
use crate::spec::Kind;
use crate::spec::stage::Statistics;

/// What a `statistics` stage has to make.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, options: &Statistics) -> Result<Work, RunError> {
    let Needs { table, columns, audio, chain } = needs(inputs, &options.features())?;
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let views = views_of(inputs.pipeline, &options.from).is_some();
    let without: &[&str] = if views { &["from", "seconds", "hop"] } else { &["from"] };
    let recipe = Recipe::new(Kind::Statistics, 1)
        .options(options, without)
        .with("chain", &chain)
        .with("music", loev_ops::synth::VERSION)
        .with("from", Content { digest: inputs.content(&table, Some(&columns))? })
        .with("audio", Content { digest: audio });
    Ok(Work::whole(recipe))
}

/// Counts the features of a `statistics` stage. Files are counted one after the other, so that sums do not depend on
/// the number of threads.
///
/// # Errors
/// When the views do not fit the options, or there is nothing to count.
pub async fn run(
    context: &Context,
    job: &Job,
    name: &str,
    options: &Statistics,
) -> Result<Outcome, RunError> {
    let features = options.features();
    let table = input(context, &features)?;
    let partitions: Vec<Vec<&TableFile>> = table.files.iter().map(|file| vec![file]).collect();
    let stage = context.stage(name, table.rows(), unit(&context.pipeline, &features));
    let plan = plan(context, &stage, &features, &table, &partitions)?;

    let mels = options.front_end.mels;
    let mut moments = Moments::new(mels);
    for partition in 0..partitions.len() {
        let mut rows = plan.execute(partition, context.task())?;
        while let Some(rows) = rows.next().await {
            let rows = rows?;
            let wide = rows.column_by_name("features").and_then(|column| column.as_fixed_size_list_opt());
            let wide = wide.ok_or_else(|| RunError::Engine("rendered views lack `features`".to_owned()))?;
            moments.add(wide.values().as_primitive::<Float32Type>().values());
        }
        stage.interrupt.check()?;
    }
    if moments.frames() == 0 {
        return Err(stage.error(format!("`{}` has no audio to take statistics of", options.from)));
    }
    let normaliser = moments.normaliser();
    let numbers = |values: &[f32]| -> ArrayRef { Arc::new(Float32Array::from(values.to_vec())) };
    let band: ArrayRef = Arc::new(Int32Array::from_iter_values(0..mels as i32));
    let frames: ArrayRef = Arc::new(Int64Array::from(vec![moments.frames() as i64; mels]));
    let columns = [
        ("band", band),
        ("mean_db", numbers(&normaliser.mean)),
        ("deviation_db", numbers(&normaliser.deviation)),
        ("frames", frames),
    ];
    context.store_batch(job, name, RecordBatch::try_from_iter(columns)?)?;
    stage.bar.finish();
    Ok(Outcome::note(format!("{mels} mel bands over {} frames", moments.frames())))
}

/// The statistics that a finished stage holds.
///
/// # Errors
/// When its table cannot be read.
pub fn normaliser(table: &Table) -> Result<Normaliser, RunError> {
    let mut normaliser = Normaliser { mean: Vec::new(), deviation: Vec::new() };
    for rows in table.read(&["mean_db", "deviation_db"])? {
        normaliser.mean.extend(primitive::<Float32Type>(&rows, "mean_db")?.values());
        normaliser.deviation.extend(primitive::<Float32Type>(&rows, "deviation_db")?.values());
    }
    Ok(normaliser)
}
