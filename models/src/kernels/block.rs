//! One pre-norm transformer block, forward and backward, over a chunk of views that fits the cache.
//!
//! ```text
//! x -+- norm1 - query, key, value - attention - output -(+)- mid -+- norm2 - up - GELU - down -(+)- out
//!    '---------------------------------------------------'        '-------------------------------'
//! ```
//!
//! Only the first `queries` tokens of a view ask and are passed on; keys and values come from all its
//! `tokens`. With `queries == tokens` this is the ordinary block; with fewer it is the last block of
//! a path, of which only class tokens are read. A block's parameters lie in one slice, in the order of
//! [`BlockShape::parameters`]; weights are `[out, in]`. Keys and values have no bias: soft-max cannot
//! see the one, and the bias of the output projection takes the place of the other.

use super::{
    Real,
    drop::{Drops, Residual},
    mat::{View, product},
    rows::{self, Moments},
};

/// The sizes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShape {
    /// Width of a token.
    pub dim: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width of the hidden layer of the MLP.
    pub hidden: usize,
    /// Tokens of a view.
    pub tokens: usize,
    /// How many of them, from the first on, ask and are passed on.
    pub queries: usize,
}

/// Number of parameters of a block.
pub const BLOCK_PARAMETERS: usize = 13;

impl BlockShape {
    /// Names and shapes of the parameters, in the order in which they are packed.
    pub fn parameters(dim: usize, hidden: usize) -> [(&'static str, Vec<usize>); BLOCK_PARAMETERS] {
        [
            ("norm1.weight", vec![dim]),
            ("norm1.bias", vec![dim]),
            ("attention.query.weight", vec![dim, dim]),
            ("attention.query.bias", vec![dim]),
            ("attention.key_value.weight", vec![2 * dim, dim]),
            ("attention.output.weight", vec![dim, dim]),
            ("attention.output.bias", vec![dim]),
            ("norm2.weight", vec![dim]),
            ("norm2.bias", vec![dim]),
            ("mlp.up.weight", vec![hidden, dim]),
            ("mlp.up.bias", vec![hidden]),
            ("mlp.down.weight", vec![dim, hidden]),
            ("mlp.down.bias", vec![dim]),
        ]
    }

    /// Number of values in a block's parameters.
    pub fn packed(&self) -> usize {
        self.lengths().iter().sum()
    }

    pub(crate) fn lengths(&self) -> [usize; BLOCK_PARAMETERS] {
        Self::parameters(self.dim, self.hidden).map(|(_, shape)| shape.iter().product())
    }

    fn split<'a, T>(&self, mut packed: &'a [T]) -> [&'a [T]; BLOCK_PARAMETERS] {
        self.lengths().map(|length| {
            let (part, rest) = packed.split_at(length);
            packed = rest;
            part
        })
    }

    fn split_mut<'a, T>(&self, mut packed: &'a mut [T]) -> [&'a mut [T]; BLOCK_PARAMETERS] {
        self.lengths().map(|length| {
            let (part, rest) = std::mem::take(&mut packed).split_at_mut(length);
            packed = rest;
            part
        })
    }

    fn head_dim(&self) -> usize {
        self.dim / self.heads
    }
}

/// What a block's forward pass leaves behind for its backward pass, for one chunk of views.
#[derive(Debug, Default)]
pub struct BlockState<T> {
    query: Vec<T>,
    key_value: Vec<T>,
    probabilities: Vec<T>,
    mixed: Vec<T>,
    mid: Vec<T>,
    up: Vec<T>,
    moments1: Vec<Moments<T>>,
    moments2: Vec<Moments<T>>,
    /// The output: `[views, queries, dim]`.
    pub out: Vec<T>,
}

/// Buffers that live no longer than one call; kept to be used again.
#[derive(Debug, Default)]
pub struct Scratch<T> {
    normed: Vec<T>,
    asked: Vec<T>,
    hidden: Vec<T>,
    d_hidden: Vec<T>,
    d_mid: Vec<T>,
    d_mixed: Vec<T>,
    d_query: Vec<T>,
    d_key_value: Vec<T>,
    d_probabilities: Vec<T>,
    d_dropped: Vec<T>,
}

/// A buffer of exactly `n` elements, whose values are whatever was there.
pub fn sized<T: Copy>(buffer: &mut Vec<T>, n: usize, zero: T) -> &mut [T] {
    buffer.resize(n, zero);
    buffer
}

/// The first `n` elements of a buffer that only grows. Their values are whatever was there.
pub fn room<T: Copy>(buffer: &mut Vec<T>, n: usize, zero: T) -> &mut [T] {
    if buffer.len() < n {
        buffer.resize(n, zero);
    }
    &mut buffer[..n]
}

/// Copies the first `queries` rows of each view of `x: [views, tokens, dim]`.
fn first_rows<T: Real>(shape: &BlockShape, out: &mut [T], x: &[T]) {
    let (short, long) = (shape.queries * shape.dim, shape.tokens * shape.dim);
    for (out, x) in out.chunks_exact_mut(short).zip(x.chunks_exact(long)) {
        out.copy_from_slice(&x[..short]);
    }
}

/// Runs the block on `x: [views, tokens, dim]`; the result is `state.out: [views, queries, dim]`. With
/// `drops`, as in training, part of what is added to the input is left out.
pub fn forward<T: Real>(
    shape: &BlockShape,
    packed: &[T],
    x: &[T],
    drops: Option<&Drops>,
    state: &mut BlockState<T>,
    scratch: &mut Scratch<T>,
) {
    let BlockShape { dim, hidden, tokens, queries, .. } = *shape;
    let views = x.len() / (tokens * dim);
    let (all, asking) = (views * tokens, views * queries);
    let [w_n1, b_n1, w_q, b_q, w_kv, w_o, b_o, w_n2, b_n2, w_up, b_up, w_down, b_down] = shape.split(packed);
    let z = T::ZERO;

    let normed = room(&mut scratch.normed, all * dim, z);
    let moments = sized(&mut state.moments1, all, [z; 2]);
    rows::norm(normed, moments, x, w_n1, b_n1);

    let query = sized(&mut state.query, asking * dim, z);
    rows::fill(query, b_q);
    let asked: &[T] = if queries == tokens {
        normed
    } else {
        let asked = room(&mut scratch.asked, asking * dim, z);
        first_rows(shape, asked, normed);
        asked
    };
    product([asking, dim, dim], query, dim, true, View::rows(asked, dim), View::transposed(w_q, dim));

    let key_value = sized(&mut state.key_value, all * 2 * dim, z);
    product(
        [all, 2 * dim, dim],
        key_value,
        2 * dim,
        false,
        View::rows(normed, dim),
        View::transposed(w_kv, dim),
    );

    let probabilities = sized(&mut state.probabilities, views * shape.heads * queries * tokens, z);
    let mixed = sized(&mut state.mixed, asking * dim, z);
    attention(shape, query, key_value, probabilities, mixed);

    let mid = sized(&mut state.mid, asking * dim, z);
    let asked: &[T] = if queries == tokens {
        x
    } else {
        let asked = room(&mut scratch.asked, asking * dim, z);
        first_rows(shape, asked, x);
        asked
    };
    let per_view = queries * dim;
    let (a, b) = (View::rows(mixed, dim), View::transposed(w_o, dim));
    match drops {
        None => {
            rows::add_row(mid, asked, b_o);
            product([asking, dim, dim], mid, dim, true, a, b);
        }
        Some(drops) => {
            rows::fill(mid, b_o);
            product([asking, dim, dim], mid, dim, true, a, b);
            drops.apply(Residual::Attention, mid, per_view);
            rows::add(mid, asked);
        }
    }

    let normed = room(&mut scratch.normed, asking * dim, z);
    let moments = sized(&mut state.moments2, asking, [z; 2]);
    rows::norm(normed, moments, mid, w_n2, b_n2);
    let up = sized(&mut state.up, asking * hidden, z);
    rows::fill(up, b_up);
    product([asking, hidden, dim], up, hidden, true, View::rows(normed, dim), View::transposed(w_up, dim));
    let active = room(&mut scratch.hidden, asking * hidden, z);
    rows::gelu(active, up);
    let out = sized(&mut state.out, asking * dim, z);
    let (a, b) = (View::rows(active, hidden), View::transposed(w_down, hidden));
    match drops {
        None => {
            rows::add_row(out, mid, b_down);
            product([asking, dim, hidden], out, dim, true, a, b);
        }
        Some(drops) => {
            rows::fill(out, b_down);
            product([asking, dim, hidden], out, dim, true, a, b);
            drops.apply(Residual::Mlp, out, per_view);
            rows::add(out, mid);
        }
    }
}

/// Soft-max attention of every (view, head).
pub(crate) fn attention<T: Real>(
    shape: &BlockShape,
    query: &[T],
    key_value: &[T],
    probabilities: &mut [T],
    mixed: &mut [T],
) {
    let BlockShape { dim, tokens, queries, .. } = *shape;
    let width = shape.head_dim();
    let area = queries * tokens;
    for (i, scores) in probabilities.chunks_exact_mut(area).enumerate() {
        let (q, k, _) = shape.corners(i);
        let (q, k) = (View::rows(&query[q..], dim), View::transposed(&key_value[k..], 2 * dim));
        product([queries, tokens, width], scores, tokens, false, q, k);
    }
    rows::softmax(probabilities, tokens, shape.scale());
    for (i, p) in probabilities.chunks_exact(area).enumerate() {
        let (q, _, v) = shape.corners(i);
        let (p, v) = (View::rows(p, tokens), View::rows(&key_value[v..], 2 * dim));
        product([queries, width, tokens], &mut mixed[q..], dim, false, p, v);
    }
}

impl BlockShape {
    /// Where the query, key and value matrices of the `i`-th (view, head) begin.
    fn corners(&self, i: usize) -> (usize, usize, usize) {
        let (view, column) = (i / self.heads, i % self.heads * self.head_dim());
        let key = view * self.tokens * 2 * self.dim + column;
        (view * self.queries * self.dim + column, key, key + self.dim)
    }

    pub(crate) fn scale<T: Real>(&self) -> T {
        T::from_f64(1.0 / (self.head_dim() as f64).sqrt())
    }
}

/// The way back: from `d_out`, the gradient of the output, to `d_x`, that of the input, which is
/// overwritten. Gradients of the parameters are added to `d_packed`. `drops` are those of the way there.
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: &BlockShape,
    packed: &[T],
    d_packed: &mut [T],
    x: &[T],
    drops: Option<&Drops>,
    state: &BlockState<T>,
    d_out: &[T],
    d_x: &mut [T],
    scratch: &mut Scratch<T>,
) {
    let BlockShape { dim, hidden, tokens, queries, .. } = *shape;
    let views = x.len() / (tokens * dim);
    let (all, asking) = (views * tokens, views * queries);
    let [w_n1, b_n1, w_q, _, w_kv, w_o, _, w_n2, b_n2, w_up, _, w_down, _] = shape.split(packed);
    let [
        g_w_n1,
        g_b_n1,
        g_w_q,
        g_b_q,
        g_w_kv,
        g_w_o,
        g_b_o,
        g_w_n2,
        g_b_n2,
        g_w_up,
        g_b_up,
        g_w_down,
        g_b_down,
    ] = shape.split_mut(d_packed);
    let z = T::ZERO;

    // MLP.
    let per_view = queries * dim;
    let mut d_dropped = drops.map(|_| room(&mut scratch.d_dropped, asking * dim, z));
    let d_added = dropped(drops, Residual::Mlp, d_dropped.as_deref_mut(), d_out, per_view);
    let d_up = room(&mut scratch.d_hidden, asking * hidden, z);
    product([asking, hidden, dim], d_up, hidden, false, View::rows(d_added, dim), View::rows(w_down, hidden));
    let active = room(&mut scratch.hidden, asking * hidden, z);
    rows::gelu_back(d_up, active, &state.up);
    product(
        [dim, hidden, asking],
        g_w_down,
        hidden,
        true,
        View::transposed(d_added, dim),
        View::rows(active, hidden),
    );
    rows::add_column_sums(g_b_down, d_added, dim);
    let normed = room(&mut scratch.normed, asking * dim, z);
    rows::norm_again(normed, &state.moments2, &state.mid, w_n2, b_n2);
    product(
        [hidden, dim, asking],
        g_w_up,
        dim,
        true,
        View::transposed(d_up, hidden),
        View::rows(normed, dim),
    );
    rows::add_column_sums(g_b_up, d_up, hidden);
    let d_mid = room(&mut scratch.d_mid, asking * dim, z);
    product([asking, dim, hidden], d_mid, dim, false, View::rows(d_up, hidden), View::rows(w_up, dim));
    rows::norm_back(d_mid, &state.mid, &state.moments2, w_n2, g_w_n2, g_b_n2);
    rows::add(d_mid, d_out);

    // Attention.
    let d_added = dropped(drops, Residual::Attention, d_dropped, d_mid, per_view);
    product(
        [dim, dim, asking],
        g_w_o,
        dim,
        true,
        View::transposed(d_added, dim),
        View::rows(&state.mixed, dim),
    );
    rows::add_column_sums(g_b_o, d_added, dim);
    let d_mixed = room(&mut scratch.d_mixed, asking * dim, z);
    product([asking, dim, dim], d_mixed, dim, false, View::rows(d_added, dim), View::rows(w_o, dim));
    let d_query = room(&mut scratch.d_query, asking * dim, z);
    let d_key_value = room(&mut scratch.d_key_value, all * 2 * dim, z);
    let d_scores = room(&mut scratch.d_probabilities, state.probabilities.len(), z);
    let operands = (&state.query[..], &state.key_value[..], &state.probabilities[..]);
    attention_back(shape, operands, d_mixed, d_query, d_key_value, d_scores);

    // Projections and the first norm.
    let normed = room(&mut scratch.normed, all * dim, z);
    rows::norm_again(normed, &state.moments1, x, w_n1, b_n1);
    let asked: &[T] = if queries == tokens {
        normed
    } else {
        let asked = room(&mut scratch.asked, asking * dim, z);
        first_rows(shape, asked, normed);
        asked
    };
    product([dim, dim, asking], g_w_q, dim, true, View::transposed(d_query, dim), View::rows(asked, dim));
    rows::add_column_sums(g_b_q, d_query, dim);
    let (wide, d_kv) = (2 * dim, &*d_key_value);
    product([wide, dim, all], g_w_kv, dim, true, View::transposed(d_kv, wide), View::rows(normed, dim));
    product([all, dim, wide], d_x, dim, false, View::rows(d_kv, wide), View::rows(w_kv, dim));
    if queries == tokens {
        product([asking, dim, dim], d_x, dim, true, View::rows(d_query, dim), View::rows(w_q, dim));
    } else {
        for (d_x, d_query) in d_x.chunks_exact_mut(tokens * dim).zip(d_query.chunks_exact(queries * dim)) {
            product([queries, dim, dim], d_x, dim, true, View::rows(d_query, dim), View::rows(w_q, dim));
        }
    }
    rows::norm_back(d_x, x, &state.moments1, w_n1, g_w_n1, g_b_n1);
    for (d_x, d_mid) in d_x.chunks_exact_mut(tokens * dim).zip(d_mid.chunks_exact(queries * dim)) {
        rows::add(d_x, d_mid);
    }
}

/// The gradient of a residual, of that of the sum; `room` is there when something is dropped.
fn dropped<'a, T: Real>(
    drops: Option<&Drops>,
    residual: Residual,
    room: Option<&'a mut [T]>,
    d: &'a [T],
    per_view: usize,
) -> &'a [T] {
    let (Some(drops), Some(room)) = (drops, room) else { return d };
    room.copy_from_slice(d);
    drops.apply(residual, room, per_view);
    room
}

/// The way back through [`attention`], of its query, key_value and probabilities.
pub(crate) fn attention_back<T: Real>(
    shape: &BlockShape,
    (query, key_value, probabilities): (&[T], &[T], &[T]),
    d_mixed: &[T],
    d_query: &mut [T],
    d_key_value: &mut [T],
    d_scores: &mut [T],
) {
    let BlockShape { dim, tokens, queries, .. } = *shape;
    let width = shape.head_dim();
    let area = queries * tokens;
    let wide = 2 * dim;
    for (i, (p, d_p)) in probabilities.chunks_exact(area).zip(d_scores.chunks_exact_mut(area)).enumerate() {
        let (q, _, v) = shape.corners(i);
        let d_mixed = View::rows(&d_mixed[q..], dim);
        product(
            [tokens, width, queries],
            &mut d_key_value[v..],
            wide,
            false,
            View::transposed(p, tokens),
            d_mixed,
        );
        product(
            [queries, tokens, width],
            d_p,
            tokens,
            false,
            d_mixed,
            View::transposed(&key_value[v..], wide),
        );
    }
    rows::softmax_back(d_scores, probabilities, tokens, shape.scale());
    for (i, d) in d_scores.chunks_exact(area).enumerate() {
        let (q, k, _) = shape.corners(i);
        let (asks, keys) = (View::rows(&query[q..], dim), View::rows(&key_value[k..], wide));
        product([queries, width, tokens], &mut d_query[q..], dim, false, View::rows(d, tokens), keys);
        product(
            [tokens, width, queries],
            &mut d_key_value[k..],
            wide,
            false,
            View::transposed(d, tokens),
            asks,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loev_ops::rng::Key;

    fn wave(n: usize, step: f64, size: f64) -> Vec<f64> {
        (0..n).map(|i| ((i as f64 + 0.3) * step).sin() * size).collect()
    }

    #[test]
    fn gradients_match_differences() {
        let shapes = [
            (2, BlockShape { dim: 6, heads: 2, hidden: 10, tokens: 5, queries: 5 }),
            (3, BlockShape { dim: 4, heads: 1, hidden: 4, tokens: 4, queries: 1 }),
            (1, BlockShape { dim: 12, heads: 3, hidden: 8, tokens: 7, queries: 2 }),
            (2, BlockShape { dim: 4, heads: 4, hidden: 3, tokens: 1, queries: 1 }),
        ];
        let drops = Drops { key: Key::root(2), first: 3, path: 0.4, dropout: 0.3 };
        for ((views, shape), drops) in shapes.into_iter().flat_map(|s| [(s, None), (s, Some(&drops))]) {
            let x = wave(views * shape.tokens * shape.dim, 1.7, 1.0);
            let packed = wave(shape.packed(), 2.3, 0.6);
            let d_out = wave(views * shape.queries * shape.dim, 0.9, 1.0);
            let mut scratch = Scratch::default();
            let mut value = |packed: &[f64], x: &[f64]| {
                let mut state = BlockState::default();
                forward(&shape, packed, x, drops, &mut state, &mut scratch);
                state.out.iter().zip(&d_out).map(|(a, b)| a * b).sum::<f64>()
            };
            let step = 1e-5;
            let mut difference = |which: usize, i: usize| {
                let mut both = [packed.clone(), x.clone()];
                both[which][i] += step;
                let high = value(&both[0], &both[1]);
                both[which][i] -= 2.0 * step;
                (high - value(&both[0], &both[1])) / (2.0 * step)
            };
            let want_packed: Vec<f64> = (0..packed.len()).map(|i| difference(0, i)).collect();
            let want_x: Vec<f64> = (0..x.len()).map(|i| difference(1, i)).collect();

            let mut state = BlockState::default();
            forward(&shape, &packed, &x, drops, &mut state, &mut scratch);
            let (mut d_packed, mut d_x) = (vec![0.5; packed.len()], vec![9.0; x.len()]);
            backward(&shape, &packed, &mut d_packed, &x, drops, &state, &d_out, &mut d_x, &mut scratch);
            for (got, want) in d_packed.iter().map(|d| d - 0.5).zip(&want_packed) {
                assert!((got - want).abs() < 1e-7 * (1.0 + want.abs()), "{shape:?}: {got} {want}");
            }
            for (got, want) in d_x.iter().zip(&want_x) {
                assert!((got - want).abs() < 1e-7 * (1.0 + want.abs()), "{shape:?}: {got} {want}");
            }
        }
    }

    #[test]
    fn parameters_cover_the_packed_slice() {
        let shape = BlockShape { dim: 96, heads: 3, hidden: 384, tokens: 78, queries: 78 };
        assert_eq!(shape.packed(), 12 * 96 * 96 + 96 * 7 + 384);
        let packed: Vec<usize> = (0..shape.packed()).collect();
        assert_eq!(shape.split(&packed).concat(), packed);
    }
}
