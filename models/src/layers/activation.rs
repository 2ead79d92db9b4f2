//! Activations, composed.

use candle_core::{Result, Tensor};

/// GELU in its tanh form, `x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`. candle's own rounds the
/// constants of its gradient to six digits.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    let inner = (x * ((x.sqr()? * (root * 0.044_715))? + root)?)?;
    (x * 0.5)? * (inner.tanh()? + 1.0)?
}

/// The greater of `x` and 0. Its gradient at 0 is 0; candle's own passes it on there, which a row that is
/// zero all over would then multiply by the inverse of its length.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    x * x.gt(0.0)?.to_dtype(x.dtype())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::rows,
        layers::check::{distance, gradients, wave},
    };

    #[test]
    fn gradients_match_differences_and_values_the_kernel() {
        let x = wave(&[3, 7], 0.7, 4.0);
        gradients(std::slice::from_ref(&x), |t| (gelu(&t[0])? * wave(&[3, 7], 1.9, 1.0))?.sum_all());
        let mut out = vec![0.0; 21];
        rows::gelu(&mut out, &x.flatten_all().unwrap().to_vec1::<f64>().unwrap());
        let out = Tensor::from_vec(out, (3, 7), x.device()).unwrap();
        assert!(distance(&out, &gelu(&x).unwrap()) < 1e-14);
    }

    #[test]
    fn relu_passes_gradients_above_zero_only() {
        let x = candle_core::Var::new(&[-1.5f64, 0.0, -0.0, 2.0], &candle_core::Device::Cpu).unwrap();
        let y = relu(&x).unwrap();
        let grads = (&y * 3.0).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(y.to_vec1::<f64>().unwrap(), [0.0, 0.0, 0.0, 2.0]);
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f64>().unwrap(), [0.0, 0.0, 0.0, 3.0]);
    }

    #[test]
    fn extremes_stay_finite() {
        let x = candle_core::Var::new(&[-1e4f32, 1e4, 0.0], &candle_core::Device::Cpu).unwrap();
        let y = gelu(&x).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), [0.0, 1e4, 0.0]);
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0, 0.5]);
    }
}
