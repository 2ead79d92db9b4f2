//! `views`: the draws of every view, one row each, with the labels as they hold for that view.
//! Nothing is decoded unless the views are to be stored as audio too.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use indexmap::IndexMap;
use loev_ops::chain::Chain;
use loev_ops::draw_table::chain_from_metadata;
use loev_ops::labels::view_type;
use loev_ops::views::{Pool, PoolClip, Pools};

use super::{Outcome, side_table};
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::columns::{CLIP_ID, SECONDS, URI, number, required, text};
use crate::exec::draw::{DrawOp, Plan};
use crate::exec::render::{Output, RenderOp};
use crate::exec::scan::{Table, TableFile};
use crate::run::context::Context;
use crate::spec::Stage;
use crate::spec::stage::{Epochs, LabelKind, Train, Views};

/// Rows of audio that one partition renders at a time.
const AUDIO_ROWS: usize = 16;

/// Writes the draws of a `views` stage: one file for each epoch and shard.
///
/// # Errors
/// When the input lacks a column, the operators do not fit, or a table cannot be written.
pub async fn run(context: &Context, name: &str, options: &Views) -> Result<Outcome, RunError> {
    let chain = options.chain();
    let clips = context.table(&options.from)?;
    let epochs = epochs(context, name, options, &chain, clips.rows());
    let stage = context.stage(name, clips.rows() * u64::from(epochs), "clips drawn");

    let mut partitions = Vec::new();
    let (mut files, mut epoch_of) = (Vec::new(), Vec::new());
    for epoch in 0..epochs {
        for file in &clips.files {
            partitions.push(vec![file]);
            files.push(format!("epoch-{epoch:04}.{}", file.name()));
            epoch_of.push(epoch);
        }
    }
    let pools = pools(context, name, &chain)?;
    let plan = Plan::Views { segments: options.segments, epochs: epoch_of, pools };
    let labels = options.labels.clone().unwrap_or_else(|| usual_labels(&clips.schema));
    let draw = DrawOp::new(&clips.schema, chain.clone(), plan, context.key(name), &labels, stage.clone())?;
    let plan = PartitionExec::over(draw, clips.scan(&partitions)?);
    let rows = context.store(name, name, files, plan).await?;
    stage.bar.finish();

    let mut outcome = Outcome::rows(
        rows,
        format!(
            "{epochs} epochs, {} views a segment, heads {}",
            chain.views_per_segment(),
            chain.heads().join(", ")
        ),
    );
    if options.materialize {
        outcome.side_tables.push(materialize(context, name, &chain).await?);
    }
    Ok(outcome)
}

/// The clips of the stages that second recordings are drawn from.
fn pools(context: &Context, name: &str, chain: &Chain) -> Result<Pools, RunError> {
    let mut pools = Pools::new();
    for stage in chain.partner_stages() {
        let mut clips = Vec::new();
        for batch in context.table(stage)?.read(&[CLIP_ID, URI, SECONDS])? {
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
async fn materialize(context: &Context, name: &str, chain: &Chain) -> Result<String, RunError> {
    let table = side_table(name, "audio");
    let views = context.table(name)?;
    let stage = context.stage(name, 0, "views rendered");
    let partitions: Vec<Vec<&TableFile>> = views.files.iter().map(|file| vec![file]).collect();
    let pool = Arc::clone(&context.pool);
    let render = RenderOp::new(&views.schema, chain.clone(), Output::Audio, AUDIO_ROWS, pool, stage.clone());
    let plan = PartitionExec::over(render, views.scan(&partitions)?);
    let files = views.files.iter().map(TableFile::name).collect();
    context.store(name, &table, files, plan).await?;
    stage.bar.finish();
    Ok(table)
}

/// Epochs to draw: what the pipeline says, else what the training stages consume.
fn epochs(context: &Context, name: &str, options: &Views, chain: &Chain, clips: u64) -> u32 {
    if let Epochs::Count(epochs) = options.epochs {
        return epochs;
    }
    let consumed = context.pipeline.stages.values().filter_map(|stage| match stage {
        Stage::Train(train) if train.from == name => {
            let segments = clips * u64::from(options.segments);
            let batches = segments / segments_per_batch(train, chain).max(1);
            u32::try_from((train.training.steps as u64).div_ceil(batches.max(1))).ok()
        }
        _ => None,
    });
    consumed.max().unwrap_or(1).max(1)
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
