//! The training loop: batches in, one contrastive loss per subspace, AdamW, metrics out.
//!
//! ```text
//! next() -> features, groups -> [patches dropped] -> encoder -> projection k -> loss k --.
//!                                                                  sum of weighted losses -> gradients -> AdamW
//! ```
//!
//! The trainer does not know where batches come from nor where metrics go. It fits the front end's
//! statistics on the first few batches, which are then trained on like the others. Whatever cannot be
//! trained on ends in a typed error that names the step and the first culprit in order of names.

use crate::{
    Model, ModelConfig, ModelError, Result,
    encoder::tokens::{Kept, Normaliser},
    loss::{contrastive, floor, reference_loss},
    optim::{AdamW, AdamWConfig, Schedule, norm},
    params::Params,
};
use candle_core::{Device, Tensor, backprop::GradStore};
use garde::Validate;
use loev_ops::rng::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

/// Which formula the loss of a subspace follows.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// The mean over anchors that have a positive.
    #[default]
    Contrastive,
    /// The published method's code: the mean over all anchors, 1e-6 inside the logarithm.
    Reference,
}

/// How to train.
#[derive(Serialize, Deserialize, JsonSchema, Validate, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Steps, one batch each.
    #[garde(range(min = 1))]
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Highest learning rate.
    #[garde(range(min = 1e-9, max = 1.0))]
    #[schemars(range(min = 1e-9, max = 1.0))]
    pub lr: f64,
    /// Learning rate at the end, as a share of the highest.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub last_lr: f64,
    /// Steps over which the learning rate rises from 0.
    #[garde(skip)]
    pub warmup: usize,
    /// Decoupled weight decay of matrices.
    #[garde(range(min = 0.0, max = 10.0))]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    /// Largest norm of the gradient of all parameters together; longer ones are scaled down to it.
    #[garde(range(min = 1e-6))]
    #[schemars(range(min = 1e-6))]
    pub clip: f64,
    /// Temperature of the loss.
    #[garde(range(min = 1e-3, max = 10.0))]
    #[schemars(range(min = 1e-3, max = 10.0))]
    pub temperature: f64,
    /// Weight of each subspace's loss, the invariant one first; none given means 1 for each.
    #[garde(inner(range(min = 1e-6)))]
    pub head_weights: Vec<f64>,
    /// Formula of the loss.
    #[garde(skip)]
    pub loss: LossKind,
    /// Share of patch tokens that a view drops in training; class tokens stay. Cheaper steps, and a
    /// stronger encoder at high shares (Myna, arXiv 2502.12511).
    #[garde(range(min = 0.0, max = 0.99))]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub mask: f64,
    /// First batches on which the mean and deviation of each mel band are fitted.
    #[garde(range(min = 1, max = 1000))]
    #[schemars(range(min = 1, max = 1000))]
    pub statistics_batches: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            lr: 5e-4,
            last_lr: 0.01,
            warmup: 100,
            weight_decay: 0.05,
            clip: 1.0,
            temperature: 0.1,
            head_weights: Vec::new(),
            loss: LossKind::Contrastive,
            mask: 0.0,
            statistics_batches: 4,
        }
    }
}

impl TrainConfig {
    /// The learning rate over training.
    pub fn schedule(&self) -> Schedule {
        Schedule { lr: self.lr, warmup: self.warmup, steps: self.steps, last: self.lr * self.last_lr }
    }

    fn weights(&self, heads: usize) -> Result<Vec<f64>> {
        match self.head_weights.len() {
            0 => Ok(vec![1.0; heads]),
            n if n == heads => Ok(self.head_weights.clone()),
            n => Err(ModelError::Config(format!("head_weights: {n} weights for {heads} subspaces"))),
        }
    }
}

/// Views to train one step on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainBatch {
    /// `views * frames * mels` values in dB, row-major.
    pub features: Vec<f32>,
    /// Number of views.
    pub views: usize,
    /// For each subspace one group id per view: equal ids are positives.
    pub groups: Vec<Vec<i64>>,
    /// The epoch that the batch belongs to, for the record.
    pub epoch: u32,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics {
    /// From 1.
    pub step: usize,
    /// As the batch says.
    pub epoch: u32,
    /// Learning rate.
    pub lr: f64,
    /// Weighted mean of the subspaces' losses.
    pub loss: f64,
    /// The loss of each subspace.
    pub head_losses: Vec<f64>,
    /// The least that each could be on this batch.
    pub head_floors: Vec<f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Views in the batch.
    pub views: usize,
    /// Time spent waiting for the batch.
    pub wait_seconds: f64,
    /// Time spent on the step itself.
    pub step_seconds: f64,
}

/// Trains a new model until `cfg.steps` are done, `next` has no more batches, or `observe` breaks.
///
/// # Errors
/// [`ModelError::Config`] for settings that cannot work; [`ModelError::Data`] for a batch that does not
/// fit, or when there is none at all; [`ModelError::NotFinite`], [`ModelError::NoPositives`] and
/// [`ModelError::NoGradient`] as their names say; and whatever `next` returns.
pub fn train(
    model: ModelConfig,
    cfg: &TrainConfig,
    device: &Device,
    next: &mut dyn FnMut() -> Result<Option<TrainBatch>>,
    observe: &mut dyn FnMut(&StepMetrics) -> ControlFlow<()>,
) -> Result<Model> {
    cfg.validate().map_err(|report| ModelError::Config(format!("train: {report}")))?;
    let mut model = Model::new(model, device)?;
    let mut trainer = Trainer::new(&model, cfg)?;
    let mut timed = || -> Result<Option<(TrainBatch, Duration)>> {
        let start = Instant::now();
        Ok(next()?.map(|batch| (batch, start.elapsed())))
    };

    let mut first = VecDeque::new();
    while first.len() < cfg.statistics_batches.min(cfg.steps) {
        let Some((batch, wait)) = timed()? else { break };
        check(&model, &batch, first.len() + 1)?;
        first.push_back((batch, wait));
    }
    if first.is_empty() {
        return Err(ModelError::Data("there is no batch to train on".into()));
    }
    let mels = model.config().front_end.mels;
    model.set_normaliser(Normaliser::fit(mels, first.iter().map(|(b, _)| b.features.as_slice())))?;

    for step in 1..=cfg.steps {
        let (batch, wait) = match first.pop_front() {
            Some(ready) => ready,
            None => {
                let Some((batch, wait)) = timed()? else { break };
                check(&model, &batch, step)?;
                (batch, wait)
            }
        };
        let mut metrics = trainer.step(&model, batch, step)?;
        metrics.wait_seconds = wait.as_secs_f64();
        if observe(&metrics).is_break() {
            break;
        }
    }
    Ok(model)
}

/// Whether a batch fits the model and is finite.
fn check(model: &Model, batch: &TrainBatch, step: usize) -> Result<()> {
    let config = model.config();
    let (values, heads) = (config.frames * config.front_end.mels, config.subspaces.len());
    let fault = |message: String| Err(ModelError::Data(format!("step {step}: {message}")));
    if batch.features.len() != batch.views * values {
        return fault(format!("{} values are not {} views of {values}", batch.features.len(), batch.views));
    }
    if batch.groups.len() != heads {
        return fault(format!("group ids for {} subspaces, the model has {heads}", batch.groups.len()));
    }
    if let Some(groups) = batch.groups.iter().find(|groups| groups.len() != batch.views) {
        return fault(format!("{} group ids for {} views", groups.len(), batch.views));
    }
    // A sum is finite only if all its terms are, and is faster to take than to look at each.
    for (view, features) in batch.features.chunks_exact(values).enumerate() {
        let sum: f64 = features.chunks(16).map(|x| f64::from(x.iter().sum::<f32>())).sum();
        if !sum.is_finite() {
            return Err(ModelError::NotFinite { what: format!("a feature of view {view}"), step });
        }
    }
    Ok(())
}

struct Trainer<'a> {
    cfg: &'a TrainConfig,
    schedule: Schedule,
    weights: Vec<f64>,
    adam: AdamW,
    /// Patches that a view keeps, when it drops some.
    keeps: Option<usize>,
    masks: Key,
    checked: bool,
}

impl<'a> Trainer<'a> {
    fn new(model: &Model, cfg: &'a TrainConfig) -> Result<Self> {
        let weights = cfg.weights(model.config().subspaces.len())?;
        let optimiser = AdamWConfig { weight_decay: cfg.weight_decay, ..AdamWConfig::default() };
        let kept = ((1.0 - cfg.mask) * model.patches() as f64).round().max(1.0) as usize;
        Ok(Self {
            cfg,
            schedule: cfg.schedule(),
            weights,
            adam: AdamW::new(optimiser, model.params())?,
            keeps: (kept < model.patches()).then_some(kept),
            masks: Key::root(model.config().seed).with_str("mask"),
            checked: false,
        })
    }

    /// The patches that each view keeps in this step, in order of time.
    fn kept(&self, patches: usize, views: usize, step: usize) -> Option<Kept> {
        let per_view = self.keeps?;
        let key = self.masks.with(step as u64);
        let mut all = Vec::with_capacity(views * per_view);
        for view in 0..views {
            let mut order: Vec<u32> = (0..patches as u32).collect();
            key.with(view as u64).rng().shuffle(&mut order);
            order.truncate(per_view);
            order.sort_unstable();
            all.extend(order);
        }
        Some(Kept { per_view, patches: Arc::new(all) })
    }

    fn step(&mut self, model: &Model, batch: TrainBatch, step: usize) -> Result<StepMetrics> {
        let start = Instant::now();
        let TrainBatch { features, views, groups, epoch } = batch;
        let kept = self.kept(model.patches(), views, step);
        let features = model.features(features, views)?;
        let embeddings = model.embed_for_training(&features, kept.as_ref())?;

        let total_weight: f64 = self.weights.iter().sum();
        let mut losses = Vec::with_capacity(embeddings.len());
        let mut weighted: Option<Tensor> = None;
        for (k, (embedding, groups)) in embeddings.iter().zip(&groups).enumerate() {
            let z = model.project(k, embedding)?;
            let loss = match self.cfg.loss {
                LossKind::Contrastive => contrastive(&z, groups, self.cfg.temperature),
                LossKind::Reference => reference_loss(&z, groups, self.cfg.temperature),
            };
            let loss = loss.map_err(|error| match error {
                ModelError::NoPositives { .. } => {
                    let name = model.config().subspaces.get(k).map_or("", String::as_str);
                    ModelError::NoPositives { head: format!("subspace {name}, step {step}") }
                }
                other => other,
            })?;
            losses.push(f64::from(loss.to_scalar::<f32>()?));
            let part = (loss * (self.weights[k] / total_weight))?;
            weighted = Some(match weighted {
                None => part,
                Some(sum) => (sum + part)?,
            });
        }
        let loss = losses.iter().zip(&self.weights).map(|(l, w)| l * w).sum::<f64>() / total_weight;
        if !loss.is_finite() {
            return Err(ModelError::NotFinite { what: culprit(model.params(), None)?, step });
        }
        let Some(weighted) = weighted else {
            return Err(ModelError::Config("subspaces: at least one is needed".into()));
        };
        let grads = weighted.backward()?;
        let grad_norm = self.grad_norm(model.params(), &grads, step)?;
        let lr = self.schedule.at(step);
        let clip = if grad_norm > self.cfg.clip { self.cfg.clip / grad_norm } else { 1.0 };
        self.adam.step(model.params(), &grads, lr, clip)?;
        Ok(StepMetrics {
            step,
            epoch,
            lr,
            loss,
            head_losses: losses,
            head_floors: groups.iter().map(|groups| floor(groups)).collect(),
            grad_norm,
            views,
            wait_seconds: 0.0,
            step_seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// The norm of all gradients. The first time, each parameter must have one that is not zero.
    fn grad_norm(&mut self, params: &Params, grads: &GradStore, step: usize) -> Result<f64> {
        let mut square = 0.0;
        for (name, parameter) in params.iter() {
            let own = grads.get(&parameter.var).map_or(Ok(0.0), norm)?;
            if own == 0.0 && !self.checked {
                return Err(ModelError::NoGradient { parameter: name.to_owned() });
            }
            square += own * own;
        }
        self.checked = true;
        if !square.is_finite() {
            return Err(ModelError::NotFinite { what: culprit(params, Some(grads))?, step });
        }
        Ok(square.sqrt())
    }
}

/// The first parameter, in order of names, that is not finite or whose gradient is not.
fn culprit(params: &Params, grads: Option<&GradStore>) -> Result<String> {
    for (name, parameter) in params.iter() {
        if !norm(&parameter.var)?.is_finite() {
            return Ok(format!("parameter {name}"));
        }
        if let Some(grad) = grads.and_then(|grads| grads.get(&parameter.var))
            && !norm(grad)?.is_finite()
        {
            return Ok(format!("the gradient of {name}"));
        }
    }
    Ok("the loss".into())
}

#[cfg(test)]
mod tests;
