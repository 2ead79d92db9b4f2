//! Sample rate reduction: what is left of the music at a lower sample rate.
//!
//! `hold` samples without a filter and holds each sample, as early samplers do: what lies above half the new rate
//! folds down, and the steps add images. Each sample is held around its own time, so that nothing is delayed.
//! `clean` is a proper resampler there and back: a steep low-pass of zero phase.

use std::f64::consts::PI;

use realfft::num_complex::Complex;

use super::colored_noise::smooth_length;
use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

const HOLD: usize = 0;

/// The low-pass falls between these multiples of half the new rate.
const PASS: f64 = 0.9;
const STOP: f64 = 1.0;
/// Silence behind the view, in samples of the new rate: where the low-pass rings, so that the end of the view does
/// not ring into its beginning.
const RING: f64 = 40.0;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "sample_rate_reduction",
    version: 1,
    summary: "Keeps what a lower sample rate can hold, with or without aliasing.",
    source: "Sampling theorem: C. E. Shannon, Proc. IRE 37, 1949.",
    params: &[
        ParamDef {
            name: "rate_hz",
            unit: "Hz",
            help: "The lower sample rate; at or above that of the audio nothing changes.",
            kind: ParamKind::Number {
                min: 500.0,
                max: 192_000.0,
                identity: Some(192_000.0),
                default: (3_000.0, 12_000.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "kind",
            unit: "",
            help: "Hold samples with aliasing, or resample cleanly.",
            kind: ParamKind::Choice { options: &["hold", "clean"], default: &["hold", "clean"] },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 0.15, tolerance: 0.02, scale: Scale::Log },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "Aliasing, Resample"), (Peer::Pedalboard, "Resample")],
};

#[derive(Default)]
struct Buffers {
    samples: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    work: Vec<Complex<f32>>,
}

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, scratch: &mut Scratch) {
    let &[rate_hz, kind] = params else { return };
    let ratio = rate_hz / f64::from(audio.rate);
    if ratio >= 1.0 || audio.frames() == 0 {
        return;
    }
    if kind as usize == HOLD {
        let Buffers { samples, .. } = scratch.slot();
        for channel in &mut audio.channels {
            hold(channel, ratio, samples);
        }
    } else {
        let peak = f64::from(audio.peak());
        for channel in &mut audio.channels {
            low_pass(channel, ratio, peak, scratch);
        }
    }
}

/// Samples at the times k / ratio and holds each from half a step before to half a step after.
fn hold(channel: &mut [f32], ratio: f64, before: &mut Vec<f32>) {
    before.clear();
    before.extend_from_slice(channel);
    let mut from = 0;
    for k in 0.. {
        if from >= channel.len() {
            break;
        }
        let to = (((f64::from(k) + 0.5) / ratio).ceil() as usize).min(channel.len());
        channel[from..to].fill(between(before, f64::from(k) / ratio));
        from = to;
    }
}

/// The value between samples, by the cubic through four of them; the ends go on for ever.
fn between(samples: &[f32], position: f64) -> f32 {
    let whole = position.floor();
    let t = position - whole;
    let last = samples.len() as i64 - 1;
    let [a, b, c, d] = [-1, 0, 1, 2].map(|i| f64::from(samples[(whole as i64 + i).clamp(0, last) as usize]));
    let (t0, t1, t2) = (t + 1.0, t - 1.0, t - 2.0);
    finite_f32(
        -a * t * t1 * t2 / 6.0 + b * t0 * t1 * t2 / 2.0 - c * t0 * t * t2 / 2.0 + d * t0 * t * t1 / 6.0,
    )
}

/// Takes away what lies above `ratio` of the Nyquist frequency, in the spectrum of the whole view.
fn low_pass(channel: &mut [f32], ratio: f64, peak: f64, scratch: &mut Scratch) {
    if peak <= 0.0 {
        return;
    }
    let length = smooth_length(channel.len() + (RING / ratio) as usize);
    let (forward, inverse) = (scratch.forward(length), scratch.inverse(length));
    let Buffers { samples, spectrum, work } = scratch.slot();
    samples.clear();
    // Finite samples of any size have a finite spectrum at this level.
    samples.extend(channel.iter().map(|s| (f64::from(*s) / peak) as f32));
    samples.resize(length, 0.0);
    spectrum.resize(length / 2 + 1, Complex::default());
    work.resize(forward.get_scratch_len().max(inverse.get_scratch_len()), Complex::default());
    // Lengths match by construction.
    let _ = forward.process_with_scratch(samples, spectrum, work);
    let bins = length as f64 / 2.0;
    let (pass, stop) = ((PASS * ratio * bins) as usize, (STOP * ratio * bins) as usize);
    for (i, bin) in spectrum[pass..stop].iter_mut().enumerate() {
        *bin *= (0.5 + 0.5 * (PI * (i as f64 + 0.5) / (stop - pass) as f64).cos()) as f32;
    }
    spectrum[stop..].fill(Complex::default());
    let _ = inverse.process_with_scratch(spectrum, samples, work);
    let scale = peak / length as f64;
    for (sample, filtered) in channel.iter_mut().zip(samples) {
        *sample = finite_f32(f64::from(*filtered) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;
    use std::f64::consts::TAU;

    fn reduced(samples: Vec<f32>, rate: u32, params: [f64; 2]) -> Vec<f32> {
        let mut audio = Audio::mono(rate, samples);
        run(&mut audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
        audio.channels.remove(0)
    }

    fn tone(hz: f64, rate: u32, frames: usize) -> Vec<f32> {
        (0..frames).map(|i| (TAU * hz * i as f64 / f64::from(rate)).sin() as f32).collect()
    }

    /// Amplitude and phase (of a sine) at `hz`, away from the ends.
    fn part(x: &[f32], hz: f64, rate: u32) -> (f64, f64) {
        let (mut re, mut im, mut sum) = (0.0, 0.0, 0.0);
        for (i, s) in x.iter().enumerate() {
            let window = (PI * (i as f64 + 0.5) / x.len() as f64).sin().powi(2);
            let (sin, cos) = (TAU * hz * i as f64 / f64::from(rate)).sin_cos();
            re += window * f64::from(*s) * sin;
            im += window * f64::from(*s) * cos;
            sum += window;
        }
        (2.0 * re.hypot(im) / sum, im.atan2(re))
    }

    /// A held tone keeps its phase (no latency), droops by the sinc of the step, and an ultrasonic one folds.
    #[test]
    fn holding_droops_folds_and_does_not_delay() {
        for (hz, alias) in [(500.0, 500.0), (1_700.0, 1_700.0), (3_300.0, 700.0), (5_100.0, 1_100.0)] {
            let out = reduced(tone(hz, 48_000, 48_000), 48_000, [4_000.0, 0.0]);
            let x: f64 = PI * alias / 4_000.0;
            let (amplitude, phase) = part(&out, alias, 48_000);
            assert!((amplitude - x.sin() / x).abs() < 0.01, "{hz}: {amplitude}");
            // Twelve samples from -6 to 5 around each time: half a sample early by construction of whole numbers.
            let want = if hz < 2_000.0 {
                0.0
            } else if hz < 4_000.0 {
                PI
            } else {
                0.0
            };
            let early = TAU * alias * 0.5 / 48_000.0;
            let off = (phase - early - want).rem_euclid(TAU);
            assert!(off.min(TAU - off) < 0.01, "{hz}: {phase}");
        }
    }

    #[test]
    fn steps_are_flat_and_hold_what_was_there() {
        let x: Vec<f32> = (0..40).map(|i| (i * i) as f32).collect();
        let out = reduced(x, 16_000, [4_000.0, 0.0]);
        // Times 0, 4, 8, ...; from two before to one after.
        assert_eq!(out[..10], [0.0, 0.0, 16.0, 16.0, 16.0, 16.0, 64.0, 64.0, 64.0, 64.0]);
        // A quadratic is met between samples too: 16 / 3 squared.
        let x: Vec<f32> = (0..40).map(|i| (i * i) as f32).collect();
        assert!((reduced(x, 16_000, [3_000.0, 0.0])[5] - 256.0 / 9.0).abs() < 1e-5);
    }

    #[test]
    fn the_clean_kind_passes_and_stops() {
        for (hz, want) in [(300.0, 1.0), (1_790.0, 1.0), (2_010.0, 0.0), (7_000.0, 0.0)] {
            let out = reduced(tone(hz, 16_000, 30_001), 16_000, [4_000.0, 1.0]);
            let (amplitude, phase) = part(&out, hz, 16_000);
            assert!((amplitude - want).abs() < 2e-4, "{hz}: {amplitude}");
            assert!(want == 0.0 || phase.abs() < 1e-4, "{hz}: {phase}");
        }
    }

    #[test]
    fn limits() {
        let x = tone(440.0, 16_000, 100);
        assert_eq!(reduced(x.clone(), 16_000, [16_000.0, 0.0]), x);
        for kind in [0.0, 1.0] {
            for frames in [0, 1, 2, 5] {
                assert_eq!(reduced(vec![0.5; frames], 192_000, [500.0, kind]).len(), frames);
            }
            let loud = reduced(vec![f32::MAX, f32::MIN, f32::MAX, f32::MAX], 48_000, [20_000.0, kind]);
            assert!(loud.iter().all(|s| s.is_finite()));
            assert_eq!(reduced(vec![0.0; 50], 48_000, [20_000.0, kind]), vec![0.0; 50]);
        }
    }
}
