//! The kernels of `cuda/rows.cu`.

use loev_ops::gpu::{Buffer, GpuError, Launch};

use super::{Engine, KERNELS, Matrix, Precision, arguments, place};
use crate::kernels::drop::{Drops, Residual};

arguments! {
    /// What is dropped; nothing when `residual` is -1.
    struct Drop { key: u64, first: u64, path: f64, scale: f32, below: u32, residual: i32, gap: i32 }
}

impl Drop {
    fn new(drops: Option<&Drops>, residual: Residual) -> Self {
        let Some(drops) = drops else {
            return Self { key: 0, first: 0, path: 0.0, scale: 1.0, below: 0, residual: -1, gap: 0 };
        };
        Self {
            key: drops.key.value(),
            first: drops.first as u64,
            path: drops.path,
            scale: drops.scale() as f32,
            below: u32::from(drops.below()),
            residual: residual as i32,
            gap: 0,
        }
    }
}

arguments! {
    struct NormArguments {
        x: u64, weight: u64, bias: u64, moments: u64, out: u64, asked: u64,
        rows: i64, tokens: i32, queries: i32, dim: i32, wide: i32,
    }
}

arguments! {
    struct ResidualArguments {
        y: u64, bias: u64, x: u64, out: u64, norm_weight: u64, norm_bias: u64, moments: u64, normed: u64,
        drop: Drop, rows: i64, tokens: i32, queries: i32, dim: i32, wide: i32,
    }
}

arguments! {
    struct NormBackArguments {
        x: u64, moments: u64, weight: u64, bias: u64, d: u64, d_asked: u64, d_beside: u64,
        d_x: u64, normed: u64, asked: u64, added: u64, sums: u64,
        drop: Drop, rows: i64, strip: i64, tokens: i32, queries: i32, dim: i32, wide: i32,
    }
}

arguments! {
    struct GeluArguments {
        up: u64, bias: u64, active: u64, d: u64, sums: u64, rows: i64, strip: i64, width: i32, wide: i32,
    }
}

arguments! {
    struct DropBackArguments {
        d: u64, added: u64, sums: u64, drop: Drop, rows: i64, strip: i64,
        queries: i32, width: i32, wide: i32, gap: i32,
    }
}

arguments! {
    struct ColumnsArguments { x: u64, sums: u64, rows: i64, strip: i64, width: i32, wide: i32 }
}

arguments! {
    struct AddBiasArguments { x: u64, bias: u64, rows: i64, strip: i64, width: i32, wide: i32 }
}

arguments! {
    struct Part { sums: u64, out: u64, stride: i64, strips: i32, width: i32, first_block: i32, gap: i32 }
}

/// Sums that one launch finishes.
const PARTS: usize = 8;

arguments! {
    struct FinishArguments { parts: [Part; PARTS], count: i64 }
}

arguments! {
    struct PickArguments {
        many: u64, few: u64, items: i64, many_rows: i32, few_rows: i32, head: i32, start: i32, skip: i32,
        dim: i32, mode: i32, gap: i32,
    }
}

arguments! {
    struct CastArguments { from: u64, to: u64, length: i64 }
}

/// Rows of one width, of views of which the first `queries` of `tokens` count.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub views: usize,
    pub tokens: usize,
    pub queries: usize,
    pub dim: usize,
    /// Whether four values may be read at once.
    pub wide: bool,
}

impl Rows {
    pub fn all(&self) -> usize {
        self.views * self.tokens
    }

    pub fn asking(&self) -> usize {
        self.views * self.queries
    }

    /// What the GELU of `up + bias` is given, and its strips; without what only the way back wants.
    fn gelu(&self, up: &Matrix, bias: u64, active: &Matrix) -> (GeluArguments, usize) {
        let (strip, strips) = strips(self.all(), 32, 256);
        let arguments = GeluArguments {
            up: up.address(),
            bias,
            active: active.address(),
            d: 0,
            sums: 0,
            rows: self.all() as i64,
            strip: strip as i64,
            width: self.dim as i32,
            wide: i32::from(self.wide),
        };
        (arguments, strips)
    }
}

/// A weight and a bias, where they are.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub weight: u64,
    pub bias: u64,
}

/// What [`Engine::norm_back`] reads.
pub(super) struct NormBack<'a> {
    pub x: u64,
    pub moments: &'a Buffer<f32>,
    pub norm: Affine,
    pub d: &'a Matrix,
    pub d_asked: Option<&'a Matrix>,
    pub d_beside: u64,
}

/// What [`Engine::norm_back`] makes: the gradient, the normed rows once more, and where they are wanted those that
/// asked and what goes on into the residual.
pub(super) struct NormBackOut {
    pub d_x: Buffer<f32>,
    pub normed: Matrix,
    pub asked: Option<Matrix>,
    pub added: Option<Matrix>,
}

/// Sums over rows that wait for their second stage.
#[derive(Default)]
pub(super) struct Sums {
    buffers: Vec<Buffer<f32>>,
    parts: Vec<Part>,
}

impl Sums {
    /// Keeps the sums of `strips` strips, each of which has one row of `width` for every place in `to`.
    fn keep(&mut self, sums: Buffer<f32>, strips: usize, width: usize, to: &[u64]) {
        for (kind, &out) in to.iter().enumerate() {
            let sums = place(sums.address(), kind * width);
            let (stride, strips, width) = ((to.len() * width) as i64, strips as i32, width as i32);
            self.parts.push(Part { sums, out, stride, strips, width, first_block: 0, gap: 0 });
        }
        self.buffers.push(sums);
    }

    /// The same where the row of a strip holds values for several places, one after the other.
    pub fn keep_apart(&mut self, sums: Buffer<f32>, strips: usize, to: [(u64, usize); 2]) {
        let (stride, mut at) = (to.iter().map(|(_, width)| *width as i64).sum(), 0);
        for (out, width) in to {
            let sums = place(sums.address(), at);
            let (strips, width_there) = (strips as i32, width as i32);
            self.parts.push(Part { sums, out, stride, strips, width: width_there, first_block: 0, gap: 0 });
            at += width;
        }
        self.buffers.push(sums);
    }
}

/// Threads of a block of row kernels: a warp a row.
const THREADS: u32 = 128;
/// Threads of a block that walks down columns.
const COLUMN_THREADS: u32 = 256;
/// Most bytes of shared memory for the sums of a block.
const SUMS: usize = 96 << 10;

/// A strip's length, at least `least`, and how many there are; never more than `most`. By sizes alone, so that sums do
/// not depend on the device.
pub(super) fn strips(rows: usize, least: usize, most: usize) -> (usize, usize) {
    let strip = rows.div_ceil(most).max(least);
    (strip, rows.div_ceil(strip))
}

/// The name of a kernel that there is in both precisions.
macro_rules! kernel {
    ($precision:expr, $name:literal) => {
        match $precision {
            $crate::gpu::Precision::F32 => concat!($name, "_f32"),
            $crate::gpu::Precision::Bf16 => concat!($name, "_bf16"),
        }
    };
}
pub(super) use kernel;

fn warps(rows: usize) -> Launch {
    Launch::items(rows * 32, THREADS)
}

/// Strips along x, columns along y.
fn down_columns(strips: usize, width: usize, wide: bool) -> Launch {
    Launch::blocks([strips, width.div_ceil(if wide { 128 } else { 32 }), 1], COLUMN_THREADS)
}

fn address(matrix: Option<&Matrix>) -> u64 {
    matrix.map_or(0, Matrix::address)
}

impl Engine {
    /// `x` rounded to bf16.
    pub(super) fn rounded(&self, x: u64, length: usize) -> Result<Matrix, GpuError> {
        let out = self.matrix(Precision::Bf16, length)?;
        let arguments = CastArguments { from: x, to: out.address(), length: length as i64 };
        self.gpu.launch(&KERNELS, "cast_bf16", Launch::items(length.div_ceil(4), 256), &arguments)?;
        Ok(out)
    }

    /// Layer norm of `rows.all()` rows; with fewer queries than tokens, those that ask once more.
    pub(super) fn norm(
        &self,
        precision: Precision,
        rows: Rows,
        x: u64,
        norm: Affine,
    ) -> Result<(Matrix, Option<Matrix>, Buffer<f32>), GpuError> {
        let out = self.matrix(precision, rows.all() * rows.dim)?;
        let fewer = rows.queries < rows.tokens;
        let asked = fewer.then(|| self.matrix(precision, rows.asking() * rows.dim)).transpose()?;
        let moments = self.floats(2 * rows.all())?;
        let arguments = NormArguments {
            x,
            weight: norm.weight,
            bias: norm.bias,
            moments: moments.address(),
            out: out.address(),
            asked: address(asked.as_ref()),
            rows: rows.all() as i64,
            tokens: rows.tokens as i32,
            queries: rows.queries as i32,
            dim: rows.dim as i32,
            wide: i32::from(rows.wide),
        };
        self.gpu.launch(&KERNELS, kernel!(precision, "norm"), warps(rows.all()), &arguments)?;
        Ok((out, asked, moments))
    }

    /// `x + dropped(y + bias)` of the rows that ask, and its layer norm with its moments where one is given.
    #[allow(clippy::type_complexity)]
    pub(super) fn residual(
        &self,
        rows: Rows,
        (x, y, bias): (u64, &Matrix, u64),
        (drops, residual): (Option<&Drops>, Residual),
        norm: Option<Affine>,
    ) -> Result<(Buffer<f32>, Option<(Matrix, Buffer<f32>)>), GpuError> {
        let out = self.floats(rows.asking() * rows.dim)?;
        let normed = norm
            .map(|_| {
                Ok((self.matrix(y.precision, rows.asking() * rows.dim)?, self.floats(2 * rows.asking())?))
            })
            .transpose()?;
        let arguments = ResidualArguments {
            y: y.address(),
            bias,
            x,
            out: out.address(),
            norm_weight: norm.map_or(0, |norm| norm.weight),
            norm_bias: norm.map_or(0, |norm| norm.bias),
            moments: normed.as_ref().map_or(0, |(_, moments)| moments.address()),
            normed: address(normed.as_ref().map(|(normed, _)| normed)),
            drop: Drop::new(drops, residual),
            rows: rows.asking() as i64,
            tokens: rows.tokens as i32,
            queries: rows.queries as i32,
            dim: rows.dim as i32,
            wide: i32::from(rows.wide),
        };
        self.gpu.launch(&KERNELS, kernel!(y.precision, "residual"), warps(rows.asking()), &arguments)?;
        Ok((out, normed))
    }

    /// The way back through a norm of `rows.all()` rows and the sum beside it. `to` is where the gradients of its
    /// weight and bias belong, and with `added`, which also says what is dropped, that of the bias before.
    pub(super) fn norm_back(
        &self,
        rows: Rows,
        back: &NormBack<'_>,
        added: Option<(Option<&Drops>, Residual)>,
        sums: &mut Sums,
        to: &[u64],
    ) -> Result<NormBackOut, GpuError> {
        let (precision, values) = (back.d.precision, rows.all() * rows.dim);
        let fewer = rows.queries < rows.tokens;
        let out = NormBackOut {
            d_x: self.floats(values)?,
            normed: self.matrix(precision, values)?,
            asked: fewer.then(|| self.matrix(precision, rows.asking() * rows.dim)).transpose()?,
            added: added.map(|_| self.matrix(precision, values)).transpose()?,
        };
        let kinds = to.len();
        let per_warp = kinds * rows.dim * size_of::<f32>();
        let warps = (SUMS / per_warp.max(1)).clamp(1, THREADS as usize / 32);
        let (strip, strips) = strips(rows.all(), 16, 1024);
        let partial = self.floats(strips * kinds * rows.dim)?;
        let (drops, residual) = added.unwrap_or((None, Residual::Attention));
        let arguments = NormBackArguments {
            x: back.x,
            moments: back.moments.address(),
            weight: back.norm.weight,
            bias: back.norm.bias,
            d: back.d.address(),
            d_asked: address(back.d_asked),
            d_beside: back.d_beside,
            d_x: out.d_x.address(),
            normed: out.normed.address(),
            asked: address(out.asked.as_ref()),
            added: address(out.added.as_ref()),
            sums: partial.address(),
            drop: Drop::new(drops, residual),
            rows: rows.all() as i64,
            strip: strip as i64,
            tokens: rows.tokens as i32,
            queries: rows.queries as i32,
            dim: rows.dim as i32,
            wide: i32::from(rows.wide),
        };
        let launch = Launch::blocks([strips, 1, 1], 32 * warps as u32).shared(warps * per_warp);
        self.gpu.launch(&KERNELS, kernel!(precision, "norm_back"), launch, &arguments)?;
        sums.keep(partial, strips, rows.dim, to);
        Ok(out)
    }

    /// GELU of `up + bias`, of rows of `rows.dim` values.
    pub(super) fn gelu(&self, rows: Rows, up: &Matrix, bias: u64) -> Result<Matrix, GpuError> {
        let active = self.matrix(up.precision, rows.all() * rows.dim)?;
        let (arguments, strips) = rows.gelu(up, bias, &active);
        let launch = down_columns(strips, rows.dim, rows.wide);
        self.gpu.launch(&KERNELS, kernel!(up.precision, "gelu"), launch, &arguments)?;
        Ok(active)
    }

    /// The way back: `d` becomes the gradient of `up`, and `up` the output of [`Engine::gelu`].
    pub(super) fn gelu_back(
        &self,
        rows: Rows,
        (up, bias): (Matrix, u64),
        d: &mut Matrix,
        sums: &mut Sums,
        to: u64,
    ) -> Result<Matrix, GpuError> {
        let (forward, strips) = rows.gelu(&up, bias, &up);
        let partial = self.floats(strips * rows.dim)?;
        let arguments = GeluArguments { d: d.address(), sums: partial.address(), ..forward };
        let launch = down_columns(strips, rows.dim, rows.wide);
        self.gpu.launch(&KERNELS, kernel!(up.precision, "gelu_back"), launch, &arguments)?;
        sums.keep(partial, strips, rows.dim, &[to]);
        Ok(up)
    }

    /// What drops leave of `d`, for products in `precision`.
    pub(super) fn drop_back(
        &self,
        precision: Precision,
        rows: Rows,
        d: u64,
        (drops, residual): (Option<&Drops>, Residual),
        sums: &mut Sums,
        to: u64,
    ) -> Result<Matrix, GpuError> {
        let added = self.matrix(precision, rows.asking() * rows.dim)?;
        let (strip, strips) = strips(rows.asking(), 32, 256);
        let partial = self.floats(strips * rows.dim)?;
        let arguments = DropBackArguments {
            d,
            added: added.address(),
            sums: partial.address(),
            drop: Drop::new(drops, residual),
            rows: rows.asking() as i64,
            strip: strip as i64,
            queries: rows.queries as i32,
            width: rows.dim as i32,
            wide: i32::from(rows.wide),
            gap: 0,
        };
        let launch = down_columns(strips, rows.dim, rows.wide);
        self.gpu.launch(&KERNELS, kernel!(precision, "drop_back"), launch, &arguments)?;
        sums.keep(partial, strips, rows.dim, &[to]);
        Ok(added)
    }

    /// Sums of the columns of `x`.
    pub(super) fn column_sums(
        &self,
        rows: Rows,
        (x, precision): (u64, Precision),
        sums: &mut Sums,
        to: u64,
    ) -> Result<(), GpuError> {
        let (strip, strips) = strips(rows.all(), 32, 256);
        let partial = self.floats(strips * rows.dim)?;
        let arguments = ColumnsArguments {
            x,
            sums: partial.address(),
            rows: rows.all() as i64,
            strip: strip as i64,
            width: rows.dim as i32,
            wide: i32::from(rows.wide),
        };
        let launch = down_columns(strips, rows.dim, rows.wide);
        self.gpu.launch(&KERNELS, kernel!(precision, "column_sums"), launch, &arguments)?;
        sums.keep(partial, strips, rows.dim, &[to]);
        Ok(())
    }

    /// `x += bias` in every row.
    pub(super) fn add_bias(&self, rows: Rows, x: &mut Matrix, bias: u64) -> Result<(), GpuError> {
        let (strip, strips) = strips(rows.all(), 32, 256);
        let arguments = AddBiasArguments {
            x: x.address(),
            bias,
            rows: rows.all() as i64,
            strip: strip as i64,
            width: rows.dim as i32,
            wide: i32::from(rows.wide),
        };
        let launch = down_columns(strips, rows.dim, rows.wide);
        self.gpu.launch(&KERNELS, kernel!(x.precision, "add_bias"), launch, &arguments)
    }

    /// The second stage of all sums, which overwrites what is where they belong.
    pub(super) fn finish(&self, sums: Sums) -> Result<(), GpuError> {
        for some in sums.parts.chunks(PARTS) {
            let mut blocks = 0;
            let mut parts =
                [Part { sums: 0, out: 0, stride: 0, strips: 0, width: 0, first_block: 0, gap: 0 }; PARTS];
            for (to, part) in parts.iter_mut().zip(some) {
                *to = Part { first_block: blocks, ..*part };
                blocks += (part.width as u32).div_ceil(32) as i32;
            }
            let arguments = FinishArguments { parts, count: some.len() as i64 };
            let launch = Launch::blocks([blocks as usize, 1, 1], 1024);
            self.gpu.launch(&KERNELS, "finish_sums", launch, &arguments)?;
        }
        Ok(())
    }
}

/// Which way [`Engine::pick`] copies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The kept rows of each view, one view after the other.
    Out = 0,
    /// Back to their places.
    Back = 1,
    /// Added to what is at their places.
    Add = 2,
}

/// The rows of a view that are kept: `head` from `start` on, then all from `skip` on.
#[derive(Clone, Copy)]
pub(super) struct Picked {
    pub views: usize,
    pub many: usize,
    pub head: usize,
    pub start: usize,
    pub skip: usize,
    pub dim: usize,
}

impl Picked {
    fn few(&self) -> usize {
        self.head + self.many - self.skip
    }
}

impl Engine {
    /// Copies rows between all of a view and those that are kept.
    pub(super) fn pick(&self, way: Way, picked: Picked, many: u64, few: u64) -> Result<(), GpuError> {
        let items = picked.views * picked.few() * picked.dim;
        let arguments = PickArguments {
            many,
            few,
            items: items as i64,
            many_rows: picked.many as i32,
            few_rows: picked.few() as i32,
            head: picked.head as i32,
            start: picked.start as i32,
            skip: picked.skip as i32,
            dim: picked.dim as i32,
            mode: way as i32,
            gap: 0,
        };
        self.gpu.launch(&KERNELS, "pick", Launch::items(items, 256), &arguments)
    }
}
