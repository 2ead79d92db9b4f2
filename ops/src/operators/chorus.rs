//! Chorus: the sound beside copies of it whose delays swing.
//!
//! A copy is read between samples. A cubic through four of them is audibly dull near the top of the band, and
//! the dullness would swing with the delay; so the sound is doubled in rate first, by a half-sample filter, and
//! the cubic runs through points half a sample apart.

use std::f64::consts::{FRAC_PI_2, PI, TAU};

use super::modulation::{Lfo, blend, control_frames, headroom};
use crate::audio::Audio;
use crate::dist::Scale;
use crate::kaiser::kaiser;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "chorus",
    version: 1,
    summary: "Adds three copies whose delays swing, a third of a period apart; in further channels a quarter later.",
    source: "Dattorro, Effect Design part 2, JAES 45(10), 1997; Farrow, ISCAS 1988.",
    params: &[
        ParamDef {
            name: "rate_hz",
            unit: "Hz",
            help: "How often the delays swing to and fro; the phase is drawn.",
            kind: ParamKind::Number {
                min: 0.01,
                max: 10.0,
                identity: None,
                default: (0.2, 1.5),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "delay_ms",
            unit: "ms",
            help: "The delay about which they swing.",
            kind: ParamKind::Number {
                min: 1.0,
                max: 50.0,
                identity: None,
                default: (7.0, 25.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "depth_ms",
            unit: "ms",
            help: "How far they swing to each side; at most `delay_ms`.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 20.0,
                identity: None,
                default: (0.5, 3.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "mix",
            unit: "",
            help: "The part of the mean of the copies; the rest is the sound as it was.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 1.0,
                identity: Some(0.0),
                default: (0.2, 0.6),
                scale: Scale::Linear,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Pedalboard, "Chorus")],
};

const VOICES: usize = 3;

/// Half the length of the half-sample filter.
pub(crate) const TAPS: usize = 8;

/// The sound at twice its rate: `whole` at the samples, `half` between each and the next, zeros around.
#[derive(Default)]
struct Buffers {
    whole: Vec<f32>,
    half: Vec<f32>,
    wet: Vec<f32>,
}

fn run(audio: &mut Audio, params: &[f64], rng: &mut Rng, scratch: &mut Scratch) {
    let &[rate_hz, delay_ms, depth_ms, mix] = params else { return };
    if mix == 0.0 {
        return;
    }
    let phase = rng.uniform(0.0, TAU);
    let (rate, scale) = (audio.rate, headroom(audio));
    let (centre, depth) = delays(delay_ms, depth_ms, rate);
    let taps = half_sample_filter();
    let buffers: &mut Buffers = scratch.slot();
    for (index, channel) in audio.channels.iter_mut().enumerate() {
        // Room for the longest delay, and for the filter and the cubic on both sides.
        let lead = (centre + depth) as usize + 2 * TAPS;
        // Each copy at a third of the level: their sum is their mean.
        buffers.load(channel, scale / VOICES as f32, lead, &taps);
        for voice in 0..VOICES {
            let phase = phase + index as f64 * FRAC_PI_2 + voice as f64 * TAU / VOICES as f64;
            let control = control_frames(rate);
            let mut lfo = Lfo::new(phase, rate_hz, rate, control);
            let mut delay = centre + depth * lfo.next();
            for from in (0..channel.len()).step_by(control) {
                let next = centre + depth * lfo.next();
                let to = (from + control).min(channel.len());
                buffers.read(from..to, lead, delay, (next - delay) / control as f64);
                delay = next;
            }
        }
        blend(channel, &buffers.wet, mix as f32, scale);
    }
}

/// The middle of the delay and how far it swings, in frames.
pub(crate) fn delays(delay_ms: f64, depth_ms: f64, rate: u32) -> (f64, f64) {
    let frames_per_ms = f64::from(rate) / 1_000.0;
    (delay_ms * frames_per_ms, depth_ms.min(delay_ms) * frames_per_ms)
}

/// One half of the symmetric filter that gives the sample midway between two others: a sinc in a Kaiser window, flat
/// to seven tenths of the band.
pub(crate) fn half_sample_filter() -> [f32; TAPS] {
    const BETA: f64 = 7.0;
    let tap = |k: usize| {
        let x = k as f64 + 0.5;
        (PI * x).sin() / (PI * x) * kaiser(x / TAPS as f64, BETA)
    };
    let taps: [f64; TAPS] = std::array::from_fn(tap);
    let sum = 2.0 * taps.iter().sum::<f64>();
    taps.map(|tap| (tap / sum) as f32)
}

impl Buffers {
    /// Takes the samples in, `lead` zeros ahead of them, and clears `wet`.
    fn load(&mut self, samples: &[f32], scale: f32, lead: usize, taps: &[f32; TAPS]) {
        let Self { whole, half, wet } = self;
        let length = lead + samples.len() + 2 * TAPS;
        whole.clear();
        whole.resize(lead, 0.0);
        whole.extend(samples.iter().map(|s| s * scale));
        whole.resize(length, 0.0);
        wet.clear();
        wet.resize(samples.len(), 0.0);
        half.clear();
        half.resize(length, 0.0);
        // Eight points on each side of the gap between `whole[i]` and the next.
        for (half, around) in half[TAPS - 1..].iter_mut().zip(whole.array_windows::<{ 2 * TAPS }>()) {
            let mut sum = 0.0;
            for (k, tap) in taps.iter().enumerate() {
                sum += tap * (around[TAPS - 1 - k] + around[TAPS + k]);
            }
            *half = sum;
        }
    }

    /// Adds the sound, delayed by `delay` frames at the first of `frames` and `slope` more at each, to `wet`.
    fn read(&mut self, frames: std::ops::Range<usize>, lead: usize, delay: f64, slope: f64) {
        let (whole, half) = (&self.whole, &self.half);
        // The reading position in half frames goes up by 2 + change; its whole part by 2 as long as the
        // fraction stays within 0..1, and that long the four points are neighbours in memory.
        let change = -2.0 * slope;
        let mut now = frames.start;
        while now < frames.end {
            let at = 2.0 * ((lead + now) as f64 - delay - slope * (now - frames.start) as f64);
            let first = at as usize;
            let fraction = at - first as f64;
            let way = if change > 0.0 { 1.0 - fraction } else { fraction };
            let left = frames.end - now;
            let count = ((way / change.abs()).min(left as f64) as usize + 1).min(left);
            let i = first / 2;
            let (a, b, c, d) = if first.is_multiple_of(2) {
                (&half[i - 1..], &whole[i..], &half[i..], &whole[i + 1..])
            } else {
                (&whole[i..], &half[i..], &whole[i + 1..], &half[i + 1..])
            };
            cubic(&mut self.wet[now..now + count], a, b, c, d, fraction as f32, change as f32);
            now += count;
        }
    }
}

/// Adds the cubic through four neighbours, at a fraction of the way from the second to the third that starts at
/// `fraction` and moves by `change` (Lagrange's polynomial in Farrow's form).
///
/// Not inlined: as an argument `out` is known to overlap nothing, which saves checks at each of many short runs.
#[inline(never)]
fn cubic(out: &mut [f32], a: &[f32], b: &[f32], c: &[f32], d: &[f32], fraction: f32, change: f32) {
    let count = out.len();
    let (a, b, c, d) = (&a[..count], &b[..count], &c[..count], &d[..count]);
    for i in 0..count {
        let t = fraction + change * i as i32 as f32;
        let (a, b, c, d) = (a[i], b[i], c[i], d[i]);
        let c1 = c - a * (1.0 / 3.0) - b * 0.5 - d * (1.0 / 6.0);
        let c2 = (a + c) * 0.5 - b;
        let c3 = (d - a) * (1.0 / 6.0) + (b - c) * 0.5;
        out[i] += ((c3 * t + c2) * t + c1) * t + b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn apply(audio: &mut Audio, params: [f64; 4]) {
        run(audio, &params, &mut Key::root(3).rng(), &mut Scratch::default());
    }

    /// What the copies of a tone are in exact arithmetic.
    fn wet_tone(n: usize, rate: f64, hz: f64, [rate_hz, delay_ms, depth_ms, _]: [f64; 4], shift: f64) -> f64 {
        let phase = Key::root(3).rng().uniform(0.0, TAU) + shift;
        let t = n as f64 / rate;
        let voice = |v: usize| {
            let swing = (phase + TAU * rate_hz * t + v as f64 * TAU / 3.0).sin();
            (TAU * hz * (t - (delay_ms + depth_ms * swing) / 1_000.0)).sin()
        };
        (0..3).map(voice).sum::<f64>() / 3.0
    }

    /// Everything that is not the tone moved in time: images, swinging level, and the oscillator's polygon.
    #[test]
    fn a_tone_stays_clean() {
        let params = [0.7, 12.0, 2.0, 1.0];
        for (rate, hz, limit_db) in [
            (16_000, 440.0, -80.0),
            (16_000, 2_000.0, -67.0),
            (16_000, 5_000.0, -36.0),
            (44_100, 1_000.0, -65.0),
            (4_000, 200.0, -70.0),
        ] {
            let tone = |i: usize| (TAU * hz * i as f64 / f64::from(rate)).sin() as f32;
            let tone: Vec<f32> = (0..2 * rate as usize).map(tone).collect();
            let mut audio = Audio { rate, channels: vec![tone.clone(), tone] };
            apply(&mut audio, params);
            for (index, channel) in audio.channels.iter().enumerate() {
                let (mut error, mut power) = (0.0, 0.0);
                for (i, s) in channel.iter().enumerate().take(channel.len() - 100).skip(rate as usize / 10) {
                    let want = wet_tone(i, f64::from(rate), hz, params, index as f64 * FRAC_PI_2);
                    error += (f64::from(*s) - want).powi(2);
                    power += want * want;
                }
                let db = 10.0 * (error / power).log10();

                assert!(db < limit_db, "{hz} Hz at {rate}: {db:.1} dB");
            }
        }
    }

    #[test]
    fn the_half_sample_filter_is_flat_to_seven_tenths_of_the_band() {
        let taps = half_sample_filter();
        for part in [0.01, 0.25, 0.5, 0.6, 0.7] {
            let w = PI * part;
            let gain: f64 = taps
                .iter()
                .enumerate()
                .map(|(k, t)| 2.0 * f64::from(*t) * (w * (k as f64 + 0.5)).cos())
                .sum();
            assert!((gain - 1.0).abs() < 1e-3, "{part}: {gain}");
        }
    }

    /// Without a swing the three copies are one echo.
    #[test]
    fn at_depth_zero_it_is_a_delay() {
        let mut audio = Audio::mono(8_000, vec![0.0; 400]);
        audio.channels[0][10] = 1.0;
        apply(&mut audio, [1.0, 20.0, 0.0, 0.25]);
        for (i, s) in audio.channels[0].iter().enumerate() {
            let want = if i == 10 {
                0.75
            } else if i == 170 {
                0.25
            } else {
                0.0
            };
            assert!((s - want).abs() < 1e-5, "{i}: {s}");
        }
    }

    #[test]
    fn nothing_mixed_in_is_nothing_done_and_loud_short_sounds_are_safe() {
        let mut audio = Audio::mono(8_000, vec![0.3, -0.7, f32::MAX]);
        apply(&mut audio, [1.0, 10.0, 2.0, 0.0]);
        assert_eq!(audio.channels[0], [0.3, -0.7, f32::MAX]);
        for rate in [4_000, 192_000] {
            for frames in [0, 1, 2, 700] {
                let wild = (0..frames).map(|i| if i % 3 == 0 { f32::MAX } else { f32::MIN }).collect();
                let mut audio = Audio::mono(rate, wild);
                apply(&mut audio, [10.0, 1.0, 20.0, 1.0]);
                assert!(audio.is_finite() && audio.frames() == frames);
            }
        }
    }
}
