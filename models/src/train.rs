//! The training loop: batches in, one contrastive loss per subspace, AdamW, metrics out.
//!
//! ```text
//! next() -> features, groups -> [masks] -> [patches dropped] -> encoder -> projection k -> loss k --.
//!                                                                  sum of weighted losses -> gradients -> AdamW
//! ```
//!
//! The trainer does not know where batches come from nor where metrics go. It fits the front end's
//! statistics on the first few batches, which are then trained on like the others. Whatever cannot be
//! trained on ends in a typed error that names the step and the first culprit in order of names.
//!
//! On a GPU, kernels do the whole step and nothing waits for it: what a step reports, and its errors, come when the
//! next has been asked for, under its own number. Features may have been rendered there ([`Features::Device`]).
//!
//! [`train`] is the whole loop. [`Training`] is one step of it at a time, and can be put on disk between
//! two steps and taken up again: on one CPU class the rest of the steps then gives the same bits.

mod ema;
mod features;
mod objective;
mod on_device;
mod spec_mask;
mod state;
mod training;

pub use features::Features;
pub use spec_mask::SpecMask;
pub use training::Training;

use crate::{
    Model, ModelConfig, ModelError, Result, encoder::EncoderConfig, gpu::Precision, optim::Schedule,
};
use candle_core::Device;
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    ops::ControlFlow,
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
    /// Steps of the optimiser, each on `accumulate` batches.
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
    /// Temperature of each subspace's loss, the invariant one first; none given means `temperature` for each.
    #[garde(inner(range(min = 1e-3, max = 10.0)))]
    pub temperatures: Vec<f64>,
    /// Learn a temperature for each subspace, from what is given (0.01 to 1) and within 0.01 to 1: its
    /// logarithm is a parameter like others, without weight decay.
    #[garde(skip)]
    pub learn_temperature: bool,
    /// Leave the other positives of a view out of what each of its positives competes with, so that the
    /// least possible loss is 0. Not with the reference formula.
    #[garde(skip)]
    pub exclude_positives: bool,
    /// Weight of each subspace's loss, the invariant one first; none given means 1 for each.
    #[garde(inner(range(min = 1e-6)))]
    pub head_weights: Vec<f64>,
    /// Formula of the loss; with `method: loev-reference` always the reference's. By that formula a subspace
    /// without positives in a batch has loss 0 there; one that has none in any of the statistics batches
    /// is an error. By the other it is an error in any batch.
    #[garde(skip)]
    pub loss: LossKind,
    /// Share of patch tokens that a view drops in training; class tokens stay. Cheaper steps, and a
    /// stronger encoder at high shares (Myna, arXiv 2502.12511).
    #[garde(range(min = 0.0, max = 0.99))]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub mask: f64,
    /// Masks over time and frequency of each view; off by default.
    #[garde(dive)]
    pub spec_mask: SpecMask,
    /// Views that go through the encoder at a time, to train on batches beyond memory; any number, whatever
    /// the segments. The gradients are those of the whole batch (GradCache, arXiv 2101.06983), at the price
    /// of a second forward pass. 0 takes all views at once.
    #[garde(range(max = 65536))]
    #[schemars(range(max = 65536), extend("x-unit" = "views"))]
    pub micro_batch: usize,
    /// Batches whose gradients are averaged for one step. Views of different batches are not compared, and
    /// a step counts once: `steps` times this many batches are trained on.
    #[garde(range(min = 1, max = 65536))]
    #[schemars(range(min = 1, max = 65536), extend("x-unit" = "batches"))]
    pub accumulate: usize,
    /// Factor on the learning rate of a block for each block above it (BEiT, arXiv 2106.08254): the last
    /// block of a path and what follows have the full rate, the embedding of patches the lowest. 1 gives
    /// all the same.
    #[garde(range(min = 0.01, max = 1.0))]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub layer_decay: f64,
    /// First batches on which the mean and deviation of each mel band are fitted.
    #[garde(range(min = 1, max = 1000))]
    #[schemars(range(min = 1, max = 1000))]
    pub statistics_batches: usize,
    /// Decay of the exponential moving average of the weights that becomes the model, such as 0.999; the
    /// first steps count for more: step t decays by at most (1 + t) / (10 + t). 0 keeps the last weights.
    #[garde(range(min = 0.0, max = 0.99999))]
    #[schemars(range(min = 0.0, max = 0.99999))]
    pub ema: f64,
    /// What products of matrices are made of on a GPU: `bf16` unless `f32` is asked for, which takes many
    /// times as long. The CPU always computes in f32.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
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
            temperatures: Vec::new(),
            learn_temperature: false,
            exclude_positives: false,
            head_weights: Vec::new(),
            loss: LossKind::Contrastive,
            mask: 0.0,
            spec_mask: SpecMask::default(),
            micro_batch: 0,
            accumulate: 1,
            layer_decay: 1.0,
            statistics_batches: 4,
            ema: 0.0,
            precision: Precision::default(),
        }
    }
}

impl TrainConfig {
    /// The learning rate over training.
    pub fn schedule(&self) -> Schedule {
        Schedule { lr: self.lr, warmup: self.warmup, steps: self.steps, last: self.lr * self.last_lr }
    }

    /// Checks the settings of the loss against the model that is to be trained.
    ///
    /// # Errors
    /// [`ModelError::Config`], whose message begins with the name of the setting and a colon.
    pub fn fits(&self, model: &ModelConfig) -> Result<(), ModelError> {
        if !matches!(model.encoder, EncoderConfig::Vit(_)) {
            let fault = |name: &str, why: &str| Err(ModelError::Config(format!("{name}: {why}")));
            if self.mask > 0.0 {
                return fault("mask", "only an encoder of tokens can drop some");
            }
            if self.layer_decay < 1.0 {
                return fault("layer_decay", "only an encoder of blocks in a row has layers to tell apart");
            }
        }
        objective::Objective::new(self, model).map(drop)
    }

    /// Batches that all steps take together.
    pub fn batches(&self) -> usize {
        self.steps.saturating_mul(self.accumulate)
    }
}

/// Views to train one step on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainBatch {
    /// `views * frames * mels` values in dB, row-major.
    pub features: Features,
    /// Number of views.
    pub views: usize,
    /// For each subspace one group id per view: equal ids are positives.
    pub groups: Vec<Vec<i64>>,
    /// The epoch that the batch belongs to, for the record.
    pub epoch: u32,
}

/// What a step did. Over several batches, losses and floors are means and views a sum.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics {
    /// From 1.
    pub step: usize,
    /// As the first batch says.
    pub epoch: u32,
    /// Learning rate.
    pub lr: f64,
    /// Weighted mean of the subspaces' losses.
    pub loss: f64,
    /// The loss of each subspace.
    pub head_losses: Vec<f64>,
    /// The least that each could be on this batch. By the reference formula both are 0 for a subspace in
    /// which no view has a positive.
    pub head_floors: Vec<f64>,
    /// The temperature of each subspace's loss in this step.
    pub temperatures: Vec<f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Views trained on.
    pub views: usize,
    /// Time spent waiting for batches.
    pub wait_seconds: f64,
    /// Time spent on the step itself; on a GPU from the end of the step before, less the waiting.
    pub step_seconds: f64,
}

/// Trains a new model until `cfg.steps` are done, `next` has no more batches, or `observe` breaks. With
/// `cfg.ema` the model has the average of its weights.
///
/// # Errors
/// [`ModelError::Config`] for settings that cannot work; [`ModelError::Data`] for a batch that does not
/// fit, or when there is none at all; [`ModelError::NotFinite`], [`ModelError::NoPositives`],
/// [`ModelError::NoNegatives`] and [`ModelError::NoGradient`] as their names say; and whatever `next`
/// returns.
pub fn train(
    model: ModelConfig,
    cfg: &TrainConfig,
    device: &Device,
    next: &mut dyn FnMut() -> Result<Option<TrainBatch>>,
    observe: &mut dyn FnMut(&StepMetrics) -> ControlFlow<()>,
) -> Result<Model> {
    let mut training = Training::new(model, cfg, device)?;
    let mut timed = || -> Result<Option<(TrainBatch, Duration)>> {
        let start = Instant::now();
        Ok(next()?.map(|batch| (batch, start.elapsed())))
    };

    let (mut first, mut waits) = (Vec::new(), Vec::new());
    while first.len() < training.needs_statistics() {
        let Some((batch, wait)) = timed()? else { break };
        first.push(batch);
        waits.push(wait);
    }
    training.fit(&first)?;
    let mut first = first.into_iter().zip(waits);
    while training.steps() < cfg.steps {
        let (mut batches, mut waited) = (Vec::new(), Duration::ZERO);
        while batches.len() < cfg.accumulate {
            let ready = match first.next() {
                Some(ready) => Some(ready),
                None => timed()?,
            };
            let Some((batch, wait)) = ready else { break };
            batches.push(batch);
            waited += wait;
        }
        if batches.is_empty() {
            break;
        }
        if let Some(metrics) = training.submit(batches, waited)?
            && observe(&metrics).is_break()
        {
            break;
        }
    }
    if let Some(metrics) = training.settle()? {
        let _ = observe(&metrics);
    }
    training.into_model()
}

#[cfg(test)]
mod tests;
