//! The modified discrete cosine transform in a sine window: Princen, Johnson and Bradley, ICASSP 1987.

use std::f64::consts::PI;
use std::sync::Arc;

use realfft::RealToComplex;
use realfft::num_complex::Complex;

use crate::operator::Scratch;

/// Plans and buffers for one size.
#[derive(Default)]
pub(super) struct Mdct {
    hop: usize,
    fft: Option<Arc<dyn RealToComplex<f32>>>,
    window: Vec<f32>,
    /// exp(-i pi (n + 1/8) / hop) over (hop / 2)^(1/4): before and after the transform.
    turns: Vec<Complex<f32>>,
    folded: Vec<f32>,
    /// Real and imaginary parts of the numbers to be transformed, and their spectra.
    parts: [Vec<f32>; 2],
    spectra: [Vec<Complex<f32>>; 2],
    work: Vec<Complex<f32>>,
}

impl Mdct {
    /// Plans for frames `hop` apart and twice as long; `hop` is a multiple of 4.
    pub(super) fn prepare(&mut self, hop: usize, scratch: &mut Scratch) {
        if self.hop == hop {
            return;
        }
        let fft = scratch.forward(hop / 2);
        let angle = PI / hop as f64;
        let scale = (hop as f64 / 2.0).powf(-0.25);
        self.hop = hop;
        self.window = (0..2 * hop).map(|n| ((n as f64 + 0.5) * angle / 2.0).sin() as f32).collect();
        let turn = |n: usize| Complex::from_polar(scale, -(n as f64 + 0.125) * angle);
        self.turns = (0..hop / 2).map(turn).map(|t| Complex::new(t.re as f32, t.im as f32)).collect();
        self.folded = vec![0.0; hop];
        self.parts = [(); 2].map(|()| fft.make_input_vec());
        self.spectra = [(); 2].map(|()| fft.make_output_vec());
        self.work = fft.make_scratch_vec();
        self.fft = Some(fft);
    }

    /// The `hop` coefficients of `2 * hop` samples. Neighbouring frames share the power of the samples.
    pub(super) fn forward(&mut self, samples: &[f32], coefficients: &mut [f32]) {
        let hop = self.hop;
        let half = hop / 2;
        let at = |n: usize| samples[n] * self.window[n];
        for n in 0..half {
            self.folded[n] = -at(3 * half - 1 - n) - at(3 * half + n);
            self.folded[half + n] = at(n) - at(hop - 1 - n);
        }
        self.cosines();
        coefficients.copy_from_slice(&self.folded);
    }

    /// Adds the `2 * hop` samples of `hop` coefficients; what neighbouring frames add up to are the samples.
    pub(super) fn inverse(&mut self, coefficients: &[f32], samples: &mut [f32]) {
        self.folded.copy_from_slice(coefficients);
        self.cosines();
        let (early, late) = self.folded.split_at(self.hop / 2);
        let unfolded = late
            .iter()
            .copied()
            .chain(late.iter().rev().map(|x| -x))
            .chain(early.iter().rev().map(|x| -x))
            .chain(early.iter().map(|x| -x));
        for ((sample, x), w) in samples.iter_mut().zip(unfolded).zip(&self.window) {
            *sample += x * w;
        }
    }

    /// The cosine transform of fourth type of what is folded, in place; it is its own inverse.
    ///
    /// Even inputs and reversed odd ones are the parts of hop / 2 complex numbers; turned, transformed and turned
    /// again, they hold the even outputs and the reversed odd ones. The complex transform is that of two real ones.
    fn cosines(&mut self) {
        let Some(fft) = &self.fft else { return };
        let (hop, count) = (self.hop, self.turns.len());
        for (n, turn) in self.turns.iter().enumerate() {
            let x = Complex::new(self.folded[2 * n], self.folded[hop - 1 - 2 * n]) * turn;
            (self.parts[0][n], self.parts[1][n]) = (x.re, x.im);
        }
        for (part, spectrum) in self.parts.iter_mut().zip(&mut self.spectra) {
            // Lengths match by construction.
            let _ = fft.process_with_scratch(part, spectrum, &mut self.work);
        }
        let [re, im] = &self.spectra;
        for (k, (a, b)) in re.iter().zip(im).enumerate() {
            // a + ib, and what it is on the other side, where both are conjugates.
            let sides = [(k, a.re - b.im, a.im + b.re), (count - k, a.re + b.im, b.re - a.im)];
            for (k, x, y) in sides {
                if let Some(turn) = self.turns.get(k) {
                    let out = Complex::new(x, y) * turn;
                    self.folded[2 * k] = out.re;
                    self.folded[hop - 1 - 2 * k] = -out.im;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: usize) -> f32 {
        ((i * i) as f32 * 0.37).sin()
    }

    /// Against the definition, evaluated in f64.
    #[test]
    fn coefficients_match_the_definition() {
        for hop in [64, 512] {
            let mut mdct = Mdct::default();
            mdct.prepare(hop, &mut Scratch::default());
            let samples: Vec<f32> = (0..2 * hop).map(noise).collect();
            let mut got = vec![0.0; hop];
            mdct.forward(&samples, &mut got);
            let size = hop as f64;
            for (k, got) in got.iter().enumerate() {
                let term = |n: usize| {
                    let window = ((n as f64 + 0.5) * PI / (2.0 * size)).sin();
                    let phase = PI / size * (n as f64 + 0.5 + size / 2.0) * (k as f64 + 0.5);
                    f64::from(samples[n]) * window * phase.cos()
                };
                let want = (0..2 * hop).map(term).sum::<f64>() * (2.0 / size).sqrt();
                assert!((f64::from(*got) - want).abs() < 2e-5, "{hop} {k}: {got} {want}");
            }
        }
    }

    #[test]
    fn without_quantising_the_samples_come_back() {
        let (hop, frames) = (256, 9);
        let mut mdct = Mdct::default();
        mdct.prepare(hop, &mut Scratch::default());
        let samples: Vec<f32> = (0..(frames + 1) * hop).map(noise).collect();
        let mut back = vec![0.0; samples.len()];
        let mut coefficients = vec![0.0; hop];
        for frame in 0..frames {
            let range = frame * hop..(frame + 2) * hop;
            mdct.forward(&samples[range.clone()], &mut coefficients);
            mdct.inverse(&coefficients, &mut back[range]);
        }
        // The first and the last hop have one frame only.
        for i in hop..frames * hop {
            assert!((back[i] - samples[i]).abs() < 2e-6, "{i}: {} {}", back[i], samples[i]);
        }
    }
}
