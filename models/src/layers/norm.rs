//! Layer norm over the last axis.

use crate::kernels::rows::NORM_EPS;
use candle_core::{D, Result, Tensor};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` along the last axis of `x`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + NORM_EPS)?.sqrt()?)?;
    normed.broadcast_mul(weight)?.broadcast_add(bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{gradients, wave};

    #[test]
    fn gradients_match_differences() {
        for shape in [&[3usize, 6][..], &[2, 3, 6]] {
            let inputs = [wave(shape, 0.7, 2.0), wave(&[6], 1.1, 1.0), wave(&[6], 0.3, 1.0)];
            let mask = wave(shape, 1.9, 1.0);
            gradients(&inputs, |t| (layer_norm(&t[0], &t[1], &t[2])? * &mask)?.sum_all());
        }
    }

    #[test]
    fn a_constant_row_has_finite_gradients() {
        let x = candle_core::Var::from_tensor(&wave(&[1, 6], 0.0, 1.0)).unwrap();
        let loss = layer_norm(&x, &wave(&[6], 1.1, 1.0), &wave(&[6], 0.3, 1.0)).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let grad = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()));
    }
}
