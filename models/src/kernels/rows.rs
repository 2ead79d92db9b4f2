//! Loops over the rows of row-major matrices: layer norm, soft-max, GELU, bias and column sums,
//! each forward and backward. Every function is compiled for the CPU's widest vectors.

use super::{LANES, Real, lane_sum, simd};

/// Added to the variance of a row by layer norm.
pub const NORM_EPS: f64 = 1e-5;

/// Mean and reciprocal standard deviation of a row.
pub type Moments<T> = [T; 2];

/// Copies `row` into every row of `out`.
pub fn fill<T: Real>(out: &mut [T], row: &[T]) {
    for out in out.chunks_exact_mut(row.len()) {
        out.copy_from_slice(row);
    }
}

/// `out = x + row` for every row.
pub fn add_row<T: Real>(out: &mut [T], x: &[T], row: &[T]) {
    simd(|| {
        for (out, x) in out.chunks_exact_mut(row.len()).zip(x.chunks_exact(row.len())) {
            for ((out, &x), &row) in out.iter_mut().zip(x).zip(row) {
                *out = x + row;
            }
        }
    });
}

/// `out += x`, element by element.
pub fn add<T: Real>(out: &mut [T], x: &[T]) {
    simd(|| {
        for (out, &x) in out.iter_mut().zip(x) {
            *out += x;
        }
    });
}

/// `sums += ` the sum of the rows of `x`; a row is `stride` long and its first `sums.len()`
/// elements count.
pub fn add_column_sums<T: Real>(sums: &mut [T], x: &[T], stride: usize) {
    simd(|| {
        for x in x.chunks(stride) {
            for (sum, &x) in sums.iter_mut().zip(x) {
                *sum += x;
            }
        }
    });
}

/// Layer norm of every row, `out = (x - mean) / sqrt(variance + eps) * weight + bias`, and the
/// moments that the way back needs.
pub fn norm<T: Real>(out: &mut [T], moments: &mut [Moments<T>], x: &[T], weight: &[T], bias: &[T]) {
    let dim = weight.len();
    let (scale, eps) = (T::ONE / T::from_f64(dim as f64), T::from_f64(NORM_EPS));
    simd(|| {
        for ((out, x), moments) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(moments) {
            let mean = lane_sum(x, x, |x, _| x) * scale;
            let variance = lane_sum(x, x, |x, _| (x - mean) * (x - mean)) * scale;
            let inverse = T::ONE / (variance + eps).square_root();
            *moments = [mean, inverse];
            for (((out, &x), &weight), &bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * inverse * weight + bias;
            }
        }
    });
}

/// The output of [`norm`] again, from stored moments.
pub fn norm_again<T: Real>(out: &mut [T], moments: &[Moments<T>], x: &[T], weight: &[T], bias: &[T]) {
    let dim = weight.len();
    simd(|| {
        for ((out, x), &[mean, inverse]) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(moments) {
            for (((out, &x), &weight), &bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * inverse * weight + bias;
            }
        }
    });
}

/// The way back through [`norm`], in place: `d` holds the gradient of its output and receives that
/// of `x`. Gradients of weight and bias are added.
pub fn norm_back<T: Real>(
    d: &mut [T],
    x: &[T],
    moments: &[Moments<T>],
    weight: &[T],
    d_weight: &mut [T],
    d_bias: &mut [T],
) {
    let dim = weight.len();
    let scale = T::ONE / T::from_f64(dim as f64);
    let mut centred = vec![T::ZERO; dim];
    simd(|| {
        for ((d, x), &[mean, inverse]) in d.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(moments) {
            for (centred, &x) in centred.iter_mut().zip(x) {
                *centred = (x - mean) * inverse;
            }
            for (((d_weight, d_bias), &d), &centred) in
                d_weight.iter_mut().zip(d_bias.iter_mut()).zip(d.iter()).zip(&centred)
            {
                *d_weight += d * centred;
                *d_bias += d;
            }
            for (d, &weight) in d.iter_mut().zip(weight) {
                *d *= weight;
            }
            let level = lane_sum(d, d, |d, _| d) * scale;
            let slope = lane_sum(d, &centred, |d, c| d * c) * scale;
            for (d, &centred) in d.iter_mut().zip(&centred) {
                *d = (*d - level - centred * slope) * inverse;
            }
        }
    });
}

/// The greatest element; NaNs are passed over.
#[inline(always)]
pub fn lane_max<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::from_f64(f64::NEG_INFINITY); LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = if x > *lane { x } else { *lane };
    }
    lanes.iter().fold(lanes[0], |top, &x| if x > top { x } else { top })
}

/// Soft-max of `scale * x` along every row of `columns` elements, in place.
pub fn softmax<T: Real>(x: &mut [T], columns: usize, scale: T) {
    simd(|| {
        for row in x.chunks_exact_mut(columns) {
            let top = lane_max(row);
            for x in row.iter_mut() {
                *x = (*x - top) * scale;
            }
        }
        // Over all rows at once: the odd elements at the end of short rows would cost as much again.
        for x in x.iter_mut() {
            *x = x.exponential();
        }
        for row in x.chunks_exact_mut(columns) {
            let inverse = T::ONE / lane_sum(row, row, |x, _| x);
            for x in row.iter_mut() {
                *x *= inverse;
            }
        }
    });
}

/// The way back through [`softmax`], in place: `d` holds the gradient of `p` and receives that of
/// the unscaled logits.
pub fn softmax_back<T: Real>(d: &mut [T], p: &[T], columns: usize, scale: T) {
    simd(|| {
        for (d, p) in d.chunks_exact_mut(columns).zip(p.chunks_exact(columns)) {
            let mean = lane_sum(d, p, |d, p| d * p);
            for (d, &p) in d.iter_mut().zip(p) {
                *d = p * (*d - mean) * scale;
            }
        }
    });
}

/// `1 / (1 + e^(-2u))` and the derivative of `2u`, for `u = sqrt(2/pi) (x + 0.044715 x^3)`: with
/// them GELU (its tanh form) is `x * gate`.
#[inline(always)]
fn gate<T: Real>(x: T) -> (T, T) {
    let linear = T::from_f64(-2.0 * 0.797_884_560_802_865_4);
    let cubic = T::from_f64(-2.0 * 0.797_884_560_802_865_4 * 0.044_715);
    let square = x * x;
    let gate = T::ONE / (T::ONE + (x * (linear + cubic * square)).exponential());
    (gate, T::ZERO - linear - T::from_f64(3.0) * cubic * square)
}

/// GELU in its tanh form (Hendrycks and Gimpel, arXiv 1606.08415).
pub fn gelu<T: Real>(out: &mut [T], x: &[T]) {
    simd(|| {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * gate(x).0;
        }
    });
}

/// The way back through [`gelu`]: `d` holds the gradient of the output and receives that of `x`,
/// while `out` receives the output again.
pub fn gelu_back<T: Real>(d: &mut [T], out: &mut [T], x: &[T]) {
    simd(|| {
        for ((d, out), &x) in d.iter_mut().zip(out).zip(x) {
            let (gate, slope) = gate(x);
            *out = x * gate;
            *d *= gate + x * gate * (T::ONE - gate) * slope;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, step: f64) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * step).sin() * 1.5 + 0.1).collect()
    }

    /// The central difference of `sum(f(x) * d)` along every element of `x`.
    fn differences(x: &[f64], d: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
        let value = |x: &[f64]| f(x).iter().zip(d).map(|(a, b)| a * b).sum::<f64>();
        let step = 1e-5;
        (0..x.len())
            .map(|i| {
                let mut moved = x.to_vec();
                moved[i] += step;
                let high = value(&moved);
                moved[i] -= 2.0 * step;
                (high - value(&moved)) / (2.0 * step)
            })
            .collect()
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-8 * (1.0 + want.abs()), "{got} {want}");
        }
    }

    #[test]
    fn norm_gradients_match_differences() {
        for (rows, dim) in [(1, 5), (3, 16), (4, 37)] {
            let (x, d) = (wave(rows * dim, 0.7), wave(rows * dim, 1.3));
            let (weight, bias) = (wave(dim, 2.1), wave(dim, 0.4));
            let forward = |x: &[f64], weight: &[f64], bias: &[f64]| {
                let mut out = vec![0.0; x.len()];
                let mut moments = vec![[0.0; 2]; rows];
                norm(&mut out, &mut moments, x, weight, bias);
                let mut again = vec![0.0; x.len()];
                norm_again(&mut again, &moments, x, weight, bias);
                assert_eq!(out, again);
                (out, moments)
            };
            let (_, moments) = forward(&x, &weight, &bias);
            let (mut dx, mut dw, mut db) = (d.clone(), vec![0.0; dim], vec![0.0; dim]);
            norm_back(&mut dx, &x, &moments, &weight, &mut dw, &mut db);
            close(&dx, &differences(&x, &d, |x| forward(x, &weight, &bias).0));
            close(&dw, &differences(&weight, &d, |w| forward(&x, w, &bias).0));
            close(&db, &differences(&bias, &d, |b| forward(&x, &weight, b).0));
        }
    }

    #[test]
    fn softmax_gradient_matches_differences() {
        for (rows, columns) in [(1, 1), (2, 7), (3, 40)] {
            let (x, d) = (wave(rows * columns, 0.9), wave(rows * columns, 0.3));
            let forward = |x: &[f64]| {
                let mut out = x.to_vec();
                softmax(&mut out, columns, 0.7);
                out
            };
            let p = forward(&x);
            for row in p.chunks(columns) {
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
            let mut dx = d.clone();
            softmax_back(&mut dx, &p, columns, 0.7);
            close(&dx, &differences(&x, &d, forward));
        }
    }

    #[test]
    fn softmax_survives_large_logits() {
        let mut x = vec![1e30f32, 0.0, -1e30, 1e30];
        softmax(&mut x, 4, 1.0);
        assert_eq!(x[0], 0.5);
        assert!(x.iter().all(|x| x.is_finite()));
        let mut x = vec![f32::NAN, 0.0];
        softmax(&mut x, 2, 1.0);
        assert!(x[0].is_nan());
    }

    #[test]
    fn gelu_matches_its_definition_and_differences() {
        let x = wave(50, 0.31).iter().map(|x| x * 3.0).collect::<Vec<_>>();
        let forward = |x: &[f64]| {
            let mut out = vec![0.0; x.len()];
            gelu(&mut out, x);
            out
        };
        for (&x, y) in x.iter().zip(forward(&x)) {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            assert!((y - 0.5 * x * (1.0 + u.tanh())).abs() < 1e-12);
        }
        let d = wave(50, 1.1);
        let (mut dx, mut again) = (d.clone(), vec![0.0; 50]);
        gelu_back(&mut dx, &mut again, &x);
        assert_eq!(again, forward(&x));
        close(&dx, &differences(&x, &d, forward));
    }

    #[test]
    fn sums_and_fills() {
        let mut out = [0.0; 6];
        fill(&mut out, &[1.0, 2.0, 3.0]);
        let mut sums = [1.0, 0.0];
        add_column_sums(&mut sums, &out, 3);
        assert_eq!(sums, [3.0, 4.0]);
        let mut moved = [0.0; 6];
        add_row(&mut moved, &out, &[1.0, 1.0, 1.0]);
        add(&mut moved, &out);
        assert_eq!(moved, [3.0, 5.0, 7.0, 3.0, 5.0, 7.0]);
    }
}
