//! Bit crushing: fewer bits per sample.
//!
//! A mid-tread quantiser of 2^bits steps over -1..1; zero stays zero. What lies beyond -1..1 is quantised with
//! the same step and not clipped.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

use super::colored_noise::triangular;

pub(crate) const TRIANGULAR: usize = 1;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "bit_crush",
    version: 1,
    summary: "Quantises samples to few bits.",
    source: "Uniform quantisation: W. R. Bennett, Bell System Technical Journal 27, 1948; dither: Lipshitz, \
             Wannamaker and Vanderkooy, J. Audio Eng. Soc. 40(5), 1992.",
    params: &[
        ParamDef {
            name: "bits",
            unit: "bits",
            help: "Resolution: full scale holds 2^bits steps. Need not be whole.",
            kind: ParamKind::Number {
                min: 2.0,
                max: 24.0,
                identity: None,
                default: (6.0, 12.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "dither",
            unit: "",
            help: "What is added before quantising: nothing, or triangular noise of two steps, which turns \
                   distortion into noise.",
            kind: ParamKind::Choice { options: &["none", "triangular"], default: &["none"] },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 1.0, tolerance: 0.1, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "BitCrush"), (Peer::Pedalboard, "Bitcrush")],
};

/// Steps of a unit.
pub(crate) fn scale(bits: f64) -> f64 {
    (bits - 1.0).exp2()
}

fn run(audio: &mut Audio, params: &[f64], rng: &mut Rng, _: &mut Scratch) {
    let &[bits, dither] = params else { return };
    let scale = scale(bits);
    let step = 1.0 / scale;
    for channel in &mut audio.channels {
        if dither as usize == TRIANGULAR {
            for samples in channel.chunks_mut(4) {
                for (sample, word) in samples.iter_mut().zip(rng.next_four()) {
                    *sample =
                        finite_f32(nearest(f64::from(*sample) * scale + f64::from(triangular(word))) * step);
                }
            }
        } else {
            for sample in channel {
                *sample = finite_f32(nearest(f64::from(*sample) * scale) * step);
            }
        }
    }
}

/// The nearest whole number, in a form that becomes vector code: adding 1.5 * 2^52 leaves no room for a fraction.
/// What is too large for that has none to begin with.
#[inline]
fn nearest(x: f64) -> f64 {
    const ROOM: f64 = 6_755_399_441_055_744.0;
    let rounded = (x + ROOM) - ROOM;
    if x.abs() < 2_251_799_813_685_248.0 { rounded } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn crushed(samples: Vec<f32>, bits: f64, dither: f64) -> Vec<f32> {
        let mut audio = Audio::mono(16_000, samples);
        run(&mut audio, &[bits, dither], &mut Key::root(3).rng(), &mut Scratch::default());
        audio.channels.remove(0)
    }

    fn power(x: impl Iterator<Item = f64>, count: usize) -> f64 {
        x.map(|v| v * v).sum::<f64>() / count as f64
    }

    /// 6.02 dB per bit and 1.76 for a full-scale sine; the formula is a limit, 0.09 dB off at 8 bits.
    #[test]
    fn the_signal_to_noise_ratio_follows_the_bits() {
        let sine: Vec<f32> = (0..200_000).map(|i| (f64::from(i) * 0.123_456_7).sin() as f32).collect();
        for bits in [8.0, 9.5, 12.0, 16.0] {
            let out = crushed(sine.clone(), bits, 0.0);
            let error = out.iter().zip(&sine).map(|(a, b)| f64::from(a - b));
            let db = 10.0 * (0.5 / power(error, sine.len())).log10();
            let want = 20.0 * 2f64.log10() * bits + 10.0 * 1.5f64.log10();
            assert!((db - want).abs() < 0.1, "{bits}: {db} {want}");
        }
    }

    /// With triangular dither neither mean nor variance of the error depends on the signal: 0 and step^2 / 4.
    #[test]
    fn dither_makes_the_error_independent_of_the_signal() {
        let step = 2f64.powf(1.0 - 6.0);
        for level in [0.0, 0.13, 0.31, 0.5] {
            let x = (level * step) as f32;
            let out = crushed(vec![x; 200_000], 6.0, 1.0);
            let mean = out.iter().map(|s| f64::from(s - x)).sum::<f64>() / 200_000.0;
            let variance = power(out.iter().map(|s| f64::from(s - x)), 200_000);
            assert!(mean.abs() < 0.005 * step, "{level}: {}", mean / step);
            assert!((variance / (step * step) - 0.25).abs() < 0.005, "{level}: {}", variance / (step * step));
        }
    }

    #[test]
    fn steps_are_even_zero_stays_and_nothing_overflows() {
        let got = crushed(vec![0.0, 0.2, 0.3, -0.8, 1.6, f32::MAX, f32::MIN], 2.0, 0.0);
        assert_eq!(got, [0.0, 0.0, 0.5, -1.0, 1.5, f32::MAX, f32::MIN]);
        assert!(crushed(vec![f32::MAX, f32::MIN], 24.0, 1.0).iter().all(|s| s.is_finite()));
    }
}
