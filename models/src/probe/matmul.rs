//! Matrix products of borrowed row-major slices, on one thread: [`product`] with sizes that travel with
//! the matrices.
//!
//! One thread on purpose: probes run beside each other, and a product must not depend on how many do.

use crate::kernels::mat::{View, product};

/// A matrix over a slice, possibly transposed.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    view: View<'a, f32>,
    rows: usize,
    columns: usize,
}

impl<'a> Matrix<'a> {
    /// The first `rows * columns` values of `data`, row by row.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { view: View::rows(data, columns), rows, columns }
    }

    /// The transposed matrix.
    pub(super) fn transposed(self) -> Self {
        Self { view: self.view.turned(), rows: self.columns, columns: self.rows }
    }
}

/// `out = left * right`, or `out += left * right` if `add`; `out` is row-major.
///
/// # Panics
/// If the inner sizes differ, or a slice is too short for its matrix.
pub(super) fn multiply(left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32], add: bool) {
    assert_eq!(left.columns, right.rows, "inner sizes of a matrix product");
    let size = [left.rows, right.columns, left.columns];
    product(size, out, right.columns, add, left.view, right.view);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn products_match_the_definition() {
        for (m, k, n) in [(1, 1, 1), (5, 7, 3), (33, 17, 40), (2, 64, 1)] {
            let a = filled(m * k, 0.7);
            let b = filled(k * n, 0.3);
            let start = filled(m * n, 1.1);
            let plain = |i: usize, j: usize| -> f64 {
                (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum()
            };
            let mut at = vec![0.0; m * k];
            let mut bt = vec![0.0; k * n];
            (0..m).for_each(|i| (0..k).for_each(|l| at[l * m + i] = a[i * k + l]));
            (0..k).for_each(|l| (0..n).for_each(|j| bt[j * k + l] = b[l * n + j]));
            let lefts = [Matrix::new(&a, m, k), Matrix::new(&at, k, m).transposed()];
            let rights = [Matrix::new(&b, k, n), Matrix::new(&bt, n, k).transposed()];
            for (left, right) in lefts.into_iter().flat_map(|left| rights.map(|right| (left, right))) {
                for add in [false, true] {
                    let mut out = start.clone();
                    multiply(left, right, &mut out, add);
                    for i in 0..m {
                        for j in 0..n {
                            let at = i * n + j;
                            let expected = plain(i, j) + if add { f64::from(start[at]) } else { 0.0 };
                            assert!((f64::from(out[at]) - expected).abs() < 1e-5);
                        }
                    }
                }
            }
        }
    }
}
