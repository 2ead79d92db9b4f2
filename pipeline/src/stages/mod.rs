//! What each kind of stage does. A stage reads tables of earlier stages and writes tables of its own;
//! its name is the name of its table.

pub mod clips;
pub mod curve;
pub mod decode;
pub mod embed;
pub mod equivariance;
pub mod featured;
pub mod features;
pub mod files;
pub mod finetune;
pub mod leak;
pub mod probe;
pub mod report;
pub mod retrieve;
pub mod sql;
pub mod states;
pub mod statistics;
pub mod synth;
pub mod tables;
pub mod train;
pub mod views;

use serde::Serialize;

use crate::error::RunError;
use crate::resume::journal::Artifact;
use crate::resume::ledger::Inputs;
use crate::resume::work::{Job, Work};
use crate::run::context::Context;
use crate::spec::{Graph, Pipeline, SpecError, Stage};

/// The note of a checkpoint that says how its views were drawn and rendered.
pub const CHAIN_NOTE: &str = "views.chain";

/// What goes into a recipe for a table.
#[derive(Debug, Serialize)]
pub struct Content {
    /// Of all of it, or of the columns that matter.
    pub digest: String,
}

/// What a stage did. How many rows it has stands in the receipts.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Tables that the stage wrote beside the one with its name.
    pub side_tables: Vec<String>,
    /// One line about the result.
    pub note: String,
    /// Files beside the tables.
    pub artifacts: Vec<Artifact>,
}

impl Outcome {
    /// A line about one table.
    pub fn note(note: String) -> Self {
        Self { note, ..Self::default() }
    }
}

/// What a stage has to make, with the stages before it finished.
///
/// # Errors
/// When a stage before it is not finished, or its files on disk cannot be listed.
pub async fn work(inputs: &Inputs<'_>, name: &str, stage: &Stage) -> Result<Work, RunError> {
    match stage {
        Stage::Files(options) => files::work(name, options).await,
        Stage::Synth(options) => Ok(synth::work(inputs, name, options)),
        Stage::Sql(options) => sql::work(inputs, name, options),
        Stage::Decode(options) => decode::work(inputs, name, options),
        Stage::Views(options) => views::work(inputs, name, options),
        Stage::Train(options) => train::work(inputs, name, options),
        Stage::Features(options) => features::work(inputs, name, options),
        Stage::Statistics(options) => statistics::work(inputs, options),
        Stage::Embed(options) => embed::work(inputs, name, options),
        Stage::Probe(options) => probe::work(inputs, name, options),
        Stage::Equivariance(options) => equivariance::work(inputs, name, options),
        Stage::Retrieve(options) => retrieve::work(inputs, name, options),
        Stage::Finetune(options) => finetune::work(inputs, name, options),
        Stage::Leak(options) => leak::work(inputs, name, options),
        Stage::Report(options) => report::work(inputs, name, options),
    }
}

/// Makes what is left to do of a stage.
///
/// # Errors
/// What keeps the stage from being made.
pub async fn run(context: &Context, job: &Job, name: &str, stage: &Stage) -> Result<Outcome, RunError> {
    match stage {
        Stage::Files(options) => files::run(context, job, name, options).await,
        Stage::Synth(options) => synth::run(context, job, name, options).await,
        Stage::Sql(options) => sql::run(context, job, name, &options.query).await,
        Stage::Decode(options) => decode::run(context, job, name, options).await,
        Stage::Views(options) => views::run(context, job, name, options).await,
        Stage::Train(options) => train::run(context, job, name, options).await,
        Stage::Features(options) => features::run(context, job, name, options).await,
        Stage::Statistics(options) => statistics::run(context, job, name, options).await,
        Stage::Embed(options) => embed::run(context, job, name, options).await,
        Stage::Probe(options) => probe::run(context, job, name, options).await,
        Stage::Equivariance(options) => equivariance::run(context, job, name, options).await,
        Stage::Retrieve(options) => retrieve::run(context, job, name, options).await,
        Stage::Finetune(options) => finetune::run(context, job, name, options).await,
        Stage::Leak(options) => leak::run(context, job, name, options).await,
        Stage::Report(options) => report::run(context, job, name, options).await,
    }
}

/// Removes what a finished stage needs no more.
///
/// # Errors
/// When a file cannot be removed.
pub fn tidy(context: &Context, name: &str, stage: &Stage) -> Result<(), RunError> {
    match stage {
        Stage::Train(_) => states::tidy(&context.dir.states(name)),
        _ => Ok(()),
    }
}

/// Forgets what a stage remembers beside its tables, so that it is made from nothing.
///
/// # Errors
/// When a file cannot be removed.
pub fn forget(context: &Context, name: &str, stage: &Stage) -> Result<(), RunError> {
    let dir = match stage {
        Stage::Files(_) => context.dir.memory(name),
        Stage::Train(_) => context.dir.states(name),
        _ => return Ok(()),
    };
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RunError::io("cannot remove", dir)(error))
        }
        _ => Ok(()),
    }
}

/// The table that a stage may write beside its main one, such as `probes_predictions`.
pub fn side_table(stage: &str, what: &str) -> String {
    format!("{stage}_{what}")
}

/// The graph of a pipeline: the tables that its queries read are the work of stages, side tables included.
///
/// # Errors
/// As [`Graph::new`].
pub fn graph_of(pipeline: &Pipeline) -> Result<Graph, SpecError> {
    let owner = |table: String| {
        let owns = |(name, stage): &(&String, &Stage)| {
            stage.side_tables().iter().any(|what| side_table(name, what) == table)
        };
        pipeline.stages.iter().find(owns).map_or_else(|| table.clone(), |(name, _)| name.clone())
    };
    let tables = |query: &str| match loev_sql::referenced_tables(query) {
        Ok(tables) => Ok(tables.into_iter().map(owner).collect()),
        Err(error) => Err(error.to_string()),
    };
    Graph::new(pipeline, &tables)
}
