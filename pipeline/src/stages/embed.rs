//! `embed`: the embeddings of every clip, per segment and subspace, and the mel-statistics baseline
//! of the same segments.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Field, Schema};
use indexmap::IndexMap;
use loev_models::probe::mel_statistics;
use loev_models::{Device, Model, ModelError, Tensor, checkpoint};
use loev_ops::chain::Chain;
use loev_ops::draw_table::{METADATA, chain_from_metadata};
use loev_ops::features::FrontEnd;

use super::{CHAIN_NOTE, Outcome, side_table};
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::columns::{CLIP_ID, SECONDS, URI};
use crate::exec::draw::{DrawOp, Plan};
use crate::exec::embed::{EmbedOp, Encoder};
use crate::exec::render::{Output, RenderOp};
use crate::exec::scan::{Table, TableFile};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::Embed;

/// The subspace name of the baseline.
pub const BASELINE: &str = "mel_baseline";

/// Embeds the clips of an `embed` stage.
///
/// # Errors
/// When the checkpoint cannot be loaded or a table cannot be written.
pub async fn run(context: &Context, name: &str, options: &Embed) -> Result<Outcome, RunError> {
    let clips = narrow(context.table(&options.from)?);
    let stage = context.stage(name, clips.rows(), "clips");
    let path = context.dir.checkpoint(&options.model);
    let model = checkpoint::load(&path, &context.device)?;
    let chain = chain_of_checkpoint(&stage, &checkpoint::notes(&path)?)?.identity();
    let job =
        Job { context, clips: &clips, chain: &chain, options, front_end: &model.config().front_end.clone() };

    let encoder = Arc::new(ModelEncoder { model: Mutex::new(model), device: context.device.clone() });
    let rows = job.run(name, encoder, stage.clone()).await?;
    stage.bar.finish();
    let mut outcome = Outcome::rows(rows, String::new());
    if options.baseline {
        let table = side_table(name, "baseline");
        let baseline = Arc::new(MelStatistics { mels: job.front_end.mels });
        let stage = context.stage(name, clips.rows(), "clips (baseline)");
        job.run(&table, baseline, stage.clone()).await?;
        stage.bar.finish();
        outcome.side_tables.push(table);
    }
    Ok(outcome)
}

fn chain_of_checkpoint(stage: &StageHandle, notes: &BTreeMap<String, String>) -> Result<Chain, RunError> {
    let chain = notes.get(CHAIN_NOTE).map(|chain| (METADATA.to_owned(), chain.clone()));
    chain_from_metadata(&chain.into_iter().collect())
        .map_err(|e| stage.error(format!("the checkpoint does not say how its views were made: {e}")))
}

/// The columns that rendering needs, so that no label can clash with a column of draws.
fn narrow(table: Table) -> Table {
    let keep = |field: &&Arc<Field>| [CLIP_ID, URI, SECONDS].contains(&field.name().as_str());
    let fields: Vec<Arc<Field>> = table.schema.fields().iter().filter(keep).cloned().collect();
    Table { schema: Arc::new(Schema::new(fields)), files: table.files }
}

struct Job<'a> {
    context: &'a Context,
    clips: &'a Table,
    chain: &'a Chain,
    options: &'a Embed,
    front_end: &'a FrontEnd,
}

impl Job<'_> {
    /// Embeds every clip with `encoder` into `table`, one file per shard.
    async fn run(&self, table: &str, encoder: Arc<dyn Encoder>, stage: StageHandle) -> Result<u64, RunError> {
        let Self { context, clips, chain, options, front_end } = *self;
        let name = Arc::clone(&stage.name);
        let partitions: Vec<Vec<&TableFile>> = clips.files.iter().map(|file| vec![file]).collect();
        let hop = options.hop.unwrap_or(chain.seconds);
        let draw = DrawOp::new(
            &clips.schema,
            chain.clone(),
            Plan::Clean { hop },
            context.key(&name),
            &IndexMap::new(),
            stage.clone(),
        )?;
        let plan = PartitionExec::over(draw, clips.scan(&partitions)?);
        let output = Output::Features(front_end.clone());
        let pool = Arc::clone(&context.pool);
        let render = RenderOp::new(&plan.schema(), chain.clone(), output, options.batch, pool, stage.clone());
        let plan = PartitionExec::over(render, plan);
        let device = Arc::clone(&context.device_pool);
        let embed = EmbedOp::new(encoder, device, chain.seconds, stage);
        let plan = PartitionExec::over(embed, plan);
        let files = clips.files.iter().map(TableFile::name).collect();
        context.store(&name, table, files, plan).await
    }
}

/// A trained model.
struct ModelEncoder {
    model: Mutex<Model>,
    device: Device,
}

impl Encoder for ModelEncoder {
    fn subspaces(&self) -> Vec<String> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).config().subspaces.clone()
    }

    fn dim(&self) -> usize {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).config().encoder.dim()
    }

    fn embed(&self, features: &[f32], views: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let config = model.config();
        let shape = (views, config.frames, config.front_end.mels);
        let features = Tensor::from_slice(features, shape, &self.device)?;
        let subspaces = model.embed(&features)?;
        subspaces.iter().map(|vectors| Ok(vectors.flatten_all()?.to_vec1::<f32>()?)).collect()
    }
}

/// Mean and standard deviation of each mel band: what any encoder must beat.
struct MelStatistics {
    mels: usize,
}

impl Encoder for MelStatistics {
    fn subspaces(&self) -> Vec<String> {
        vec![BASELINE.to_owned()]
    }

    fn dim(&self) -> usize {
        2 * self.mels
    }

    fn embed(&self, features: &[f32], views: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        let width = features.len() / views.max(1);
        let frames = width / self.mels;
        let of_view = |view: &[f32]| mel_statistics(view, frames, self.mels);
        Ok(vec![features.chunks_exact(width.max(1)).flat_map(of_view).collect()])
    }
}
