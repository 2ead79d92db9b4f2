//! The contrastive loss of one subspace, its floor, and the reference formula for comparison.
//!
//! Positives come as one group id per view: two views are positives of each other when their ids are
//! equal. No mask comes from outside.

mod fused;

use crate::{
    ModelError, Result, device,
    gpu::loss::{Form, NOTED, Problem, numbered},
};
use candle_core::{D, DType, Tensor};
use loev_ops::gpu::Gpu;
use std::collections::HashMap;

/// Stands in for minus infinity on the diagonal: its exponential is 0, and 0 times it is 0.
const NEVER: f64 = -1e9;
/// Added to a squared length before its root, so that a zero vector has a finite gradient.
pub(crate) const LENGTH_EPS: f64 = 1e-12;
/// Added inside the logarithm by the reference formula.
const REFERENCE_EPS: f64 = 1e-6;

/// What cosine similarities are divided by before their soft-max.
#[derive(Debug, Clone, Copy)]
pub enum Temperature<'t> {
    /// This number, above 0.
    Fixed(f64),
    /// `e^-x` of the one value x of a tensor `[1]`, which the loss has a gradient for: x is the logarithm of
    /// the scale, as CLIP learns it (arXiv 2103.00020).
    Learned(&'t Tensor),
}

impl From<f64> for Temperature<'_> {
    fn from(temperature: f64) -> Self {
        Self::Fixed(temperature)
    }
}

impl<'t> From<&'t Tensor> for Temperature<'t> {
    fn from(log_scale: &'t Tensor) -> Self {
        Self::Learned(log_scale)
    }
}

impl Temperature<'_> {
    /// The temperature as a number.
    ///
    /// # Errors
    /// When a learned one has not one value, or the device fails.
    pub fn value(self) -> Result<f64> {
        match self {
            Self::Fixed(temperature) => Ok(temperature),
            Self::Learned(x) => Ok((-x.reshape(())?.to_dtype(DType::F64)?.to_scalar::<f64>()?).exp()),
        }
    }
}

/// Number of positives of each view.
fn positives(groups: &[i64]) -> Vec<usize> {
    let mut sizes = HashMap::new();
    for group in groups {
        *sizes.entry(group).or_insert(0usize) += 1;
    }
    groups.iter().map(|group| sizes.get(group).copied().unwrap_or(1) - 1).collect()
}

/// The least that [`contrastive`] can reach: the mean over anchors of ln(number of positives), which
/// is the loss of a subspace whose positives all coincide and whose other views are infinitely far.
pub fn floor(groups: &[i64]) -> f64 {
    let counts: Vec<f64> = positives(groups).into_iter().filter(|&n| n > 0).map(|n| n as f64).collect();
    counts.iter().map(|n| n.ln()).sum::<f64>() / counts.len().max(1) as f64
}

/// The least that [`reference_loss`] can reach. Views without positives count as 0 there, and an anchor
/// with one positive can fall below 0 by the formula's 1e-6.
pub fn reference_floor(groups: &[i64]) -> f64 {
    let least = |n: usize| if n == 0 { 0.0 } else { -(1.0 / n as f64 + REFERENCE_EPS).ln() };
    positives(groups).into_iter().map(least).sum::<f64>() / groups.len().max(1) as f64
}

/// Whether any view has a positive.
pub fn has_positives(groups: &[i64]) -> bool {
    positives(groups).iter().any(|&n| n > 0)
}

/// How many views have a positive.
pub(crate) fn anchors(groups: &[i64]) -> usize {
    positives(groups).into_iter().filter(|&n| n > 0).count()
}

/// Cosine similarities over the temperature, with the diagonal out of the way; `[n, n]`.
fn similarities(z: &Tensor, temperature: Temperature<'_>) -> Result<Tensor> {
    let (n, _) = z.dims2()?;
    let length = (z.sqr()?.sum_keepdim(D::Minus1)? + LENGTH_EPS)?.sqrt()?;
    let unit = z.broadcast_div(&length)?;
    let cosines = unit.matmul(&unit.t()?)?;
    let similarity = match temperature {
        Temperature::Fixed(temperature) => (cosines * (1.0 / temperature))?,
        Temperature::Learned(log_scale) => cosines.broadcast_mul(&log_scale.exp()?)?,
    };
    let diagonal: Vec<f32> = (0..n * n).map(|i| if i % (n + 1) == 0 { NEVER as f32 } else { 0.0 }).collect();
    Ok((similarity + Tensor::from_vec(diagonal, (n, n), z.device())?.to_dtype(z.dtype())?)?)
}

/// Weight of each pair in the loss: 1 / (positives of the anchor x `anchors`) for positives, else 0.
fn weights(groups: &[i64], anchors: usize, like: &Tensor) -> Result<Tensor> {
    let n = groups.len();
    let mut weights = vec![0.0f32; n * n];
    for ((i, count), row) in positives(groups).into_iter().enumerate().zip(weights.chunks_exact_mut(n.max(1)))
    {
        let weight = 1.0 / (count.max(1) * anchors) as f32;
        for (j, w) in row.iter_mut().enumerate() {
            if i != j && groups[i] == groups[j] {
                *w = weight;
            }
        }
    }
    Ok(Tensor::from_vec(weights, (n, n), like.device())?.to_dtype(like.dtype())?)
}

/// Soft-max of each row in logarithms.
fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    Ok(shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}

/// `ln(1 + e^x)`, finite and with the right gradient for any x.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let top = x.relu()?.detach();
    Ok((&top + (top.neg()?.exp()? + (x - &top)?.exp()?)?.log()?)?)
}

/// The number of anchors with positives, where the lengths of the batch are right and there are any.
fn checked_anchors(z: &Tensor, groups: &[i64]) -> Result<usize> {
    let (n, _) = z.dims2()?;
    if n != groups.len() {
        return Err(ModelError::Data(format!("{n} views have {} group ids", groups.len())));
    }
    match anchors(groups) {
        0 => Err(ModelError::NoPositives { head: "the batch".into() }),
        anchors => Ok(anchors),
    }
}

/// NT-Xent with any number of positives, their mean taken outside the logarithm (SupCon, arXiv
/// 2004.11362), over `z: [n, d]` with one group id per row.
///
/// Rows are normalised; a view is never its own positive or negative; the mean runs over anchors that
/// have a positive. [`floor`] says how low it can get.
///
/// # Errors
/// [`ModelError::NoPositives`] when no view has one, [`ModelError::Data`] when lengths differ.
pub fn contrastive<'t>(
    z: &Tensor,
    groups: &[i64],
    temperature: impl Into<Temperature<'t>>,
) -> Result<Tensor> {
    let anchors = checked_anchors(z, groups)?;
    if z.device().is_cpu() {
        return fused::contrastive(z, groups, temperature.into(), false);
    }
    if let Some(gpu) = device::gpu(z.device())? {
        return on_gpu(&gpu, z, groups, temperature.into(), Form::Contrastive, anchors);
    }
    composed(z, groups, anchors, temperature)
}

/// [`contrastive`], with the anchor's other positives left out of the denominator: what a positive
/// competes with is the negatives alone, so that the least possible loss is 0 whatever the groups.
///
/// # Errors
/// As [`contrastive`].
pub fn excluding_positives<'t>(
    z: &Tensor,
    groups: &[i64],
    temperature: impl Into<Temperature<'t>>,
) -> Result<Tensor> {
    let anchors = checked_anchors(z, groups)?;
    if z.device().is_cpu() {
        return fused::contrastive(z, groups, temperature.into(), true);
    }
    if let Some(gpu) = device::gpu(z.device())? {
        return on_gpu(&gpu, z, groups, temperature.into(), Form::Excluding, anchors);
    }
    composed_excluding(z, groups, anchors, temperature)
}

/// The loss by the kernels of a GPU, whatever the type of `z` in single precision.
fn on_gpu(
    gpu: &Gpu,
    z: &Tensor,
    groups: &[i64],
    temperature: Temperature<'_>,
    form: Form,
    anchors: usize,
) -> Result<Tensor> {
    let groups = gpu.upload(&numbered(groups))?;
    let noted = gpu.memory::<f64>(NOTED)?;
    Problem { gpu, groups: &groups, form, anchors, noted: noted.address() }.loss(z, temperature)
}

fn composed<'t>(
    z: &Tensor,
    groups: &[i64],
    anchors: usize,
    temperature: impl Into<Temperature<'t>>,
) -> Result<Tensor> {
    let logits = similarities(z, temperature.into())?;
    let weights = weights(groups, anchors, &logits)?;
    Ok((log_softmax(&logits)? * weights)?.sum_all()?.neg()?)
}

fn composed_excluding<'t>(
    z: &Tensor,
    groups: &[i64],
    anchors: usize,
    temperature: impl Into<Temperature<'t>>,
) -> Result<Tensor> {
    let logits = similarities(z, temperature.into())?;
    let weights = weights(groups, anchors, &logits)?;
    let positive = weights.gt(0.0)?.to_dtype(logits.dtype())?;
    let others = (&logits + (positive * NEVER)?)?;
    let top = others.max_keepdim(D::Minus1)?.detach();
    let total = others.broadcast_sub(&top)?.exp()?.sum_keepdim(D::Minus1)?.log()?.broadcast_add(&top)?;
    Ok((softplus(&total.broadcast_sub(&logits)?)? * weights)?.sum_all()?)
}

/// The formula of the published method's public code, for comparison: 1e-6 inside the logarithm, and
/// the mean over all anchors, those without positives adding 0. [`reference_floor`] says how low it can
/// get.
///
/// # Errors
/// [`ModelError::NoPositives`] when no view has one, [`ModelError::Data`] when lengths differ.
pub fn reference_loss<'t>(
    z: &Tensor,
    groups: &[i64],
    temperature: impl Into<Temperature<'t>>,
) -> Result<Tensor> {
    checked_anchors(z, groups)?;
    if let Some(gpu) = device::gpu(z.device())? {
        return on_gpu(&gpu, z, groups, temperature.into(), Form::Reference, groups.len());
    }
    let logits = similarities(z, temperature.into())?;
    let weights = weights(groups, groups.len(), &logits)?;
    let log = (log_softmax(&logits)?.exp()? + REFERENCE_EPS)?.log()?;
    Ok((log * weights)?.sum_all()?.neg()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{distance, gradients, wave};
    use candle_core::{DType, Device};

    fn scalar(t: Result<Tensor>) -> f64 {
        t.unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    fn into_candle(error: ModelError) -> candle_core::Error {
        candle_core::Error::Msg(error.to_string())
    }

    fn golden() -> Tensor {
        let z = [[1.0, 0.0, 0.5], [0.8, 0.2, 0.6], [0.0, 1.0, 0.1], [0.1, 0.9, 0.4f64]];
        Tensor::new(&z, &Device::Cpu).unwrap()
    }

    #[test]
    fn reference_formula_gives_its_golden_values() {
        let invariant = scalar(reference_loss(&golden(), &[0, 0, 1, 1], 0.1));
        // View 3 was changed by the factor: it is alone, and so is view 2.
        let variant = scalar(reference_loss(&golden(), &[0, 0, 1, 2], 0.1));
        assert!((invariant - 0.006_090_39).abs() < 1e-8, "{invariant}");
        assert!((variant - 0.002_744_38).abs() < 1e-8, "{variant}");
        assert!(((invariant + variant) / 2.0 - 0.004_417_38).abs() < 1e-8);
    }

    #[test]
    fn the_mean_is_over_anchors_with_positives() {
        // The published figure carries the reference's 1e-6 inside the logarithm.
        let loss = scalar(contrastive(&golden(), &[0, 0, 1, 2], 0.1));
        assert!((loss - 0.005_488_76).abs() < 2e-6, "{loss}");
    }

    #[test]
    fn loss_matches_its_definition() {
        let z = wave(&[7, 5], 0.7, 1.0);
        let groups = [3, 3, -1, 3, 8, 8, 5];
        let rows: Vec<Vec<f64>> = z.to_vec2().unwrap();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let s = |i: usize, j: usize| {
            dot(&rows[i], &rows[j]) / (dot(&rows[i], &rows[i]) * dot(&rows[j], &rows[j])).sqrt() / 0.2
        };
        let (mut total, mut anchors) = (0.0, 0.0);
        for i in 0..7 {
            let positives: Vec<usize> = (0..7).filter(|&j| j != i && groups[i] == groups[j]).collect();
            if !positives.is_empty() {
                let all = (0..7).filter(|&j| j != i).map(|j| s(i, j).exp()).sum::<f64>();
                total += positives.iter().map(|&j| all.ln() - s(i, j)).sum::<f64>() / positives.len() as f64;
                anchors += 1.0;
            }
        }
        assert!((scalar(contrastive(&z, &groups, 0.2)) - total / anchors).abs() < 1e-10);
    }

    #[test]
    fn fused_and_composed_agree_over_many_blocks() {
        let z = candle_core::Var::from_tensor(&wave(&[203, 9], 0.7, 1.0)).unwrap();
        let groups: Vec<i64> = (0..203).map(|i| i / 5 * 5 + i % 2).collect();
        let anchors = positives(&groups).into_iter().filter(|&n| n > 0).count();
        let [a, b] = [contrastive(&z, &groups, 0.1).unwrap(), composed(&z, &groups, anchors, 0.1).unwrap()];
        assert!((scalar(Ok(a.clone())) - scalar(Ok(b.clone()))).abs() < 1e-6);
        let [a, b] = [a, b].map(|loss| (loss * 3.0).unwrap().backward().unwrap());
        // The composed loss takes its weights through single precision.
        assert!(distance(a.get(&z).unwrap(), b.get(&z).unwrap()) < 1e-7);
    }

    #[test]
    fn gradients_match_differences() {
        for (n, d) in [(4, 3), (7, 5)] {
            let groups: Vec<i64> = (0..n as i64).map(|i| i / 3).collect();
            let anchors = positives(&groups).into_iter().filter(|&n| n > 0).count();
            gradients(&[wave(&[n, d], 0.7, 1.0)], |t| {
                composed(&t[0], &groups, anchors, 0.3).map_err(into_candle)
            });
            gradients(&[wave(&[n, d], 0.7, 1.0)], |t| contrastive(&t[0], &groups, 0.3).map_err(into_candle));
            gradients(&[wave(&[n, d], 0.7, 1.0)], |t| {
                reference_loss(&t[0], &groups, 0.3).map_err(into_candle)
            });
        }
    }

    /// The learned temperature's gradient too, which the fused loss has from the rows' alone.
    #[test]
    fn gradients_of_every_form_match_differences() {
        for (n, d) in [(4, 3), (7, 5), (70, 4)] {
            let groups: Vec<i64> = (0..n as i64).map(|i| i / 3).collect();
            let anchors = positives(&groups).into_iter().filter(|&n| n > 0).count();
            let log_scale = Tensor::new(&[1.3f64], &Device::Cpu).unwrap();
            let inputs = [wave(&[n, d], 0.7, 1.0), log_scale];
            type Form<'f> = &'f dyn Fn(&Tensor, &Tensor) -> Result<Tensor>;
            let forms: [Form<'_>; 5] = [
                &|z, t| contrastive(z, &groups, t),
                &|z, t| excluding_positives(z, &groups, t),
                &|z, t| composed(z, &groups, anchors, t),
                &|z, t| composed_excluding(z, &groups, anchors, t),
                &|z, t| reference_loss(z, &groups, t),
            ];
            for form in forms {
                gradients(&inputs, |t| form(&t[0], &t[1]).map_err(into_candle));
            }
        }
    }

    #[test]
    fn a_learned_temperature_is_one_over_the_exponential() {
        let (z, groups) = (wave(&[7, 5], 0.7, 1.0), [3, 3, -1, 3, 8, 8, 5]);
        let log_scale = Tensor::new(&[(1.0f64 / 0.2).ln()], &Device::Cpu).unwrap();
        assert!((Temperature::Learned(&log_scale).value().unwrap() - 0.2).abs() < 1e-15);
        for (a, b) in [
            (contrastive(&z, &groups, 0.2), contrastive(&z, &groups, &log_scale)),
            (excluding_positives(&z, &groups, 0.2), excluding_positives(&z, &groups, &log_scale)),
            (reference_loss(&z, &groups, 0.2), reference_loss(&z, &groups, &log_scale)),
        ] {
            assert!((scalar(a) - scalar(b)).abs() < 1e-12);
        }
    }

    #[test]
    fn excluding_positives_matches_its_definition() {
        let z = wave(&[7, 5], 0.7, 1.0);
        let groups = [3, 3, -1, 3, 8, 8, 5];
        let rows: Vec<Vec<f64>> = z.to_vec2().unwrap();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let s = |i: usize, j: usize| {
            dot(&rows[i], &rows[j]) / (dot(&rows[i], &rows[i]) * dot(&rows[j], &rows[j])).sqrt() / 0.2
        };
        let (mut total, mut anchors) = (0.0, 0.0);
        for i in 0..7 {
            let positives: Vec<usize> = (0..7).filter(|&j| j != i && groups[i] == groups[j]).collect();
            if !positives.is_empty() {
                let negatives: f64 = (0..7).filter(|&j| groups[i] != groups[j]).map(|j| s(i, j).exp()).sum();
                let of = |&j: &usize| (s(i, j).exp() + negatives).ln() - s(i, j);
                total += positives.iter().map(of).sum::<f64>() / positives.len() as f64;
                anchors += 1.0;
            }
        }
        assert!((scalar(excluding_positives(&z, &groups, 0.2)) - total / anchors).abs() < 1e-10);
        assert!((scalar(composed_excluding(&z, &groups, 5, 0.2)) - total / anchors).abs() < 1e-7);
    }

    #[test]
    fn fused_and_composed_agree_without_other_positives() {
        let z = candle_core::Var::from_tensor(&wave(&[203, 9], 0.7, 1.0)).unwrap();
        let log_scale = candle_core::Var::new(&[10f64.ln()], &Device::Cpu).unwrap();
        let groups: Vec<i64> = (0..203).map(|i| i / 5 * 5 + i % 2).collect();
        let anchors = positives(&groups).into_iter().filter(|&n| n > 0).count();
        let t = log_scale.as_tensor();
        let a = excluding_positives(&z, &groups, t).unwrap();
        let b = composed_excluding(&z, &groups, anchors, t).unwrap();
        assert!((scalar(Ok(a.clone())) - scalar(Ok(b.clone()))).abs() < 1e-6);
        let [a, b] = [a, b].map(|loss| (loss * 3.0).unwrap().backward().unwrap());
        // The composed loss takes its weights through single precision.
        assert!(distance(a.get(&z).unwrap(), b.get(&z).unwrap()) < 1e-7);
        assert!(distance(a.get(&log_scale).unwrap(), b.get(&log_scale).unwrap()) < 1e-5);
    }

    /// Two segments, each at a point of its own: nothing is left to gain but by the temperature.
    #[test]
    fn floors_are_reached() {
        let groups = [0, 0, 0, 1, 1, 2];
        let z = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [0.0, -1.0f64]];
        let z = Tensor::new(&z, &Device::Cpu).unwrap();
        let excluding = scalar(excluding_positives(&z, &groups, 0.02));
        assert!((0.0..1e-9).contains(&excluding), "{excluding}");
        let reference = scalar(reference_loss(&z, &groups, 0.02));
        assert!((reference - reference_floor(&groups)).abs() < 1e-7, "{reference}");
        assert!((reference_floor(&groups) - 3.0 * 2f64.ln() / 6.0).abs() < 2e-6);
        assert_eq!(reference_floor(&[0, 1, 2]), 0.0);
        // No negative at all: nothing to lose either.
        let same = scalar(excluding_positives(&z, &[4; 6], 0.02));
        assert_eq!(same, 0.0);
        assert!((scalar(composed_excluding(&z, &[4; 6], 6, 0.02))).abs() < 1e-9);
    }

    #[test]
    fn loss_lies_between_floor_and_chance() {
        let groups = [0, 0, 0, 1, 1, 1];
        assert!((floor(&groups) - 2f64.ln()).abs() < 1e-12);
        assert_eq!(floor(&[0, 1, 2]), 0.0);
        let apart = Tensor::new(
            &[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0f64]],
            &Device::Cpu,
        );
        assert!((scalar(contrastive(&apart.unwrap(), &groups, 0.05)) - floor(&groups)).abs() < 1e-6);
        let same = Tensor::ones((6, 2), DType::F64, &Device::Cpu).unwrap();
        assert!((scalar(contrastive(&same, &groups, 0.1)) - 5f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn zero_vectors_and_large_ones_stay_finite() {
        let z = Tensor::new(&[[0.0f32, 0.0], [1e15, -1e15], [1.0, 1.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        let var = candle_core::Var::from_tensor(&z).unwrap();
        let loss = contrastive(&var, &[0, 0, 1, 1], 0.01).unwrap();
        assert!(loss.to_scalar::<f32>().unwrap().is_finite());
        let grads = loss.backward().unwrap();
        let grad = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
        let loss = excluding_positives(&var, &[0, 0, 1, 1], 0.01).unwrap();
        assert!(loss.to_scalar::<f32>().unwrap().is_finite());
        let grads = loss.backward().unwrap();
        let grad = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
    }

    #[test]
    fn without_positives_there_is_no_loss() {
        let z = wave(&[3, 2], 0.7, 1.0);
        assert!(matches!(contrastive(&z, &[0, 1, 2], 0.1), Err(ModelError::NoPositives { .. })));
        assert!(matches!(reference_loss(&z, &[0, 1, 2], 0.1), Err(ModelError::NoPositives { .. })));
        assert!(matches!(contrastive(&z, &[0, 0], 0.1), Err(ModelError::Data(_))));
    }
}
