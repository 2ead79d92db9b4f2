//! `views`: the draws of every view, one row each, with the labels as they hold for that view.
//! Nothing is decoded unless the views are to be stored as audio too.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use indexmap::IndexMap;
use loev_ops::chain::Chain;
use loev_ops::draw_table::chain_from_metadata;
use loev_ops::features::FrontEnd;
use loev_ops::labels::view_type;
use loev_ops::views::{Pool, PoolClip, Pools};

use super::{Content, Outcome, side_table};
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::columns::{CLIP_ID, SECONDS, URI, number, required, text};
use crate::exec::draw::{DrawOp, Plan};
use crate::exec::render::{Output, RenderOp};
use crate::exec::scan::{Table, TableFile};
use crate::resume::ledger::Inputs;
use crate::resume::recipe::{Recipe, combined};
use crate::resume::work::{Job, Shard, Work};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::{Epochs, LabelKind, Train, Views};
use crate::spec::{Kind, Pipeline, Stage};

/// What determines each of a stage's views, beside the clip and the epoch.
fn recipe(inputs: &Inputs<'_>, name: &str, options: &Views, chain: &Chain) -> Result<Recipe, RunError> {
    let operators: BTreeMap<&str, u32> =
        chain.operators().into_iter().map(|spec| (spec.name(), spec.def().version)).collect();
    let mut partners = BTreeMap::new();
    for stage in chain.partner_stages() {
        let digest = inputs.content(stage, Some(&[CLIP_ID, URI, SECONDS]))?;
        partners.insert(stage, Content { digest });
    }
    Ok(Recipe::new(Kind::Views, 1)
        .options(options, &["from", "epochs", "materialize"])
        .with("operators", operators)
        .with("partners", partners)
        .with("seed", inputs.pipeline.seed)
        .with("stage", name))
}

/// What a `views` stage has to make: one file for each epoch and shard.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Views) -> Result<Work, RunError> {
    let chain = options.chain();
    let clips = inputs.files(&options.from)?;
    let epochs = epochs(inputs, name, options, &chain)?;
    let recipe = recipe(inputs, name, options, &chain)?;
    let audio = match options.materialize {
        true => Some(audio_behind(inputs, &options.from, &chain)?),
        false => None,
    };
    let mut shards = Vec::new();
    let tables = std::iter::once((name.to_owned(), None));
    for (table, audio) in tables.chain(audio.iter().map(|audio| (side_table(name, "audio"), Some(audio)))) {
        for epoch in 0..epochs {
            for clip in clips {
                let file = epoch_file(epoch, &clip.file);
                let mut parts = vec![file.as_str(), clip.digest.as_str()];
                parts.extend(audio.iter().flat_map(|audio| ["audio", audio.as_str()]));
                let recipe = recipe.shard(&parts);
                shards.push(Shard { table: table.clone(), file, recipe });
            }
        }
    }
    let from = Content { digest: inputs.content(&options.from, None)? };
    let recipe = recipe
        .with("from", from)
        .with("epochs", epochs)
        .with("audio", audio.map(|digest| Content { digest }));
    Ok(Work::each(recipe, shards))
}

/// What the sound of views depends on beside their rows.
pub fn audio_behind(inputs: &Inputs<'_>, table: &str, chain: &Chain) -> Result<String, RunError> {
    let mut parts = vec![inputs.audio(table)?];
    for stage in chain.partner_stages() {
        parts.push(inputs.content(stage, Some(&inputs.audio_columns(stage)?))?);
        parts.push(inputs.audio(stage)?);
    }
    Ok(combined(parts.iter().map(String::as_str)))
}

fn epoch_file(epoch: u32, clips: &str) -> String {
    format!("epoch-{epoch:04}.{clips}")
}

/// The epoch of a file of views, and the file of its clips.
fn parts_of(file: &str) -> Option<(u32, &str)> {
    let (epoch, clips) = file.strip_prefix("epoch-")?.split_once('.')?;
    Some((epoch.parse().ok()?, clips))
}

/// Writes the draws of a `views` stage: one file for each epoch and shard.
///
/// # Errors
/// When the input lacks a column, the operators do not fit, or a table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Views) -> Result<Outcome, RunError> {
    let chain = options.chain();
    let clips = context.table(&options.from)?;
    let todo = job.todo(name);
    let (mut partitions, mut epoch_of) = (Vec::new(), Vec::new());
    for shard in &todo {
        let (epoch, file) = parts_of(&shard.file).unwrap_or_default();
        partitions.push(vec![clips.file(file)?]);
        epoch_of.push(epoch);
    }
    let rows = partitions.iter().flatten().map(|file| file.rows).sum();
    let stage = context.stage(name, rows, "clips drawn");
    let pools = pools_of(name, &chain, &|table| context.table(table))?;
    let plan = Plan::Views { segments: options.segments, epochs: epoch_of, pools };
    let labels = options.labels.clone().unwrap_or_else(|| usual_labels(&clips.schema));
    let draw = DrawOp::new(&clips.schema, chain.clone(), plan, context.key(name), &labels, stage.clone())?;
    let plan = PartitionExec::over(draw, clips.scan(&partitions)?);
    context.store(job, &stage, todo, plan).await?;
    stage.bar.finish();

    let views = context.table(name)?;
    let mut outcome = Outcome::note(format!(
        "{} epochs, {} views a segment, heads {}",
        by_epoch(&views).len(),
        chain.views_per_segment(),
        chain.heads().join(", ")
    ));
    if options.materialize {
        outcome.side_tables.push(materialize(context, job, name, &views, &chain).await?);
    }
    Ok(outcome)
}

/// The clips of the stages that second recordings are drawn from. `table` opens the table of a stage.
///
/// # Errors
/// When a table cannot be read, or has no clip.
pub fn pools_of(
    name: &str,
    chain: &Chain,
    table: &dyn Fn(&str) -> Result<Table, RunError>,
) -> Result<Pools, RunError> {
    let mut pools = Pools::new();
    for stage in chain.partner_stages() {
        let mut clips = Vec::new();
        for batch in table(stage)?.read(&[CLIP_ID, URI, SECONDS])? {
            let (ids, uris, seconds) = (text(&batch, CLIP_ID)?, text(&batch, URI)?, number(&batch, SECONDS)?);
            for row in 0..batch.num_rows() {
                clips.push(PoolClip {
                    clip_id: required(&ids, CLIP_ID, row)?.to_owned(),
                    uri: required(&uris, URI, row)?.to_owned(),
                    seconds: seconds.value(row),
                });
            }
        }
        if clips.is_empty() {
            let message = format!("the stage `{stage}` has no clips for an operator to draw from");
            return Err(RunError::stage(name, message));
        }
        pools.insert(stage.to_owned(), Pool::new(clips));
    }
    Ok(pools)
}

/// Renders every view of the stage into `<name>_audio`.
async fn materialize(
    context: &Context,
    job: &Job,
    name: &str,
    views: &Table,
    chain: &Chain,
) -> Result<String, RunError> {
    let table = side_table(name, "audio");
    let todo = job.todo(&table);
    let (partitions, rows) = views.partitions(&todo)?;
    let stage = context.stage(name, rows, "views rendered");
    let render = RenderOp::new(
        &views.schema,
        chain.clone(),
        Output::Audio,
        context.rows,
        Arc::clone(&context.pool),
        Arc::clone(&context.budget),
        stage.counting(),
    );
    let plan = PartitionExec::over(render, views.scan(&partitions)?);
    context.store(job, &stage, todo, plan).await?;
    stage.bar.finish();
    Ok(table)
}

/// Epochs to draw: what the pipeline says, else what the training stages consume.
fn epochs(inputs: &Inputs<'_>, name: &str, options: &Views, chain: &Chain) -> Result<u32, RunError> {
    if let Epochs::Count(epochs) = options.epochs {
        return Ok(epochs);
    }
    let segments = inputs.rows(&options.from)? * u64::from(options.segments);
    let consumed = inputs.pipeline.stages.values().filter_map(|stage| match stage {
        Stage::Train(train) if train.from == name => {
            let batches = segments / segments_per_batch(train, chain).max(1);
            u32::try_from((train.training.batches() as u64).div_ceil(batches.max(1))).ok()
        }
        _ => None,
    });
    Ok(consumed.max().unwrap_or(1).max(1))
}

/// The columns that change with a view when the pipeline names none: of the usual names and of types that fit.
fn usual_labels(clips: &Schema) -> IndexMap<String, LabelKind> {
    let kinds = [
        ("key", LabelKind::Key),
        ("chords", LabelKind::Chords),
        ("bpm", LabelKind::Bpm),
        ("beats", LabelKind::Times),
        ("onsets", LabelKind::Times),
        ("segments", LabelKind::Segments),
        ("sections", LabelKind::Segments),
        ("loudness", LabelKind::Loudness),
    ];
    let fits = |(name, kind): &(&str, LabelKind)| {
        clips.field_with_name(name).is_ok_and(|field| view_type(*kind, field.data_type()).is_ok())
    };
    kinds.into_iter().filter(fits).map(|(name, kind)| (name.to_owned(), kind)).collect()
}

/// Segments of a training batch.
pub fn segments_per_batch(options: &Train, chain: &Chain) -> u64 {
    options.batch as u64 / chain.views_per_segment() as u64
}

/// The chain that the views of a table were drawn with.
///
/// # Errors
/// When the table holds no views, or views of operators that have changed since.
pub fn chain_of(table: &str, schema: &Schema) -> Result<Chain, RunError> {
    chain_from_metadata(schema.metadata()).map_err(|e| RunError::Engine(format!("table `{table}`: {e}")))
}

/// The `views` stage of this name; none when it is of another kind.
pub fn views_of<'a>(pipeline: &'a Pipeline, name: &str) -> Option<&'a Views> {
    match pipeline.stages.get(name) {
        Some(Stage::Views(views)) => Some(views),
        _ => None,
    }
}

/// The table with the labels of the clips behind a `views` stage (`labels` where it is given), and its chain.
pub fn behind_views(pipeline: &Pipeline, name: &str, labels: &Option<String>) -> Option<(String, Chain)> {
    let views = views_of(pipeline, name)?;
    Some((labels.clone().unwrap_or_else(|| views.from.clone()), views.chain()))
}

/// The table that a stage over `from` reads: stored audio where these are `views` that have some.
pub fn source(views: Option<&Views>, from: &str) -> String {
    match views {
        Some(views) if views.materialize => side_table(from, "audio"),
        _ => from.to_owned(),
    }
}

/// Whether a front end can read the views of a chain.
///
/// # Errors
/// When it is made for another sample rate.
pub fn check_rate(
    stage: &StageHandle,
    front_end: &FrontEnd,
    from: &str,
    chain: &Chain,
) -> Result<(), RunError> {
    match front_end.sample_rate == chain.sample_rate {
        true => Ok(()),
        false => Err(stage.error(format!(
            "front_end.sample_rate is {} Hz, but `{from}` renders at {} Hz",
            front_end.sample_rate, chain.sample_rate
        ))),
    }
}

/// The files of a views table by epoch.
pub fn by_epoch(views: &Table) -> Vec<Vec<&TableFile>> {
    let mut epochs: BTreeMap<String, Vec<&TableFile>> = BTreeMap::new();
    for file in &views.files {
        let name = file.name();
        let epoch = name.split('.').next().unwrap_or_default().to_owned();
        epochs.entry(epoch).or_default().push(file);
    }
    epochs.into_values().collect()
}
