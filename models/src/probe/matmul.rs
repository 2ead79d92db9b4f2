//! Matrix products of borrowed row-major slices, on one thread.
//!
//! One thread on purpose: probes run beside each other, and a product must not depend on how many do.

// `gemm` takes raw pointers; the bounds are checked here, in the one place that calls it.
#![allow(unsafe_code)]

/// A matrix over a slice, possibly transposed.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The first `rows * columns` values of `data`, row by row.
    ///
    /// # Panics
    /// If `data` is shorter.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { data: &data[..rows * columns], rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transposed matrix.
    pub(super) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `out = left * right`, or `out += left * right` if `add`; `out` is row-major.
///
/// # Panics
/// If the inner sizes differ or `out` is too short.
pub(super) fn multiply(left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32], add: bool) {
    assert_eq!(left.columns, right.rows, "inner sizes of a matrix product");
    let out = &mut out[..left.rows * right.columns];
    if out.is_empty() {
        return;
    }
    // SAFETY: a `Matrix` is built by `new` over exactly rows * columns values and `transposed` only swaps both
    // sizes with both strides, so every (row, column) addressed lies inside its slice; `out` was cut to
    // rows * columns above, is borrowed mutably and so overlaps neither input.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            out.as_mut_ptr(),
            1,
            right.columns as isize,
            add,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
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
