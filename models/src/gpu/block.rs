//! One transformer block on the device: [`crate::kernels::block`] of a whole batch.

use loev_ops::gpu::{Buffer, GpuError};

use super::{
    Engine, Matrix, Precision,
    attention::{Kept, Operands},
    place,
    product::View,
    rows::{Affine, NormBack, Rows, Sums},
};
use crate::kernels::{
    block::{BLOCK_PARAMETERS, BlockShape},
    drop::{Drops, Residual},
};

/// What a block's forward pass leaves for its way back: 24 bytes a value of a token, of an MLP four times as wide.
pub(super) struct BlockState {
    operands: Operands,
    kept: Kept,
    mixed: Matrix,
    mid: Buffer<f32>,
    up: Matrix,
    moments: [Buffer<f32>; 2],
    /// The output: `[views, queries, dim]`.
    pub out: Buffer<f32>,
}

/// A block's parameters: as they are, and in the precision of products.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    /// Where the block's packed parameters begin.
    pub exact: u64,
    /// Where the same are, rounded.
    pub rounded: u64,
    /// What they are rounded to.
    pub precision: Precision,
}

/// Where each parameter begins, counted in values.
fn offsets(shape: &BlockShape) -> [usize; BLOCK_PARAMETERS] {
    let mut at = 0;
    shape.lengths().map(|length| {
        at += length;
        at - length
    })
}

/// The place of each parameter of a block, in the order in which they are packed.
struct Places {
    offsets: [usize; BLOCK_PARAMETERS],
    weights: Weights,
}

impl Places {
    fn new(shape: &BlockShape, weights: Weights) -> Self {
        Self { offsets: offsets(shape), weights }
    }

    fn exact(&self, i: usize) -> u64 {
        place(self.weights.exact, self.offsets[i])
    }

    fn norm(&self, i: usize) -> Affine {
        Affine { weight: self.exact(i), bias: self.exact(i + 1) }
    }

    /// Rows of a weight, `inside` values long.
    fn rows(&self, i: usize, inside: usize) -> View {
        let at = (self.offsets[i] * self.weights.precision.bytes()) as u64;
        View::rows(self.weights.rounded + at, inside)
    }

    fn turned(&self, i: usize, inside: usize) -> View {
        let at = (self.offsets[i] * self.weights.precision.bytes()) as u64;
        View::transposed(self.weights.rounded + at, inside)
    }
}

// Numbers of parameters, in the order of `BlockShape::parameters`.
const NORM1: usize = 0;
const QUERY: usize = 2;
const QUERY_BIAS: usize = 3;
const KEY_VALUE: usize = 4;
const OUTPUT: usize = 5;
const OUTPUT_BIAS: usize = 6;
const NORM2: usize = 7;
const UP: usize = 9;
const UP_BIAS: usize = 10;
const DOWN: usize = 11;
const DOWN_BIAS: usize = 12;

/// Four values may be read at once where all rows and parameters begin at multiples of them.
fn is_wide(shape: &BlockShape) -> bool {
    shape.dim.is_multiple_of(4) && shape.hidden.is_multiple_of(4)
}

/// Rows of `dim` values of all tokens, of the tokens that ask alone, and rows of the hidden layer.
fn all_rows(shape: &BlockShape, views: usize) -> [Rows; 3] {
    let BlockShape { dim, hidden, tokens, queries, .. } = *shape;
    let all = Rows { views, tokens, queries, dim, wide: is_wide(shape) };
    let asking = Rows { tokens: queries, ..all };
    [all, asking, Rows { dim: hidden, ..asking }]
}

impl Engine {
    /// `out = a b` in the precision of the network.
    fn multiplied(
        &self,
        precision: Precision,
        size: [usize; 3],
        a: View,
        b: View,
    ) -> Result<Matrix, GpuError> {
        let out = self.matrix(precision, size[0] * size[1])?;
        self.product(size, precision, (View::rows(out.address(), size[1]), precision), a, b)?;
        Ok(out)
    }

    /// Runs a block on `x: [views, tokens, dim]`.
    pub(super) fn block(
        &self,
        shape: &BlockShape,
        views: usize,
        weights: Weights,
        x: u64,
        drops: Option<&Drops>,
    ) -> Result<BlockState, GpuError> {
        let BlockShape { dim, hidden, .. } = *shape;
        let (places, precision) = (Places::new(shape, weights), weights.precision);
        let [rows, asking_rows, hidden_rows] = all_rows(shape, views);
        let (all, asking) = (rows.all(), rows.asking());

        let (normed, asked, moments1) = self.norm(precision, rows, x, places.norm(NORM1))?;
        let asked = asked.as_ref().unwrap_or(&normed);
        let a = View::rows(asked.address(), dim);
        let query = self.multiplied(precision, [asking, dim, dim], a, places.turned(QUERY, dim))?;
        let a = View::rows(normed.address(), dim);
        let key_value = self.multiplied(precision, [all, 2 * dim, dim], a, places.turned(KEY_VALUE, dim))?;
        drop(normed);
        let mut operands = Operands { query, bias: places.exact(QUERY_BIAS), key_value };
        let (mixed, kept) = self.attention(shape, views, &mut operands)?;

        let a = View::rows(mixed.address(), dim);
        let y = self.multiplied(precision, [asking, dim, dim], a, places.turned(OUTPUT, dim))?;
        let bias = places.exact(OUTPUT_BIAS);
        let dropped = (drops, Residual::Attention);
        let (mid, normed) = self.residual(rows, (x, &y, bias), dropped, Some(places.norm(NORM2)))?;
        drop(y);
        let Some((normed, moments2)) = normed else {
            return Err(GpuError::Shape("a norm that was asked for is not there".to_owned()));
        };
        let a = View::rows(normed.address(), dim);
        let up = self.multiplied(precision, [asking, hidden, dim], a, places.turned(UP, dim))?;
        drop(normed);
        let active = self.gelu(hidden_rows, &up, places.exact(UP_BIAS))?;
        let a = View::rows(active.address(), hidden);
        let y = self.multiplied(precision, [asking, dim, hidden], a, places.turned(DOWN, hidden))?;
        drop(active);
        let bias = places.exact(DOWN_BIAS);
        let (out, _) = self.residual(asking_rows, (mid.address(), &y, bias), (drops, Residual::Mlp), None)?;
        Ok(BlockState { operands, kept, mixed, mid, up, moments: [moments1, moments2], out })
    }

    /// The way back through a block, of which nothing stays: the gradient of `x`. Gradients of the parameters
    /// overwrite what is at `d_packed`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn block_back(
        &self,
        shape: &BlockShape,
        views: usize,
        weights: Weights,
        d_packed: u64,
        x: u64,
        drops: Option<&Drops>,
        state: BlockState,
        d_out: u64,
    ) -> Result<Buffer<f32>, GpuError> {
        let BlockShape { dim, hidden, .. } = *shape;
        let (places, precision) = (Places::new(shape, weights), weights.precision);
        let to = |i: usize| place(d_packed, places.offsets[i]);
        let gradient = |i: usize, inside: usize| (View::rows(to(i), inside), Precision::F32);
        let [rows, asking_rows, hidden_rows] = all_rows(shape, views);
        let (all, asking) = (rows.all(), rows.asking());
        let BlockState { operands, kept, mixed, mid, up, moments: [moments1, moments2], out } = state;
        drop(out);
        let mut sums = Sums::default();

        // MLP.
        let dropped = (drops, Residual::Mlp);
        let added = self.drop_back(precision, asking_rows, d_out, dropped, &mut sums, to(DOWN_BIAS))?;
        let (by_row, by_column) = (View::rows(added.address(), dim), View::transposed(added.address(), dim));
        let mut d_up =
            self.multiplied(precision, [asking, hidden, dim], by_row, places.rows(DOWN, hidden))?;
        let up = (up, places.exact(UP_BIAS));
        let active = self.gelu_back(hidden_rows, up, &mut d_up, &mut sums, to(UP_BIAS))?;
        let b = View::rows(active.address(), hidden);
        self.product([dim, hidden, asking], precision, gradient(DOWN, hidden), by_column, b)?;
        drop((active, added));
        let a = View::rows(d_up.address(), hidden);
        let d = self.multiplied(precision, [asking, dim, hidden], a, places.rows(UP, dim))?;
        let back = NormBack {
            x: mid.address(),
            moments: &moments2,
            norm: places.norm(NORM2),
            d: &d,
            d_asked: None,
            d_beside: d_out,
        };
        let dropped = Some((drops, Residual::Attention));
        let to_sums = [to(NORM2), to(NORM2 + 1), to(OUTPUT_BIAS)];
        let second = self.norm_back(asking_rows, &back, dropped, &mut sums, &to_sums)?;
        drop((d, mid));
        let (a, b) = (View::transposed(d_up.address(), hidden), View::rows(second.normed.address(), dim));
        self.product([hidden, dim, asking], precision, gradient(UP, dim), a, b)?;
        drop((d_up, second.normed));

        // Attention.
        let Some(added) = second.added else {
            return Err(GpuError::Shape("a residual's gradient is not there".to_owned()));
        };
        let (by_row, by_column) = (View::rows(added.address(), dim), View::transposed(added.address(), dim));
        let b = View::rows(mixed.address(), dim);
        self.product([dim, dim, asking], precision, gradient(OUTPUT, dim), by_column, b)?;
        let d_mixed = self.multiplied(precision, [asking, dim, dim], by_row, places.rows(OUTPUT, dim))?;
        drop(added);
        let (d_query, d_key_value) =
            self.attention_back(shape, views, &operands, (&mixed, kept), &d_mixed)?;
        drop((d_mixed, mixed, operands));
        self.column_sums(asking_rows, (d_query.address(), precision), &mut sums, to(QUERY_BIAS))?;

        // Projections and the first norm.
        let a = View::rows(d_key_value.address(), 2 * dim);
        let d = self.multiplied(precision, [all, dim, 2 * dim], a, places.rows(KEY_VALUE, dim))?;
        let a = View::rows(d_query.address(), dim);
        let d_asked = self.multiplied(precision, [asking, dim, dim], a, places.rows(QUERY, dim))?;
        let back = NormBack {
            x,
            moments: &moments1,
            norm: places.norm(NORM1),
            d: &d,
            d_asked: Some(&d_asked),
            d_beside: second.d_x.address(),
        };
        let first = self.norm_back(rows, &back, None, &mut sums, &[to(NORM1), to(NORM1 + 1)])?;
        drop((d, d_asked));
        let asked = first.asked.as_ref().unwrap_or(&first.normed);
        let (a, b) = (View::transposed(d_query.address(), dim), View::rows(asked.address(), dim));
        self.product([dim, dim, asking], precision, gradient(QUERY, dim), a, b)?;
        let a = View::transposed(d_key_value.address(), 2 * dim);
        let b = View::rows(first.normed.address(), dim);
        self.product([2 * dim, dim, all], precision, gradient(KEY_VALUE, dim), a, b)?;
        self.finish(sums)?;
        Ok(first.d_x)
    }
}
