//! Compressor: what is louder than a threshold becomes less so.
//!
//! Feed-forward, in the logarithmic domain: level, static curve with a soft knee, smoothing, gain. One gain for all
//! channels, from the loudest of them. The logarithm and the power are polynomials that work on many samples at
//! once; only the smoothing goes from sample to sample.

use std::f64::consts::LOG10_2;

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "compressor",
    version: 1,
    summary: "Turns down what is louder than a threshold; one gain for all channels.",
    source: "Giannoulis, Massberg and Reiss, Digital Dynamic Range Compressor Design, JAES 60(6), 2012.",
    params: &[
        ParamDef {
            name: "threshold_db",
            unit: "dB",
            help: "The level from which it turns down, relative to full scale.",
            kind: ParamKind::Number {
                min: -80.0,
                max: 0.0,
                identity: None,
                default: (-36.0, -12.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "ratio",
            unit: "",
            help: "How many decibels more at the input make one more at the output.",
            kind: ParamKind::Number {
                min: 1.0,
                max: 100.0,
                identity: Some(1.0),
                default: (1.5, 8.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "knee_db",
            unit: "dB",
            help: "Over how many decibels, half of them below the threshold, it sets in.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 40.0,
                identity: None,
                default: (0.0, 12.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "attack_ms",
            unit: "ms",
            help: "When 63% of a reduction are reached.",
            kind: ParamKind::Number {
                min: 0.05,
                max: 500.0,
                identity: None,
                default: (1.0, 30.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "release_ms",
            unit: "ms",
            help: "When 63% of a reduction are gone, the attack's time apart.",
            kind: ParamKind::Number {
                min: 1.0,
                max: 5_000.0,
                identity: None,
                default: (50.0, 400.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "makeup_db",
            unit: "dB",
            help: "Gain applied afterwards to everything.",
            kind: ParamKind::Number {
                min: -24.0,
                max: 24.0,
                identity: Some(0.0),
                default: (0.0, 6.0),
                scale: Scale::Linear,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 1, apart: 0.5, tolerance: 0.05, scale: Scale::Log },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Pedalboard, "Compressor")],
};

/// Samples worked on at a time.
const BLOCK: usize = 256;

/// Levels are counted in octaves of amplitude, of so many decibels each.
const DB_PER_OCTAVE: f64 = 20.0 * LOG10_2;

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[threshold_db, ratio, knee_db, attack_ms, release_ms, makeup_db] = params else { return };
    if ratio == 1.0 && makeup_db == 0.0 {
        return;
    }
    let curve = Curve::new(threshold_db, ratio, knee_db);
    let makeup = octaves(makeup_db);
    let (keep_attack, keep_release) = (keep(attack_ms, audio.rate), keep(release_ms, audio.rate));
    // The smooth decoupled peak detector of the paper (its equation 17), on the reduction.
    let (mut held, mut smooth) = (0.0f64, 0.0f64);
    let mut block = [0.0f32; BLOCK];
    for from in (0..audio.frames()).step_by(BLOCK) {
        let range = from..(from + BLOCK).min(audio.frames());
        let block = &mut block[..range.len()];
        block.fill(FLOOR);
        for channel in &audio.channels {
            for (level, sample) in block.iter_mut().zip(&channel[range.clone()]) {
                *level = larger(*level, sample.abs());
            }
        }
        for level in block.iter_mut() {
            *level = curve.reduction(log2(*level));
        }
        for value in block.iter_mut() {
            let reduction = f64::from(*value);
            let released = keep_release * held + (1.0 - keep_release) * reduction;
            held = if released > reduction { released } else { reduction };
            smooth = keep_attack * smooth + (1.0 - keep_attack) * held;
            *value = smooth as f32;
        }
        for value in block.iter_mut() {
            *value = exp2(makeup - *value);
        }
        for channel in &mut audio.channels {
            for (sample, gain) in channel[range.clone()].iter_mut().zip(block.iter()) {
                *sample = (*sample * gain).clamp(f32::MIN, f32::MAX);
            }
        }
    }
}

/// A gain in octaves of amplitude.
pub(crate) fn octaves(db: f64) -> f32 {
    (db / DB_PER_OCTAVE) as f32
}

/// What is left after a frame of what decays to 1/e within that time.
pub(crate) fn keep(ms: f64, rate: u32) -> f64 {
    (-1_000.0 / (ms * f64::from(rate))).exp()
}

/// The static curve, as the reduction at each level, both in octaves.
pub(crate) struct Curve {
    /// The middle of the knee, and half its width.
    pub threshold: f32,
    pub half_knee: f32,
    /// The reduction per octave above the knee.
    pub slope: f32,
    /// The reduction per squared octave from the knee's start.
    pub bend: f32,
}

impl Curve {
    pub(crate) fn new(threshold_db: f64, ratio: f64, knee_db: f64) -> Self {
        let slope = 1.0 - 1.0 / ratio;
        let knee = knee_db / DB_PER_OCTAVE;
        Self {
            threshold: (threshold_db / DB_PER_OCTAVE) as f32,
            half_knee: (knee / 2.0) as f32,
            slope: slope as f32,
            bend: if knee > 1e-6 { slope / (2.0 * knee) } else { 0.0 } as f32,
        }
    }

    /// Nothing below the knee, a parabola in it, a line above: written without branches.
    #[inline]
    fn reduction(&self, level: f32) -> f32 {
        let over = level - self.threshold;
        let in_knee = smaller(larger(over + self.half_knee, 0.0), 2.0 * self.half_knee);
        let above = larger(over - self.half_knee, 0.0);
        self.bend * in_knee * in_knee + self.slope * above
    }
}

/// The least amplitude told from silence: far below any threshold.
const FLOOR: f32 = 1e-20;

/// Unlike `f32::max` with no rule for NaN, so that it is one instruction; there is no NaN here.
#[inline]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The binary logarithm of a normal positive number, to 1e-6 or the rounding of the result.
///
/// The exponent is read off; for the mantissa m in sqrt(1/2)..sqrt 2 it is 2 atanh((m - 1) / (m + 1)) / ln 2 by
/// its series, of which the first term left out is below 5e-8.
#[inline]
fn log2(x: f32) -> f32 {
    const SQRT_HALF: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();
    const TWICE: f32 = 2.0 * std::f32::consts::LOG2_E;
    let offset = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (offset as i32) >> 23;
    let m = f32::from_bits((offset & 0x007F_FFFF) + SQRT_HALF);
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = ((q * (1.0 / 7.0) + 1.0 / 5.0) * q + 1.0 / 3.0) * q;
    exponent as f32 + TWICE * (s + s * series)
}

/// Two to that power, for powers up to 127, to 2e-7 of itself; those below -125 count as -125.
///
/// The nearest integer goes to the exponent; what remains, within half, is Taylor's series.
#[inline]
fn exp2(x: f32) -> f32 {
    // Adding this leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = larger(x, -125.0);
    let rounded = x + ROUND;
    let t = (x - (rounded - ROUND)) * std::f32::consts::LN_2;
    let tail = (t * (1.0 / 720.0) + 1.0 / 120.0) * t + 1.0 / 24.0;
    let series = (((tail * t + 1.0 / 6.0) * t + 0.5) * t + 1.0) * t + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    series * f32::from_bits(exponent << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn apply(audio: &mut Audio, params: [f64; 6]) {
        run(audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
    }

    fn db(ratio: f64) -> f64 {
        20.0 * ratio.log10()
    }

    #[test]
    fn logarithm_and_power_are_accurate() {
        for i in -1_000..1_000i32 {
            let x = 1.0411f64.powi(i);
            let got = f64::from(log2(x as f32));
            assert!((got - x.log2()).abs() < 1e-6 + 1e-7 * x.log2().abs(), "{x}: {got}");
            let power = f64::from(i) * 0.12;
            let want = f64::from(power as f32).exp2();
            assert!((f64::from(exp2(power as f32)) / want - 1.0).abs() < 3e-7, "{power}");
        }
        assert_eq!((exp2(0.0), log2(1.0), log2(0.25)), (1.0, 0.0, -2.0));
        assert!(log2(f32::MAX) <= 128.0 && exp2(-1_000.0) > 0.0);
    }

    /// Equation 4 of the paper, reached by a square wave, whose level is constant.
    #[test]
    fn the_settled_gain_follows_the_static_curve() {
        for (threshold, ratio, knee) in [(-20.0, 4.0, 0.0), (-30.0, 2.0, 12.0), (-10.0, 100.0, 6.0)] {
            for level in [-60.0, -37.0, -30.0, -25.0, -20.0, -12.0, -9.0, -5.0, 0.0, 20.0] {
                let amplitude = 10f64.powf(level / 20.0) as f32;
                let square = (0..8_000).map(|i| if i % 40 < 20 { amplitude } else { -amplitude }).collect();
                let mut audio = Audio::mono(8_000, square);
                apply(&mut audio, [threshold, ratio, knee, 5.0, 50.0, 3.0]);
                let over: f64 = level - threshold;
                let want = if 2.0 * over < -knee {
                    level
                } else if 2.0 * over.abs() < knee {
                    level + (1.0 / ratio - 1.0) * (over + knee / 2.0).powi(2) / (2.0 * knee)
                } else {
                    threshold + over / ratio
                };
                let got = db(f64::from(audio.channels[0][7_999].abs()));
                assert!((got - want - 3.0).abs() < 1e-3, "{level} dB: {got}, not {want}");
            }
        }
    }

    /// A step up: the reduction is 1 - exp(-t / attack) of the last. A step down: a lag of the release's time
    /// constant followed by one of the attack's.
    #[test]
    fn attack_and_release_have_their_time_constants() {
        let (rate, attack, release) = (16_000, 0.010, 0.100);
        let step: Vec<f32> = (0..32_000).map(|i| if i < 16_000 { 1.0 } else { 0.01 }).collect();
        let mut audio = Audio::mono(rate, step.clone());
        apply(&mut audio, [-20.0, 2.0, 0.0, attack * 1e3, release * 1e3, 0.0]);
        let reduction = |i: usize| -db(f64::from(audio.channels[0][i] / step[i]));
        let after = |t: f64| (t * f64::from(rate)).round() as usize;
        // The first sample already counts one frame of attack.
        assert!((reduction(after(attack) - 1) - 10.0 * (1.0 - (-1f64).exp())).abs() < 0.01);
        for t in [0.002, 0.02, 0.05] {
            assert!((reduction(after(t) - 1) - 10.0 * (1.0 - (-t / attack).exp())).abs() < 0.01, "{t}");
        }
        for t in [0.01, 0.1, 0.11, 0.3] {
            let lags = release * (-t / release).exp() - attack * (-t / attack).exp();
            let want = 10.0 * lags / (release - attack);
            assert!(
                (reduction(16_000 + after(t)) - want).abs() < 0.02,
                "{t}: {}",
                reduction(16_000 + after(t))
            );
        }
    }

    /// All channels get the gain that the loudest calls for; below the threshold nothing is touched.
    #[test]
    fn channels_are_linked_and_the_quiet_is_left_alone() {
        let mut audio = Audio { rate: 8_000, channels: vec![vec![0.9; 4_000], vec![0.01; 4_000]] };
        apply(&mut audio, [-20.0, 4.0, 0.0, 1.0, 50.0, 0.0]);
        let gains = [audio.channels[0][3_999] / 0.9, audio.channels[1][3_999] / 0.01];
        assert!(gains[0] < 0.3 && (gains[0] - gains[1]).abs() < 1e-6, "{gains:?}");
        let quiet: Vec<f32> = (0..4_000).map(|i| (i as f32 * 0.3).sin() * 0.09).collect();
        let mut audio = Audio::mono(8_000, quiet.clone());
        apply(&mut audio, [-20.0, 4.0, 0.0, 1.0, 50.0, 0.0]);
        assert_eq!(audio.channels[0], quiet);
    }

    #[test]
    fn a_ratio_of_one_is_nothing_and_loud_sounds_are_safe() {
        let wild = vec![f32::MAX, f32::MIN, 0.0, 1e-40, 0.5];
        let mut audio = Audio::mono(8_000, wild.clone());
        apply(&mut audio, [-80.0, 1.0, 0.0, 1.0, 50.0, 0.0]);
        assert_eq!(audio.channels[0], wild);
        for makeup in [-24.0, 24.0] {
            let mut audio = Audio::mono(8_000, wild.clone());
            apply(&mut audio, [-80.0, 100.0, 40.0, 0.05, 1.0, makeup]);
            assert!(audio.is_finite() && audio.channels[0][2] == 0.0);
        }
    }
}
