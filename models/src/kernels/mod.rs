//! Arithmetic on plain CPU slices: what the fused operations are made of.
//!
//! Everything is generic over [`Real`], so that the code that trains in `f32` is the very code whose
//! gradients are checked in `f64`.
//!
//! Invariants that make a result independent of the machine's vector width and of the thread count:
//! * sums run over [`LANES`] fixed partial sums, added in one order, whatever the registers' width;
//! * products and sums are never contracted into fused multiply-adds by these loops;
//! * no kernel spawns threads: callers split work along fixed boundaries.
//!
//! Matrix products ([`mat`]) pick their own micro-kernel, so bits may differ between CPU classes.

pub mod block;
pub mod drop;
pub mod rows;

use candle_core::WithDType;
pub use loev_ops::matrix as mat;

/// Partial sums kept by a reduction.
pub const LANES: usize = 16;

/// A float that the kernels compute with: `f32` to train, `f64` to check gradients.
pub trait Real: WithDType + mat::Element {
    /// The square root.
    fn square_root(self) -> Self;
    /// `e^self`. In `f32` a branch-free polynomial, which vectorises: relative error below 3e-7 on
    /// [-87, 88], and beyond that range the value at its end. NaN stays NaN.
    fn exponential(self) -> Self;
}

impl Real for f32 {
    #[inline(always)]
    fn square_root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn exponential(self) -> Self {
        // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, the first with so few bits that `n * LN2_HIGH` is exact.
        const LN2_HIGH: f32 = 0.691_406_25;
        const LN2_LOW: f32 = 0.001_740_930_6;
        // (e^r - 1 - r) / r^2 interpolated at Chebyshev nodes on |r| <= 1.01 ln(2) / 2, error 1.1e-8.
        const C: [f32; 5] = [0.5, 0.166_665_73, 0.041_666_55, 0.008_363_774, 0.001_392_692_7];
        let x = self.clamp(-87.0, 88.0);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let tail = (((C[4] * r + C[3]) * r + C[2]) * r + C[1]) * r + C[0];
        let value = tail * (r * r) + r + 1.0;
        let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
        value * scale
    }
}

impl Real for f64 {
    #[inline(always)]
    fn square_root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }
}

/// Runs `work` compiled for the widest vectors that this CPU has. What it calls must be
/// `#[inline(always)]`, or it is compiled for the baseline.
#[inline]
pub fn simd<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// The sum of `f(a, b)` over two slices of one length, in [`LANES`] fixed partial sums.
#[inline(always)]
pub fn lane_sum<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_blocks.remainder(), b_blocks.remainder());
    for (a, b) in a_blocks.zip(b_blocks) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a, b);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += f(a, b);
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000i32 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(x.exponential()) / exact - 1.0).abs());
        }
        assert!(worst < 2.4e-7, "relative error {worst:e}");
        assert_eq!(0.0f32.exponential(), 1.0);
        assert!(f32::NAN.exponential().is_nan());
        assert!((-1e30f32).exponential() < 2e-38);
        assert!(f32::INFINITY.exponential() > 1e38);
    }

    #[test]
    fn lane_sum_adds_every_element_once() {
        for n in [0usize, 1, 15, 16, 17, 96, 100] {
            let xs: Vec<f64> = (0..n).map(|i| i as f64 + 1.0).collect();
            let sum = lane_sum(&xs, &xs, |a, _| a);
            assert_eq!(sum, (n * (n + 1)) as f64 / 2.0);
        }
    }

    #[test]
    fn simd_gives_what_plain_code_gives() {
        let xs: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 5.0).collect();
        let plain: Vec<f32> = xs.iter().map(|x| x.exponential()).collect();
        let mut wide = xs.clone();
        simd(|| {
            for x in &mut wide {
                *x = x.exponential();
            }
        });
        assert_eq!(plain, wide);
    }
}
