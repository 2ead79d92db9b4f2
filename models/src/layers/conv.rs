//! Two-dimensional convolution, as candle has none whose gradients can be trusted.
//!
//! On the CPU a view's patches are laid out as the columns of a matrix, so that each group of channels
//! is one matrix product, forward and backward; a 1 x 1 kernel needs no layout. Views are the units of
//! parallel work. Gradients of weights are summed within runs of views whose borders depend on shapes
//! alone, and then in the order of runs: the result does not depend on the number of threads. On other
//! devices the same is composed of padding, selection and a product.

use crate::{
    encoder::stack::{slice, sum_in_order, with_slice},
    kernels::{
        Real,
        mat::{View, product},
        rows,
    },
};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::{marker::PhantomData, ops::Range};

/// Most runs of views: enough for 16 cores.
const MAX_RUNS: usize = 16;
/// Most values in the weight gradients of all runs together: 64 MB of `f32`.
const MAX_RUN_VALUES: usize = 1 << 24;

/// How a kernel moves over its input; the first of each pair is for rows, the second for columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// Steps from one place of the kernel to the next.
    pub stride: [usize; 2],
    /// Zeros before and after the input.
    pub padding: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], groups: 1 }
    }
}

impl Conv {
    /// Moves `weight: [out, in / groups, height, width]` over `x: [views, in, rows, columns]`.
    ///
    /// # Errors
    /// When the shapes do not fit each other, or the kernel does not fit the padded input.
    pub fn forward(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let geometry = self.geometry(x.dims(), weight.dims())?;
        if !x.device().is_cpu() {
            return compose(&geometry, x, weight);
        }
        let (x, weight) = (x.contiguous()?, weight.contiguous()?);
        match x.dtype() {
            DType::F64 => x.apply_op2(&weight, ConvOp::<f64> { geometry, float: PhantomData }),
            _ => x.apply_op2(&weight, ConvOp::<f32> { geometry, float: PhantomData }),
        }
    }

    fn geometry(&self, x: &[usize], weight: &[usize]) -> Result<Geometry> {
        let Self { stride, padding, groups } = *self;
        let (&[views, channels, rows, columns], &[filters, inside, height, width]) = (x, weight) else {
            bail!("a convolution needs tensors of rank 4, not {x:?} and {weight:?}")
        };
        let sound = groups > 0
            && channels == inside * groups
            && filters % groups == 0
            && !stride.contains(&0)
            && x[1..].iter().chain(weight).all(|&n| n > 0)
            && height <= rows + 2 * padding[0]
            && width <= columns + 2 * padding[1];
        if !sound {
            bail!(
                "a kernel {weight:?} in {groups} groups does not fit an input {x:?} with padding {padding:?}"
            );
        }
        let out = [
            (rows + 2 * padding[0] - height) / stride[0] + 1,
            (columns + 2 * padding[1] - width) / stride[1] + 1,
        ];
        let size = [rows, columns];
        let outside = filters / groups;
        Ok(Geometry { views, groups, inside, outside, size, kernel: [height, width], stride, padding, out })
    }
}

/// All sizes of one convolution; `inside` and `outside` count the channels of a group.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    views: usize,
    groups: usize,
    inside: usize,
    outside: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    out: [usize; 2],
}

impl Geometry {
    /// Values of an input channel.
    fn area(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Values of an output channel: places of the kernel.
    fn places(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// Values under the kernel at one place, within a group.
    fn taps(&self) -> usize {
        self.inside * self.kernel[0] * self.kernel[1]
    }

    /// Values of a group's input of one view.
    fn group_in(&self) -> usize {
        self.inside * self.area()
    }

    fn group_out(&self) -> usize {
        self.outside * self.places()
    }

    fn weights(&self) -> usize {
        self.groups * self.outside * self.taps()
    }

    /// Whether the columns of a view are its input as it lies there.
    fn pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// Views of a run.
    fn run(&self) -> usize {
        let runs = (MAX_RUN_VALUES / self.weights().max(1)).clamp(1, MAX_RUNS);
        self.views.div_ceil(runs).max(1)
    }

    /// The places along one axis at which tap `k` is inside the input, and the input's index at the first.
    fn inner(&self, axis: usize, k: usize) -> (Range<usize>, usize) {
        let (stride, padding, size) = (self.stride[axis], self.padding[axis], self.size[axis]);
        let from = padding.saturating_sub(k).div_ceil(stride).min(self.out[axis]);
        let to = (size + padding).saturating_sub(k).div_ceil(stride).clamp(from, self.out[axis]);
        (from..to, (from * stride + k).saturating_sub(padding))
    }

    /// Calls `f` with (the place in a group's columns, the place in its input, number of values) for all
    /// runs of columns under the kernel; values of the input are `stride[1]` apart.
    fn each_row(&self, mut f: impl FnMut(usize, usize, usize)) {
        let places = self.places();
        for tap in 0..self.taps() {
            let (channel, kernel) =
                (tap / (self.kernel[0] * self.kernel[1]), tap % (self.kernel[0] * self.kernel[1]));
            let (across, first_row) = self.inner(0, kernel / self.kernel[1]);
            let (along, first_column) = self.inner(1, kernel % self.kernel[1]);
            if along.is_empty() {
                continue;
            }
            for (i, row) in across.enumerate() {
                let from =
                    channel * self.area() + (first_row + i * self.stride[0]) * self.size[1] + first_column;
                f(tap * places + row * self.out[1] + along.start, from, along.len());
            }
        }
    }

    /// The columns `[taps, places]` of a group's input `[inside, rows, columns]`.
    fn gather<T: Real>(&self, columns: &mut [T], x: &[T]) {
        if self.padding != [0, 0] {
            columns.fill(T::ZERO);
        }
        let step = self.stride[1];
        self.each_row(|to, from, n| {
            if step == 1 {
                columns[to..to + n].copy_from_slice(&x[from..from + n]);
            } else {
                for (c, &x) in columns[to..to + n].iter_mut().zip(x[from..].iter().step_by(step)) {
                    *c = x;
                }
            }
        });
    }

    /// Adds gradients of columns to those of the input.
    fn scatter<T: Real>(&self, d_x: &mut [T], d_columns: &[T]) {
        let step = self.stride[1];
        self.each_row(|from, to, n| {
            if step == 1 {
                rows::add(&mut d_x[to..to + n], &d_columns[from..from + n]);
            } else {
                for (d, &c) in d_x[to..].iter_mut().step_by(step).zip(&d_columns[from..from + n]) {
                    *d += c;
                }
            }
        });
    }

    fn forward<T: Real>(&self, x: &[T], weight: &[T]) -> Vec<T> {
        let (places, taps) = (self.places(), self.taps());
        let mut out = vec![T::ZERO; self.views * self.groups * self.group_out()];
        let view = (self.groups * self.group_in()).max(1);
        let outs = out.par_chunks_mut((self.groups * self.group_out()).max(1));
        outs.zip(x.par_chunks(view)).for_each_init(Vec::new, |columns: &mut Vec<T>, (out, x)| {
            let groups = out.chunks_exact_mut(self.group_out()).zip(x.chunks_exact(self.group_in()));
            for ((out, x), weight) in groups.zip(weight.chunks_exact(self.outside * taps)) {
                let columns = self.columns(columns, x);
                let (a, b) = (View::rows(weight, taps), View::rows(columns, places));
                product([self.outside, places, taps], out, places, false, a, b);
            }
        });
        out
    }

    /// The columns of a group's input, in `buffer` unless they are the input itself.
    fn columns<'a, T: Real>(&self, buffer: &'a mut Vec<T>, x: &'a [T]) -> &'a [T] {
        if self.pointwise() {
            return x;
        }
        buffer.resize(self.taps() * self.places(), T::ZERO);
        self.gather(buffer, x);
        buffer
    }

    /// Gradients of input and weight.
    fn backward<T: Real>(&self, x: &[T], weight: &[T], d_out: &[T]) -> (Vec<T>, Vec<T>) {
        let (places, taps, run) = (self.places(), self.taps(), self.run());
        let view_in = (self.groups * self.group_in()).max(1);
        let view_out = (self.groups * self.group_out()).max(1);
        let mut d_x = vec![T::ZERO; x.len()];
        let parts: Vec<Vec<T>> = d_x
            .par_chunks_mut(run * view_in)
            .zip(x.par_chunks(run * view_in))
            .zip(d_out.par_chunks(run * view_out))
            .map(|((d_x, x), d_out)| {
                let mut d_weight = vec![T::ZERO; self.weights()];
                let (mut buffer, mut d_columns) = (Vec::new(), Vec::new());
                let groups = d_x.chunks_exact_mut(self.group_in()).zip(x.chunks_exact(self.group_in()));
                for (i, ((d_x, x), d_out)) in groups.zip(d_out.chunks_exact(self.group_out())).enumerate() {
                    let at = i % self.groups * self.outside * taps;
                    let at = at..at + self.outside * taps;
                    let columns = View::transposed(self.columns(&mut buffer, x), places);
                    let (size, d_weight) = ([self.outside, taps, places], &mut d_weight[at.clone()]);
                    product(size, d_weight, taps, true, View::rows(d_out, places), columns);
                    let (size, weight) = ([taps, places, self.outside], View::transposed(&weight[at], taps));
                    if self.pointwise() {
                        product(size, d_x, places, false, weight, View::rows(d_out, places));
                    } else {
                        d_columns.resize(taps * places, T::ZERO);
                        product(size, &mut d_columns, places, false, weight, View::rows(d_out, places));
                        self.scatter(d_x, &d_columns);
                    }
                }
                d_weight
            })
            .collect();
        let parts: Vec<&[T]> = parts.iter().map(Vec::as_slice).collect();
        (d_x, sum_in_order(&parts, weight.len()))
    }
}

/// The custom operation: input and weight to output.
struct ConvOp<T> {
    geometry: Geometry,
    float: PhantomData<fn() -> T>,
}

impl<T: Real> CustomOp2 for ConvOp<T> {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Geometry { views, groups, outside, out: [rows, columns], .. } = self.geometry;
        let out = self.geometry.forward(slice::<T>(x, lx)?, slice::<T>(w, lw)?);
        Ok((T::to_cpu_storage_owned(out), Shape::from((views, groups * outside, rows, columns))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (d_x, d_w) = with_slice(x, |xs| {
            with_slice(w, |ws| with_slice(d_out, |d_out| self.geometry.backward::<T>(xs, ws, d_out)))
        })???;
        let d_x = Tensor::from_vec(d_x, x.shape(), x.device())?;
        Ok((Some(d_x), Some(Tensor::from_vec(d_w, w.shape(), w.device())?)))
    }
}

/// The same, composed of candle operations.
fn compose(geometry: &Geometry, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let Geometry { views, groups, inside, outside, kernel, stride, padding, out, .. } = *geometry;
    let x = x.pad_with_zeros(2, padding[0], padding[0])?.pad_with_zeros(3, padding[1], padding[1])?;
    let index = |axis: usize, tap: usize| {
        let places: Vec<u32> = (0..out[axis]).map(|i| (i * stride[axis] + tap) as u32).collect();
        Tensor::from_vec(places, out[axis], x.device())
    };
    let mut taps = Vec::with_capacity(kernel[0] * kernel[1]);
    for row in 0..kernel[0] {
        let rows = x.contiguous()?.index_select(&index(0, row)?, 2)?;
        for column in 0..kernel[1] {
            let tap = rows.index_select(&index(1, column)?, 3)?;
            taps.push(tap.reshape((views, groups * inside, 1, geometry.places()))?);
        }
    }
    let columns = Tensor::cat(&taps, 2)?.reshape((views, groups, geometry.taps(), geometry.places()))?;
    let weight = weight.reshape((1, groups, outside, geometry.taps()))?;
    let weight = weight.broadcast_as((views, groups, outside, geometry.taps()))?.contiguous()?;
    weight.matmul(&columns.contiguous()?)?.reshape((views, groups * outside, out[0], out[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{distance, gradients, wave};
    use candle_core::Device;

    /// Shapes of input and weight, and how the kernel moves.
    fn cases() -> Vec<([usize; 4], [usize; 4], Conv)> {
        let conv = |stride, padding, groups| Conv { stride, padding, groups };
        vec![
            ([2, 3, 4, 5], [4, 3, 1, 1], Conv::default()),
            ([3, 2, 5, 7], [2, 2, 3, 3], conv([1, 1], [1, 1], 1)),
            ([1, 4, 5, 7], [6, 2, 1, 3], conv([2, 1], [0, 1], 2)),
            ([2, 4, 6, 5], [4, 2, 3, 1], conv([1, 1], [1, 0], 2)),
            ([20, 1, 7, 9], [3, 1, 3, 1], conv([2, 8], [1, 0], 1)),
            ([2, 3, 2, 11], [3, 1, 1, 7], conv([1, 4], [0, 3], 3)),
            ([2, 2, 3, 12], [3, 2, 1, 7], conv([1, 4], [0, 0], 1)),
            ([2, 3, 8, 6], [5, 3, 3, 3], conv([2, 2], [1, 1], 1)),
            // A kernel that reaches beyond a small input on both sides, and one that skips values.
            ([2, 1, 1, 2], [2, 1, 3, 5], conv([1, 3], [1, 3], 1)),
            ([2, 2, 5, 6], [2, 2, 1, 1], conv([3, 4], [2, 2], 1)),
        ]
    }

    #[test]
    fn gradients_match_differences() {
        for (x, w, conv) in cases() {
            let inputs = [wave(&x, 0.7, 1.0), wave(&w, 1.1, 1.0)];
            gradients(&inputs, |t| {
                let y = conv.forward(&t[0], &t[1])?;
                (&y * wave(y.dims(), 1.9, 1.0))?.sum_all()
            });
        }
    }

    #[test]
    fn fused_and_composed_agree_also_on_inputs_that_are_not_contiguous() {
        for (x, w, conv) in cases() {
            let [views, channels, rows, columns] = x;
            let turned = wave(&[views, columns, rows, channels], 0.7, 1.0).transpose(1, 3).unwrap();
            let w = wave(&w, 1.1, 1.0);
            let geometry = conv.geometry(&[views, channels, rows, columns], w.dims()).unwrap();
            let fused = conv.forward(&turned, &w).unwrap();
            assert!(distance(&fused, &compose(&geometry, &turned, &w).unwrap()) < 1e-13);
            let [turned, w] = [&turned, &w].map(|t| t.to_dtype(DType::F32).unwrap());
            assert!(distance(&fused, &conv.forward(&turned, &w).unwrap()) < 1e-5);
        }
        let inputs = [wave(&[2, 6, 5, 4], 0.7, 1.0), wave(&[4, 4, 3, 3], 1.1, 1.0)];
        let conv = Conv { padding: [1, 1], ..Conv::default() };
        gradients(&inputs, |t| conv.forward(&t[0].transpose(1, 3)?, &t[1])?.sqr()?.sum_all());
    }

    /// Outputs and gradients that PyTorch gave; `tests/vectors/sf_nfnet.py` made the file.
    #[test]
    fn values_and_gradients_are_those_of_pytorch() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/conv.safetensors");
        let stored = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        for (i, (x, w, conv)) in cases().into_iter().enumerate() {
            let [x, w] = [(x, 0.7), (w, 1.1)]
                .map(|(shape, step)| candle_core::Var::from_tensor(&wave(&shape, step, 1.0)).unwrap());
            let y = conv.forward(&x, &w).unwrap();
            let loss = (&y * wave(y.dims(), 1.9, 1.0)).unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            for (name, got) in [("y", &y), ("dx", grads.get(&x).unwrap()), ("dw", grads.get(&w).unwrap())] {
                let want = &stored[&format!("{i}.{name}")];
                assert_eq!(got.dims(), want.dims());
                assert!(distance(got, want) < 1e-12, "case {i}, {name}");
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let x = wave(&[37, 4, 9, 8], 0.7, 1.0).to_dtype(DType::F32).unwrap();
                let w = candle_core::Var::from_tensor(&wave(&[6, 2, 3, 3], 1.1, 1.0)).unwrap();
                let conv = Conv { stride: [2, 1], padding: [1, 1], groups: 2 };
                let y = conv.forward(&x, &w.to_dtype(DType::F32).unwrap()).unwrap();
                let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let flat =
                    |t: &Tensor| t.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap();
                (flat(&y), flat(grads.get(&w).unwrap())) as (Vec<f32>, Vec<f32>)
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let fails = |x: &[usize], w: &[usize], conv: Conv| {
            conv.forward(&wave(x, 0.7, 1.0), &wave(w, 1.1, 1.0)).is_err()
        };
        let plain = Conv::default();
        assert!(fails(&[1, 2, 4, 4], &[2, 3, 1, 1], plain));
        assert!(fails(&[1, 2, 4, 4], &[2, 2, 5, 1], plain));
        assert!(fails(&[1, 2, 4, 4], &[3, 1, 1, 1], Conv { groups: 2, ..plain }));
        assert!(fails(&[1, 2, 4, 4], &[2, 2, 1, 1], Conv { groups: 0, ..plain }));
        assert!(fails(&[1, 2, 4, 4], &[2, 2, 1, 1], Conv { stride: [0, 1], ..plain }));
        assert!(fails(&[2, 4, 4], &[2, 2, 1, 1], plain));
    }
}
