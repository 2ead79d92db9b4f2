//! `features`: stored log-mel features of views or of segments of clips.

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use loev_ops::chain::Chain;
use loev_ops::draw_table::draw_fields;
use loev_ops::features::FrontEnd;

use super::featured::{Featured, Of};
use super::views::{audio_behind, chain_of, check_rate, source, views_of};
use super::{Content, Outcome};
use crate::error::RunError;
use crate::exec::columns::CLIP_ID;
use crate::exec::draw::VIEW_ID;
use crate::exec::scan::{Table, TableFile};
use crate::resume::journal::Receipt;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Shard, Work};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::{Features, Views};
use crate::spec::{Kind, Pipeline};

/// The columns of the table, as far as its input has them.
const COLUMNS: [&str; 7] = [VIEW_ID, CLIP_ID, "segment", "epoch", "view", "centre_s", "features"];

/// What determines the features of a stage beside its own options.
pub struct Needs {
    /// The table that is read.
    pub table: String,
    /// ... of which these columns.
    pub columns: Vec<String>,
    /// The digest of the audio behind it.
    pub audio: String,
    /// The chain that renders.
    pub chain: Chain,
}

/// What the features of `options` are made from.
///
/// # Errors
/// When an input is not finished.
pub fn needs(inputs: &Inputs<'_>, options: &Features) -> Result<Needs, RunError> {
    let views = views_of(inputs.pipeline, &options.from);
    let chain = views.map_or_else(|| options.clean_chain(), Views::chain);
    let table = source(views, &options.from);
    let drawn = draw_fields(&chain);
    let (mut columns, audio) = match table == options.from {
        true => (inputs.audio_columns(&table)?, audio_behind(inputs, &table, &chain)?),
        false => (vec!["audio"], String::new()),
    };
    if views.is_some() {
        columns.push(VIEW_ID);
        columns.extend(drawn.iter().map(|field| field.name().as_str()));
    }
    let columns = columns.into_iter().map(str::to_owned).collect();
    Ok(Needs { table, columns, audio, chain })
}

/// What a `features` stage has to make: one file for each file of its input.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Features) -> Result<Work, RunError> {
    let Needs { table, columns, audio, chain } = needs(inputs, options)?;
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let without: &[&str] = if views_of(inputs.pipeline, &options.from).is_some() {
        &["from", "seconds", "hop"]
    } else {
        &["from"]
    };
    let recipe = Recipe::new(Kind::Features, 2)
        .options(options, without)
        .with("chain", &chain)
        .with("music", loev_ops::synth::VERSION);
    let shard = |input: &Receipt| Shard {
        table: name.to_owned(),
        file: input.file.clone(),
        recipe: recipe.shard(&[&input.file, &input.content(Some(&columns)), &audio]),
    };
    let shards = inputs.files(&table)?.iter().map(shard).collect();
    let from = Content { digest: inputs.content(&table, Some(&columns))? };
    Ok(Work::each(recipe.with("from", from).with("audio", Content { digest: audio }), shards))
}

/// Writes the features of a `features` stage.
///
/// # Errors
/// When the views do not fit the options, or the table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Features) -> Result<Outcome, RunError> {
    let todo = job.todo(name);
    let input = input(context, options)?;
    let (partitions, rows) = input.partitions(&todo)?;
    let stage = context.stage(name, rows, unit(&context.pipeline, options));
    let plan = plan(context, &stage, options, &input, &partitions)?;
    context.store(job, &stage, todo, project(plan)?).await?;
    stage.bar.finish();
    let FrontEnd { mels, .. } = &options.front_end;
    Ok(Outcome::note(format!("{mels} mel bands in dB, frame by frame")))
}

/// What the rows of the input are.
pub fn unit(pipeline: &Pipeline, options: &Features) -> &'static str {
    if views_of(pipeline, &options.from).is_some() { "views" } else { "clips" }
}

/// The table that `options` reads.
///
/// # Errors
/// When it cannot be opened.
pub fn input(context: &Context, options: &Features) -> Result<Table, RunError> {
    context.table(&source(views_of(&context.pipeline, &options.from), &options.from))
}

/// The plan that computes the features of `partitions` of the table `input`, with the columns of its rows.
///
/// # Errors
/// When the views do not fit the options.
pub fn plan(
    context: &Context,
    stage: &StageHandle,
    options: &Features,
    input: &Table,
    partitions: &[Vec<&TableFile>],
) -> Result<Arc<dyn ExecutionPlan>, RunError> {
    let views = views_of(&context.pipeline, &options.from);
    let chain = match views {
        Some(_) => chain_of(&options.from, &input.schema)?,
        None => options.clean_chain(),
    };
    check_rate(stage, &options.front_end, &options.from, &chain)?;
    let featured = Featured {
        input,
        of: Of::new(views, options.hop.unwrap_or(options.seconds)),
        chain: &chain,
        front_end: &options.front_end,
        rows: context.rows,
    };
    featured.plan(context, stage, partitions)
}

/// The columns that the table keeps; `view_id` joins them with the others.
fn project(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, RunError> {
    let schema = plan.schema();
    let kept = COLUMNS.iter().filter_map(|name| Some((*name, schema.index_of(name).ok()?)));
    let columns: Vec<(Arc<dyn PhysicalExpr>, String)> = kept
        .map(|(name, index)| (Arc::new(Column::new(name, index)) as Arc<dyn PhysicalExpr>, name.to_owned()))
        .collect();
    Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
}
