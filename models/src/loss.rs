//! The contrastive loss of one subspace, its floor, and the reference formula for comparison.
//!
//! Positives come as one group id per view: two views are positives of each other when their ids are
//! equal. No mask comes from outside.

mod fused;

use crate::{ModelError, Result};
use candle_core::{D, Tensor};
use std::collections::HashMap;

/// Stands in for minus infinity on the diagonal: its exponential is 0, and 0 times it is 0.
const NEVER: f64 = -1e9;
/// Added to a squared length before its root, so that a zero vector has a finite gradient.
const LENGTH_EPS: f64 = 1e-12;
/// Added inside the logarithm by the reference formula.
const REFERENCE_EPS: f64 = 1e-6;

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

/// Cosine similarities over the temperature, with the diagonal out of the way; `[n, n]`.
fn similarities(z: &Tensor, temperature: f64) -> Result<Tensor> {
    let (n, _) = z.dims2()?;
    let length = (z.sqr()?.sum_keepdim(D::Minus1)? + LENGTH_EPS)?.sqrt()?;
    let unit = z.broadcast_div(&length)?;
    let similarity = (unit.matmul(&unit.t()?)? * (1.0 / temperature))?;
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

/// NT-Xent with any number of positives, their mean taken outside the logarithm (SupCon, arXiv
/// 2004.11362), over `z: [n, d]` with one group id per row.
///
/// Rows are normalised; a view is never its own positive or negative; the mean runs over anchors that
/// have a positive.
///
/// # Errors
/// [`ModelError::NoPositives`] when no view has one, [`ModelError::Data`] when lengths differ.
pub fn contrastive(z: &Tensor, groups: &[i64], temperature: f64) -> Result<Tensor> {
    let (n, _) = z.dims2()?;
    if n != groups.len() {
        return Err(ModelError::Data(format!("{n} views have {} group ids", groups.len())));
    }
    let anchors = positives(groups).into_iter().filter(|&n| n > 0).count();
    if anchors == 0 {
        return Err(ModelError::NoPositives { head: "the batch".into() });
    }
    if z.device().is_cpu() {
        return Ok(fused::contrastive(z, groups, temperature)?);
    }
    composed(z, groups, anchors, temperature)
}

fn composed(z: &Tensor, groups: &[i64], anchors: usize, temperature: f64) -> Result<Tensor> {
    let logits = similarities(z, temperature)?;
    let weights = weights(groups, anchors, &logits)?;
    Ok((log_softmax(&logits)? * weights)?.sum_all()?.neg()?)
}

/// The formula of the published method's public code, for comparison: 1e-6 inside the logarithm, and
/// the mean over all anchors, those without positives adding 0.
///
/// # Errors
/// [`ModelError::NoPositives`] when no view has one, [`ModelError::Data`] when lengths differ.
pub fn reference_loss(z: &Tensor, groups: &[i64], temperature: f64) -> Result<Tensor> {
    let (n, _) = z.dims2()?;
    if n != groups.len() {
        return Err(ModelError::Data(format!("{n} views have {} group ids", groups.len())));
    }
    if positives(groups).iter().all(|&n| n == 0) {
        return Err(ModelError::NoPositives { head: "the batch".into() });
    }
    let logits = similarities(z, temperature)?;
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
    }

    #[test]
    fn without_positives_there_is_no_loss() {
        let z = wave(&[3, 2], 0.7, 1.0);
        assert!(matches!(contrastive(&z, &[0, 1, 2], 0.1), Err(ModelError::NoPositives { .. })));
        assert!(matches!(reference_loss(&z, &[0, 1, 2], 0.1), Err(ModelError::NoPositives { .. })));
        assert!(matches!(contrastive(&z, &[0, 0], 0.1), Err(ModelError::Data(_))));
    }
}
