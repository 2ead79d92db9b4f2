//! What a batch's gradients are gradients of: the weighted mean of one contrastive loss per subspace.
//!
//! With [`TrainConfig::micro_batch`] they are taken in the way of GradCache (Gao et al., arXiv
//! 2101.06983). The loss needs the projections of the whole batch, but it is cheap; the encoder is not,
//! and never looks from one view to another. So all views are embedded piece by piece without a graph;
//! the loss gives the gradient of each projection; and each piece goes through the encoder again, now with
//! its graph, to which those gradients are handed. The sum over pieces is the gradient of the whole batch.

use super::{LossKind, TrainConfig, on_device::OnDevice};
use crate::{
    Method, Model, ModelConfig, ModelError, Result,
    encoder::Pass,
    gpu::loss::Form,
    layers::init::Init,
    loss::{
        Temperature, anchors, contrastive, excluding_positives, floor, has_positives, reference_floor,
        reference_loss,
    },
    optim::norm,
    params::{Params, Spec},
};
use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};

/// What a learned temperature is kept within.
const LEARNED: (f64, f64) = (0.01, 1.0);

/// The loss of a training, but for its learned temperatures.
#[derive(Debug, Clone)]
pub(super) struct Objective {
    kind: LossKind,
    excluding: bool,
    subspaces: Vec<String>,
    /// Weight of each subspace's loss.
    weights: Vec<f64>,
    /// Where learned temperatures start, else what they are.
    temperatures: Vec<f64>,
    learned: bool,
    micro_batch: usize,
}

impl Objective {
    pub fn new(cfg: &TrainConfig, model: &ModelConfig) -> Result<Self> {
        let heads = model.subspaces.len();
        let one_each = |name: &str, given: &[f64], otherwise: f64| match given.len() {
            0 => Ok(vec![otherwise; heads]),
            n if n == heads => Ok(given.to_vec()),
            n => Err(ModelError::Config(format!("{name}: {n} values for {heads} subspaces"))),
        };
        let kind = if model.method == Method::LoevReference { LossKind::Reference } else { cfg.loss };
        if cfg.exclude_positives && kind == LossKind::Reference {
            let message = "exclude_positives: the reference formula has positives in its denominator";
            return Err(ModelError::Config(message.into()));
        }
        let temperatures = one_each("temperatures", &cfg.temperatures, cfg.temperature)?;
        let within = |t: &f64| (LEARNED.0..=LEARNED.1).contains(t);
        if cfg.learn_temperature && !temperatures.iter().all(within) {
            let (low, high) = LEARNED;
            let message = format!("learn_temperature: a temperature must start within {low}..{high}");
            return Err(ModelError::Config(message));
        }
        Ok(Self {
            kind,
            excluding: cfg.exclude_positives,
            subspaces: model.subspaces.clone(),
            weights: one_each("head_weights", &cfg.head_weights, 1.0)?,
            temperatures,
            learned: cfg.learn_temperature,
            micro_batch: cfg.micro_batch,
        })
    }

    /// What the loss learns: of each subspace the logarithm of one over the temperature.
    pub fn specs(&self) -> impl Iterator<Item = Spec> + use<> {
        let learned = if self.learned { self.subspaces.len() } else { 0 };
        (0..learned).map(|k| Spec {
            name: format!("temperature.{k}"),
            shape: vec![1],
            init: Init::Zeros,
            decay: false,
        })
    }

    /// The parameters of [`Self::specs`] before the first step.
    pub fn params(&self, device: &Device, dtype: DType) -> Result<Params> {
        let mut starts = self.temperatures.iter().map(|t| -t.ln());
        Params::with_values(self.specs(), device, |_| {
            Ok(Tensor::new(&[starts.next().unwrap_or_default()], &Device::Cpu)?.to_dtype(dtype)?)
        })
    }

    /// Where learned temperatures start, else what they are.
    pub fn starts(&self) -> &[f64] {
        &self.temperatures
    }

    /// The temperature of each subspace.
    pub fn temperatures(&self, params: &Params) -> Result<Vec<f64>> {
        if !self.learned {
            return Ok(self.temperatures.clone());
        }
        let heads = 0..self.subspaces.len();
        heads.map(|k| Temperature::Learned(&params.get(&format!("temperature.{k}"))?).value()).collect()
    }

    /// What the values of a parameter are kept within, where they are.
    pub fn within(&self, name: &str) -> Option<[f64; 2]> {
        self.specs().any(|spec| spec.name == name).then(|| [-LEARNED.1.ln(), -LEARNED.0.ln()])
    }

    /// Puts learned temperatures that a step has moved too far back into their range.
    pub fn clamp(&self, params: &Params) -> Result<()> {
        for Spec { name, .. } in self.specs() {
            let Some([low, high]) = self.within(&name) else { continue };
            let Some(parameter) = params.parameter(&name) else { continue };
            parameter.var.set(&parameter.var.as_detached_tensor().clamp(low, high)?)?;
        }
        Ok(())
    }

    /// The least that the loss of a subspace can be.
    pub fn floor(&self, groups: &[i64]) -> f64 {
        match self.kind {
            LossKind::Reference => reference_floor(groups),
            LossKind::Contrastive if self.excluding => 0.0,
            LossKind::Contrastive => floor(groups),
        }
    }

    /// The formula, as the device has it, and over how many views it is the mean for these groups.
    pub fn form(&self, groups: &[i64]) -> (Form, usize) {
        match self.kind {
            LossKind::Reference => (Form::Reference, groups.len()),
            LossKind::Contrastive if self.excluding => (Form::Excluding, anchors(groups)),
            LossKind::Contrastive => (Form::Contrastive, anchors(groups)),
        }
    }

    /// Whether a subspace may be without positives in a step, where its loss then is 0.
    pub fn allows_empty(&self) -> bool {
        self.kind == LossKind::Reference
    }

    /// The weighted mean of the subspaces' losses.
    pub fn mean(&self, losses: &[f64]) -> f64 {
        let total: f64 = self.weights.iter().sum();
        losses.iter().zip(&self.weights).map(|(l, w)| l * w).sum::<f64>() / total
    }

    /// The loss of each subspace on a batch, and the gradients of their weighted mean. `params` are the
    /// model's and those of [`Self::specs`]; random choices are those of `pass`. Where a device does the step, it
    /// keeps the losses, which are 0 here.
    #[expect(clippy::too_many_arguments, reason = "a batch, what is trained, and where")]
    pub fn gradients(
        &self,
        device: Option<&mut OnDevice>,
        model: &Model,
        params: &Params,
        features: &Tensor,
        pass: Pass<'_>,
        groups: &[Vec<i64>],
        step: usize,
    ) -> Result<(Vec<f64>, GradStore)> {
        let views = features.dim(0)?;
        if self.micro_batch == 0 || self.micro_batch >= views {
            let embeddings = model.embed_for_training(features, pass)?;
            let z = project(model, &embeddings)?;
            let (losses, mean) = self.losses(device, params, &z, groups, step)?;
            return Ok((losses, mean.backward()?));
        }

        let pieces = || (0..views).step_by(self.micro_batch).map(|at| (at, self.micro_batch.min(views - at)));
        let mut parts = vec![Vec::new(); self.subspaces.len()];
        for (at, length) in pieces() {
            let kept = pass.kept.map(|kept| kept.narrow(at, length));
            let pass = Pass { kept: kept.as_ref(), noise: pass.noise.map(|noise| noise.from(at)), ..pass };
            let embeddings = model.embed_without_graph(&features.narrow(0, at, length)?, pass)?;
            for (parts, z) in parts.iter_mut().zip(project(model, &embeddings)?) {
                parts.push(z.detach());
            }
        }
        let leaves = parts
            .iter()
            .map(|parts| Ok(Var::from_tensor(&Tensor::cat(parts, 0)?)?))
            .collect::<Result<Vec<_>>>()?;
        drop(parts);
        let z: Vec<Tensor> = leaves.iter().map(|leaf| leaf.as_tensor().clone()).collect();
        let (losses, mean) = self.losses(device, params, &z, groups, step)?;
        let mut grads = mean.backward()?;
        drop(mean);
        let d_z: Vec<Option<Tensor>> = leaves.iter().map(|leaf| grads.remove(leaf)).collect();

        for (at, length) in pieces() {
            let kept = pass.kept.map(|kept| kept.narrow(at, length));
            let pass = Pass { kept: kept.as_ref(), noise: pass.noise.map(|noise| noise.from(at)), ..pass };
            let embeddings = model.embed_for_training(&features.narrow(0, at, length)?, pass)?;
            let mut total: Option<Tensor> = None;
            for (z, d_z) in project(model, &embeddings)?.iter().zip(&d_z) {
                let Some(d_z) = d_z else { continue };
                let part = (z * d_z.narrow(0, at, length)?)?.sum_all()?;
                total = Some(match total {
                    None => part,
                    Some(total) => (total + part)?,
                });
            }
            if let Some(total) = total {
                grads.extend(total.backward()?)?;
            }
        }
        Ok((losses, grads))
    }

    /// The loss of each subspace, and their weighted mean with its graph.
    fn losses(
        &self,
        mut device: Option<&mut OnDevice>,
        params: &Params,
        z: &[Tensor],
        groups: &[Vec<i64>],
        step: usize,
    ) -> Result<(Vec<f64>, Tensor)> {
        let total: f64 = self.weights.iter().sum();
        let mut losses = Vec::with_capacity(z.len());
        let mut mean: Option<Tensor> = None;
        for (k, (z, groups)) in z.iter().zip(groups).enumerate() {
            if self.allows_empty() && !has_positives(groups) {
                losses.push(0.0);
                continue;
            }
            let name = self.subspaces.get(k).map_or("", String::as_str);
            let learned = if self.learned { Some(params.get(&format!("temperature.{k}"))?) } else { None };
            let temperature = match &learned {
                Some(log_scale) => Temperature::Learned(log_scale),
                None => Temperature::Fixed(self.temperatures[k]),
            };
            let loss = match (&mut device, self.kind) {
                (Some(device), _) => device.loss(k, z, groups, temperature, self.form(groups)),
                (None, LossKind::Reference) => reference_loss(z, groups, temperature),
                (None, _) if self.excluding => excluding_positives(z, groups, temperature),
                (None, LossKind::Contrastive) => contrastive(z, groups, temperature),
            };
            let loss = loss.map_err(|error| match error {
                ModelError::NoPositives { .. } => {
                    ModelError::NoPositives { head: format!("subspace {name}, step {step}") }
                }
                other => other,
            })?;
            let value = match &device {
                Some(_) => 0.0,
                None => loss.to_dtype(DType::F64)?.to_scalar::<f64>()?,
            };
            if !value.is_finite() {
                return Err(self.not_finite(params, k, norm(z)?.is_finite(), step)?);
            }
            losses.push(value);
            let part = (loss * (self.weights[k] / total))?;
            mean = Some(match mean {
                None => part,
                Some(sum) => (sum + part)?,
            });
        }
        let none = || Tensor::zeros((), DType::F32, &Device::Cpu);
        Ok((losses, mean.map_or_else(none, Ok)?))
    }

    /// What to say when the loss of subspace `k` is not finite; `projections` says whether those are.
    pub fn not_finite(
        &self,
        params: &Params,
        k: usize,
        projections: bool,
        step: usize,
    ) -> Result<ModelError> {
        let name = self.subspaces.get(k).map_or("", String::as_str);
        let what = match culprit(params, None)? {
            Some(parameter) => parameter,
            None if projections => format!("the loss of subspace {name}"),
            None => format!("a projection of subspace {name}"),
        };
        Ok(ModelError::NotFinite { what, step })
    }
}

fn project(model: &Model, embeddings: &[Tensor]) -> Result<Vec<Tensor>> {
    embeddings.iter().enumerate().map(|(k, embedding)| model.project(k, embedding)).collect()
}

/// The first parameter, in order of names, that is not finite or whose gradient is not.
pub(super) fn culprit(params: &Params, grads: Option<&GradStore>) -> Result<Option<String>> {
    for (name, parameter) in params.iter() {
        if !norm(&parameter.var)?.is_finite() {
            return Ok(Some(format!("parameter {name}")));
        }
        if let Some(grad) = grads.and_then(|grads| grads.get(&parameter.var))
            && !norm(grad)?.is_finite()
        {
            return Ok(Some(format!("the gradient of {name}")));
        }
    }
    Ok(None)
}
