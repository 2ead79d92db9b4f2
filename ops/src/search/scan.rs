//! One query against rows in memory.

use pulp::{Arch, Simd, WithSimd};

/// What is taken of a query and a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The inner product, and the row's squared norm.
    Product,
    /// The squared Euclidean distance; the second number is 0.
    SquaredDistance,
    /// The sum of absolute differences; the second number is 0.
    AbsoluteDistance,
}

/// Takes a measure of the query and each row, in `f32`, and gives `visit` the row's number and the two numbers of the
/// measure. A row that is longer or shorter than the query is taken as far as both go.
pub fn scan<'a>(
    measure: Measure,
    query: &[f32],
    rows: impl Iterator<Item = &'a [f32]>,
    visit: impl FnMut(usize, f32, f32),
) {
    Arch::new().dispatch(Rows { measure, query, rows, visit });
}

struct Rows<'q, I, F> {
    measure: Measure,
    query: &'q [f32],
    rows: I,
    visit: F,
}

impl<'a, I: Iterator<Item = &'a [f32]>, F: FnMut(usize, f32, f32)> WithSimd for Rows<'_, I, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for (index, row) in self.rows.enumerate() {
            let length = row.len().min(self.query.len());
            let (row, query) = (&row[..length], &self.query[..length]);
            let (first, second) = match self.measure {
                Measure::Product => sums(simd, query, row, |sums: &mut [S::f32s; 2], a, b| {
                    sums[0] = simd.mul_add_e_f32s(a, b, sums[0]);
                    sums[1] = simd.mul_add_e_f32s(b, b, sums[1]);
                }),
                Measure::SquaredDistance => sums(simd, query, row, |sums, a, b| {
                    let difference = simd.sub_f32s(a, b);
                    sums[0] = simd.mul_add_e_f32s(difference, difference, sums[0]);
                }),
                Measure::AbsoluteDistance => sums(simd, query, row, |sums, a, b| {
                    sums[0] = simd.add_f32s(simd.abs_f32s(simd.sub_f32s(a, b)), sums[0]);
                }),
            };
            (self.visit)(index, first, second);
        }
    }
}

/// Two sums over two slices of one length; two parts each, so that one addition need not wait for the last.
#[inline(always)]
fn sums<S: Simd>(
    simd: S,
    a: &[f32],
    b: &[f32],
    add: impl Fn(&mut [S::f32s; 2], S::f32s, S::f32s),
) -> (f32, f32) {
    let mut parts = [[simd.splat_f32s(0.0); 2]; 2];
    let (a, a_rest) = S::as_simd_f32s(a);
    let (b, b_rest) = S::as_simd_f32s(b);
    let ((a, a_last), (b, b_last)) = (a.as_chunks::<2>(), b.as_chunks::<2>());
    for (a, b) in a.iter().zip(b) {
        for ((part, a), b) in parts.iter_mut().zip(a).zip(b) {
            add(part, *a, *b);
        }
    }
    for (a, b) in a_last.iter().zip(b_last) {
        add(&mut parts[0], *a, *b);
    }
    if !a_rest.is_empty() {
        add(&mut parts[1], simd.partial_load_f32s(a_rest), simd.partial_load_f32s(b_rest));
    }
    let [[first, second], [first_part, second_part]] = parts;
    (
        simd.reduce_sum_f32s(simd.add_f32s(first, first_part)),
        simd.reduce_sum_f32s(simd.add_f32s(second, second_part)),
    )
}
