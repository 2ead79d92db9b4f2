//! Single-threaded matrix products over slices, with strides: a checked door to the `gemm` crate
//! (the one candle uses, so one set of micro-kernels in the binary).

/// A float that matrices are made of: `f32` or `f64`.
pub trait Element: Copy + Send + Sync + 'static {
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Element for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// A read-only matrix view.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    data: &'a [T],
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// Rows that lie `stride` elements apart; their elements are adjacent.
    pub fn rows(data: &'a [T], stride: usize) -> Self {
        Self { data, row_stride: stride, column_stride: 1 }
    }

    /// The transpose of `Self::rows(data, stride)`.
    pub fn transposed(data: &'a [T], stride: usize) -> Self {
        Self { data, row_stride: 1, column_stride: stride }
    }

    /// The transpose.
    pub fn turned(self) -> Self {
        Self { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    fn fits(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.data.len()
    }
}

/// A product whose bounds [`product`] has checked.
struct Raw<'a, T> {
    size: [usize; 3],
    out: &'a mut [T],
    out_stride: usize,
    add: bool,
    a: View<'a, T>,
    b: View<'a, T>,
}

impl<T: Element> Raw<'_, T> {
    #[allow(unsafe_code)]
    fn run(self) {
        let [m, n, k] = self.size;
        let alpha = if self.add { T::ONE } else { T::ZERO };
        // SAFETY: `Raw` is only built by `product`, which has checked that the last element of each
        // operand lies inside its slice; strides are non-negative, so every other one does too.
        // `out` is a unique borrow, so it overlaps neither operand.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                self.out.as_mut_ptr(),
                1,
                self.out_stride as isize,
                self.add,
                self.a.data.as_ptr(),
                self.a.column_stride as isize,
                self.a.row_stride as isize,
                self.b.data.as_ptr(),
                self.b.column_stride as isize,
                self.b.row_stride as isize,
                alpha,
                T::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

/// `out = a b`, or `out += a b` with `add`, for `a: [m, k]`, `b: [k, n]` and rows of `out`
/// `out_stride` elements apart.
///
/// # Panics
/// When a matrix does not fit its slice: a fault of the calling kernel, never of its data.
pub fn product<T: Element>(
    size: [usize; 3],
    out: &mut [T],
    out_stride: usize,
    add: bool,
    a: View<'_, T>,
    b: View<'_, T>,
) {
    let [m, n, k] = size;
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.fits(m, k) && b.fits(k, n), "an operand is smaller than its shape");
    assert!(n <= out_stride || m == 1, "output rows overlap");
    assert!((m - 1) * out_stride + n <= out.len(), "the output is smaller than its shape");
    Raw { size, out, out_stride, add, a, b }.run();
}

/// The inner product: eight sums side by side, so that the compiler may use vector registers.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(size: [usize; 3], a: impl Fn(usize, usize) -> f64, b: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let [m, n, k] = size;
        (0..m * n).map(|i| (0..k).map(|j| a(i / n, j) * b(j, i % n)).sum()).collect()
    }

    #[test]
    fn strided_and_transposed_products_match_the_definition() {
        let data: Vec<f64> = (0..400).map(|i| ((i * 37) % 101) as f64 / 50.0 - 1.0).collect();
        for [m, n, k] in [[1, 1, 1], [3, 5, 7], [8, 4, 16], [13, 17, 9]] {
            let (sa, sb) = (k + 2, n + 1);
            let want = naive([m, n, k], |r, c| data[r * sa + c], |r, c| data[r * sb + c]);
            let mut out = vec![1.0; m * (n + 3)];
            product([m, n, k], &mut out, n + 3, false, View::rows(&data, sa), View::rows(&data, sb));
            for (i, want) in want.iter().enumerate() {
                assert!((out[i / n * (n + 3) + i % n] - want).abs() < 1e-12);
            }
            let (ta, tb) = (m + 1, k);
            let want = naive([m, n, k], |r, c| data[c * ta + r], |r, c| data[c * tb + r]);
            let mut out = vec![1.0; m * n];
            product([m, n, k], &mut out, n, true, View::transposed(&data, ta), View::transposed(&data, tb));
            for (out, want) in out.iter().zip(want) {
                assert!((out - want - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    #[should_panic(expected = "smaller than its shape")]
    fn short_operands_are_refused() {
        product([2, 2, 2], &mut [0.0f32; 4], 2, false, View::rows(&[0.0; 3], 2), View::rows(&[0.0; 4], 2));
    }
}
