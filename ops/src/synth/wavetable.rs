//! Band-limited single-cycle tables.
//!
//! A note reads the table that holds as many harmonics as fit below half the sample rate. A table keeps two
//! spectra side by side, dull and bright, which a voice crossfades over time.

use std::f32::consts::TAU;
use std::sync::{Arc, OnceLock};

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner};

/// Samples of a cycle.
pub(super) const LENGTH: usize = 1024;
/// Bits of a 32-bit phase below the table index.
pub(super) const FRACTION_BITS: u32 = 22;
/// Most harmonics of a spectrum.
pub(super) const HARMONICS: usize = 64;

/// Harmonic counts for which tables are made.
const LEVELS: [usize; 16] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64];

/// Amplitudes and phases of a harmonic sound; index 0 is the fundamental.
#[derive(Debug, Clone)]
pub(super) struct Spectrum {
    pub(super) dull: [f32; HARMONICS],
    pub(super) bright: [f32; HARMONICS],
    /// Phases in turns.
    pub(super) phases: [f32; HARMONICS],
}

/// One cycle of [dull, bright] pairs and a guard pair equal to the first.
pub(super) type Cycle = [[f32; 2]; LENGTH + 1];

/// The tables of one part, made when first asked for.
pub(super) struct Tables<'a> {
    spectrum: &'a Spectrum,
    cycles: [Option<Box<Cycle>>; LEVELS.len()],
}

impl<'a> Tables<'a> {
    pub(super) fn new(spectrum: &'a Spectrum) -> Self {
        Self { spectrum, cycles: Default::default() }
    }

    /// The table for a tone of `hz` at `rate`; `None` where not even the fundamental fits.
    pub(super) fn get(&mut self, hz: f64, rate: f64) -> Option<&Cycle> {
        let room = (0.48 * rate / hz) as usize;
        let level = LEVELS.iter().rposition(|harmonics| *harmonics <= room)?;
        let spectrum = self.spectrum;
        Some(self.cycles[level].get_or_insert_with(|| build(spectrum, LEVELS[level])))
    }
}

fn build(spectrum: &Spectrum, harmonics: usize) -> Box<Cycle> {
    static PLAN: OnceLock<Arc<dyn ComplexToReal<f32>>> = OnceLock::new();
    let plan = PLAN.get_or_init(|| RealFftPlanner::new().plan_fft_inverse(LENGTH));
    let mut cycle: Box<Cycle> = Box::new([[0.0; 2]; LENGTH + 1]);
    let (mut bins, mut scratch) = (plan.make_input_vec(), plan.make_scratch_vec());
    let mut wave = plan.make_output_vec();
    for (side, amplitudes) in [&spectrum.dull, &spectrum.bright].into_iter().enumerate() {
        bins.fill(Complex::new(0.0, 0.0));
        for h in 0..harmonics {
            // Half, since the inverse transform adds the conjugate half.
            bins[h + 1] = Complex::from_polar(0.5 * amplitudes[h], TAU * spectrum.phases[h]);
        }
        // Fails only on buffers of a wrong length; these are the plan's own.
        if plan.process_with_scratch(&mut bins, &mut wave, &mut scratch).is_ok() {
            for (pair, sample) in cycle.iter_mut().zip(&wave) {
                pair[side] = *sample;
            }
        }
    }
    cycle[LENGTH] = cycle[0];
    cycle
}

/// A sine cycle.
pub(super) struct Sine([f32; LENGTH + 1]);

impl Sine {
    /// The sine of a phase in turns, 0..1; linear interpolation, error below 5e-6.
    pub(super) fn at(&self, turns: f32) -> f32 {
        let x = turns * LENGTH as f32;
        let i = (x as usize).min(LENGTH - 1);
        let (a, b) = (self.0[i], self.0[i + 1]);
        a + (b - a) * (x - i as f32)
    }
}

/// The shared sine table.
pub(super) fn sine() -> &'static Sine {
    static SINE: OnceLock<Box<Sine>> = OnceLock::new();
    SINE.get_or_init(|| {
        let mut table = Box::new(Sine([0.0; LENGTH + 1]));
        for (i, sample) in table.0.iter_mut().enumerate() {
            *sample = (std::f64::consts::TAU * i as f64 / LENGTH as f64).sin() as f32;
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_the_sum_of_its_harmonics() {
        let mut spectrum = Spectrum { dull: [0.0; 64], bright: [0.0; 64], phases: [0.0; 64] };
        for h in 0..HARMONICS {
            spectrum.dull[h] = 1.0 / (h + 1) as f32;
            spectrum.bright[h] = 0.5 / (h + 2) as f32;
            spectrum.phases[h] = (h as f32 * 0.37) % 1.0;
        }
        let mut tables = Tables::new(&spectrum);
        // 0.48 * 16000 / 1000 = 7.68: six harmonics is the largest level that fits.
        let cycle = tables.get(1000.0, 16_000.0).unwrap();
        for i in [0, 1, 100, 777, LENGTH] {
            let sum = |amplitudes: &[f32]| -> f64 {
                (0..6)
                    .map(|h| {
                        let turns = (h + 1) as f64 * i as f64 / LENGTH as f64 + f64::from(spectrum.phases[h]);
                        f64::from(amplitudes[h]) * (std::f64::consts::TAU * turns).cos()
                    })
                    .sum()
            };
            assert!((f64::from(cycle[i][0]) - sum(&spectrum.dull)).abs() < 1e-5, "{i}");
            assert!((f64::from(cycle[i][1]) - sum(&spectrum.bright)).abs() < 1e-5, "{i}");
        }
        assert!(tables.get(9000.0, 16_000.0).is_none());
    }

    #[test]
    fn the_sine_is_close() {
        for i in 0..1000 {
            let turns = i as f64 / 1000.0;
            let error = f64::from(sine().at(turns as f32)) - (std::f64::consts::TAU * turns).sin();
            assert!(error.abs() < 1e-5, "{turns}: {error}");
        }
    }
}
