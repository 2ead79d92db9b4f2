//! From log-mel frames to tokens: normalise, cut into time slices, embed, add positions, prepend class
//! tokens; as one custom operation, so that neither normalised frames nor patches are ever stored.

use super::stack::{slice, sum_in_order, with_slice};
use crate::{
    gpu::{self, Precision},
    kernels::{
        Real,
        mat::{View, product},
        rows,
    },
    layers::linear::linear,
};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// Groups of views whose gradients are summed apart, then together; fixed, whatever the threads.
const GROUPS: usize = 16;

/// The shape of the tokeniser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenShape {
    /// Frames of a view; those after the last whole patch are left out.
    pub frames: usize,
    /// Mel bands of a frame.
    pub mels: usize,
    /// Frames of a patch.
    pub patch_frames: usize,
    /// Width of a token.
    pub dim: usize,
    /// Class tokens.
    pub classes: usize,
}

impl TokenShape {
    /// Patches of a view.
    pub fn patches(&self) -> usize {
        self.frames / self.patch_frames
    }

    /// Values of a patch.
    pub fn inside(&self) -> usize {
        self.patch_frames * self.mels
    }

    /// Names and shapes of the parameters, in the order in which they are packed.
    pub fn parameters(&self) -> [(&'static str, Vec<usize>); 4] {
        [
            ("patch.weight", vec![self.dim, self.inside()]),
            ("patch.bias", vec![self.dim]),
            ("position", vec![self.patches(), self.dim]),
            ("class", vec![self.classes, self.dim]),
        ]
    }

    /// Where each parameter begins among the packed ones.
    pub(crate) fn places(&self) -> [usize; 4] {
        let mut at = 0;
        self.parameters().map(|(_, shape)| {
            let length = shape.iter().product::<usize>();
            at += length;
            at - length
        })
    }

    fn split<'a, T>(&self, mut packed: &'a [T]) -> [&'a [T]; 4] {
        self.parameters().map(|(_, shape)| {
            let (part, rest) = packed.split_at(shape.iter().product());
            packed = rest;
            part
        })
    }

    pub(crate) fn packed(&self) -> usize {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// The patches that each view keeps, when some are dropped in training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Patches kept per view, at least one.
    pub per_view: usize,
    /// `[views, per_view]` patch numbers.
    pub patches: Arc<Vec<u32>>,
}

impl Kept {
    /// Those of `views` views from view `from` on.
    pub fn narrow(&self, from: usize, views: usize) -> Self {
        let patches = self.patches.iter().skip(from * self.per_view).take(views * self.per_view);
        Self { per_view: self.per_view, patches: Arc::new(patches.copied().collect()) }
    }
}

/// What turns raw decibels into numbers of about unit variance, one mean and standard deviation per
/// mel band.
#[derive(Debug, Clone, PartialEq)]
pub struct Normaliser {
    /// Mean of each band in dB.
    pub mean: Vec<f32>,
    /// Standard deviation of each band in dB, above zero.
    pub deviation: Vec<f32>,
}

impl Normaliser {
    /// Deviations below this many dB count as this many: a band without signal stays quiet.
    const LEAST: f64 = 0.1;

    /// One that leaves frames of `mels` bands as they are.
    pub fn identity(mels: usize) -> Self {
        Self { mean: vec![0.0; mels], deviation: vec![1.0; mels] }
    }

    /// Fitted to frames of `mels` bands, taken from any number of slices.
    pub fn fit<'a>(mels: usize, parts: impl Iterator<Item = &'a [f32]>) -> Self {
        let mut moments = Moments::new(mels);
        parts.for_each(|part| moments.add(part));
        moments.normaliser()
    }
}

/// Sums over the frames of a data set, in double precision, from which a [`Normaliser`] comes.
#[derive(Debug, Clone)]
pub struct Moments {
    frames: usize,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Of no frames yet, of `mels` bands.
    pub fn new(mels: usize) -> Self {
        Self { frames: 0, sum: vec![0.0; mels], squares: vec![0.0; mels] }
    }

    /// Adds whole frames, one after the other.
    pub fn add(&mut self, frames: &[f32]) {
        for frame in frames.chunks_exact(self.sum.len().max(1)) {
            self.frames += 1;
            for ((sum, square), &x) in self.sum.iter_mut().zip(&mut self.squares).zip(frame) {
                *sum += f64::from(x);
                *square += f64::from(x) * f64::from(x);
            }
        }
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Mean and standard deviation of each band.
    pub fn normaliser(&self) -> Normaliser {
        let n = self.frames.max(1) as f64;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / n).collect();
        let deviation = self.squares.iter().zip(&mean).map(|(squares, mean)| {
            let variance = (squares / n - mean * mean).max(0.0);
            variance.sqrt().max(Normaliser::LEAST) as f32
        });
        Normaliser { deviation: deviation.collect(), mean: mean.iter().map(|&m| m as f32).collect() }
    }
}

struct TokensOp<T> {
    shape: TokenShape,
    mean: Vec<T>,
    inverse: Vec<T>,
    kept: Option<Kept>,
}

impl<T: Real> TokensOp<T> {
    fn new(shape: TokenShape, normaliser: &Normaliser, kept: Option<Kept>) -> Self {
        let real = |x: &f32| T::from_f64(f64::from(*x));
        let inverse = normaliser.deviation.iter().map(|d| T::ONE / real(d)).collect();
        Self { shape, mean: normaliser.mean.iter().map(real).collect(), inverse, kept }
    }

    fn per_view(&self) -> usize {
        self.kept.as_ref().map_or(self.shape.patches(), |kept| kept.per_view)
    }

    /// Number of the `i`-th patch that a view keeps.
    fn patch(&self, view: usize, i: usize) -> usize {
        match &self.kept {
            None => i,
            Some(kept) => kept.patches.get(view * kept.per_view + i).map_or(0, |&p| p as usize),
        }
    }

    /// The normalised patches of one view: `[per_view, inside]`.
    fn fill(&self, out: &mut [T], view: usize, features: &[T]) {
        let TokenShape { mels, .. } = self.shape;
        let inside = self.shape.inside();
        for (i, out) in out.chunks_exact_mut(inside).enumerate() {
            let from = self.patch(view, i) * inside;
            crate::kernels::simd(|| {
                for (out, x) in out.chunks_exact_mut(mels).zip(features[from..].chunks_exact(mels)) {
                    for (((out, &x), &mean), &inverse) in
                        out.iter_mut().zip(x).zip(&self.mean).zip(&self.inverse)
                    {
                        *out = (x - mean) * inverse;
                    }
                }
            });
        }
    }

    fn forward(&self, features: &[T], packed: &[T]) -> Vec<T> {
        let TokenShape { frames, mels, dim, classes, .. } = self.shape;
        let (patches, inside) = (self.per_view(), self.shape.inside());
        let [weight, bias, position, class] = self.shape.split(packed);
        let views = features.len() / (frames * mels);
        let row = (classes + patches) * dim;
        let mut out = vec![T::ZERO; views * row];
        out.par_chunks_mut(row).zip(features.par_chunks(frames * mels)).enumerate().for_each_init(
            || vec![T::ZERO; patches * inside],
            |buffer, (view, (out, features))| {
                self.fill(buffer, view, features);
                let (head, tail) = out.split_at_mut(classes * dim);
                head.copy_from_slice(class);
                for (i, tail) in tail.chunks_exact_mut(dim).enumerate() {
                    let at = self.patch(view, i) * dim;
                    rows::add_row(tail, &position[at..at + dim], bias);
                }
                let (a, b) = (View::rows(buffer, inside), View::transposed(weight, inside));
                product([patches, dim, inside], tail, dim, true, a, b);
            },
        );
        out
    }

    fn backward(&self, features: &[T], packed: usize, d_out: &[T]) -> Vec<T> {
        let TokenShape { frames, mels, dim, classes, .. } = self.shape;
        let (patches, inside) = (self.per_view(), self.shape.inside());
        let views = features.len() / (frames * mels);
        let row = (classes + patches) * dim;
        let group = views.div_ceil(GROUPS).max(1);
        let parts: Vec<Vec<T>> = d_out
            .par_chunks(group * row)
            .zip(features.par_chunks(group * frames * mels))
            .enumerate()
            .map(|(g, (d_out, features))| {
                let mut part = vec![T::ZERO; packed];
                let mut buffer = vec![T::ZERO; patches * inside];
                let (d_weight, rest) = part.split_at_mut(dim * inside);
                let (d_bias, rest) = rest.split_at_mut(dim);
                let (d_position, d_class) = rest.split_at_mut(self.shape.patches() * dim);
                for (i, (d, x)) in d_out.chunks(row).zip(features.chunks(frames * mels)).enumerate() {
                    let view = g * group + i;
                    let (head, tail) = d.split_at(classes * dim);
                    rows::add(d_class, head);
                    rows::add_column_sums(d_bias, tail, dim);
                    for (i, tail) in tail.chunks_exact(dim).enumerate() {
                        rows::add(&mut d_position[self.patch(view, i) * dim..], tail);
                    }
                    self.fill(&mut buffer, view, x);
                    let (a, b) = (View::transposed(tail, dim), View::rows(&buffer, inside));
                    product([dim, inside, patches], d_weight, inside, true, a, b);
                }
                part
            })
            .collect();
        let parts: Vec<&[T]> = parts.iter().map(Vec::as_slice).collect();
        sum_in_order(&parts, packed)
    }
}

impl<T: Real> CustomOp2 for TokensOp<T> {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        p: &CpuStorage,
        lp: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (features, packed) = (slice::<T>(x, lx)?, slice::<T>(p, lp)?);
        let views = lx.shape().dims().first().copied().unwrap_or(0);
        if packed.len() != self.shape.packed() {
            bail!("tokens: {} parameters do not fit {:?}", packed.len(), self.shape);
        }
        let out = self.forward(features, packed);
        let shape = (views, self.shape.classes + self.per_view(), self.shape.dim);
        Ok((T::to_cpu_storage_owned(out), Shape::from(shape)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        p: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d_packed =
            with_slice(x, |x| with_slice(d_out, |d_out| self.backward(x, p.elem_count(), d_out)))??;
        Ok((None, Some(Tensor::from_vec(d_packed, p.shape(), p.device())?)))
    }
}

/// Tokens of `features: [views, frames, mels]` (dB): `[views, classes + kept patches, dim]`.
/// `parameters` are those of [`TokenShape::parameters`]. Features get no gradient. `precision` is that of
/// the product on a GPU.
pub fn tokens(
    shape: TokenShape,
    precision: Precision,
    normaliser: &Normaliser,
    kept: Option<&Kept>,
    parameters: &[Tensor],
    features: &Tensor,
) -> Result<Tensor> {
    let (views, frames, mels) = features.dims3()?;
    if (frames, mels) != (shape.frames, shape.mels) || normaliser.mean.len() != mels {
        bail!("features are {frames} x {mels}, expected {} x {}", shape.frames, shape.mels);
    }
    if let Some(kept) = kept {
        let whole = kept.per_view > 0 && kept.patches.len() == views * kept.per_view;
        if !whole || kept.patches.iter().any(|&p| p as usize >= shape.patches()) {
            bail!("kept patches do not fit {views} views of {} patches", shape.patches());
        }
    }
    let on_gpu = gpu::takes(features);
    if !features.device().is_cpu() && !on_gpu {
        return compose(shape, normaliser, kept, parameters, features);
    }
    let flat = parameters.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?;
    #[cfg(feature = "cuda")]
    if on_gpu {
        let packed = Tensor::cat(&flat, 0)?;
        return match crate::gpu::operations::tokens(shape, precision, normaliser, kept, &packed, features)? {
            Some(tokens) => Ok(tokens),
            None => compose(shape, normaliser, kept, parameters, features),
        };
    }
    #[cfg(not(feature = "cuda"))]
    let _ = precision;
    let (features, packed) = (features.contiguous()?, Tensor::cat(&flat, 0)?);
    match features.dtype() {
        DType::F64 => features.apply_op2(&packed, TokensOp::<f64>::new(shape, normaliser, kept.cloned())),
        _ => features.apply_op2(&packed, TokensOp::<f32>::new(shape, normaliser, kept.cloned())),
    }
}

fn compose(
    shape: TokenShape,
    normaliser: &Normaliser,
    kept: Option<&Kept>,
    parameters: &[Tensor],
    features: &Tensor,
) -> Result<Tensor> {
    let [weight, bias, position, class] = parameters else {
        bail!("tokens have 4 parameters, not {}", parameters.len())
    };
    let (views, patches) = (features.dim(0)?, shape.patches());
    let (device, dtype) = (features.device(), features.dtype());
    let band = |values: &[f32]| Tensor::from_slice(values, shape.mels, device)?.to_dtype(dtype);
    let x = features.narrow(1, 0, patches * shape.patch_frames)?;
    let x = x.broadcast_sub(&band(&normaliser.mean)?)?.broadcast_div(&band(&normaliser.deviation)?)?;
    let x = x.reshape((views, patches, shape.inside()))?;
    let place = |t: Tensor| -> Result<Tensor> {
        let Some(kept) = kept else { return Ok(t) };
        let index = Tensor::from_slice(&kept.patches, (views, kept.per_view, 1), device)?;
        let index = index.broadcast_as((views, kept.per_view, t.dim(2)?))?.contiguous()?;
        t.contiguous()?.gather(&index, 1)
    };
    let position = position.unsqueeze(0)?.broadcast_as((views, patches, shape.dim))?;
    let x = (linear(&place(x)?, weight, Some(bias))? + place(position)?)?;
    let class = class.unsqueeze(0)?.broadcast_as((views, shape.classes, shape.dim))?;
    Tensor::cat(&[&class, &x], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::check::{distance, gradients, wave};

    const SHAPE: TokenShape = TokenShape { frames: 9, mels: 3, patch_frames: 2, dim: 4, classes: 2 };

    fn parts() -> (Normaliser, Vec<Tensor>) {
        let normaliser = Normaliser { mean: vec![-0.5, 0.0, 0.5], deviation: vec![0.5, 1.0, 2.0] };
        let parameters = SHAPE.parameters().iter().map(|(_, s)| wave(s, 1.3, 0.7)).collect();
        (normaliser, parameters)
    }

    fn kept() -> Kept {
        Kept { per_view: 2, patches: Arc::new((0..40u32).map(|i| (i * 7 + i / 3) % 4).collect()) }
    }

    #[test]
    fn gradients_match_differences() {
        let (normaliser, parameters) = parts();
        let features = wave(&[20, 9, 3], 0.71, 1.0);
        for kept in [None, Some(kept())] {
            let mask = wave(&[20, 2 + kept.as_ref().map_or(4, |k| k.per_view), 4], 1.9, 1.0);
            gradients(&parameters, |p| {
                (tokens(SHAPE, Precision::F32, &normaliser, kept.as_ref(), p, &features)? * &mask)?.sum_all()
            });
        }
    }

    #[test]
    fn fused_and_composed_agree() {
        let (normaliser, parameters) = parts();
        let features = wave(&[20, 9, 3], 0.71, 1.0);
        for kept in [None, Some(kept())] {
            let fused =
                tokens(SHAPE, Precision::F32, &normaliser, kept.as_ref(), &parameters, &features).unwrap();
            let composed = compose(SHAPE, &normaliser, kept.as_ref(), &parameters, &features).unwrap();
            assert!(distance(&fused, &composed) < 1e-13);
        }
    }

    #[test]
    fn bad_shapes_are_errors() {
        let (normaliser, parameters) = parts();
        let run = |features: &Tensor, kept: Option<&Kept>| {
            tokens(SHAPE, Precision::F32, &normaliser, kept, &parameters, features).is_err()
        };
        assert!(run(&wave(&[2, 8, 3], 1.0, 1.0), None));
        let kept = Kept { per_view: 1, patches: Arc::new(vec![0, 4]) };
        assert!(run(&wave(&[2, 9, 3], 1.0, 1.0), Some(&kept)));
    }

    #[test]
    fn the_normaliser_fits_each_band() {
        let frames = [1.0f32, 5.0, 3.0, 5.0];
        let fitted = Normaliser::fit(2, [&frames[..2], &frames[2..]].into_iter());
        assert_eq!(fitted.mean, [2.0, 5.0]);
        assert_eq!(fitted.deviation, [1.0, 0.1]);
    }
}
