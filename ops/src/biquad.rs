//! Filters of second order: coefficients from R. Bristow-Johnson's Audio EQ Cookbook (W3C note, 2021), run in double
//! precision.
//!
//! Frequencies are in cycles per sample and kept below 0.49, where the formulas end. All filters are minimum-phase or
//! all-pole-like designs without latency: what sounds at a time still sounds at that time.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, TAU};

use crate::operator::finite_f32;

/// One biquad, normalised so that a0 = 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    b: [f64; 3],
    a: [f64; 2],
}

/// Samples that are worked out at once.
const BLOCK: usize = 4;

impl Section {
    fn new(b: [f64; 3], [a0, a1, a2]: [f64; 3]) -> Self {
        Self { b: b.map(|v| v / a0), a: [a1 / a0, a2 / a0] }
    }

    /// Flat below `cutoff`, where it is 3 dB down; 12 dB per octave above.
    pub(crate) fn low_pass(cutoff: f64) -> Self {
        let (cos, alpha) = angle(cutoff, butterworth);
        let side = (1.0 - cos) / 2.0;
        Self::new([side, 1.0 - cos, side], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
    }

    /// Flat above `cutoff`, where it is 3 dB down; 12 dB per octave below.
    pub(crate) fn high_pass(cutoff: f64) -> Self {
        let (cos, alpha) = angle(cutoff, butterworth);
        let side = (1.0 + cos) / 2.0;
        Self::new([side, -1.0 - cos, side], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
    }

    /// Unity at `centre`, 3 dB down `octaves` apart.
    pub(crate) fn band_pass(centre: f64, octaves: f64) -> Self {
        let (cos, alpha) = angle(centre, bandwidth(octaves));
        Self::new([alpha, 0.0, -alpha], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
    }

    /// Nothing at `centre`, 3 dB down `octaves` apart.
    pub(crate) fn notch(centre: f64, octaves: f64) -> Self {
        let (cos, alpha) = angle(centre, bandwidth(octaves));
        Self::new([1.0, -2.0 * cos, 1.0], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
    }

    /// `db` at `centre` and half as many `octaves` apart; unity far off.
    pub(crate) fn peak(centre: f64, db: f64, octaves: f64) -> Self {
        let (cos, alpha) = angle(centre, bandwidth(octaves));
        let gain = 10f64.powf(db / 40.0);
        Self::new(
            [1.0 + alpha * gain, -2.0 * cos, 1.0 - alpha * gain],
            [1.0 + alpha / gain, -2.0 * cos, 1.0 - alpha / gain],
        )
    }

    /// `db` far below `corner`, half as many at it, unity far above.
    pub(crate) fn low_shelf(corner: f64, db: f64) -> Self {
        let (cos, alpha) = angle(corner, butterworth);
        let (b, a) = shelf(cos, alpha, db);
        Self::new(b, a)
    }

    /// `db` far above `corner`, half as many at it, unity far below.
    pub(crate) fn high_shelf(corner: f64, db: f64) -> Self {
        let (cos, alpha) = angle(corner, butterworth);
        // Mirrored at a quarter of the sample rate.
        let ([b0, b1, b2], [a0, a1, a2]) = shelf(-cos, alpha, db);
        Self::new([b0, -b1, b2], [a0, -a1, a2])
    }

    /// The coefficients of the numerator, and of the denominator after its first, which is 1.
    pub(crate) fn coefficients(&self) -> ([f64; 3], [f64; 2]) {
        (self.b, self.a)
    }

    /// One sample, in transposed direct form II.
    fn step(&self, x: f64, [s1, s2]: [f64; 2]) -> (f64, [f64; 2]) {
        let ([b0, b1, b2], [a1, a2]) = (self.b, self.a);
        let y = b0 * x + s1;
        (y, [b1 * x - a1 * y + s2, b2 * x - a2 * y])
    }

    /// Filters in place, from rest.
    ///
    /// A block of samples and the state after it are one linear map of the block and the state before it. Its columns
    /// are the responses to a one in each place. So a block waits for the one before it only once, and the arithmetic
    /// is that of vectors.
    pub(crate) fn run(&self, samples: &mut [f32]) {
        let columns: [[f64; BLOCK + 2]; BLOCK + 2] = std::array::from_fn(|place| {
            let one = |i: usize| f64::from(u8::from(i == place));
            let mut column = [0.0; BLOCK + 2];
            let mut state = [one(BLOCK), one(BLOCK + 1)];
            for (i, out) in column[..BLOCK].iter_mut().enumerate() {
                (*out, state) = self.step(one(i), state);
            }
            column[BLOCK..].copy_from_slice(&state);
            column
        });
        let mut state = [0.0; 2];
        let (blocks, rest) = samples.as_chunks_mut::<BLOCK>();
        for block in blocks {
            let mut out = [0.0; BLOCK + 2];
            for (place, column) in columns.iter().enumerate() {
                let x = if place < BLOCK { f64::from(block[place]) } else { state[place - BLOCK] };
                for (out, c) in out.iter_mut().zip(column) {
                    *out += c * x;
                }
            }
            for (sample, y) in block.iter_mut().zip(out) {
                *sample = finite_f32(y);
            }
            state = [out[BLOCK], out[BLOCK + 1]];
        }
        for sample in rest {
            let (y, next) = self.step(f64::from(*sample), state);
            *sample = finite_f32(y);
            state = next;
        }
    }
}

/// The cosine of the angular frequency, and the cookbook's alpha there.
fn angle(frequency: f64, alpha: impl Fn(f64) -> f64) -> (f64, f64) {
    let w = TAU * frequency.clamp(1e-6, 0.49);
    (w.cos(), alpha(w))
}

/// alpha for Q = 1 / sqrt 2: maximally flat, and the steepest shelf that does not overshoot.
fn butterworth(w: f64) -> f64 {
    w.sin() / (2.0 * FRAC_1_SQRT_2)
}

/// alpha for a width in octaves, corrected for the bilinear transform.
fn bandwidth(octaves: f64) -> impl Fn(f64) -> f64 {
    move |w| w.sin() * (LN_2 / 2.0 * octaves * w / w.sin()).sinh()
}

/// Coefficients of the low shelf.
fn shelf(cos: f64, alpha: f64, db: f64) -> ([f64; 3], [f64; 3]) {
    let gain = 10f64.powf(db / 40.0);
    let (more, less, slope) = (gain + 1.0, gain - 1.0, 2.0 * gain.sqrt() * alpha);
    (
        [
            gain * (more - less * cos + slope),
            2.0 * gain * (less - more * cos),
            gain * (more - less * cos - slope),
        ],
        [more + less * cos + slope, -2.0 * (less + more * cos), more + less * cos - slope],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    /// The gain at a frequency, from the spectrum of the impulse response.
    pub(crate) fn measured(run: impl Fn(&mut [f32]), frequency: f64) -> f64 {
        let mut response = vec![0.0; 65_537];
        response[0] = 1.0;
        run(&mut response);
        let (mut re, mut im) = (0.0, 0.0);
        for (i, h) in response.iter().enumerate() {
            let (sin, cos) = (TAU * frequency * i as f64).sin_cos();
            re += f64::from(*h) * cos;
            im += f64::from(*h) * sin;
        }
        re.hypot(im)
    }

    /// |H(j s)| of (n2 s^2 + n1 s + n0) / (d2 s^2 + d1 s + d0).
    fn analogue(s: f64, [n0, n1, n2]: [f64; 3], [d0, d1, d2]: [f64; 3]) -> f64 {
        (n0 - n2 * s * s).hypot(n1 * s) / (d0 - d2 * s * s).hypot(d1 * s)
    }

    /// The analogue prototypes at the frequency that the bilinear transform maps there.
    #[test]
    fn magnitudes_match_the_closed_forms() {
        for (corner, db, octaves) in
            [(1e-3, 9.0, 1.0), (0.0625, -12.0, 0.5), (0.0625, 24.0, 2.0), (0.3, 3.0, 1.0)]
        {
            let a = 10f64.powf(db / 40.0);
            let root = (2.0 * a).sqrt();
            let w = TAU * corner;
            let q = w.sin() / (2.0 * bandwidth(octaves)(w));
            for frequency in [1e-4, 9e-4, 2e-3, 0.03, 0.0625, 0.11, 0.25, 0.31, 0.45] {
                let s = (PI * frequency).tan() / (PI * corner).tan();
                for (name, section, numerator, denominator) in [
                    ("low pass", Section::low_pass(corner), [1.0, 0.0, 0.0], [1.0, 2f64.sqrt(), 1.0]),
                    ("high pass", Section::high_pass(corner), [0.0, 0.0, 1.0], [1.0, 2f64.sqrt(), 1.0]),
                    ("band", Section::band_pass(corner, octaves), [0.0, 1.0 / q, 0.0], [1.0, 1.0 / q, 1.0]),
                    ("notch", Section::notch(corner, octaves), [1.0, 0.0, 1.0], [1.0, 1.0 / q, 1.0]),
                    (
                        "peak",
                        Section::peak(corner, db, octaves),
                        [1.0, a / q, 1.0],
                        [1.0, 1.0 / (a * q), 1.0],
                    ),
                    ("low shelf", Section::low_shelf(corner, db), [a * a, a * root, a], [1.0, root, a]),
                    ("high shelf", Section::high_shelf(corner, db), [a, a * root, a * a], [a, root, 1.0]),
                ] {
                    let got = measured(|x| section.run(x), frequency);
                    let want = analogue(s, numerator, denominator);
                    assert!(
                        (got - want).abs() < 2e-5 * want.max(1.0),
                        "{name} {db} dB at {frequency}: {got} {want}"
                    );
                }
            }
        }
    }

    /// At a low centre, widths are what they say: between -3 dB points, or half the gain of a peak.
    #[test]
    fn widths_are_in_octaves() {
        let band = Section::band_pass(0.002, 2.0);
        let peak = Section::peak(0.002, 12.0, 2.0);
        for frequency in [0.001, 0.004] {
            assert!((measured(|x| band.run(x), frequency) - FRAC_1_SQRT_2).abs() < 1e-3);
            assert!((measured(|x| peak.run(x), frequency) - 10f64.powf(6.0 / 20.0)).abs() < 1e-3);
        }
    }

    /// Blocks give what single steps give, for the least stable filters too and for every length.
    #[test]
    fn blocks_equal_single_steps() {
        for section in
            [Section::high_pass(1e-4), Section::band_pass(2e-4, 0.1), Section::peak(0.4, 24.0, 0.1)]
        {
            for length in [0, 1, 3, 4, 7, 20_001] {
                let noise = |i: usize| ((i * i) as f32 * 0.37).sin();
                let mut blocks: Vec<f32> = (0..length).map(noise).collect();
                section.run(&mut blocks);
                let mut state = [0.0; 2];
                for (i, got) in blocks.iter().enumerate() {
                    let (y, next) = section.step(f64::from(noise(i)), state);
                    state = next;
                    assert!((f64::from(*got) - y).abs() < 1e-7 * y.abs().max(1.0), "{i}: {got} {y}");
                }
            }
        }
    }
}
