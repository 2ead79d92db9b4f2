//! Many against many: products of a block of queries and a panel of items, compared in registers.

use pulp::{Arch, Simd, WithSimd};

/// Queries whose products with a panel of items are taken together, at most; sums of that many times two vectors fit
/// the 32 registers of AVX-512.
const TALL: usize = 12;
/// The same for processors with 16 registers.
const LOW: usize = 4;
/// Vectors of items side by side in a panel.
const WIDE: usize = 2;

/// Queries in groups, one element of each after the other.
#[derive(Clone, Debug)]
pub struct Queries {
    dim: usize,
    rows: usize,
    packed: Vec<f32>,
}

/// Items in panels, as queries are in groups, with what makes scores of their products.
#[derive(Clone, Debug, Default)]
pub struct Items {
    dim: usize,
    rows: usize,
    packed: Vec<f32>,
    weights: Vec<f32>,
    offsets: Vec<f32>,
}

impl Queries {
    /// The rows of `dim` values each, row-major; rows beyond whole ones are left out.
    pub fn new(rows: &[f32], dim: usize) -> Self {
        let (_, tall) = shape();
        let count = rows.len().checked_div(dim).unwrap_or(0);
        let mut packed = Vec::new();
        pack(rows, dim, tall, &mut packed);
        Self { dim, rows: count, packed }
    }

    /// Number of queries.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Items {
    /// Takes a block of items in place of what there was: rows of `dim` values each, row-major. The score of an item is
    /// its product with a query times its weight plus its offset. An item with a score that is no number is always a
    /// candidate, so a weight of NaN says "look closely"; one whose offset is minus infinity never is.
    ///
    /// # Panics
    /// When there are not as many weights and offsets as rows: a fault of the caller, never of its data.
    pub fn fill(&mut self, rows: &[f32], dim: usize, weights: &[f32], offsets: &[f32]) {
        let count = rows.len().checked_div(dim).unwrap_or(0);
        assert!(weights.len() == count && offsets.len() == count, "every item needs a weight and an offset");
        let (wide, _) = shape();
        pack(rows, dim, wide, &mut self.packed);
        let padded = count.next_multiple_of(wide);
        for (all, given, padding) in
            [(&mut self.weights, weights, 0.0), (&mut self.offsets, offsets, f32::NEG_INFINITY)]
        {
            all.clear();
            all.extend_from_slice(given);
            all.resize(padded, padding);
        }
        (self.dim, self.rows) = (dim, count);
    }
}

/// Finds the pairs whose score is above what the query asks for, in the order of groups of queries and panels of items.
/// Calls `visit` with the numbers of query and item; it gives back what the query asks for from then on. A few pairs
/// may come whose score is below that by then.
///
/// # Panics
/// When the dimensions differ or there are not as many limits as queries: a fault of the caller, never of its data.
pub fn candidates(
    queries: &Queries,
    items: &Items,
    limits: &mut [f32],
    visit: &mut impl FnMut(usize, usize) -> f32,
) {
    assert!(queries.dim == items.dim && limits.len() == queries.rows, "queries and items must fit");
    if queries.dim > 0 {
        Arch::new().dispatch(Blocks { queries, items, limits, visit });
    }
}

/// Values of a panel's row and of a group's.
fn shape() -> (usize, usize) {
    struct Shape;
    impl WithSimd for Shape {
        type Output = (usize, usize);
        #[inline(always)]
        fn with_simd<S: Simd>(self, _simd: S) -> (usize, usize) {
            (WIDE * S::F32_LANES, if S::REGISTER_COUNT >= 32 { TALL } else { LOW })
        }
    }
    Arch::new().dispatch(Shape)
}

/// Groups of `size` rows, transposed; the last is filled up with zeros.
fn pack(rows: &[f32], dim: usize, size: usize, packed: &mut Vec<f32>) {
    packed.clear();
    if dim == 0 {
        return;
    }
    packed.resize((rows.len() / dim).next_multiple_of(size) * dim, 0.0);
    for (group, rows) in packed.chunks_exact_mut(size * dim).zip(rows.chunks(size * dim)) {
        // Sixteen columns at a time: what is written stays in the nearest cache.
        for start in (0..dim).step_by(16) {
            let end = (start + 16).min(dim);
            for (column, row) in rows.chunks_exact(dim).enumerate() {
                for (target, value) in
                    group[start * size..end * size].chunks_exact_mut(size).zip(&row[start..end])
                {
                    target[column] = *value;
                }
            }
        }
    }
}

struct Blocks<'a, F> {
    queries: &'a Queries,
    items: &'a Items,
    limits: &'a mut [f32],
    visit: &'a mut F,
}

impl<F: FnMut(usize, usize) -> f32> WithSimd for Blocks<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 { self.run::<S, TALL>(simd) } else { self.run::<S, LOW>(simd) }
    }
}

impl<F: FnMut(usize, usize) -> f32> Blocks<'_, F> {
    #[inline(always)]
    fn run<S: Simd, const M: usize>(self, simd: S) {
        let (dim, wide) = (self.items.dim, WIDE * S::F32_LANES);
        let (packed, _) = S::as_simd_f32s(&self.items.packed);
        let (weights, _) = S::as_simd_f32s(&self.items.weights);
        let (offsets, _) = S::as_simd_f32s(&self.items.offsets);
        let (packed, _) = packed.as_chunks::<WIDE>();
        let (weights, offsets) = (weights.as_chunks::<WIDE>().0, offsets.as_chunks::<WIDE>().0);
        let (groups, _) = self.queries.packed.as_chunks::<M>();
        for (group, queries) in groups.chunks_exact(dim).enumerate() {
            let first = group * M;
            let count = M.min(self.queries.rows - first);
            for (panel, items) in packed.chunks_exact(dim).enumerate() {
                let (Some(weights), Some(offsets)) = (weights.get(panel), offsets.get(panel)) else { return };
                let sums = sums::<S, M>(simd, queries, items);
                for (query, sums) in sums.iter().enumerate().take(count) {
                    let limit = simd.splat_f32s(self.limits[first + query]);
                    for (part, sum) in sums.iter().enumerate() {
                        let scores = simd.mul_add_f32s(*sum, weights[part], offsets[part]);
                        let passed = simd.not_m32s(simd.less_than_or_equal_f32s(scores, limit));
                        if simd.first_true_m32s(passed) >= S::F32_LANES {
                            continue;
                        }
                        let scores = [scores];
                        for (lane, score) in lanes::<S>(&scores).iter().enumerate() {
                            let item = panel * wide + part * S::F32_LANES + lane;
                            let limit = &mut self.limits[first + query];
                            let below = *score <= *limit;
                            if !below && item < self.items.rows {
                                *limit = (self.visit)(first + query, item);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The lanes of vectors.
#[inline(always)]
fn lanes<S: Simd>(vectors: &[S::f32s]) -> &[f32] {
    pulp::bytemuck::cast_slice(vectors)
}

/// The products of a group of queries and a panel of items.
#[inline(always)]
fn sums<S: Simd, const M: usize>(
    simd: S,
    queries: &[[f32; M]],
    items: &[[S::f32s; WIDE]],
) -> [[S::f32s; WIDE]; M] {
    let mut sums = [[simd.splat_f32s(0.0); WIDE]; M];
    for (queries, items) in queries.iter().zip(items) {
        for (sums, query) in sums.iter_mut().zip(queries) {
            let query = simd.splat_f32s(*query);
            for (sum, item) in sums.iter_mut().zip(items) {
                *sum = simd.mul_add_e_f32s(query, *item, *sum);
            }
        }
    }
    sums
}
