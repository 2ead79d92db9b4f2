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

use super::{CHAIN_NOTE, Content, Outcome, side_table};
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::columns::{CLIP_ID, SECONDS, URI};
use crate::exec::draw::{DrawOp, Plan};
use crate::exec::embed::{EmbedOp, Encoder};
use crate::exec::render::{BYTES, Output, RenderOp};
use crate::exec::scan::Table;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Shard, Work};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::Embed;
use crate::spec::{Kind, Stage};

/// The subspace name of the baseline.
pub const BASELINE: &str = "mel_baseline";

/// What determines embeddings, and those of the baseline, beside the clips.
fn recipes(inputs: &Inputs<'_>, options: &Embed) -> Result<(Recipe, Option<Recipe>), RunError> {
    let model = Content { digest: inputs.artifact(&options.model)?.digest.clone() };
    let recipe = Recipe::new(Kind::Embed, 2)
        .options(options, &["from", "model", "baseline"])
        .with("model", model)
        .with("music", loev_ops::synth::VERSION);
    let Some(Stage::Train(train)) = inputs.pipeline.stages.get(&options.model) else {
        return Ok((recipe, None));
    };
    let Some(Stage::Views(views)) = inputs.pipeline.stages.get(&train.from) else {
        return Ok((recipe, None));
    };
    let baseline = Recipe::new(Kind::Embed, 2)
        .options(options, &["from", "model", "baseline", "batch"])
        .with("front_end", &train.front_end)
        .with("music", loev_ops::synth::VERSION)
        .with("chain", views.chain().identity());
    Ok((recipe, options.baseline.then_some(baseline)))
}

/// What an `embed` stage has to make: one file for each shard of clips, and of the baseline too.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Embed) -> Result<Work, RunError> {
    let (recipe, baseline) = recipes(inputs, options)?;
    let columns = inputs.audio_columns(&options.from)?;
    let audio = inputs.audio(&options.from)?;
    let mut shards = Vec::new();
    for (table, recipe) in std::iter::once((name.to_owned(), &recipe))
        .chain(baseline.iter().map(|recipe| (side_table(name, "baseline"), recipe)))
    {
        shards.extend(inputs.files(&options.from)?.iter().map(|clips| Shard {
            table: table.clone(),
            file: clips.file.clone(),
            recipe: recipe.shard(&[&clips.file, &clips.content(Some(&columns)), &audio]),
        }));
    }
    let from = Content { digest: inputs.content(&options.from, Some(&columns))? };
    let recipe =
        recipe.with("from", from).with("audio", Content { digest: audio }).with("baseline", baseline);
    Ok(Work::each(recipe, shards))
}

/// Embeds the clips of an `embed` stage.
///
/// # Errors
/// When the checkpoint cannot be loaded or a table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Embed) -> Result<Outcome, RunError> {
    let clips = narrow(context.table(&options.from)?);
    let path = context.dir.checkpoint(&options.model);
    let (model, notes) = checkpoint::load_with_notes(&path, &context.device)?;
    let stage = context.quiet_stage(name);
    let chain = chain_of_checkpoint(&stage, &notes)?.identity();
    let work = Embedding {
        context,
        job,
        clips: &clips,
        chain: &chain,
        options,
        front_end: &model.config().front_end.clone(),
    };

    let encoder = Arc::new(ModelEncoder { model: Mutex::new(model), device: context.device.clone() });
    work.run(name, name, encoder, "clips").await?;
    let mut outcome = Outcome::default();
    if options.baseline {
        let table = side_table(name, "baseline");
        let baseline = Arc::new(MelStatistics { mels: work.front_end.mels });
        work.run(name, &table, baseline, "clips (baseline)").await?;
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
pub fn narrow(table: Table) -> Table {
    let keep = |field: &&Arc<Field>| [CLIP_ID, URI, SECONDS, BYTES].contains(&field.name().as_str());
    let fields: Vec<Arc<Field>> = table.schema.fields().iter().filter(keep).cloned().collect();
    Table { schema: Arc::new(Schema::new(fields)), files: table.files }
}

struct Embedding<'a> {
    context: &'a Context,
    job: &'a Job,
    clips: &'a Table,
    chain: &'a Chain,
    options: &'a Embed,
    front_end: &'a FrontEnd,
}

impl Embedding<'_> {
    /// Embeds the clips of the shards to do with `encoder` into `table`.
    async fn run(
        &self,
        name: &str,
        table: &str,
        encoder: Arc<dyn Encoder>,
        unit: &'static str,
    ) -> Result<(), RunError> {
        let Self { context, job, clips, chain, options, front_end } = *self;
        let todo = job.todo(table);
        let (partitions, rows) = clips.partitions(&todo)?;
        let stage = context.stage(name, rows, unit);
        let hop = options.hop.unwrap_or(chain.seconds);
        let draw = DrawOp::new(
            &clips.schema,
            chain.clone(),
            Plan::Clean { hop },
            context.key(name),
            &IndexMap::new(),
            stage.clone(),
        )?;
        let plan = PartitionExec::over(draw, clips.scan(&partitions)?);
        let output = Output::Features(front_end.clone());
        let (pool, budget) = (Arc::clone(&context.pool), Arc::clone(&context.budget));
        let render =
            RenderOp::new(&plan.schema(), chain.clone(), output, options.batch, pool, budget, stage.clone());
        let plan = PartitionExec::over(render, plan);
        let device = Arc::clone(&context.device_pool);
        let embed = EmbedOp::new(encoder, device, chain.seconds, stage.clone());
        let plan = PartitionExec::over(embed, plan);
        context.store(job, &stage, todo, plan).await?;
        stage.bar.finish();
        Ok(())
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
