//! The affine map `x w^T + b`.

use candle_core::{D, Result, Tensor};

/// Maps the last axis of `x: [.., in]` by `weight: [out, in]` and `bias: [out]`.
///
/// Leading axes are folded into one, so that it is one product of contiguous matrices: candle's
/// batched product is slower, and wrong for some transposed inputs.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let inside = x.dim(D::Minus1)?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / inside.max(1);
    let y = x.contiguous()?.reshape((rows, inside))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = shape.last_mut() {
        *last = weight.dim(0)?;
    }
    y.reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{distance, gradients, wave};

    #[test]
    fn gradients_match_differences() {
        for shape in [&[3usize, 4][..], &[2, 3, 4], &[1, 2, 3, 4]] {
            let inputs = [wave(shape, 0.7, 1.0), wave(&[5, 4], 1.1, 1.0), wave(&[5], 0.3, 1.0)];
            gradients(&inputs, |t| linear(&t[0], &t[1], Some(&t[2]))?.sqr()?.sum_all());
        }
    }

    #[test]
    fn a_transposed_input_is_mapped_rightly() {
        let (x, w) = (wave(&[3, 4, 2], 0.7, 1.0), wave(&[5, 4], 1.1, 1.0));
        let transposed = x.transpose(1, 2).unwrap();
        let copied = transposed.contiguous().unwrap();
        let (a, b) = (linear(&transposed, &w, None).unwrap(), linear(&copied, &w, None).unwrap());
        assert_eq!(a.dims(), &[3, 2, 5]);
        assert_eq!(distance(&a, &b), 0.0);
    }
}
