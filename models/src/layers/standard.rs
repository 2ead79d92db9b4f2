//! Weights and activations brought to mean 0 and a known variance.

use crate::kernels::rows::NORM_EPS;
use candle_core::{Result, Tensor};

/// Least variance of a filter's weights times their number.
const LEAST: f64 = 1e-4;

/// How the variance of a filter's weights is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// Over their number.
    Population,
    /// Over their number less one; a filter must have at least two.
    Unbiased,
}

/// The filters of `weight: [out, ..]`, each brought to mean 0 and a variance of one over its number of
/// weights, so that a convolution keeps the variance of its input (weight standardisation; A. Brock et
/// al., arXiv 2102.06171).
pub fn standardise(weight: &Tensor, estimate: Estimate) -> Result<Tensor> {
    let flat = weight.flatten_from(1)?;
    let n = flat.dim(1)? as f64;
    let correction = match estimate {
        Estimate::Population => 1.0,
        Estimate::Unbiased => n / (n - 1.0).max(1.0),
    };
    let centred = flat.broadcast_sub(&flat.mean_keepdim(1)?)?;
    let power = (centred.sqr()?.sum_keepdim(1)? * correction)?.maximum(LEAST)?;
    centred.broadcast_div(&power.sqrt()?)?.reshape(weight.shape())
}

/// Each channel of each view of `x: [views, channels, rows, columns]` brought to mean 0 and variance 1
/// over its rows and columns, times `weight: [channels]` plus `bias: [channels]`.
pub fn channel_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let flat = x.flatten_from(2)?;
    let centred = flat.broadcast_sub(&flat.mean_keepdim(2)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(2)? + NORM_EPS)?.sqrt()?;
    let channels = (1, weight.dim(0)?, 1);
    let out = centred.broadcast_div(&deviation)?.broadcast_mul(&weight.reshape(channels)?)?;
    out.broadcast_add(&bias.reshape(channels)?)?.reshape(x.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{gradients, wave};
    use candle_core::DType;

    #[test]
    fn gradients_match_differences() {
        for estimate in [Estimate::Population, Estimate::Unbiased] {
            let w = wave(&[4, 3, 1, 3], 0.7, 1.0);
            gradients(&[w], |t| (standardise(&t[0], estimate)? * wave(&[4, 3, 1, 3], 1.9, 1.0))?.sum_all());
        }
        let inputs = [wave(&[2, 3, 4, 5], 0.7, 2.0), wave(&[3], 1.1, 1.0), wave(&[3], 0.3, 1.0)];
        let mask = wave(&[2, 3, 4, 5], 1.9, 1.0);
        gradients(&inputs, |t| (channel_norm(&t[0], &t[1], &t[2])? * &mask)?.sum_all());
    }

    #[test]
    fn filters_keep_the_variance_of_their_input() {
        let rows = |w: &Tensor| w.flatten_from(1).unwrap().to_vec2::<f64>().unwrap();
        let w = standardise(&wave(&[4, 5, 3, 1], 0.7, 3.0), Estimate::Population).unwrap();
        for row in rows(&w) {
            assert!(row.iter().sum::<f64>().abs() < 1e-12);
            assert!((row.iter().map(|w| w * w).sum::<f64>() - 1.0).abs() < 1e-12);
        }
        // A filter that is constant has no direction, and stays finite with its gradient.
        let constant = candle_core::Var::from_tensor(&wave(&[2, 3], 0.0, 1.0)).unwrap();
        let w = standardise(&constant, Estimate::Unbiased).unwrap();
        let grads = (w.sqr().unwrap().sum_all().unwrap()).backward().unwrap();
        let grad = grads.get(&constant).unwrap().to_dtype(DType::F64).unwrap();
        assert!(rows(&w).iter().chain(&rows(&grad)).flatten().all(|x| x.is_finite()));
    }
}
