//! One training, step by step.

use super::{LossKind, StepMetrics, TrainBatch, TrainConfig, ema::Ema, state};
use crate::{
    Model, ModelConfig, ModelError, Result, checkpoint,
    encoder::{
        tokens::{Kept, Normaliser},
        vit::Noise,
    },
    loss::{contrastive, floor, reference_loss},
    optim::{AdamW, AdamWConfig, Schedule, norm},
    params::Params,
};
use candle_core::{Device, Tensor, backprop::GradStore};
use garde::Validate;
use loev_ops::rng::Key;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

/// A model in training: its weights, their average, the optimiser and the number of steps done.
///
/// [`Self::fit`] comes first, then one [`Self::step`] per batch; the caller stops after
/// [`TrainConfig::steps`]. Between two steps [`Self::save_state`] keeps all of it, and [`Self::resume`]
/// goes on from there. No random number is drawn from a generator that a state would have to hold: the
/// patches that a view drops are keyed by the model's seed and the step. Nothing of the batches is kept
/// either; where to go on in the data is for the caller's notes to say. After an error of a step the
/// training is of no further use.
#[derive(Debug)]
pub struct Training {
    pub(super) model: Model,
    pub(super) cfg: TrainConfig,
    pub(super) adam: AdamW,
    pub(super) ema: Option<Ema>,
    pub(super) progress: Progress,
    /// Weight of each subspace's loss.
    weights: Vec<f64>,
    schedule: Schedule,
    /// Patches that a view keeps, when it drops some.
    keeps: Option<usize>,
    masks: Key,
    /// What blocks drop in a step.
    drops: Key,
}

/// How far a training has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Steps done.
    pub steps: usize,
    /// Whether the normaliser is fitted.
    pub fitted: bool,
    /// Whether every parameter has been seen to get a gradient.
    pub checked: bool,
}

/// Checks the settings of a training. None may be infinite: a state holds them as JSON.
pub(super) fn validate(cfg: &TrainConfig) -> Result<()> {
    cfg.validate().map_err(|report| ModelError::Config(format!("train: {report}")))
}

/// The optimiser's settings.
pub(super) fn optimiser(cfg: &TrainConfig) -> AdamWConfig {
    AdamWConfig { weight_decay: cfg.weight_decay, ..AdamWConfig::default() }
}

impl Training {
    /// A training of a new model, before its first step.
    ///
    /// # Errors
    /// [`ModelError::Config`] for settings that cannot work.
    pub fn new(config: ModelConfig, cfg: &TrainConfig, device: &Device) -> Result<Self> {
        validate(cfg)?;
        let model = Model::new(config, device)?;
        let adam = AdamW::new(optimiser(cfg), model.params())?;
        let ema = if cfg.ema > 0.0 { Some(Ema::new(cfg.ema, model.params())?) } else { None };
        Self::of(model, cfg, adam, ema, Progress::default())
    }

    pub(super) fn of(
        model: Model,
        cfg: &TrainConfig,
        adam: AdamW,
        ema: Option<Ema>,
        progress: Progress,
    ) -> Result<Self> {
        let kept = ((1.0 - cfg.mask) * model.patches() as f64).round().max(1.0) as usize;
        Ok(Self {
            weights: cfg.weights(model.config().subspaces.len())?,
            schedule: cfg.schedule(),
            keeps: (kept < model.patches()).then_some(kept),
            masks: Key::root(model.config().seed).with_str("mask"),
            drops: Key::root(model.config().seed).with_str("drop"),
            cfg: cfg.clone(),
            model,
            adam,
            ema,
            progress,
        })
    }

    /// A training as [`Self::save_state`] left it, and the caller's notes. `config` and `cfg` must be
    /// those that it was started with: every one of their settings has its part in the final weights.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the file cannot be read; [`ModelError::Checkpoint`] when it is damaged,
    /// of another kind or format, or of a training with other settings, the first of which is named;
    /// [`ModelError::Config`] for settings that cannot work.
    pub fn resume(
        path: &Path,
        config: &ModelConfig,
        cfg: &TrainConfig,
        device: &Device,
    ) -> Result<(Self, BTreeMap<String, String>)> {
        let data = checkpoint::file::bytes(path)?;
        state::load(&data, config, cfg, device).map_err(checkpoint::file::at(path))
    }

    /// [`Self::resume`] from a file's bytes. They may be anything: what is allocated is at most a small
    /// multiple of their length.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub fn resume_from_bytes(
        data: &[u8],
        config: &ModelConfig,
        cfg: &TrainConfig,
        device: &Device,
    ) -> Result<(Self, BTreeMap<String, String>)> {
        state::load(data, config, cfg, device)
    }

    /// Keeps everything that going on needs in one file, with notes of the caller's: there is either the
    /// whole new file or what was there before, also after a loss of power. Equal states with equal notes
    /// are equal files. Returns the BLAKE3 digest of the file in hexadecimal.
    ///
    /// # Errors
    /// [`ModelError::Config`] before [`Self::fit`]; [`ModelError::Io`]; and [`ModelError::Checkpoint`]
    /// when the state cannot be written as safetensors.
    pub fn save_state(&self, path: &Path, notes: &BTreeMap<String, String>) -> Result<String> {
        self.ready()?;
        state::save(self, path, notes)
    }

    /// Saves the model for [`checkpoint::load`], as [`checkpoint::save`] does: the average of the weights
    /// with [`TrainConfig::ema`], else the weights. Returns the BLAKE3 digest of the file in hexadecimal.
    ///
    /// # Errors
    /// As [`checkpoint::save`].
    pub fn save_model(&self, path: &Path, notes: &BTreeMap<String, String>) -> Result<String> {
        match &self.ema {
            Some(ema) => checkpoint::save_with(&self.model, ema.weights(), path, notes),
            None => checkpoint::save(&self.model, path, notes),
        }
    }

    /// The model that [`Self::save_model`] would save.
    ///
    /// # Errors
    /// When the device fails.
    pub fn into_model(self) -> Result<Model> {
        if let Some(ema) = &self.ema {
            for ((_, parameter), values) in self.model.params().iter().zip(ema.weights()) {
                let var = &parameter.var;
                var.set(&Tensor::from_vec(values?, var.shape(), var.device())?)?;
            }
        }
        Ok(self.model)
    }

    /// The model with the weights that are being trained.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Steps done.
    pub fn steps(&self) -> usize {
        self.progress.steps
    }

    /// How many batches [`Self::fit`] asks for; 0 once it has had them, and after [`Self::resume`].
    pub fn needs_statistics(&self) -> usize {
        if self.progress.fitted { 0 } else { self.cfg.statistics_batches.min(self.cfg.steps) }
    }

    /// Fits the front end's statistics on the first batches; fewer than [`Self::needs_statistics`] will
    /// do when there are no more. They are then trained on like the others.
    ///
    /// # Errors
    /// [`ModelError::Data`] and [`ModelError::NotFinite`] for batches that do not fit the model, or when
    /// there is none; [`ModelError::Config`] when the statistics are fitted already.
    pub fn fit(&mut self, first: &[TrainBatch]) -> Result<()> {
        if self.progress.fitted {
            return Err(ModelError::Config("the statistics are fitted already".into()));
        }
        if first.is_empty() {
            return Err(ModelError::Data("there is no batch to train on".into()));
        }
        for (i, batch) in first.iter().enumerate() {
            check(&self.model, batch, i + 1)?;
        }
        let mels = self.model.config().front_end.mels;
        let features = first.iter().map(|batch| batch.features.as_slice());
        self.model.set_normaliser(Normaliser::fit(mels, features))?;
        self.progress.fitted = true;
        Ok(())
    }

    fn ready(&self) -> Result<()> {
        match self.progress.fitted {
            true => Ok(()),
            false => Err(ModelError::Config("the statistics of the front end are not fitted yet".into())),
        }
    }

    /// Trains on one batch. The metrics leave the time spent waiting for it at 0.
    ///
    /// # Errors
    /// [`ModelError::Data`] for a batch that does not fit the model; [`ModelError::NotFinite`],
    /// [`ModelError::NoPositives`] and [`ModelError::NoGradient`] as their names say;
    /// [`ModelError::Config`] before [`Self::fit`].
    pub fn step(&mut self, batch: TrainBatch) -> Result<StepMetrics> {
        let start = Instant::now();
        self.ready()?;
        let step = self.progress.steps.saturating_add(1);
        check(&self.model, &batch, step)?;
        let TrainBatch { features, views, groups, epoch } = batch;
        let (losses, weighted) = self.losses(features, views, &groups, step)?;
        let params = self.model.params();
        let total_weight: f64 = self.weights.iter().sum();
        let loss = losses.iter().zip(&self.weights).map(|(l, w)| l * w).sum::<f64>() / total_weight;
        if !loss.is_finite() {
            return Err(ModelError::NotFinite { what: culprit(params, None)?, step });
        }
        let grads = weighted.backward()?;
        let grad_norm = self.grad_norm(&grads, step)?;
        let lr = self.schedule.at(step);
        let clip = if grad_norm > self.cfg.clip { self.cfg.clip / grad_norm } else { 1.0 };
        self.adam.step(params, &grads, lr, clip)?;
        if let Some(ema) = &mut self.ema {
            ema.step(params, step)?;
        }
        self.progress = Progress { steps: step, checked: true, ..self.progress };
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

    /// The loss of each subspace, and their weighted mean with its graph.
    fn losses(
        &self,
        features: Vec<f32>,
        views: usize,
        groups: &[Vec<i64>],
        step: usize,
    ) -> Result<(Vec<f64>, Tensor)> {
        let kept = self.kept(self.model.patches(), views, step);
        let features = self.model.features(features, views)?;
        let noise = Noise { key: self.drops.with(step as u64), first: 0 };
        let embeddings = self.model.embed_for_training(&features, kept.as_ref(), noise)?;
        let total_weight: f64 = self.weights.iter().sum();
        let mut losses = Vec::with_capacity(embeddings.len());
        let mut weighted: Option<Tensor> = None;
        for (k, (embedding, groups)) in embeddings.iter().zip(groups).enumerate() {
            let z = self.model.project(k, embedding)?;
            let loss = match self.cfg.loss {
                LossKind::Contrastive => contrastive(&z, groups, self.cfg.temperature),
                LossKind::Reference => reference_loss(&z, groups, self.cfg.temperature),
            };
            let loss = loss.map_err(|error| match error {
                ModelError::NoPositives { .. } => {
                    let name = self.model.config().subspaces.get(k).map_or("", String::as_str);
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
        let weighted =
            weighted.ok_or_else(|| ModelError::Config("subspaces: at least one is needed".into()))?;
        Ok((losses, weighted))
    }

    /// The patches that each view keeps in this step, in order of time.
    pub(super) fn kept(&self, patches: usize, views: usize, step: usize) -> Option<Kept> {
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

    /// The norm of all gradients. In the first step each parameter must have one that is not zero.
    fn grad_norm(&self, grads: &GradStore, step: usize) -> Result<f64> {
        let params = self.model.params();
        let mut square = 0.0;
        for (name, parameter) in params.iter() {
            let own = grads.get(&parameter.var).map_or(Ok(0.0), norm)?;
            if own == 0.0 && !self.progress.checked {
                return Err(ModelError::NoGradient { parameter: name.to_owned() });
            }
            square += own * own;
        }
        if !square.is_finite() {
            return Err(ModelError::NotFinite { what: culprit(params, Some(grads))?, step });
        }
        Ok(square.sqrt())
    }
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
