//! Sums over vectors: 16 lanes of the input's own type within blocks, doubles across blocks.
//!
//! Within a block of 1024 a lane adds 64 terms, so that the rounding error of `f32` input stays
//! near 1e-6 relative whatever the dimension. Sums that leave the range of `f32` (overflow, or
//! squares too small to count) are taken again in doubles.

use std::ops::{Add, Mul, Sub};

const LANES: usize = 16;
const BLOCK: usize = 1024;

/// An element type: `f32` or `f64`.
pub(crate) trait Real:
    Copy
    + Default
    + PartialOrd
    + Into<f64>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Send
    + Sync
{
    /// The value without its sign.
    fn absolute(self) -> Self;
    /// The nearest value of this type.
    fn nearest(value: f64) -> Self;
}

impl Real for f32 {
    fn absolute(self) -> Self {
        self.abs()
    }

    fn nearest(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    fn absolute(self) -> Self {
        self.abs()
    }

    fn nearest(value: f64) -> Self {
        value
    }
}

/// The inner product of two vectors of equal length.
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    let sum = blocked(a, b, |x, y| x * y);
    if sum.is_finite() { sum } else { wide(a, b, |x, y| x * y) }
}

/// The squared Euclidean norm.
pub(crate) fn squared_norm<T: Real>(a: &[T]) -> f64 {
    let sum = blocked(a, a, |x, y| x * y);
    if in_range(sum) { sum } else { wide(a, a, |x, y| x * y) }
}

/// The squared Euclidean distance of two vectors of equal length.
pub(crate) fn squared_distance<T: Real>(a: &[T], b: &[T]) -> f64 {
    let sum = blocked(a, b, |x, y| (x - y) * (x - y));
    if in_range(sum) { sum } else { wide(a, b, |x, y| (x - y) * (x - y)) }
}

/// The sum of the absolute differences of two vectors of equal length.
pub(crate) fn absolute_distance<T: Real>(a: &[T], b: &[T]) -> f64 {
    let sum = blocked(a, b, |x, y| (x - y).absolute());
    if sum.is_finite() { sum } else { wide(a, b, |x, y| (x - y).abs()) }
}

/// The largest absolute element, at least 0; `None` if one is NaN or infinite.
pub(crate) fn greatest<T: Real>(a: &[T]) -> Option<f64> {
    // An element minus itself is 0 only if it is finite.
    if blocked(a, a, |x, _| x - x) != 0.0 {
        return None;
    }
    let (lanes, rest) = a.as_chunks::<LANES>();
    let mut greatest = [T::default(); LANES];
    let larger = |lane: &mut T, x: T| *lane = if x.absolute() > *lane { x.absolute() } else { *lane };
    for chunk in lanes {
        greatest.iter_mut().zip(chunk).for_each(|(lane, x)| larger(lane, *x));
    }
    greatest.iter_mut().zip(rest).for_each(|(lane, x)| larger(lane, *x));
    Some(greatest.into_iter().map(Into::into).fold(0.0, f64::max))
}

/// The cosine of the angle between two vectors of equal length, in -1..=1; `None` if one is zero.
pub(crate) fn cosine<T: Real>(a: &[T], b: &[T]) -> Option<f64> {
    let (a_squared, b_squared) = (squared_norm(a), squared_norm(b));
    // One root is the more exact (parallel vectors give 1), two keep within the range of f64.
    let both = a_squared * b_squared;
    let norms = if both.is_normal() { both.sqrt() } else { a_squared.sqrt() * b_squared.sqrt() };
    if norms == 0.0 {
        return None;
    }
    let product = dot(a, b);
    // Products of small elements may all have vanished in f32.
    let product =
        if product.abs() < f64::from(f32::MIN_POSITIVE) { wide(a, b, |x, y| x * y) } else { product };
    // clamp keeps NaN.
    Some((product / norms).clamp(-1.0, 1.0))
}

/// Whether a sum of `f32` squares can be trusted.
fn in_range(sum: f64) -> bool {
    sum.is_finite() && sum > 1e-30
}

fn blocked<T: Real>(a: &[T], b: &[T], term: impl Fn(T, T) -> T) -> f64 {
    let mut total = 0.0;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        let (a_lanes, a_rest) = a.as_chunks::<LANES>();
        let (b_lanes, b_rest) = b.as_chunks::<LANES>();
        let mut lanes = [T::default(); LANES];
        for (x, y) in a_lanes.iter().zip(b_lanes) {
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane = *lane + term(x, y);
            }
        }
        total += lanes.into_iter().map(Into::into).sum::<f64>();
        total += a_rest.iter().zip(b_rest).map(|(&x, &y)| term(x, y).into()).sum::<f64>();
    }
    total
}

fn wide<T: Real>(a: &[T], b: &[T], term: impl Fn(f64, f64) -> f64) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| term(x.into(), y.into())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed sequence in -1..1 (a linear congruential generator).
    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let step = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32) / ((1u64 << 23) as f32) - 1.0
        };
        std::iter::repeat_with(step).take(n).collect()
    }

    #[test]
    fn sums_agree_with_doubles_at_every_length() {
        for n in [0, 1, 3, 15, 16, 17, 96, 1023, 1024, 1025, 5000] {
            let (a, b) = (values(n, 1), values(n, 2));
            let exact = |f: fn(f64, f64) -> f64| -> f64 {
                a.iter().zip(&b).map(|(&x, &y)| f(f64::from(x), f64::from(y))).sum()
            };
            let scale = 1e-6 * (n as f64 + 1.0);
            assert!((dot(&a, &b) - exact(|x, y| x * y)).abs() < scale, "dot of {n}");
            assert!(
                (squared_distance(&a, &b) - exact(|x, y| (x - y).powi(2))).abs() < scale,
                "distance of {n}"
            );
            assert!((squared_norm(&a) - exact(|x, _| x * x)).abs() < scale, "norm of {n}");
            let absolute = absolute_distance(&a, &b) - exact(|x, y| (x - y).abs());
            assert!(absolute.abs() < scale, "absolute distance of {n}");
        }
    }

    #[test]
    fn extreme_magnitudes_are_summed_in_doubles() {
        let large = [3e30f32, 4e30];
        assert!((squared_norm(&large).sqrt() / 5e30 - 1.0).abs() < 1e-6);
        let small = [3e-30f32, 4e-30];
        assert!((squared_norm(&small).sqrt() / 5e-30 - 1.0).abs() < 1e-6);
        assert!((cosine(&small, &large).unwrap() - 1.0).abs() < 1e-6);
        assert!((cosine(&small, &small).unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_greatest_is_found_wherever_it_stands() {
        for n in [1, 15, 16, 17, 1025] {
            for place in [0, n / 2, n - 1] {
                let mut a = values(n, 3);
                a[place] = -7.5;
                assert_eq!(greatest(&a), Some(7.5), "{place} of {n}");
                for bad in [f32::NAN, f32::INFINITY] {
                    a[place] = bad;
                    assert_eq!(greatest(&a), None, "{place} of {n}");
                }
            }
        }
        assert_eq!(greatest::<f64>(&[]), Some(0.0));
    }

    #[test]
    fn zero_has_no_direction() {
        assert_eq!(cosine(&[0.0f32, 0.0], &[1.0, 2.0]), None);
        assert_eq!(cosine::<f32>(&[], &[]), None);
        assert_eq!(dot::<f32>(&[], &[]), 0.0);
        assert!(cosine(&[f32::NAN, 1.0], &[1.0, 1.0]).unwrap().is_nan());
    }
}
