//! `train`: views in, a checkpoint and a table of training curves out.
//!
//! The trainer runs on the device's thread and takes batches from [`Lanes`]; the lanes drive query
//! plans that shuffle, render and extract features (see [`crate::exec`]).

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use loev_models::encoder::tokens::Normaliser;
use loev_models::train::{StepMetrics, TrainBatch, Training};
use loev_models::{Device, Method, ModelConfig};
use loev_ops::chain::{Chain, Sampling};
use loev_ops::draw_table::{chain_metadata, draw_fields};
use loev_ops::rng::Key;
use tokio::runtime::Handle;

use super::curve::{self, Curve};
use super::states::{RECIPE_NOTE, States};
use super::statistics;
use super::views::{audio_behind, by_epoch, chain_of, check_rate, segments_per_batch};
use super::{CHAIN_NOTE, Content, Outcome};
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::batch::{BatchOp, BatchPlan};
use crate::exec::columns::primitive;
use crate::exec::device::{self, DeviceRenderer, Pins, SourceBatch, Staged};
use crate::exec::lanes::Lanes;
use crate::exec::pool::Pool;
use crate::exec::render::{Output, RenderOp};
use crate::exec::scan::{Table, TableFile};
use crate::exec::write::Written;
use crate::resume::fault;
use crate::resume::journal::Artifact;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::{Context, shard_file};
use crate::run::dir::RunDir;
use crate::run::memory::Budget;
use crate::run::stage::StageHandle;
use crate::spec::stage::Train;
use crate::spec::{Kind, Stage};

/// What a `train` stage has to make.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Train) -> Result<Work, RunError> {
    let mut recipe = Recipe::new(Kind::Train, 1)
        .options(options, &["from", "statistics", "checkpoints"])
        .with("seed", inputs.pipeline.seed)
        .with("stage", name)
        .with("music", loev_ops::synth::VERSION);
    if let Some(Stage::Views(views)) = inputs.pipeline.stages.get(&options.from) {
        let chain = views.chain();
        let mut columns = inputs.audio_columns(&options.from)?;
        let drawn = draw_fields(&chain);
        columns.extend(drawn.iter().map(|field| field.name().as_str()));
        let from = Content { digest: inputs.content(&options.from, Some(&columns))? };
        let audio = Content { digest: audio_behind(inputs, &options.from, &chain)? };
        recipe = recipe.with("from", from).with("audio", audio).with("chain", chain);
    }
    if let Some(statistics) = &options.statistics {
        let digest = inputs.content(statistics, None)?;
        recipe = recipe.with("statistics", Content { digest });
    }
    Ok(Work::whole(recipe))
}

/// Trains the model of a `train` stage, from the last state that an earlier run left for it.
///
/// # Errors
/// When the views do not fit the options, no batch can be made, or training fails.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Train) -> Result<Outcome, RunError> {
    let stage = context.stage(name, options.training.steps as u64, "steps");
    let views = context.table(&options.from)?;
    let chain = chain_of(&options.from, &views.schema)?;
    let config = model_config(&stage, options, &chain, context.pipeline.seed)?;
    let feed = Feed::new(&stage, options, views, chain.clone(), context, context.key(name))?;
    let batches_per_epoch = feed.batches_per_pass();

    let statistics = match &options.statistics {
        Some(from) => Some(statistics::normaliser(&context.table(from)?)?),
        None => None,
    };
    let states = States::open(context.dir.states(name), &job.recipe, &options.checkpoints)?;
    let table = context.dir.create_table(name)?.join(shard_file(0));
    let work = {
        let (runtime, trainer) = (Handle::current(), stage.clone());
        let (options, device) = (options.clone(), context.device.clone());
        let (checkpoint, recipe) = (context.dir.checkpoint(name), job.recipe.clone());
        let notes = BTreeMap::from([
            (CHAIN_NOTE.to_owned(), chain_metadata(&chain).1),
            (RECIPE_NOTE.to_owned(), recipe),
        ]);
        move || {
            let data = Data { feed, statistics };
            train_on(data, config, &options, &device, states, &trainer, &runtime, &table, &checkpoint, &notes)
        }
    };
    let answer = context.device_pool.submit(work).await.map_err(|_| RunError::Interrupted)?;
    let trained = answer.map_err(|panic| stage.error(format!("the trainer panicked: {panic}")))??;
    stage.bar.finish();
    job.enter(trained.curve.receipt(name, &job.recipe, Vec::new()))?;

    let path = RunDir::relative_checkpoint(name);
    let bytes = std::fs::metadata(context.dir.checkpoint(name)).map(|found| found.len()).unwrap_or_default();
    let note = format!(
        "{} parameters, {:.0} views/s, waiting for data {:.0}% of the time, {batches_per_epoch} batches an epoch",
        trained.parameters,
        trained.views as f64 / trained.seconds.max(1e-9),
        100.0 * trained.waiting / trained.seconds.max(1e-9),
    );
    Ok(Outcome { artifacts: vec![Artifact { path, bytes, digest: trained.digest }], ..Outcome::note(note) })
}

fn model_config(
    stage: &StageHandle,
    options: &Train,
    chain: &Chain,
    seed: u64,
) -> Result<ModelConfig, RunError> {
    let subspaces = match options.method {
        Method::Simclr => vec!["invariant".to_owned()],
        _ if chain.variant.is_empty() => {
            return Err(stage.error(format!(
                "this method keeps one subspace per factor, but `{}` has no variant operators",
                options.from
            )));
        }
        Method::LoevReference if chain.sampling != Sampling::Bernoulli => {
            return Err(stage.error(format!(
                "`loev-reference` needs views with `sampling: bernoulli`, and `{}` has others",
                options.from
            )));
        }
        Method::Loev | Method::LoevPlusPlus | Method::LoevReference => chain.heads(),
    };
    check_rate(stage, &options.front_end, &options.from, chain)?;
    Ok(options.model_config(subspaces, options.front_end.frames(chain.frames()), seed))
}

/// Where batches come from; each lane has one.
#[derive(Debug, Clone)]
struct Feed {
    views: Table,
    chain: Chain,
    options: Train,
    pool: Arc<Pool>,
    budget: Arc<Budget>,
    key: Key,
    stage: StageHandle,
    /// Where the device renders: memory for what it renders from.
    pins: Option<Pins>,
}

impl Feed {
    fn new(
        stage: &StageHandle,
        options: &Train,
        views: Table,
        chain: Chain,
        context: &Context,
        key: Key,
    ) -> Result<Self, RunError> {
        let per_segment = chain.views_per_segment();
        if !options.batch.is_multiple_of(per_segment) || options.batch < 2 * per_segment {
            return Err(stage.error(format!(
                "batch is {}; it counts views, so it must be a multiple of the {per_segment} views of a segment \
                 and hold at least two segments",
                options.batch
            )));
        }
        let (pool, budget) = (Arc::clone(&context.pool), Arc::clone(&context.budget));
        let pins = pins(stage, &context.device, &chain)?;
        let feed =
            Self { views, chain, options: options.clone(), pool, budget, key, stage: stage.clone(), pins };
        if feed.batches_per_pass() == 0 {
            return Err(stage.error(format!(
                "a batch takes {} segments, but an epoch of `{}` has only {}; use a smaller batch or more clips",
                segments_per_batch(options, &feed.chain),
                options.from,
                feed.segments_of(0)
            )));
        }
        Ok(feed)
    }

    fn segments_of(&self, epoch: usize) -> u64 {
        let rows: u64 = by_epoch(&self.views).get(epoch).into_iter().flatten().map(|f| f.rows).sum();
        rows / self.chain.views_per_segment() as u64
    }

    /// Batches of one pass over an epoch. All epochs draw from the same clips, so that they are alike.
    fn batches_per_pass(&self) -> u64 {
        self.segments_of(0) / segments_per_batch(&self.options, &self.chain).max(1)
    }

    /// The plan of pass `pass` from its batch `skip` on: one partition per lane. Passes beyond the stored epochs begin
    /// again with the first, in another order. What was trained on already is not read again, but for less than a file
    /// of narrow rows.
    fn plan(&self, pass: u64, skip: u64) -> Result<Arc<dyn ExecutionPlan>, RunError> {
        let epochs = by_epoch(&self.views);
        let mut files: Vec<&TableFile> = epochs[pass as usize % epochs.len()].clone();
        let key = self.key.with(pass);
        key.with_str("shards").rng().shuffle(&mut files);
        let lanes = self.options.lanes.max(1);
        let mut batches = BatchPlan {
            views: self.chain.views_per_segment(),
            segments: segments_per_batch(&self.options, &self.chain) as usize,
            window: self.options.shuffle_window,
            lanes,
            key: key.with_str("window"),
            first: pass * self.batches_per_pass(),
            skip,
            left_out: 0,
        };
        let mut from = 0;
        while let Some(file) = files.get(from)
            && batches.left_out + file.rows <= batches.skipped_rows()
        {
            batches.left_out += file.rows;
            from += 1;
        }
        let scan = self.views.scan(&vec![files.split_off(from.min(files.len())); lanes])?;
        let batches = PartitionExec::over(BatchOp::new(batches, Arc::clone(&self.views.schema)), scan);
        let render = RenderOp::new(
            &self.views.schema,
            self.chain.clone(),
            match self.pins {
                Some(_) => Output::Source,
                None => Output::Features(self.options.front_end.clone()),
            },
            self.options.batch,
            Arc::clone(&self.pool),
            Arc::clone(&self.budget),
            self.stage.clone(),
        );
        Ok(PartitionExec::over(render, batches))
    }

    /// Runs on the thread of `lane`: sends its batches, from batch `from` of the training on, until nobody listens.
    fn drive(
        &self,
        lane: usize,
        from: u64,
        heads: usize,
        runtime: &Handle,
        send: &mut dyn FnMut(Made) -> bool,
    ) -> Result<(), RunError> {
        let per_pass = self.batches_per_pass().max(1);
        let mut skip = from % per_pass;
        for pass in from / per_pass.. {
            let plan = self.plan(pass, std::mem::take(&mut skip))?;
            let mut batches = plan.execute(lane, self.budget.task())?;
            while let Some(batch) = runtime.block_on(batches.next()) {
                if !send(self.made(&batch?, heads)?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// What a lane makes: a batch, or what the device makes one of.
#[derive(Debug)]
enum Made {
    Batch(TrainBatch),
    Sources(SourceBatch),
}

impl Feed {
    fn made(&self, rows: &RecordBatch, heads: usize) -> Result<Made, RunError> {
        let mut batch = train_batch(rows, heads)?;
        if let Some(pins) = &self.pins {
            return Ok(Made::Sources(SourceBatch::new(&self.chain, rows, batch, pins)?));
        }
        let features = wide(rows, "features")?.as_fixed_size_list().values().as_primitive::<Float32Type>();
        batch.features = features.values().to_vec().into();
        Ok(Made::Batch(batch))
    }
}

/// Memory on the way to a device that renders the views itself; none for the CPU, and where it cannot.
fn pins(stage: &StageHandle, device: &Device, chain: &Chain) -> Result<Option<Pins>, RunError> {
    let Some(gpu) = loev_models::device::gpu(device)? else { return Ok(None) };
    match device::obstacle(chain) {
        None => Ok(Some(Pins::new(gpu))),
        Some(why) => {
            tracing::warn!(stage = &*stage.name, "views are rendered on the CPU: {why}");
            Ok(None)
        }
    }
}

fn wide<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, RunError> {
    rows.column_by_name(name).ok_or_else(|| RunError::Engine(format!("rendered views lack `{name}`")))
}

/// What the rows say of a batch beside its features.
fn train_batch(rows: &RecordBatch, heads: usize) -> Result<TrainBatch, RunError> {
    let groups = wide(rows, "groups")?.as_fixed_size_list();
    let stored_heads = groups.value_length() as usize;
    let ids = groups.values().as_primitive::<Int64Type>().values();
    let epoch = primitive::<Int32Type>(rows, "epoch")?;
    let of_head = |head: usize| ids.iter().skip(head).step_by(stored_heads).copied().collect();
    Ok(TrainBatch {
        views: rows.num_rows(),
        groups: (0..heads.min(stored_heads)).map(of_head).collect(),
        epoch: epoch.values().first().map_or(0, |e| e.unsigned_abs()),
        ..TrainBatch::default()
    })
}

/// Batches in order, rendered on the device where it does that: then one is copied to it ahead of its turn.
struct Batches {
    lanes: Lanes<Made>,
    renderer: Option<DeviceRenderer>,
    ahead: Option<Staged>,
}

impl Batches {
    /// The next batch, and the seconds for which no lane had it.
    fn next(&mut self) -> Result<Option<(TrainBatch, f64)>, RunError> {
        if let Some(staged) = self.ahead.take() {
            return Ok(Some((self.render(staged)?, 0.0)));
        }
        let start = Instant::now();
        let next = self.lanes.take_next()?;
        let waited = start.elapsed().as_secs_f64();
        let batch = match (next, &mut self.renderer) {
            (None, _) => return Ok(None),
            (Some(Made::Batch(batch)), _) => batch,
            (Some(Made::Sources(sources)), Some(renderer)) => {
                let staged = renderer.stage(sources)?;
                self.render(staged)?
            }
            (Some(Made::Sources(_)), None) => return Err(unrendered()),
        };
        Ok(Some((batch, waited)))
    }

    /// Renders a batch on the device, and has the one after it copied meanwhile, if a lane has it.
    fn render(&mut self, staged: Staged) -> Result<TrainBatch, RunError> {
        let Some(renderer) = &mut self.renderer else { return Err(unrendered()) };
        if let Some(Made::Sources(batch)) = self.lanes.take_ready()? {
            self.ahead = Some(renderer.stage(batch)?);
        }
        renderer.render(staged)
    }
}

fn unrendered() -> RunError {
    RunError::Engine("views came without features, and nothing renders them".to_owned())
}

/// What a model is trained on.
struct Data {
    feed: Feed,
    /// Of a stage of its own; else they are fitted on the first batches.
    statistics: Option<Normaliser>,
}

/// What a finished training did, in this process.
struct Trained {
    parameters: usize,
    views: u64,
    seconds: f64,
    waiting: f64,
    curve: Written,
    digest: String,
}

/// Runs on the device's thread.
#[expect(clippy::too_many_arguments, reason = "one caller, which hands over what the thread owns")]
fn train_on(
    data: Data,
    config: ModelConfig,
    options: &Train,
    device: &Device,
    mut states: States,
    stage: &StageHandle,
    runtime: &Handle,
    table: &Path,
    checkpoint: &Path,
    notes: &BTreeMap<String, String>,
) -> Result<Trained, RunError> {
    let heads = config.subspaces.clone();
    let mut training = match states.resume(&config, &options.training, device, stage)? {
        Some(training) => training,
        None => Training::new(config, &options.training, device)?,
    };
    let Data { feed, statistics } = data;
    if let Some(statistics) = statistics.filter(|_| training.needs_statistics() > 0) {
        training.normalise_by(statistics)?;
    }
    let mut curve =
        Curve::resume(states.dir(), &heads, options.training.learn_temperature, training.steps())?;
    stage.bar.add(training.steps() as u64);
    if training.steps() > 0 {
        tracing::info!(stage = &*stage.name, step = training.steps(), "training goes on from a state");
    }
    let renderer = match &feed.pins {
        Some(pins) => Some(DeviceRenderer::new(&feed.chain, &options.front_end, device, pins)?),
        None => None,
    };
    let lanes = {
        let (heads, runtime, from) = (heads.len(), runtime.clone(), training.batches());
        let drive = move |lane: usize, send: &mut dyn FnMut(Made) -> bool| {
            feed.drive(lane, from as u64, heads, &runtime, send)
        };
        Lanes::start(options.lanes, from, drive)?
    };
    let mut batches = Batches { lanes, renderer, ahead: None };
    // The statistics are fitted on the first batches, which are then trained on like the others.
    let mut first = VecDeque::new();
    while first.len() < training.needs_statistics() {
        let Some((batch, wait)) = batches.next()? else { break };
        first.push_back((batch, wait));
    }
    if training.needs_statistics() > 0 {
        let fitted: Vec<TrainBatch> = first.iter().map(|(batch, _)| batch.clone()).collect();
        training.fit(&fitted)?;
    }
    let (mut views, mut seconds, mut waiting) = (0, 0.0, 0.0);
    let mut record = |step: &StepMetrics, curve: &mut Curve| {
        views += step.views as u64;
        seconds += curve::seconds(step);
        waiting += step.wait_seconds;
        curve.push(step);
        stage.bar.note(format!("loss {:.3}, {:.0} views/s", step.loss, views as f64 / seconds.max(1e-9)));
        stage.bar.add(1);
    };
    while training.steps() < options.training.steps {
        let (mut own, mut wait) = (Vec::new(), 0.0);
        while own.len() < options.training.accumulate {
            let next = match first.pop_front() {
                Some(ready) => Some(ready),
                None => batches.next()?,
            };
            let Some((batch, waited)) = next else { break };
            own.push(batch);
            wait += waited;
        }
        if own.is_empty() {
            break;
        }
        let step = training.submit(own, Duration::from_secs_f64(wait))?;
        let last = training.steps() == options.training.steps;
        let interrupted = stage.interrupt.requested();
        let save = !last && (interrupted || training.steps().is_multiple_of(options.checkpoints.every));
        // A GPU tells of a step when it is doing the next, unless it is asked.
        let settled = if save || last { training.settle()? } else { None };
        for step in step.into_iter().chain(settled) {
            record(&step, &mut curve);
        }
        if save {
            states.save(&training, &mut curve, notes, stage)?;
        }
        stage.interrupt.check()?;
    }
    if let Some(step) = training.settle()? {
        record(&step, &mut curve);
    }
    drop(batches);
    fault::io("model.save").map_err(RunError::io("cannot write", checkpoint))?;
    // The recipe is of this run; a model must not depend on how often it was stopped, nor on what it is called.
    let chain = notes.iter().filter(|(name, _)| *name == CHAIN_NOTE);
    let digest = training.save_model(checkpoint, &chain.map(|(k, v)| (k.clone(), v.clone())).collect())?;
    let curve = curve.finish(table)?;
    Ok(Trained { parameters: training.model().parameters(), views, seconds, waiting, curve, digest })
}
