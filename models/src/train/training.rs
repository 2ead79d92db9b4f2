//! One training: how it begins, what it keeps, what it becomes.

mod step;

use super::{
    TrainBatch, TrainConfig,
    ema::Ema,
    objective::{Objective, culprit},
    on_device::OnDevice,
    state,
};
use crate::{
    Model, ModelConfig, ModelError, Result, checkpoint, device,
    encoder::tokens::{Moments, Normaliser},
    loss::has_positives,
    optim::{AdamW, AdamWConfig, Schedule},
    params::Params,
};
use candle_core::{DType, Device, Tensor};
use garde::Validate;
use loev_ops::{gpu::Gpu, rng::Key};
use std::{collections::BTreeMap, path::Path};
use step::{check, finite};

/// A model in training: its weights, their average, the optimiser and the number of steps done.
///
/// [`Self::fit`] comes first, then one [`Self::step`] per batch; the caller stops after
/// [`TrainConfig::steps`]. Between two steps [`Self::save_state`] keeps all of it, and [`Self::resume`]
/// goes on from there. No random number is drawn from a generator that a state would have to hold: the
/// patches that a view drops are keyed by the model's seed and the step. Nothing of the batches is kept
/// either; where to go on in the data is for the caller's notes to say. After an error of a step the
/// training is of no further use.
///
/// On a GPU the host need not wait for a step: [`Self::submit`] asks for one and gives the metrics, or the
/// error, of the one before; [`Self::settle`] gives those of the last.
#[derive(Debug)]
pub struct Training {
    pub(super) model: Model,
    pub(super) cfg: TrainConfig,
    pub(super) adam: AdamW,
    pub(super) ema: Option<Ema>,
    pub(super) progress: Progress,
    /// What is trained: the model's parameters and those of the loss.
    pub(super) params: Params,
    objective: Objective,
    schedule: Schedule,
    /// Patches that a view keeps, when it drops some.
    keeps: Option<usize>,
    masks: Key,
    /// What the encoder's own random choices are drawn from.
    noise: Key,
    spec_masks: Key,
    /// What does its steps on a GPU.
    on_device: Option<OnDevice>,
    /// Whether a step has ended in an error.
    failed: bool,
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
        cfg.fits(model.config())?;
        let objective = Objective::new(cfg, model.config())?;
        let params = model.params().and(objective.params(device, DType::F32)?);
        let adam = AdamW::new(optimiser(cfg), &params)?;
        let ema = if cfg.ema > 0.0 { Some(Ema::new(cfg.ema, &params)?) } else { None };
        let gpu = device::gpu(device)?;
        Self::of(model, params, objective, cfg, adam, ema, Progress::default()).on(gpu)
    }

    /// The training with its steps done by a GPU, if there is one.
    pub(super) fn on(mut self, gpu: Option<Gpu>) -> Result<Self> {
        if let Some(gpu) = gpu {
            let Self { params, adam, ema, objective, .. } = &self;
            let size = [self.model.config().subspaces.len(), self.cfg.accumulate];
            self.on_device = Some(OnDevice::new(gpu, params, adam, ema.as_ref(), objective, size)?);
        }
        Ok(self)
    }

    /// A training on the CPU with its steps done by kernels on the mirror of a GPU.
    #[cfg(test)]
    pub(super) fn mirrored(self) -> Result<Self> {
        let (adam, ema) = (self.adam.into_tensors(&self.params)?, self.ema);
        let ema = ema.map(|ema| ema.into_tensors(&self.params)).transpose()?;
        Self { adam, ema, ..self }.on(Some(Gpu::mirror()?))
    }

    pub(super) fn of(
        mut model: Model,
        params: Params,
        objective: Objective,
        cfg: &TrainConfig,
        adam: AdamW,
        ema: Option<Ema>,
        progress: Progress,
    ) -> Self {
        model.set_precision(cfg.precision);
        let kept = ((1.0 - cfg.mask) * model.patches() as f64).round().max(1.0) as usize;
        let rate = |name: &str| match cfg.layer_decay {
            1.0 => 1.0,
            _ if model.params().parameter(name).is_none() => 1.0,
            decay => decay.powi(i32::try_from(model.depth_from_top(name)).unwrap_or(i32::MAX)),
        };
        let adam = adam.with_rates(params.iter().map(|(name, _)| rate(name)).collect());
        let key = Key::root(model.config().seed);
        Self {
            objective,
            schedule: cfg.schedule(),
            keeps: (kept < model.patches()).then_some(kept),
            masks: key.with_str("mask"),
            noise: key.with_str("noise"),
            spec_masks: key.with_str("spec_mask"),
            cfg: cfg.clone(),
            model,
            params,
            adam,
            ema,
            progress,
            on_device: None,
            failed: false,
        }
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
    /// [`ModelError::Config`] before [`Self::fit`], after an error of a step and before [`Self::settle`];
    /// [`ModelError::NotFinite`] with the name of the first parameter that is not finite; [`ModelError::Io`]; and
    /// [`ModelError::Checkpoint`] when the state cannot be written as safetensors.
    pub fn save_state(&self, path: &Path, notes: &BTreeMap<String, String>) -> Result<String> {
        self.ready()?;
        self.sound()?;
        state::save(self, path, notes)
    }

    /// Saves the model for [`checkpoint::load`], as [`checkpoint::save`] does: the average of the weights
    /// with [`TrainConfig::ema`], else the weights. Returns the BLAKE3 digest of the file in hexadecimal.
    ///
    /// # Errors
    /// As [`checkpoint::save`]; [`ModelError::NotFinite`] with the name of the first parameter that is not
    /// finite; [`ModelError::Config`] after an error of a step.
    pub fn save_model(&self, path: &Path, notes: &BTreeMap<String, String>) -> Result<String> {
        self.sound()?;
        match &self.ema {
            Some(ema) => {
                let own = self.params.iter().zip(ema.weights());
                let own = own.filter(|((name, _), _)| self.model.params().parameter(name).is_some());
                checkpoint::save_with(&self.model, own.map(|(_, weights)| weights), path, notes)
            }
            None => checkpoint::save(&self.model, path, notes),
        }
    }

    /// The model that [`Self::save_model`] would save.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] and [`ModelError::Config`] as [`Self::save_model`]; and when the device
    /// fails.
    pub fn into_model(mut self) -> Result<Model> {
        self.settle()?;
        self.sound()?;
        if let Some(ema) = &self.ema {
            for ((_, parameter), values) in self.params.iter().zip(ema.weights()) {
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

    /// Batches that these steps took, which is also where to go on in the data.
    pub fn batches(&self) -> usize {
        self.progress.steps.saturating_mul(self.cfg.accumulate)
    }

    /// How many batches [`Self::fit`] asks for; 0 once it has had them, and after [`Self::resume`].
    pub fn needs_statistics(&self) -> usize {
        if self.progress.fitted { 0 } else { self.cfg.statistics_batches.min(self.cfg.batches()) }
    }

    /// Fits the front end's statistics on the first batches; fewer than [`Self::needs_statistics`] will
    /// do when there are no more. They are then trained on like the others.
    ///
    /// # Errors
    /// [`ModelError::Data`] and [`ModelError::NotFinite`] for batches that do not fit the model, or when
    /// there is none; [`ModelError::NoPositives`] for a subspace that the reference formula finds without
    /// positives in all of them; [`ModelError::NoNegatives`] for one whose views all belong together in all of
    /// them; [`ModelError::Config`] when the statistics are fitted already.
    pub fn fit(&mut self, first: &[TrainBatch]) -> Result<()> {
        if self.progress.fitted {
            return Err(ModelError::Config("the statistics are fitted already".into()));
        }
        if first.is_empty() {
            return Err(ModelError::Data("there is no batch to train on".into()));
        }
        let mut moments = Moments::new(self.model.config().front_end.mels);
        for (i, batch) in first.iter().enumerate() {
            check(&self.model, batch, i + 1)?;
            let features = batch.features.host()?;
            finite(&features, batch.views, i + 1)?;
            moments.add(&features);
        }
        // A batch may lack positives or negatives by chance (clips that could not be read); all of them do by rule.
        for (k, name) in self.model.config().subspaces.iter().enumerate() {
            let one = |groups: &Vec<i64>| groups.iter().all(|group| Some(group) == groups.first());
            if first.iter().all(|batch| batch.groups.get(k).is_some_and(one)) {
                let head = format!("subspace {name} in any of the first {} batches", first.len());
                return Err(ModelError::NoNegatives { head });
            }
            let lacks = |batch: &TrainBatch| !batch.groups.get(k).is_some_and(|groups| has_positives(groups));
            if self.objective.allows_empty() && first.iter().all(lacks) {
                let head = format!("subspace {name} in any of the first {} batches", first.len());
                return Err(ModelError::NoPositives { head });
            }
        }
        self.model.set_normaliser(moments.normaliser())?;
        self.progress.fitted = true;
        Ok(())
    }

    /// Normalises by statistics that were fitted elsewhere, in place of [`Self::fit`].
    ///
    /// # Errors
    /// [`ModelError::Data`] when they do not fit the model's bands; [`ModelError::Config`] when the statistics are
    /// fitted already.
    pub fn normalise_by(&mut self, normaliser: Normaliser) -> Result<()> {
        if self.progress.fitted {
            return Err(ModelError::Config("the statistics are fitted already".into()));
        }
        self.model.set_normaliser(normaliser)?;
        self.progress.fitted = true;
        Ok(())
    }

    fn ready(&self) -> Result<()> {
        match (self.progress.fitted, self.failed) {
            (true, false) => Ok(()),
            (false, _) => {
                Err(ModelError::Config("the statistics of the front end are not fitted yet".into()))
            }
            (_, true) => Err(ModelError::Config("an earlier step of this training failed".into())),
        }
    }

    /// Whether what was trained may be kept.
    fn sound(&self) -> Result<()> {
        if self.failed {
            return Err(ModelError::Config("a step of this training failed: nothing of it is kept".into()));
        }
        self.settled()?;
        match culprit(&self.params, None)? {
            Some(what) => Err(ModelError::NotFinite { what, step: self.progress.steps }),
            None => Ok(()),
        }
    }
}
