//! Coloured noise at a signal-to-noise ratio.
//!
//! A Gaussian-like spectrum is drawn bin by bin, shaped, and transformed once at the full length of the
//! view: nothing is tiled, so the noise has no period. Below 20 Hz the density is flat, or brown noise
//! would be an inaudible drift and little else.

use realfft::num_complex::Complex;

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "colored_noise",
    version: 1,
    summary: "Adds noise whose spectrum follows a power law.",
    source: "Power-law noise by spectral shaping: Timmer and Koenig, Astronomy and Astrophysics 300, 1995.",
    params: &[
        ParamDef {
            name: "snr_db",
            unit: "dB",
            help: "Level of the music over that of the noise.",
            kind: ParamKind::Number {
                min: -20.0,
                max: 100.0,
                identity: None,
                default: (3.0, 30.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "exponent",
            unit: "",
            help: "Power density falls as 1 / f^exponent: 0 white, 1 pink, 2 brown, -1 blue, -2 violet.",
            kind: ParamKind::Number {
                min: -2.0,
                max: 2.0,
                identity: None,
                default: (-2.0, 2.0),
                scale: Scale::Linear,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 6.0, tolerance: 0.5, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "AddColorNoise"), (Peer::TorchAudiomentations, "AddColoredNoise")],
};

/// Below this the density is flat, in Hz.
const FLAT_BELOW_HZ: f64 = 20.0;

fn run(audio: &mut Audio, params: &[f64], rng: &mut Rng, scratch: &mut Scratch) {
    let &[snr_db, exponent] = params else { return };
    let count = audio.channels.len() * audio.frames();
    let power = audio.channels.iter().flatten().map(|s| f64::from(*s) * f64::from(*s)).sum::<f64>();
    if count == 0 || power <= 0.0 {
        return;
    }
    let level = (power / count as f64).sqrt() / gain(snr_db);
    let rate = audio.rate;
    for channel in &mut audio.channels {
        let noise = noise(channel.len(), rate, exponent, rng, scratch);
        let drawn = noise.iter();
        let power = drawn.map(|s| f64::from(*s) * f64::from(*s)).sum::<f64>() / channel.len() as f64;
        if power > 0.0 {
            let scale = level / power.sqrt();
            for (sample, noise) in channel.iter_mut().zip(noise) {
                *sample = finite_f32(f64::from(*sample) + f64::from(*noise) * scale);
            }
        }
    }
}

/// The level of the music over that of the noise.
pub(crate) fn gain(snr_db: f64) -> f64 {
    10f64.powf(snr_db / 20.0)
}

/// The bin below which the density is flat.
pub(crate) fn flat_bin(length: usize, rate: u32) -> f64 {
    FLAT_BELOW_HZ * length as f64 / f64::from(rate)
}

/// The power law is evaluated at most 1/32 of the frequency apart and interpolated in between: the bin after `from`.
pub(crate) fn next_knot(from: usize) -> usize {
    from + (from / 32).max(1)
}

/// The buffers that noise is made in.
#[derive(Default)]
struct Buffers {
    spectrum: Vec<Complex<f32>>,
    samples: Vec<f32>,
    work: Vec<Complex<f32>>,
}

/// That many samples of noise of no particular level.
fn noise<'a>(frames: usize, rate: u32, exponent: f64, rng: &mut Rng, scratch: &'a mut Scratch) -> &'a [f32] {
    let length = smooth_length(frames);
    let fft = scratch.inverse(length);
    let Buffers { spectrum, samples, work } = scratch.slot();
    let bins = length / 2 + 1;
    spectrum.resize(bins, Complex::default());
    samples.resize(length, 0.0);
    work.resize(fft.get_scratch_len(), Complex::default());
    let flat = flat_bin(length, rate);
    let amplitude = |bin: usize| (bin as f64).max(flat).powf(-exponent / 2.0) as f32;
    let (mut from, mut at_from) = (0, amplitude(0));
    while from < bins {
        let to = next_knot(from);
        let at_to = amplitude(to);
        let slope = (at_to - at_from) / (to - from) as f32;
        for (pair, bins) in spectrum[from..to.min(bins)].chunks_mut(2).enumerate() {
            let words = rng.next_four().map(triangular);
            for (i, bin) in bins.iter_mut().enumerate() {
                let scale = at_from + slope * (2 * pair + i) as f32;
                *bin = Complex::new(words[2 * i] * scale, words[2 * i + 1] * scale);
            }
        }
        (from, at_from) = (to, at_to);
    }
    // A real signal has real ends; the mean of the noise is zero.
    spectrum[0] = Complex::default();
    spectrum[bins - 1].im = 0.0;
    // The lengths match by construction; were they not to, the samples would stay as they are.
    let _ = fft.process_with_scratch(spectrum, samples, work);
    &samples[..frames]
}

/// The sum of two uniform numbers in -0.5..0.5, one from each half of a word; exact. A sample of noise sums thousands
/// of bins, so it is Gaussian whatever the distribution of one bin.
#[inline]
pub(super) fn triangular(word: u32) -> f32 {
    ((word & 0xFFFF) as f32 + (word >> 16) as f32 - 65_535.0) * (1.0 / 65_536.0)
}

/// The least even number of the form 2^a 3^b 5^c that is at least `n`: its transform is fast.
pub(crate) fn smooth_length(n: usize) -> usize {
    let mut best = n.max(4).next_power_of_two();
    let mut fives = 2;
    while fives < best {
        let mut threes = fives;
        while threes < best {
            let mut candidate = threes;
            while candidate < n.max(4) {
                candidate *= 2;
            }
            best = best.min(candidate);
            threes *= 3;
        }
        fives *= 5;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn noise_of(exponent: f64, snr_db: f64) -> (Vec<f32>, Vec<f32>) {
        let clean: Vec<f32> = (0..48_000).map(|i| (i as f32 * 0.2).sin() * 0.3).collect();
        let mut audio = Audio::mono(16_000, clean.clone());
        run(&mut audio, &[snr_db, exponent], &mut Key::root(4).rng(), &mut Scratch::default());
        let noise = audio.channels[0].iter().zip(&clean).map(|(a, b)| a - b).collect();
        (clean, noise)
    }

    fn power(x: &[f32]) -> f64 {
        x.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / x.len() as f64
    }

    #[test]
    fn the_ratio_is_exact() {
        for exponent in [-2.0, 0.0, 1.3] {
            let (clean, noise) = noise_of(exponent, 10.0);
            let db = 10.0 * (power(&clean) / power(&noise)).log10();
            assert!((db - 10.0).abs() < 1e-3, "{db}");
        }
    }

    /// Power in octave bands: each octave up holds 2^(1 - exponent) times the power of the one below.
    #[test]
    fn the_slope_follows_the_exponent() {
        for exponent in [-2.0, -1.0, 0.0, 1.0, 2.0] {
            let (_, noise) = noise_of(exponent, 0.0);
            let mut planner = realfft::RealFftPlanner::<f32>::new();
            let fft = planner.plan_fft_forward(noise.len());
            let mut spectrum = fft.make_output_vec();
            fft.process(&mut noise.clone(), &mut spectrum).unwrap();
            let band =
                |low: usize| spectrum[low..2 * low].iter().map(|c| f64::from(c.norm_sqr())).sum::<f64>();
            let slope = (band(9_600) / band(600)).log2() / 4.0;
            assert!((slope - (1.0 - exponent)).abs() < 0.06, "{exponent}: {slope}");
        }
    }

    #[test]
    fn samples_look_gaussian_and_do_not_repeat() {
        let (_, noise) = noise_of(0.0, 0.0);
        let fourth = noise.iter().map(|s| f64::from(*s).powi(4)).sum::<f64>() / noise.len() as f64;
        let kurtosis = fourth / power(&noise).powi(2);
        assert!((kurtosis - 3.0).abs() < 0.1, "{kurtosis}");
        for lag in [1, 16_000, 24_000] {
            let r: f64 = noise.iter().zip(&noise[lag..]).map(|(a, b)| f64::from(a * b)).sum();
            let r = r / noise.len() as f64 / power(&noise);
            assert!(r.abs() < 0.02, "lag {lag}: {r}");
        }
    }

    #[test]
    fn lengths_are_smooth_and_silence_stays() {
        assert_eq!([1, 4, 7, 48_000, 48_001, 1_021].map(smooth_length), [4, 4, 8, 48_000, 48_600, 1_024]);
        let mut audio = Audio::mono(16_000, vec![0.0; 100]);
        run(&mut audio, &[3.0, 0.0], &mut Key::root(4).rng(), &mut Scratch::default());
        assert_eq!(audio.peak(), 0.0);
    }
}
