//! The tokeniser of [`crate::encoder::tokens`] on the device: the kernels of `cuda/tokens.cu` around one product.

use loev_ops::gpu::{Buffer, GpuError, Launch};

use super::{
    Engine, KERNELS, Matrix, Precision, arguments, place,
    product::View,
    rows::{Rows, Sums, kernel, strips},
};
use crate::encoder::tokens::{Kept, TokenShape};

arguments! {
    struct Arguments {
        features: u64, mean: u64, inverse: u64, kept: u64, patches: u64, y: u64, bias: u64, position: u64,
        classes: u64, out: u64,
        per_view: i32, class_count: i32, frames: i32, mels: i32, inside: i32, dim: i32,
    }
}

arguments! {
    struct BackArguments {
        d_out: u64, d_y: u64, places: u64, sums: u64, views: i64, strip: i64,
        per_view: i32, class_count: i32, patches: i32, dim: i32,
    }
}

arguments! {
    struct OnsetsArguments {
        features: u64, deviation: u64, out: u64, items: i64, frames: i32, mels: i32, groups: i32, gap: i32,
    }
}

/// Threads of a block that has a row, or values of the tokens' parameters.
const THREADS: u32 = 128;

/// What a tokeniser has on the device beside its parameters: mean and reciprocal deviation of each band, and the
/// patches that views keep.
pub(crate) struct Fixed {
    bands: Buffer<f32>,
    kept: Option<KeptThere>,
}

struct KeptThere {
    per_view: usize,
    patches: Buffer<u32>,
    places: Buffer<i32>,
}

impl Fixed {
    pub fn per_view(&self, shape: &TokenShape) -> usize {
        self.kept.as_ref().map_or(shape.patches(), |kept| kept.per_view)
    }
}

/// A pass through the tokeniser.
#[derive(Clone, Copy)]
pub(crate) struct TokensInput<'a> {
    pub shape: TokenShape,
    pub precision: Precision,
    pub fixed: &'a Fixed,
    pub views: usize,
    /// Where `[views, frames, mels]` in dB are.
    pub features: u64,
    /// Where the packed parameters are.
    pub packed: u64,
}

impl TokensInput<'_> {
    fn rows(&self) -> usize {
        self.views * self.fixed.per_view(&self.shape)
    }

    fn arguments(&self) -> Arguments {
        let TokenShape { frames, mels, dim, classes, .. } = self.shape;
        let [_, bias, position, class] = self.shape.places();
        Arguments {
            features: self.features,
            mean: self.fixed.bands.address(),
            inverse: place(self.fixed.bands.address(), mels),
            kept: self.fixed.kept.as_ref().map_or(0, |kept| kept.patches.address()),
            patches: 0,
            y: 0,
            bias: place(self.packed, bias),
            position: place(self.packed, position),
            classes: place(self.packed, class),
            out: 0,
            per_view: self.fixed.per_view(&self.shape) as i32,
            class_count: classes as i32,
            frames: frames as i32,
            mels: mels as i32,
            inside: self.shape.inside() as i32,
            dim: dim as i32,
        }
    }
}

/// Where each patch of `views` views is among those kept, -1 where it is dropped; none when a view keeps one twice.
pub(crate) fn places(kept: &Kept, patches: usize) -> Option<Vec<i32>> {
    let views = kept.patches.len() / kept.per_view.max(1);
    let mut places = vec![-1; views * patches];
    for (i, &patch) in kept.patches.iter().enumerate() {
        let (view, at) = (i / kept.per_view, i % kept.per_view);
        let place = places.get_mut(view * patches + patch as usize)?;
        if *place >= 0 {
            return None;
        }
        *place = at as i32;
    }
    Some(places)
}

impl Engine {
    /// Puts on the device what a tokeniser needs there. `kept` comes with its [`places`].
    pub(crate) fn fixed(
        &self,
        mean: &[f32],
        deviation: &[f32],
        kept: Option<(&Kept, Vec<i32>)>,
    ) -> Result<Fixed, GpuError> {
        let bands: Vec<f32> = mean.iter().copied().chain(deviation.iter().map(|d| 1.0 / d)).collect();
        let kept = kept.map(|(kept, places)| {
            let (patches, places) = (self.gpu.upload(&kept.patches)?, self.gpu.upload(&places)?);
            Ok(KeptThere { per_view: kept.per_view, patches, places })
        });
        Ok(Fixed { bands: self.gpu.upload(&bands)?, kept: kept.transpose()? })
    }

    /// The normalised patches, `[views * per_view, inside]`.
    fn patches(&self, input: TokensInput<'_>) -> Result<Matrix, GpuError> {
        let patches = self.matrix(input.precision, input.rows() * input.shape.inside())?;
        let arguments = Arguments { patches: patches.address(), ..input.arguments() };
        let launch = Launch::blocks([input.rows(), 1, 1], THREADS);
        self.gpu.launch(&KERNELS, kernel!(input.precision, "patches"), launch, &arguments)?;
        Ok(patches)
    }

    /// `[views, classes + per_view, dim]`.
    pub(crate) fn tokens(&self, input: TokensInput<'_>) -> Result<Buffer<f32>, GpuError> {
        let TokensInput { shape, precision, views, packed, .. } = input;
        let (rows, inside, dim) = (input.rows(), shape.inside(), shape.dim);
        let patches = self.patches(input)?;
        let rounded = match precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(self.rounded(packed, dim * inside)?),
        };
        let weight = View::transposed(rounded.as_ref().map_or(packed, Matrix::address), inside);
        let y = self.matrix(precision, rows * dim)?;
        let to = (View::rows(y.address(), dim), precision);
        self.product([rows, dim, inside], precision, to, View::rows(patches.address(), inside), weight)?;
        let out = self.floats((views * shape.classes + rows) * dim)?;
        let arguments = Arguments { y: y.address(), out: out.address(), ..input.arguments() };
        let launch = Launch::blocks([views * shape.classes + rows, 1, 1], THREADS);
        self.gpu.launch(&KERNELS, kernel!(precision, "tokens"), launch, &arguments)?;
        Ok(out)
    }

    /// Gradients of the packed parameters.
    pub(crate) fn tokens_back(&self, input: TokensInput<'_>, d_out: u64) -> Result<Buffer<f32>, GpuError> {
        let TokensInput { shape, precision, fixed, views, .. } = input;
        let (rows, inside, dim, classes) = (input.rows(), shape.inside(), shape.dim, shape.classes);
        let d_packed = self.floats(shape.packed())?;
        let [weight, bias, position, class] = shape.places().map(|at| place(d_packed.address(), at));
        let d_y = self.matrix(precision, rows * dim)?;
        let width = (classes + shape.patches()) * dim;
        let (strip, strips) = strips(views, 8, 64);
        let partial = self.floats(strips * width)?;
        let arguments = BackArguments {
            d_out,
            d_y: d_y.address(),
            places: fixed.kept.as_ref().map_or(0, |kept| kept.places.address()),
            sums: partial.address(),
            views: views as i64,
            strip: strip as i64,
            per_view: fixed.per_view(&shape) as i32,
            class_count: classes as i32,
            patches: shape.patches() as i32,
            dim: dim as i32,
        };
        let launch = Launch::blocks([rows, 1, 1], THREADS);
        self.gpu.launch(&KERNELS, kernel!(precision, "tokens_back"), launch, &arguments)?;
        let launch = Launch::blocks([strips, width.div_ceil(THREADS as usize), 1], THREADS);
        self.gpu.launch(&KERNELS, "token_sums", launch, &arguments)?;
        let mut sums = Sums::default();
        sums.keep_apart(partial, strips, [(class, classes * dim), (position, shape.patches() * dim)]);
        self.finish(sums)?;
        // Every patch has the bias once: its gradient is the sum of those of the positions.
        let mut sums = Sums::default();
        let positions =
            Rows { views: 1, tokens: shape.patches(), queries: shape.patches(), dim, wide: false };
        self.column_sums(positions, (position, Precision::F32), &mut sums, bias)?;
        self.finish(sums)?;
        let patches = self.patches(input)?;
        let (a, b) = (View::transposed(d_y.address(), dim), View::rows(patches.address(), inside));
        let to = (View::rows(weight, inside), Precision::F32);
        self.product([dim, inside, rows], precision, to, a, b)?;
        Ok(d_packed)
    }

    /// The onsets of [`crate::encoder::rhythm`] of `features: [views, frames, mels]`: `[views, groups, frames - 1]`.
    pub(crate) fn onsets(
        &self,
        [views, frames, mels, groups]: [usize; 4],
        features: u64,
        deviation: &[f32],
    ) -> Result<Buffer<f32>, GpuError> {
        let deviation = self.gpu.upload(deviation)?;
        let items = views * (frames - 1) * groups;
        let out = self.floats(items)?;
        let arguments = OnsetsArguments {
            features,
            deviation: deviation.address(),
            out: out.address(),
            items: items as i64,
            frames: frames as i32,
            mels: mels as i32,
            groups: groups as i32,
            gap: 0,
        };
        self.gpu.launch(&KERNELS, "onsets", Launch::items(items, THREADS), &arguments)?;
        Ok(out)
    }
}
