//! Finite-difference checks of gradients, for tests.

use candle_core::{DType, Device, Result, Tensor, Var};
use std::ops::Range;

/// A smooth, irregular `f64` tensor.
pub fn wave(shape: &[usize], step: f64, size: f64) -> Tensor {
    let n = shape.iter().product::<usize>();
    let values: Vec<f64> = (0..n).map(|i| ((i as f64 + 0.3) * step).sin() * size).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Asserts that the gradient of a scalar function of `inputs` (`f64`) equals its central differences.
/// Of a large input, some 40 elements are tried.
pub fn gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    if let Some(fault) = mismatch(inputs, 0..inputs.len(), f) {
        panic!("{fault}");
    }
}

/// The first place where the gradient of the inputs `of` is not what [`gradients`] asks for.
pub fn mismatch(
    inputs: &[Tensor],
    of: Range<usize>,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Option<String> {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let loss = f(&tensors).unwrap();
    assert_eq!((loss.dtype(), loss.rank()), (DType::F64, 0));
    let grads = loss.backward().unwrap();
    let step = 1e-5;
    for (which, input) in inputs.iter().enumerate().take(of.end).skip(of.start) {
        let Some(got) = grads.get(&tensors[which]) else {
            return Some(format!("input {which} has no gradient"));
        };
        let got = got.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let values = input.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for i in (0..values.len()).step_by(values.len().div_ceil(40)) {
            let at = |delta: f64| {
                let mut moved = values.clone();
                moved[i] += delta;
                let mut all = inputs.to_vec();
                all[which] = Tensor::from_vec(moved, input.shape(), &Device::Cpu).unwrap();
                f(&all).unwrap().to_scalar::<f64>().unwrap()
            };
            let want = (at(step) - at(-step)) / (2.0 * step);
            let error = (got[i] - want).abs();
            if error.is_nan() || error >= 1e-7 * (1.0 + want.abs()) {
                return Some(format!("input {which}[{i}]: {} {want}", got[i]));
            }
        }
    }
    None
}

/// The greatest absolute difference of two tensors.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let a = a.to_dtype(DType::F64).unwrap();
    let b = b.to_dtype(DType::F64).unwrap();
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}
