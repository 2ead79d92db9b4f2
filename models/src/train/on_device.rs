//! A training whose steps the host does not wait for.
//!
//! The kernels of a step leave what a step reports (losses, the norm of the gradient, temperatures, and what of it is
//! not finite) in one record on the device. It is copied to the host behind the step, and looked at when the next
//! step has been asked for: so the device always has work, and the host is at most one step ahead.

use super::{StepMetrics, ema::Ema, objective::Objective, spec_mask::SpecMask};
use crate::{
    ModelError, Result, device,
    gpu::{
        loss::{Form, NOTED, Problem, numbered},
        mask,
        optim::{Optimiser, Slot, temperatures},
        tensor::address,
        upload::Uploads,
    },
    loss::Temperature,
    optim::AdamW,
    params::Params,
};
use candle_core::{Device, Shape, Tensor, backprop::GradStore};
use loev_ops::{
    gpu::{Buffer, Coming, Gpu, Pinned},
    rng::Key,
};
use std::time::{Duration, Instant};

/// The memory of the host that a step's uploads are copied from.
type Uploaded = (Vec<Pinned<u32>>, Vec<Pinned<f32>>);

/// What a training has on a GPU beside its tensors.
#[derive(Debug)]
pub(super) struct OnDevice {
    gpu: Gpu,
    words: Uploads<u32>,
    values: Uploads<f32>,
    optimiser: Optimiser,
    /// Addresses of learned temperatures.
    log_scales: Option<Buffer<u64>>,
    layout: Layout,
    record: Buffer<f64>,
    spare: Vec<Pinned<f64>>,
    /// The batch of the step that is being asked for.
    batch: usize,
    /// The mean of each band.
    mean: Option<Buffer<f32>>,
    pub pending: Option<Pending>,
    /// When the last step was seen to be done.
    mark: Option<Instant>,
}

/// A step that has been asked for.
#[derive(Debug)]
pub(super) struct Pending {
    /// What the host knows of it.
    pub metrics: StepMetrics,
    /// Whether all subspaces had positives.
    pub complete: bool,
    /// Its batches.
    pub batches: usize,
    pub start: Instant,
    /// Dropped before `uploads`: whoever has the record has done with them.
    pub coming: Coming<f64>,
    pub uploads: Uploaded,
}

/// Where in the record a step leaves what.
#[derive(Debug, Clone, Copy)]
struct Layout {
    params: usize,
    heads: usize,
    batches: usize,
}

impl Layout {
    fn batch(&self, batch: usize) -> usize {
        2 + self.params + batch * (1 + NOTED * self.heads)
    }

    fn head(&self, batch: usize, head: usize) -> usize {
        self.batch(batch) + 1 + NOTED * head
    }

    fn temperatures(&self) -> usize {
        self.batch(self.batches)
    }

    fn len(&self) -> usize {
        self.temperatures() + self.heads
    }
}

/// What a step left.
#[derive(Debug)]
pub(super) struct Record {
    layout: Layout,
    values: Pinned<f64>,
}

impl Record {
    pub fn norm(&self) -> f64 {
        self.values[0]
    }

    /// The sum of squares of each parameter's gradient.
    pub fn squares(&self) -> &[f64] {
        &self.values[2..2 + self.layout.params]
    }

    /// The first view of a batch that is not finite.
    pub fn fault(&self, batch: usize) -> Option<usize> {
        (self.values[self.layout.batch(batch)] as usize).checked_sub(1)
    }

    /// The loss of a subspace, and whether its projections are finite.
    pub fn loss(&self, batch: usize, head: usize) -> (f64, bool) {
        let at = self.layout.head(batch, head);
        (self.values[at], self.values[at + 1].is_finite())
    }

    pub fn temperatures(&self) -> &[f64] {
        &self.values[self.layout.temperatures()..]
    }
}

impl OnDevice {
    /// For a training whose moments and averages are tensors of the device.
    ///
    /// # Errors
    /// [`ModelError::Gpu`], and [`ModelError::Tensor`] for tensors that are elsewhere.
    pub fn new(
        gpu: Gpu,
        params: &Params,
        adam: &AdamW,
        ema: Option<&Ema>,
        objective: &Objective,
        [heads, batches]: [usize; 2],
    ) -> Result<Self> {
        let elsewhere = || ModelError::Device("the optimiser's state is not on the device".into());
        let averages: Vec<u64> = match ema {
            Some(ema) => ema
                .on_device()
                .map(|mean| Ok(address::<f64>(mean.ok_or_else(elsewhere)?)?))
                .collect::<Result<_>>()?,
            None => vec![0; params.iter().len()],
        };
        let slots =
            params.iter().zip(adam.on_device()).zip(averages).map(|(((name, p), moments), average)| {
                let (mean, square) = moments.ok_or_else(elsewhere)?;
                let [low, high] = objective.within(name).unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
                Ok(Slot {
                    weights: address::<f32>(&p.var)?,
                    mean: address::<f32>(mean)?,
                    square: address::<f32>(square)?,
                    average,
                    len: p.var.elem_count() as u64,
                    within: [low as f32, high as f32],
                })
            });
        let optimiser = Optimiser::new(&gpu, &slots.collect::<Result<Vec<_>>>()?)?;
        let log_scales = objective.specs().filter_map(|spec| params.parameter(&spec.name));
        let log_scales = log_scales.map(|p| Ok(address::<f32>(&p.var)?)).collect::<Result<Vec<_>>>()?;
        let layout = Layout { params: optimiser.noted() - 2, heads, batches };
        Ok(Self {
            words: Uploads::new(&gpu),
            values: Uploads::new(&gpu),
            optimiser,
            log_scales: if log_scales.is_empty() { None } else { Some(gpu.upload(&log_scales)?) },
            layout,
            record: gpu.memory(layout.len())?,
            gpu,
            spare: Vec::new(),
            batch: 0,
            mean: None,
            pending: None,
            mark: None,
        })
    }

    fn at(&self, place: usize) -> u64 {
        self.record.address() + (place * size_of::<f64>()) as u64
    }

    /// Begins a step.
    pub fn begin(&mut self) -> Result<()> {
        self.gpu.clear(&self.record)?;
        if let Some(log_scales) = &self.log_scales {
            temperatures(&self.gpu, log_scales, self.at(self.layout.temperatures()))?;
        }
        Ok(())
    }

    /// Looks at, and masks, the features `[views, frames, mels]` of a step's batch.
    pub fn features(
        &mut self,
        batch: usize,
        features: &Tensor,
        masks: &SpecMask,
        mean: &[f32],
        key: Key,
    ) -> Result<()> {
        self.batch = batch;
        let (views, frames, mels) = features.dims3()?;
        let values = address::<f32>(features)?;
        mask::first_fault(&self.gpu, values, [views, frames * mels], self.at(self.layout.batch(batch)))?;
        let Some(ranges) = masks.ranges(views, [frames, mels], key) else { return Ok(()) };
        if self.mean.is_none() {
            self.mean = Some(self.gpu.upload(mean)?);
        }
        let words = self.words.put(&ranges.words)?;
        if let Some(mean) = &self.mean {
            mask::mask(&self.gpu, values, [views, frames], mean, &ranges, &words)?;
        }
        Ok(())
    }

    /// The loss of a subspace of the batch at hand, which goes into the record too.
    pub fn loss(
        &mut self,
        head: usize,
        z: &Tensor,
        groups: &[i64],
        temperature: Temperature<'_>,
        (form, anchors): (Form, usize),
    ) -> Result<Tensor> {
        if anchors == 0 {
            return Err(ModelError::NoPositives { head: "the batch".into() });
        }
        let groups = self.words.put(&numbered(groups))?;
        let noted = self.at(self.layout.head(self.batch, head));
        Problem { gpu: &self.gpu, groups: &groups, form, anchors, noted }.loss(z, temperature)
    }

    /// The features of a step's batch, which were looked at and masked on the host, as a tensor of `device`.
    pub fn sent(&mut self, batch: usize, values: &[f32], shape: Shape, device: &Device) -> Result<Tensor> {
        self.batch = batch;
        device::tensor(&self.gpu, self.values.put(values)?, shape, device)
    }

    /// Asks for the update by `share` times these gradients, clipped to `limit`, and for the record.
    pub fn update(
        &mut self,
        params: &Params,
        grads: &GradStore,
        adam: &mut AdamW,
        [lr, drift]: [f64; 2],
        [limit, share]: [f64; 2],
    ) -> Result<Coming<f64>> {
        let (mut turns, mut shared) = adam.turns(params, lr);
        shared.drift = drift;
        let mut dense = Vec::with_capacity(turns.len());
        for ((_, parameter), turn) in params.iter().zip(&mut turns) {
            if let Some(grad) = grads.get(&parameter.var) {
                let grad = grad.contiguous()?;
                turn.gradient = address::<f32>(&grad)?;
                dense.push(grad);
            }
        }
        let words: Vec<u32> = turns.iter().flat_map(|turn| turn.words()).collect();
        let turns = self.words.put(&words)?;
        let norm = self.at(0);
        self.optimiser.norm(&turns, limit, share, norm)?;
        self.optimiser.step(&turns, &shared, norm)?;
        let to = match self.spare.pop() {
            Some(memory) => memory,
            None => self.gpu.pinned(self.layout.len())?,
        };
        Ok(self.gpu.fetch(&self.record, to)?)
    }

    /// The memory of the uploads of a step that has been asked for.
    pub fn uploads(&mut self) -> Uploaded {
        (self.words.take(), self.values.take())
    }

    /// Waits for a step. `waited` is how long its successor was waited for meanwhile. Gives its metrics as far as
    /// the host knew them, and its record.
    pub fn wait(&mut self, pending: Pending, waited: Duration) -> Result<(StepMetrics, Record)> {
        let Pending { mut metrics, start, coming, uploads, .. } = pending;
        let values = coming.wait(&self.gpu)?;
        let (words, floats) = uploads;
        self.words.give_back(words);
        self.values.give_back(floats);
        let now = Instant::now();
        let since = self.mark.map_or(start, |mark| mark.max(start));
        metrics.step_seconds = now.duration_since(since).saturating_sub(waited).as_secs_f64();
        self.mark = Some(now);
        Ok((metrics, Record { layout: self.layout, values }))
    }

    /// Takes back what [`Self::wait`] gave.
    pub fn keep(&mut self, record: Record) {
        self.spare.push(record.values);
    }
}
