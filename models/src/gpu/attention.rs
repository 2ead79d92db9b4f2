//! Soft-max attention: the kernels of `cuda/attention.cu`, or products with a soft-max between them.

use loev_ops::gpu::{Buffer, GpuError, Launch};

use super::{
    Engine, KERNELS, Matrix, Precision, arguments,
    product::View,
    rows::{Rows, kernel},
};
use crate::kernels::block::BlockShape;

arguments! {
    struct Arguments {
        query: u64, bias: u64, key_value: u64, mixed: u64, levels: u64, d_mixed: u64, slopes: u64,
        d_query: u64, d_key_value: u64,
        tokens: i32, queries: i32, dim: i32, heads: i32, width: i32, scale: f32,
    }
}

arguments! {
    struct SoftmaxArguments { scores: u64, probabilities: u64, rows: i64, columns: i32, scale: f32 }
}

arguments! {
    struct SoftmaxBackArguments {
        d_probabilities: u64, probabilities: u64, d_scores: u64, rows: i64, columns: i32, scale: f32,
    }
}

/// Rows of the other side in shared memory, and most warps of a block.
const STAGED: usize = 64;
const WARPS: usize = 8;

/// What attention keeps for the way back, beside its operands and its output.
pub(super) enum Kept {
    /// Logarithms of the sums that divide, of the kernels.
    Levels(Buffer<f32>),
    /// The probabilities, of the products.
    Probabilities(Matrix),
}

/// Queries without their bias, keys and values side by side.
pub(super) struct Operands {
    pub query: Matrix,
    pub bias: u64,
    pub key_value: Matrix,
}

/// The width that the kernels have for a head's, `[forward, back to queries, back to keys]`; none when they do not
/// take it: operands must be bf16 and a row of a head whole pieces of 16 bytes.
fn kernels(shape: &BlockShape, precision: Precision) -> Option<(usize, [&'static str; 3])> {
    let width = shape.dim / shape.heads;
    if precision != Precision::Bf16 || !width.is_multiple_of(8) {
        return None;
    }
    match width {
        ..=16 => Some((16, ["attend_16", "attend_back_queries_16", "attend_back_keys_16"])),
        17..=32 => Some((32, ["attend_32", "attend_back_queries_32", "attend_back_keys_32"])),
        33..=64 => Some((64, ["attend_64", "attend_back_queries_64", "attend_back_keys_64"])),
        65..=128 => Some((128, ["attend_128", "attend_back_queries_128", "attend_back_keys_128"])),
        _ => None,
    }
}

/// A warp for each 16 of `rows` rows of every (view, head).
fn launch(shape: &BlockShape, views: usize, rows: usize, width: usize) -> Launch {
    let tiles = rows.div_ceil(16);
    let warps = tiles.min(WARPS);
    Launch::blocks([views, shape.heads, tiles.div_ceil(warps.max(1))], 32 * warps as u32)
        .shared(STAGED * (2 * 2 * (width + 8) + 2 * size_of::<f32>()))
}

impl Engine {
    /// Of `[views, queries, dim]` queries and `[views, tokens, 2 dim]` keys and values. The products add the bias to
    /// the queries, the kernels do not.
    pub(super) fn attention(
        &self,
        shape: &BlockShape,
        views: usize,
        operands: &mut Operands,
    ) -> Result<(Matrix, Kept), GpuError> {
        let (precision, asking) = (operands.query.precision, views * shape.queries);
        let mixed = self.matrix(precision, asking * shape.dim)?;
        if let Some((width, [name, ..])) = kernels(shape, precision) {
            let levels = self.floats(asking * shape.heads)?;
            let arguments = Arguments {
                mixed: mixed.address(),
                levels: levels.address(),
                ..Arguments::new(shape, operands)
            };
            self.gpu.launch(&KERNELS, name, launch(shape, views, shape.queries, width), &arguments)?;
            return Ok((mixed, Kept::Levels(levels)));
        }
        self.add_bias(asked_rows(shape, views), &mut operands.query, operands.bias)?;
        let BlockShape { tokens, queries, heads, .. } = *shape;
        let (rows, width) = (asking * heads, shape.dim / heads);
        let scores = self.floats(rows * tokens)?;
        for head in 0..heads {
            let at = Heads::new(shape, head);
            let to = super::place(scores.address(), head * queries * tokens);
            let to = View::rows(to, tokens).apart(heads * queries * tokens);
            let (q, k) = (at.query(&operands.query), at.key_value(&operands.key_value, 0, true));
            self.products(views, [queries, tokens, width], precision, (to, Precision::F32), q, k)?;
        }
        let probabilities = self.matrix(precision, rows * tokens)?;
        let arguments = SoftmaxArguments {
            scores: scores.address(),
            probabilities: probabilities.address(),
            rows: rows as i64,
            columns: tokens as i32,
            scale: shape.scale::<f32>(),
        };
        self.gpu.launch(
            &KERNELS,
            kernel!(precision, "softmax"),
            Launch::items(rows * 32, 128),
            &arguments,
        )?;
        for head in 0..heads {
            let at = Heads::new(shape, head);
            let (p, v) =
                (at.scores(&probabilities, false), at.key_value(&operands.key_value, shape.dim, false));
            let to = (at.query(&mixed), precision);
            self.products(views, [queries, width, tokens], precision, to, p, v)?;
        }
        Ok((mixed, Kept::Probabilities(probabilities)))
    }

    /// The way back: gradients of queries (and so of their bias) and of keys and values.
    pub(super) fn attention_back(
        &self,
        shape: &BlockShape,
        views: usize,
        operands: &Operands,
        (mixed, kept): (&Matrix, Kept),
        d_mixed: &Matrix,
    ) -> Result<(Matrix, Matrix), GpuError> {
        let BlockShape { tokens, queries, heads, dim, .. } = *shape;
        let precision = mixed.precision;
        let d_query = self.matrix(precision, views * queries * dim)?;
        let d_key_value = self.matrix(precision, views * tokens * 2 * dim)?;
        let probabilities = match kept {
            Kept::Probabilities(probabilities) => probabilities,
            Kept::Levels(levels) => {
                let slopes = self.floats(levels.len())?;
                let arguments = Arguments {
                    mixed: mixed.address(),
                    levels: levels.address(),
                    d_mixed: d_mixed.address(),
                    slopes: slopes.address(),
                    d_query: d_query.address(),
                    d_key_value: d_key_value.address(),
                    ..Arguments::new(shape, operands)
                };
                if let Some((width, [_, to_queries, to_keys])) = kernels(shape, precision) {
                    let by_queries = launch(shape, views, queries, width);
                    self.gpu.launch(&KERNELS, to_queries, by_queries, &arguments)?;
                    self.gpu.launch(&KERNELS, to_keys, launch(shape, views, tokens, width), &arguments)?;
                }
                return Ok((d_query, d_key_value));
            }
        };
        let (rows, width) = (views * heads * queries, dim / heads);
        let d_probabilities = self.floats(rows * tokens)?;
        for head in 0..heads {
            let at = Heads::new(shape, head);
            let d = at.query(d_mixed);
            let d_value = (at.key_value(&d_key_value, dim, false), precision);
            let p = at.scores(&probabilities, true);
            self.products(views, [tokens, width, queries], precision, d_value, p, d)?;
            let to = super::place(d_probabilities.address(), head * queries * tokens);
            let to = (View::rows(to, tokens).apart(heads * queries * tokens), Precision::F32);
            let v = at.key_value(&operands.key_value, dim, true);
            self.products(views, [queries, tokens, width], precision, to, d, v)?;
        }
        let d_scores = self.matrix(precision, rows * tokens)?;
        let arguments = SoftmaxBackArguments {
            d_probabilities: d_probabilities.address(),
            probabilities: probabilities.address(),
            d_scores: d_scores.address(),
            rows: rows as i64,
            columns: tokens as i32,
            scale: shape.scale::<f32>(),
        };
        let launch = Launch::items(rows * 32, 128);
        self.gpu.launch(&KERNELS, kernel!(precision, "softmax_back"), launch, &arguments)?;
        for head in 0..heads {
            let at = Heads::new(shape, head);
            let k = at.key_value(&operands.key_value, 0, false);
            let to = (at.query(&d_query), precision);
            self.products(views, [queries, width, tokens], precision, to, at.scores(&d_scores, false), k)?;
            let to = (at.key_value(&d_key_value, 0, false), precision);
            let (d, q) = (at.scores(&d_scores, true), at.query(&operands.query));
            self.products(views, [tokens, width, queries], precision, to, d, q)?;
        }
        Ok((d_query, d_key_value))
    }
}

fn asked_rows(shape: &BlockShape, views: usize) -> Rows {
    Rows { views, tokens: shape.queries, queries: shape.queries, dim: shape.dim, wide: false }
}

impl Arguments {
    fn new(shape: &BlockShape, operands: &Operands) -> Self {
        Self {
            query: operands.query.address(),
            bias: operands.bias,
            key_value: operands.key_value.address(),
            mixed: 0,
            levels: 0,
            d_mixed: 0,
            slopes: 0,
            d_query: 0,
            d_key_value: 0,
            tokens: shape.tokens as i32,
            queries: shape.queries as i32,
            dim: shape.dim as i32,
            heads: shape.heads as i32,
            width: (shape.dim / shape.heads) as i32,
            scale: shape.scale::<f32>(),
        }
    }
}

/// Where one head of all views is.
struct Heads<'a> {
    shape: &'a BlockShape,
    head: usize,
    column: usize,
}

impl<'a> Heads<'a> {
    fn new(shape: &'a BlockShape, head: usize) -> Self {
        Self { shape, head, column: head * (shape.dim / shape.heads) }
    }

    fn query(&self, matrix: &Matrix) -> View {
        let BlockShape { dim, queries, .. } = *self.shape;
        View::rows(matrix.at(self.column), dim).apart(queries * dim)
    }

    fn key_value(&self, matrix: &Matrix, at: usize, turned: bool) -> View {
        let BlockShape { dim, tokens, .. } = *self.shape;
        let address = matrix.at(at + self.column);
        let view = if turned { View::transposed(address, 2 * dim) } else { View::rows(address, 2 * dim) };
        view.apart(tokens * 2 * dim)
    }

    fn scores(&self, matrix: &Matrix, turned: bool) -> View {
        let BlockShape { tokens, queries, heads, .. } = *self.shape;
        let address = matrix.at(self.head * queries * tokens);
        let view = if turned { View::transposed(address, tokens) } else { View::rows(address, tokens) };
        view.apart(heads * queries * tokens)
    }
}
