//! `train`: views in, a checkpoint and a table of training curves out.
//!
//! The trainer runs on the device's thread and takes batches from [`Lanes`]; the lanes drive query
//! plans that shuffle, render and extract features (see [`crate::exec`]).

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use loev_models::checkpoint;
use loev_models::train::{StepMetrics, TrainBatch, TrainConfig};
use loev_models::{Device, Method, Model, ModelConfig, ModelError};
use loev_ops::chain::Chain;
use loev_ops::draw_table::chain_metadata;
use loev_ops::rng::Key;
use tokio::runtime::Handle;

use super::curve::{self, Curve};
use super::views::{by_epoch, chain_of, segments_per_batch};
use super::{CHAIN_NOTE, Outcome};
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::batch::{BatchOp, BatchPlan};
use crate::exec::columns::primitive;
use crate::exec::lanes::Lanes;
use crate::exec::pool::Pool;
use crate::exec::render::{Output, RenderOp};
use crate::exec::scan::{Table, TableFile};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::Train;

/// Trains the model of a `train` stage.
///
/// # Errors
/// When the views do not fit the options, no batch can be made, or training fails.
pub async fn run(context: &Context, name: &str, options: &Train) -> Result<Outcome, RunError> {
    let stage = context.stage(name, options.training.steps as u64, "steps");
    let views = context.table(&options.from)?;
    let chain = chain_of(&options.from, &views.schema)?;
    let config = model_config(&stage, options, &chain, context.pipeline.seed)?;
    let heads = config.subspaces.clone();
    let feed =
        Feed::new(&stage, options, views, chain.clone(), Arc::clone(&context.pool), context.key(name))?;
    let batches_per_epoch = feed.batches_per_pass();

    let curve = Curve::create(context, name, &heads)?;
    let lanes = {
        let runtime = Handle::current();
        let heads = heads.len();
        Lanes::start(options.lanes, move |lane, send| feed.drive(lane, heads, &runtime, send))?
    };
    let (train, device) = (options.training.clone(), context.device.clone());
    let checkpoint = context.dir.checkpoint(name);
    let trainer = stage.clone();
    let work = move || {
        train_on(lanes, config, &train, &device, curve, &trainer, |model| {
            let chain = (CHAIN_NOTE.to_owned(), chain_metadata(&chain).1);
            checkpoint::save(model, &checkpoint, &[chain].into_iter().collect())
        })
    };
    let answer = context.device_pool.submit(work).await.map_err(|_| RunError::Interrupted)?;
    let trained = answer.map_err(|panic| stage.error(format!("the trainer panicked: {panic}")))??;
    stage.bar.finish();
    context.write_receipts(name, name, &[trained.curve])?;

    let note = format!(
        "{} parameters, {:.0} views/s, waiting for data {:.0}% of the time, {batches_per_epoch} batches an epoch",
        trained.parameters,
        trained.views as f64 / trained.seconds.max(1e-9),
        100.0 * trained.waiting / trained.seconds.max(1e-9),
    );
    Ok(Outcome::rows(trained.steps, note))
}

fn model_config(
    stage: &StageHandle,
    options: &Train,
    chain: &Chain,
    seed: u64,
) -> Result<ModelConfig, RunError> {
    let subspaces = match options.method {
        Method::Simclr => vec!["invariant".to_owned()],
        Method::Loev | Method::LoevPlusPlus if chain.variant.is_empty() => {
            return Err(stage.error(format!(
                "this method keeps one subspace per factor, but `{}` has no variant operators",
                options.from
            )));
        }
        Method::Loev | Method::LoevPlusPlus => chain.heads(),
    };
    if options.front_end.sample_rate != chain.sample_rate {
        return Err(stage.error(format!(
            "front_end.sample_rate is {} Hz, but `{}` renders at {} Hz",
            options.front_end.sample_rate, options.from, chain.sample_rate
        )));
    }
    Ok(options.model_config(subspaces, options.front_end.frames(chain.frames()), seed))
}

/// Where batches come from; each lane has one.
#[derive(Debug, Clone)]
struct Feed {
    views: Table,
    chain: Chain,
    options: Train,
    pool: Arc<Pool>,
    key: Key,
    stage: StageHandle,
}

impl Feed {
    fn new(
        stage: &StageHandle,
        options: &Train,
        views: Table,
        chain: Chain,
        pool: Arc<Pool>,
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
        let feed = Self { views, chain, options: options.clone(), pool, key, stage: stage.clone() };
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

    /// The plan of pass `pass`: one partition per lane. Passes beyond the stored epochs begin again
    /// with the first, in another order.
    fn plan(&self, pass: u64) -> Result<Arc<dyn ExecutionPlan>, RunError> {
        let epochs = by_epoch(&self.views);
        let mut files: Vec<&TableFile> = epochs[pass as usize % epochs.len()].clone();
        let key = self.key.with(pass);
        key.with_str("shards").rng().shuffle(&mut files);
        let lanes = self.options.lanes.max(1);
        let scan = self.views.scan(&vec![files; lanes])?;
        let batches = BatchPlan {
            views: self.chain.views_per_segment(),
            segments: segments_per_batch(&self.options, &self.chain) as usize,
            window: self.options.shuffle_window,
            lanes,
            key: key.with_str("window"),
            first: pass * self.batches_per_pass(),
        };
        let batches = PartitionExec::over(BatchOp::new(batches, Arc::clone(&self.views.schema)), scan);
        let render = RenderOp::new(
            &self.views.schema,
            self.chain.clone(),
            Output::Features(self.options.front_end.clone()),
            self.options.batch,
            Arc::clone(&self.pool),
            self.stage.clone(),
        );
        Ok(PartitionExec::over(render, batches))
    }

    /// Runs on the thread of `lane`: sends its batches until nobody listens.
    fn drive(
        &self,
        lane: usize,
        heads: usize,
        runtime: &Handle,
        send: &mut dyn FnMut(TrainBatch) -> bool,
    ) -> Result<(), RunError> {
        for pass in 0.. {
            let plan = self.plan(pass)?;
            let mut batches = plan.execute(lane, Arc::new(TaskContext::default()))?;
            while let Some(batch) = runtime.block_on(batches.next()) {
                if !send(train_batch(&batch?, heads)?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn train_batch(rows: &RecordBatch, heads: usize) -> Result<TrainBatch, RunError> {
    let wide = |name: &str| {
        rows.column_by_name(name).ok_or_else(|| RunError::Engine(format!("rendered views lack `{name}`")))
    };
    let features = wide("features")?.as_fixed_size_list().values().as_primitive::<Float32Type>();
    let groups = wide("groups")?.as_fixed_size_list();
    let stored_heads = groups.value_length() as usize;
    let ids = groups.values().as_primitive::<Int64Type>().values();
    let epoch = primitive::<Int32Type>(rows, "epoch")?;
    let of_head = |head: usize| ids.iter().skip(head).step_by(stored_heads).copied().collect();
    Ok(TrainBatch {
        features: features.values().to_vec(),
        views: rows.num_rows(),
        groups: (0..heads.min(stored_heads)).map(of_head).collect(),
        epoch: epoch.values().first().map_or(0, |e| e.unsigned_abs()),
    })
}

/// What a finished training did.
struct Trained {
    parameters: usize,
    steps: u64,
    views: u64,
    seconds: f64,
    waiting: f64,
    curve: RecordBatch,
}

/// Runs on the device's thread.
fn train_on(
    mut lanes: Lanes<TrainBatch>,
    config: ModelConfig,
    train: &TrainConfig,
    device: &Device,
    mut rows: Curve,
    stage: &StageHandle,
    save: impl FnOnce(&Model) -> Result<(), ModelError>,
) -> Result<Trained, RunError> {
    let (mut feed_error, mut curve_error) = (None, None);
    let (mut steps, mut views, mut seconds, mut waiting) = (0, 0, 0.0, 0.0);
    let model = loev_models::train::train(
        config,
        train,
        device,
        &mut || {
            Ok(lanes.take_next().unwrap_or_else(|error| {
                feed_error = Some(error);
                None
            }))
        },
        &mut |step: &StepMetrics| {
            steps += 1;
            views += step.views as u64;
            seconds += curve::seconds(step);
            waiting += step.wait_seconds;
            stage.bar.note(format!("loss {:.3}, {:.0} views/s", step.loss, views as f64 / seconds.max(1e-9)));
            stage.bar.add(1);
            curve_error = rows.push(step).err();
            if curve_error.is_some() || stage.interrupt.requested() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
    );
    drop(lanes);
    // What stopped the feed or the curve explains what the trainer then says.
    if let Some(error) = feed_error.or(curve_error) {
        return Err(error);
    }
    stage.interrupt.check()?;
    let model = model?;
    save(&model)?;
    let curve = rows.finish()?;
    Ok(Trained { parameters: model.parameters(), steps, views, seconds, waiting, curve })
}
