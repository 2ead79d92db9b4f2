//! The steps of a training, on the CPU and on a GPU.

use super::{Progress, Training};
use crate::{
    Model, ModelError, Result,
    encoder::{Noise, Pass, tokens::Kept},
    loss::has_positives,
    optim::norm,
    train::{
        Features, StepMetrics, TrainBatch,
        objective::culprit,
        on_device::{OnDevice, Pending},
    },
};
use candle_core::{DType, backprop::GradStore};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The gradients of a step's batches, and what the host knows of them.
struct Gathered {
    grads: GradStore,
    losses: Vec<f64>,
    floors: Vec<f64>,
    views: usize,
    epoch: u32,
    batches: usize,
    /// Of a batch in the step.
    share: f64,
    /// Whether all subspaces had positives.
    complete: bool,
}

impl Training {
    /// Trains on one batch: [`Self::step_on`] of a training with [`crate::train::TrainConfig::accumulate`] 1.
    ///
    /// # Errors
    /// As [`Self::step_on`].
    pub fn step(&mut self, batch: TrainBatch) -> Result<StepMetrics> {
        match self.cfg.accumulate {
            1 => self.step_on(vec![batch]),
            n => Err(ModelError::Config(format!("accumulate: a step takes {n} batches, not one"))),
        }
    }

    /// One step of the optimiser by the mean gradient of [`crate::train::TrainConfig::accumulate`] batches; fewer are for
    /// the end of the data. The metrics leave the time spent waiting for them at 0.
    ///
    /// # Errors
    /// [`ModelError::Data`] for batches that do not fit the model, or none or too many of them;
    /// [`ModelError::NotFinite`], [`ModelError::NoPositives`] and [`ModelError::NoGradient`] as their names say;
    /// [`ModelError::Config`] before [`Self::fit`], after another error, and before [`Self::settle`].
    pub fn step_on(&mut self, batches: Vec<TrainBatch>) -> Result<StepMetrics> {
        self.settled()?;
        let now = self.submit(batches, Duration::ZERO)?;
        let later = self.settle()?;
        now.or(later).ok_or_else(|| ModelError::Config("a step without an end".into()))
    }

    /// [`Self::step_on`] for which the caller waited so long for batches, but the host does not wait for a GPU: the
    /// metrics, and errors of numbers, are those of the step before, of which there is none the first time. They say
    /// which step they are of. The time of such a step is that from the end of one to the end of the next, without
    /// the waiting, so that the sum over all steps is what passed. On the CPU they are those of this step.
    ///
    /// # Errors
    /// As [`Self::step_on`].
    pub fn submit(&mut self, batches: Vec<TrainBatch>, waited: Duration) -> Result<Option<StepMetrics>> {
        self.ready()?;
        self.failed = true;
        let metrics = match self.on_device.take() {
            None => Some(self.try_step(batches, waited)?),
            Some(mut device) => {
                let metrics = self.ask(&mut device, batches, waited);
                self.on_device = Some(device);
                metrics?
            }
        };
        self.failed = false;
        Ok(metrics)
    }

    /// Waits for the step that [`Self::submit`] asked for last, and gives its metrics if it has not yet.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] and [`ModelError::NoGradient`] of that step; [`ModelError::Gpu`].
    pub fn settle(&mut self) -> Result<Option<StepMetrics>> {
        let Some(mut device) = self.on_device.take() else { return Ok(None) };
        let failed = std::mem::replace(&mut self.failed, true);
        let metrics = match device.pending.take() {
            Some(pending) => self.complete(&mut device, pending, Duration::ZERO).map(Some),
            None => Ok(None),
        };
        self.on_device = Some(device);
        let metrics = metrics?;
        self.failed = failed;
        Ok(metrics)
    }

    pub(super) fn settled(&self) -> Result<()> {
        match &self.on_device {
            Some(OnDevice { pending: Some(_), .. }) => {
                Err(ModelError::Config("the last step of this training is not settled".into()))
            }
            _ => Ok(()),
        }
    }

    fn try_step(&mut self, batches: Vec<TrainBatch>, waited: Duration) -> Result<StepMetrics> {
        let start = Instant::now();
        let step = self.progress.steps.saturating_add(1);
        let temperatures = self.objective.temperatures(&self.params)?;
        let Gathered { grads, losses, floors, views, epoch, share, complete, .. } =
            self.gather(None, batches, step)?;
        let grad_norm = self.grad_norm(&grads, step, complete)? * share;
        let lr = self.schedule.at(step);
        let clip = if grad_norm > self.cfg.clip { self.cfg.clip / grad_norm } else { 1.0 };
        self.adam.step(&self.params, &grads, lr, clip * share)?;
        self.objective.clamp(&self.params)?;
        if let Some(ema) = &mut self.ema {
            ema.step(&self.params, step)?;
        }
        let checked = self.progress.checked || complete;
        self.progress = Progress { steps: step, checked, ..self.progress };
        Ok(StepMetrics {
            step,
            epoch,
            lr,
            loss: self.objective.mean(&losses),
            head_losses: losses,
            head_floors: floors,
            temperatures,
            grad_norm,
            views,
            wait_seconds: waited.as_secs_f64(),
            step_seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Asks the device for a step, then waits for the one before and gives its metrics.
    fn ask(
        &mut self,
        device: &mut OnDevice,
        batches: Vec<TrainBatch>,
        waited: Duration,
    ) -> Result<Option<StepMetrics>> {
        let start = Instant::now();
        let step = self.progress.steps.saturating_add(1);
        device.begin()?;
        let Gathered { grads, losses, floors, views, epoch, batches, share, complete } =
            self.gather(Some(device), batches, step)?;
        let lr = self.schedule.at(step);
        let drift = self.ema.as_ref().map_or(0.0, |ema| ema.share(step));
        let coming =
            device.update(&self.params, &grads, &mut self.adam, [lr, drift], [self.cfg.clip, share])?;
        self.progress.steps = step;
        let metrics = StepMetrics {
            step,
            epoch,
            lr,
            loss: 0.0,
            head_losses: losses,
            head_floors: floors,
            temperatures: self.objective.starts().to_vec(),
            grad_norm: 0.0,
            views,
            wait_seconds: waited.as_secs_f64(),
            step_seconds: 0.0,
        };
        let uploads = device.uploads();
        let pending = Pending { metrics, complete, batches, start, coming, uploads };
        match device.pending.replace(pending) {
            Some(before) => self.complete(device, before, waited).map(Some),
            None => Ok(None),
        }
    }

    /// The metrics of a step that the device has been asked for, or its error, in the order in which the CPU finds
    /// them. A step whose gradient is not finite has moved nothing.
    fn complete(&mut self, device: &mut OnDevice, pending: Pending, waited: Duration) -> Result<StepMetrics> {
        let (batches, complete) = (pending.batches, pending.complete);
        let (mut metrics, record) = device.wait(pending, waited)?;
        let step = metrics.step;
        for batch in 0..batches {
            if let Some(view) = record.fault(batch) {
                return Err(ModelError::NotFinite { what: format!("a feature of view {view}"), step });
            }
            for (head, sum) in metrics.head_losses.iter_mut().enumerate() {
                let (loss, projections) = record.loss(batch, head);
                if !loss.is_finite() {
                    return Err(self.objective.not_finite(&self.params, head, projections, step)?);
                }
                *sum += loss / batches as f64;
            }
        }
        let squares = || self.params.iter().zip(record.squares());
        let unmoved = squares().find(|(_, square)| **square == 0.0);
        if let (Some(((name, _), _)), true, false) = (unmoved, complete, self.progress.checked) {
            return Err(ModelError::NoGradient { parameter: name.to_owned() });
        }
        if !record.norm().is_finite() {
            let infinite = squares().find(|(_, square)| !square.is_finite());
            let what = match (culprit(&self.params, None)?, infinite) {
                (Some(parameter), _) => parameter,
                (None, Some(((name, _), _))) => format!("the gradient of {name}"),
                (None, None) => "the norm of the gradient".into(),
            };
            return Err(ModelError::NotFinite { what, step });
        }
        self.progress.checked |= complete;
        metrics.loss = self.objective.mean(&metrics.head_losses);
        metrics.grad_norm = record.norm();
        if self.objective.specs().next().is_some() {
            metrics.temperatures = record.temperatures().to_vec();
        }
        device.keep(record);
        Ok(metrics)
    }

    /// The gradients of the batches of a step together.
    fn gather(
        &self,
        mut device: Option<&mut OnDevice>,
        batches: Vec<TrainBatch>,
        step: usize,
    ) -> Result<Gathered> {
        let count = batches.len();
        if !(1..=self.cfg.accumulate).contains(&count) {
            let fault = format!("step {step}: {count} batches where {} are a step", self.cfg.accumulate);
            return Err(ModelError::Data(fault));
        }
        let share = 1.0 / count as f64;
        let heads = self.model.config().subspaces.len();
        let (mut losses, mut floors) = (vec![0.0; heads], vec![0.0; heads]);
        let mut sum: Option<GradStore> = None;
        let (mut views, mut epoch) = (0, None);
        // Of a subspace without positives nothing can have a gradient.
        let mut complete = vec![false; heads];
        for (i, batch) in batches.into_iter().enumerate() {
            check(&self.model, &batch, step)?;
            views += batch.views;
            epoch.get_or_insert(batch.epoch);
            for (k, groups) in batch.groups.iter().enumerate() {
                floors[k] += self.objective.floor(groups) * share;
                complete[k] |= has_positives(groups);
            }
            let (own, grads) = self.gradients(device.as_deref_mut(), batch, i, step)?;
            losses.iter_mut().zip(own).for_each(|(sum, own)| *sum += own * share);
            match &mut sum {
                None => sum = Some(grads),
                Some(sum) => sum.extend(grads)?,
            }
        }
        let Some(grads) = sum else { return Err(ModelError::Data("there is no batch to train on".into())) };
        let (complete, epoch) = (complete.iter().all(|&complete| complete), epoch.unwrap_or_default());
        Ok(Gathered { grads, losses, floors, views, epoch, batches: count, share, complete })
    }

    /// The loss of each subspace on batch `i` of a step, counted from 0, and the gradients.
    fn gradients(
        &self,
        mut device: Option<&mut OnDevice>,
        batch: TrainBatch,
        i: usize,
        step: usize,
    ) -> Result<(Vec<f64>, GradStore)> {
        let TrainBatch { features, views, groups, .. } = batch;
        let frames = self.model.config().frames;
        // Batches are counted from 1.
        let number = (step - 1).saturating_mul(self.cfg.accumulate).saturating_add(i + 1);
        let masks = self.spec_masks.with(number as u64);
        let mean = &self.model.normaliser().mean;
        let features = match (features, &mut device) {
            (Features::Device(features), Some(device)) => {
                let features =
                    features.to_dtype(DType::F32)?.contiguous()?.reshape((views, frames, mean.len()))?;
                device.features(i, &features, &self.cfg.spec_mask, mean, masks)?;
                features
            }
            (features, device) => {
                let mut features = match features {
                    Features::Host(values) => values,
                    rendered => rendered.host()?.into_owned(),
                };
                finite(&features, views, step)?;
                self.cfg.spec_mask.apply(&mut features, frames, mean, masks);
                match device {
                    Some(device) => {
                        let shape = (views, frames, mean.len()).into();
                        device.sent(i, &features, shape, self.model.device())?
                    }
                    None => self.model.features(features, views)?,
                }
            }
        };
        let kept = self.kept(self.model.patches(), views, number);
        let noise = Noise { key: self.noise.with(number as u64), first: 0 };
        let pass = Pass { graph: true, kept: kept.as_ref(), noise: Some(noise), ..Pass::default() };
        self.objective.gradients(device, &self.model, &self.params, &features, pass, &groups, step)
    }

    /// The patches that each view keeps in batch `number`, in order of time.
    pub(in crate::train) fn kept(&self, patches: usize, views: usize, number: usize) -> Option<Kept> {
        let per_view = self.keeps?;
        let key = self.masks.with(number as u64);
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

    /// The norm of all gradients. In the first step in which all subspaces have positives, each parameter
    /// must have one that is not zero.
    fn grad_norm(&self, grads: &GradStore, step: usize, complete: bool) -> Result<f64> {
        let params = &self.params;
        let mut square = 0.0;
        for (name, parameter) in params.iter() {
            let own = grads.get(&parameter.var).map_or(Ok(0.0), norm)?;
            if own == 0.0 && complete && !self.progress.checked {
                return Err(ModelError::NoGradient { parameter: name.to_owned() });
            }
            square += own * own;
        }
        if !square.is_finite() {
            let what = culprit(params, Some(grads))?.unwrap_or_else(|| "the norm of the gradient".into());
            return Err(ModelError::NotFinite { what, step });
        }
        Ok(square.sqrt())
    }
}

/// Whether a batch fits the model.
pub(super) fn check(model: &Model, batch: &TrainBatch, step: usize) -> Result<()> {
    let config = model.config();
    let (values, heads) = (config.frames * config.front_end.mels, config.subspaces.len());
    let fault = |message: String| Err(ModelError::Data(format!("step {step}: {message}")));
    if batch.views == 0 {
        return fault("a batch without views".into());
    }
    if batch.features.len() != batch.views * values {
        return fault(format!("{} values are not {} views of {values}", batch.features.len(), batch.views));
    }
    if batch.groups.len() != heads {
        return fault(format!("group ids for {} subspaces, the model has {heads}", batch.groups.len()));
    }
    if let Some(groups) = batch.groups.iter().find(|groups| groups.len() != batch.views) {
        return fault(format!("{} group ids for {} views", groups.len(), batch.views));
    }
    Ok(())
}

/// Whether the features of all views are finite.
pub(super) fn finite(features: &[f32], views: usize, step: usize) -> Result<()> {
    let values = (features.len() / views.max(1)).max(1);
    // A sum is finite only if all its terms are, and is faster to take than to look at each.
    for (view, features) in features.chunks_exact(values).enumerate() {
        let sum: f64 = features.chunks(16).map(|x| f64::from(x.iter().sum::<f32>())).sum();
        if !sum.is_finite() {
            return Err(ModelError::NotFinite { what: format!("a feature of view {view}"), step });
        }
    }
    Ok(())
}
