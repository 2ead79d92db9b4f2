//! `embed`: the embeddings of every clip, per segment and subspace, or of every view; and the mel-statistics
//! baseline of the same segments or views.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use loev_models::probe::mel_statistics;
use loev_models::{Device, Model, ModelConfig, ModelError, Tensor, checkpoint};
use loev_ops::chain::Chain;
use loev_ops::draw_table::{METADATA, chain_from_metadata, draw_fields};

use super::featured::{Featured, Of};
use super::views::{audio_behind, chain_of, check_rate, source, views_of};
use super::{CHAIN_NOTE, Content, Outcome, side_table};
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::columns::CLIP_ID;
use crate::exec::draw::VIEW_ID;
use crate::exec::embed::{EmbedOp, Encoder};
use crate::exec::embed_views::EmbedViewsOp;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Shard, Work};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::{Embed, Train, Views};
use crate::spec::{Kind, Pipeline, Stage};

/// The subspace name of the baseline.
pub const BASELINE: &str = "mel_baseline";

/// What determines embeddings, and those of the baseline, beside the clips or views.
fn recipes(inputs: &Inputs<'_>, options: &Embed) -> Result<(Recipe, Option<Recipe>), RunError> {
    let model = Content { digest: inputs.artifact(&options.model)?.digest.clone() };
    let own = views_of(inputs.pipeline, &options.from).map(Views::chain);
    let options_but = |without: &[&str]| {
        let hop = own.as_ref().map(|_| "hop");
        let without: Vec<&str> = without.iter().copied().chain(hop).collect();
        Recipe::new(Kind::Embed, 2).options(options, &without)
    };
    let recipe = options_but(&["from", "model", "baseline"])
        .with("model", model)
        .with("music", loev_ops::synth::VERSION);
    let recipe = match &own {
        Some(chain) => recipe.with("views", chain),
        None => recipe,
    };
    let Some(train) = training_of(inputs.pipeline, &options.model) else {
        return Ok((recipe, None));
    };
    let Some(Stage::Views(trained)) = inputs.pipeline.stages.get(&train.from) else {
        return Ok((recipe, None));
    };
    let baseline = options_but(&["from", "model", "baseline", "batch", "precision"])
        .with("front_end", &train.front_end)
        .with("music", loev_ops::synth::VERSION);
    let baseline = match &own {
        Some(chain) => baseline.with("views", chain),
        None => baseline.with("chain", trained.chain().identity()),
    };
    Ok((recipe, options.baseline.then_some(baseline)))
}

/// The training that a model comes from, fine-tuned or not.
fn training_of<'p>(pipeline: &'p Pipeline, model: &str) -> Option<&'p Train> {
    match pipeline.stages.get(model)? {
        Stage::Train(train) => Some(train),
        Stage::Finetune(finetune) => training_of(pipeline, &finetune.model),
        _ => None,
    }
}

/// What an `embed` stage has to make: one file for each file of its input, and of the baseline too.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Embed) -> Result<Work, RunError> {
    let (recipe, baseline) = recipes(inputs, options)?;
    let views = views_of(inputs.pipeline, &options.from);
    let input = source(views, &options.from);
    let drawn = views.map(|views| draw_fields(&views.chain())).unwrap_or_default();
    let (mut columns, audio) = match views {
        Some(views) if views.materialize => (vec!["audio"], String::new()),
        Some(views) => (inputs.audio_columns(&input)?, audio_behind(inputs, &input, &views.chain())?),
        None => (inputs.audio_columns(&input)?, inputs.audio(&input)?),
    };
    if views.is_some() {
        columns.extend([VIEW_ID, CLIP_ID]);
        columns.extend(drawn.iter().map(|field| field.name().as_str()));
    }
    let mut shards = Vec::new();
    for (table, recipe) in std::iter::once((name.to_owned(), &recipe))
        .chain(baseline.iter().map(|recipe| (side_table(name, "baseline"), recipe)))
    {
        shards.extend(inputs.files(&input)?.iter().map(|part| Shard {
            table: table.clone(),
            file: part.file.clone(),
            recipe: recipe.shard(&[&part.file, &part.content(Some(&columns)), &audio]),
        }));
    }
    let from = Content { digest: inputs.content(&input, Some(&columns))? };
    let recipe =
        recipe.with("from", from).with("audio", Content { digest: audio }).with("baseline", baseline);
    Ok(Work::each(recipe, shards))
}

/// Embeds the clips or views of an `embed` stage.
///
/// # Errors
/// When the checkpoint cannot be loaded, views do not fit the model, or a table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Embed) -> Result<Outcome, RunError> {
    let path = context.dir.checkpoint(&options.model);
    let (mut model, notes) = checkpoint::load_with_notes(&path, &context.device)?;
    model.set_precision(options.precision);
    let config = model.config().clone();
    let stage = context.quiet_stage(name);
    let views = views_of(&context.pipeline, &options.from);
    let input = context.table(&source(views, &options.from))?;
    let (input, chain) = match views {
        Some(_) => {
            let chain = chain_of(&options.from, &input.schema)?;
            fits(&stage, &options.from, &chain, &config)?;
            (input, chain)
        }
        None => (input, chain_of_checkpoint(&stage, &notes)?.identity()),
    };
    let featured = Featured {
        input: &input,
        of: Of::new(views, options.hop.unwrap_or(chain.seconds)),
        chain: &chain,
        front_end: &config.front_end,
        rows: options.batch,
    };
    let work = Embedding { context, job, featured };
    let encoder = Arc::new(ModelEncoder { model: Mutex::new(model), device: context.device.clone() });
    work.run(name, name, encoder).await?;
    let mut outcome = Outcome::default();
    if options.baseline {
        let table = side_table(name, "baseline");
        let baseline = Arc::new(MelStatistics { mels: config.front_end.mels });
        work.run(name, &table, baseline).await?;
        outcome.side_tables.push(table);
    }
    Ok(outcome)
}

/// Whether a model reads views like these.
fn fits(stage: &StageHandle, from: &str, chain: &Chain, config: &ModelConfig) -> Result<(), RunError> {
    check_rate(stage, &config.front_end, from, chain)?;
    let frames = config.front_end.frames(chain.frames());
    match frames == config.frames {
        true => Ok(()),
        false => Err(stage.error(format!(
            "the views of `{from}` last {} s, which is {frames} frames of features, and the model was trained on \
             {} frames; set `seconds` of `{from}` to that of the views that it was trained on",
            chain.seconds, config.frames
        ))),
    }
}

fn chain_of_checkpoint(stage: &StageHandle, notes: &BTreeMap<String, String>) -> Result<Chain, RunError> {
    let chain = notes.get(CHAIN_NOTE).map(|chain| (METADATA.to_owned(), chain.clone()));
    chain_from_metadata(&chain.into_iter().collect())
        .map_err(|e| stage.error(format!("the checkpoint does not say how its views were made: {e}")))
}

struct Embedding<'a> {
    context: &'a Context,
    job: &'a Job,
    featured: Featured<'a>,
}

impl Embedding<'_> {
    /// Embeds what is to do with `encoder` into `table`.
    async fn run(&self, name: &str, table: &str, encoder: Arc<dyn Encoder>) -> Result<(), RunError> {
        let Self { context, job, featured } = self;
        let todo = job.todo(table);
        let (partitions, rows) = featured.input.partitions(&todo)?;
        let clips = matches!(featured.of, Of::Clips { .. });
        let unit = match (clips, table == name) {
            (true, true) => "clips",
            (true, false) => "clips (baseline)",
            (false, true) => "views",
            (false, false) => "views (baseline)",
        };
        let stage = context.stage(name, rows, unit);
        let features = featured.plan(context, &stage, &partitions)?;
        let device = Arc::clone(&context.device_pool);
        let plan = if clips {
            let op = EmbedOp::new(encoder, device, featured.chain.seconds, stage.clone());
            PartitionExec::over(op, features)
        } else {
            let (schema, chain) = (features.schema(), featured.chain);
            let op = EmbedViewsOp::new(&schema, chain, encoder, device, stage.clone())?;
            PartitionExec::over(op, features)
        };
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
