//! What happens to whole channels of `[views, channels, ..]`: scaled, shifted, passed through scaled
//! GELU. candle broadcasts element by element and sums back just as slowly; on the CPU these are custom
//! operations over rows, elsewhere they are composed.

use super::activation;
use crate::{
    encoder::stack::{slice, with_slice},
    kernels::{Real, lane_sum, rows, simd},
};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::marker::PhantomData;

/// Values that one task passes through an activation.
const PIECE: usize = 1 << 14;

/// Which of the two operations with one number per channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Times a number for each view and channel.
    Scale,
    /// Plus a number for each channel.
    Shift,
}

/// `x: [views, channels, ..]` times `factors: [views, channels]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn scale(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    channelwise(Kind::Scale, x, factors, 2)
}

/// `x: [views, channels, ..]` plus `bias: [channels]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn shift(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    channelwise(Kind::Shift, x, bias, 1)
}

fn channelwise(kind: Kind, x: &Tensor, numbers: &Tensor, rank: usize) -> Result<Tensor> {
    let fits = x.rank() >= 2 && numbers.dims() == &x.dims()[2 - rank..2] && x.elem_count() > 0;
    if !fits {
        bail!("numbers {:?} do not fit the channels of {:?}", numbers.dims(), x.dims());
    }
    if !x.device().is_cpu() {
        let mut shape = vec![1; x.rank()];
        shape[2 - rank..2].copy_from_slice(numbers.dims());
        let numbers = numbers.reshape(shape)?;
        return if kind == Kind::Scale { x.broadcast_mul(&numbers) } else { x.broadcast_add(&numbers) };
    }
    let (x, numbers) = (x.contiguous()?, numbers.contiguous()?);
    match x.dtype() {
        DType::F64 => x.apply_op2(&numbers, Channelwise::<f64> { kind, float: PhantomData }),
        _ => x.apply_op2(&numbers, Channelwise::<f32> { kind, float: PhantomData }),
    }
}

struct Channelwise<T> {
    kind: Kind,
    float: PhantomData<fn() -> T>,
}

impl<T: Real> Channelwise<T> {
    fn forward(&self, x: &[T], numbers: &[T], area: usize) -> Vec<T> {
        let mut out = vec![T::ZERO; x.len()];
        out.par_chunks_mut(area).zip(x.par_chunks(area)).enumerate().for_each(|(i, (out, x))| {
            let number = numbers[i % numbers.len()];
            simd(|| match self.kind {
                Kind::Scale => out.iter_mut().zip(x).for_each(|(out, &x)| *out = x * number),
                Kind::Shift => out.iter_mut().zip(x).for_each(|(out, &x)| *out = x + number),
            });
        });
        out
    }

    /// The gradient of each number; each is summed by one task, in the order of views.
    fn of_numbers(&self, x: &[T], d_out: &[T], count: usize, area: usize) -> Vec<T> {
        let row = |i: usize| {
            let at = i * area..(i + 1) * area;
            let (x, d) = (&x[at.clone()], &d_out[at]);
            simd(|| match self.kind {
                Kind::Scale => lane_sum(x, d, |x, d| x * d),
                Kind::Shift => lane_sum(d, d, |d, _| d),
            })
        };
        let rows = x.len() / area;
        let sum = |i: usize| (i..rows).step_by(count).fold(T::ZERO, |sum, i| sum + row(i));
        (0..count).into_par_iter().map(sum).collect()
    }
}

impl<T: Real> CustomOp2 for Channelwise<T> {
    fn name(&self) -> &'static str {
        "channelwise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        n: &CpuStorage,
        ln: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let area = lx.dims()[2..].iter().product();
        let out = self.forward(slice::<T>(x, lx)?, slice::<T>(n, ln)?, area);
        Ok((T::to_cpu_storage_owned(out), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        n: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let area: usize = x.dims()[2..].iter().product();
        let d_n =
            with_slice(x, |x| with_slice(d_out, |d_out| self.of_numbers(x, d_out, n.elem_count(), area)))??;
        let d_x = match self.kind {
            Kind::Scale => scale(&d_out.detach(), &n.detach())?,
            Kind::Shift => d_out.clone(),
        };
        Ok((Some(d_x), Some(Tensor::from_vec(d_n, n.shape(), n.device())?)))
    }
}

/// GELU in its tanh form, times a number.
///
/// # Errors
/// When the device fails.
pub fn scaled_gelu(x: &Tensor, factor: f64) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return activation::gelu(x)? * factor;
    }
    let x = x.contiguous()?;
    match x.dtype() {
        DType::F64 => x.apply_op1(ScaledGelu { factor }),
        _ => x.apply_op1(ScaledGelu { factor: factor as f32 }),
    }
}

struct ScaledGelu<T> {
    factor: T,
}

impl<T: Real> CustomOp1 for ScaledGelu<T> {
    fn name(&self) -> &'static str {
        "scaled-gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice::<T>(x, lx)?;
        let mut out = vec![T::ZERO; x.len()];
        out.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(out, x)| {
            rows::gelu(out, x);
            simd(|| out.iter_mut().for_each(|out| *out *= self.factor));
        });
        Ok((T::to_cpu_storage_owned(out), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, d_out: &Tensor) -> Result<Option<Tensor>> {
        let d = with_slice(x, |x| {
            with_slice(d_out, |d_out: &[T]| {
                let mut d = d_out.to_vec();
                d.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each_init(Vec::new, |again, (d, x)| {
                    again.resize(x.len(), T::ZERO);
                    simd(|| d.iter_mut().for_each(|d| *d *= self.factor));
                    rows::gelu_back(d, again, x);
                });
                d
            })
        })??;
        Ok(Some(Tensor::from_vec(d, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{distance, gradients, wave};

    const SHAPES: [&[usize]; 3] = [&[3, 2, 4, 5], &[1, 3, 2, 1], &[20, 1, 3, 7]];

    #[test]
    fn gradients_match_differences() {
        for shape in SHAPES {
            let mask = wave(shape, 1.9, 1.0);
            let inputs = [wave(shape, 0.7, 1.5), wave(&shape[..2], 1.1, 1.0), wave(&shape[1..2], 0.3, 1.0)];
            gradients(&inputs, |t| {
                let y = shift(&scale(&t[0], &t[1])?, &t[2])?;
                (scaled_gelu(&y, 1.7)? * &mask)?.sum_all()
            });
        }
        let turned = wave(&[5, 4, 3], 0.7, 1.5);
        gradients(&[turned], |t| {
            let x = t[0].transpose(0, 2)?;
            (scaled_gelu(&x, 1.7)? * scale(&x, &wave(&[3, 4], 1.1, 1.0))?)?.sum_all()
        });
    }

    #[test]
    fn values_are_those_of_the_composed_operations() {
        for shape in SHAPES {
            let x = wave(shape, 0.7, 1.5);
            let (s, b) = (wave(&shape[..2], 1.1, 1.0), wave(&shape[1..2], 0.3, 1.0));
            let wide = |t: &Tensor, dims: [usize; 4]| t.reshape(dims.to_vec()).unwrap();
            let want = x.broadcast_mul(&wide(&s, [shape[0], shape[1], 1, 1])).unwrap();
            assert_eq!(distance(&scale(&x, &s).unwrap(), &want), 0.0);
            let want = x.broadcast_add(&wide(&b, [1, shape[1], 1, 1])).unwrap();
            assert_eq!(distance(&shift(&x, &b).unwrap(), &want), 0.0);
            let want = (activation::gelu(&x).unwrap() * 1.7).unwrap();
            assert!(distance(&scaled_gelu(&x, 1.7).unwrap(), &want) < 1e-14);
            assert!(scale(&x, &b).is_err() && shift(&b, &b).is_err());
        }
    }
}
