//! Flanger: the sound beside a copy a few milliseconds late, whose delay swings and which is fed back.

use std::f64::consts::TAU;

use super::modulation::{Lfo, blend, control_frames, headroom};
use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "flanger",
    version: 1,
    summary: "Adds a copy with a short delay that swings, fed back: a comb that sweeps; alike in all channels.",
    source: "Dattorro, Effect Design part 2, JAES 45(10), 1997; Zoelzer (ed.), DAFX, Wiley, 2011.",
    params: &[
        ParamDef {
            name: "rate_hz",
            unit: "Hz",
            help: "How often the delay swings to and fro; the phase is drawn.",
            kind: ParamKind::Number {
                min: 0.01,
                max: 10.0,
                identity: None,
                default: (0.1, 1.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "delay_ms",
            unit: "ms",
            help: "The shortest delay.",
            kind: ParamKind::Number {
                min: 0.5,
                max: 20.0,
                identity: None,
                default: (0.5, 3.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "depth_ms",
            unit: "ms",
            help: "How much longer the longest delay is.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 10.0,
                identity: None,
                default: (1.0, 5.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "feedback",
            unit: "",
            help: "How much of the copy enters the delay again; negative inverts it.",
            kind: ParamKind::Number {
                min: -0.95,
                max: 0.95,
                identity: None,
                default: (-0.6, 0.6),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "mix",
            unit: "",
            help: "The part of the copy; the rest is the sound as it was. At 0.5 the comb is deepest.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 1.0,
                identity: Some(0.0),
                default: (0.25, 0.5),
                scale: Scale::Linear,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Pedalboard, "Chorus"), (Peer::Torchaudio, "functional.flanger")],
};

/// What went into the delay, with zeros ahead, and what came out.
#[derive(Default)]
struct Buffers {
    line: Vec<f32>,
    wet: Vec<f32>,
}

/// One frame, in the fixed-point numbers in which delays are counted.
const ONE: f64 = (1u64 << 32) as f64;

fn run(audio: &mut Audio, params: &[f64], rng: &mut Rng, scratch: &mut Scratch) {
    let &[rate_hz, delay_ms, depth_ms, feedback, mix] = params else { return };
    if mix == 0.0 {
        return;
    }
    let phase = rng.uniform(0.0, TAU);
    let (rate, scale, feedback) = (audio.rate, headroom(audio), feedback as f32);
    let (least, swing) = delays(delay_ms, depth_ms, rate);
    let lead = (least + swing) as usize + 3;
    let control = control_frames(rate);
    let Buffers { line, wet } = scratch.slot();
    for channel in &mut audio.channels {
        line.clear();
        line.resize(lead, 0.0);
        line.extend(channel.iter().map(|s| s * scale));
        wet.clear();
        wet.resize(channel.len(), 0.0);
        let mut lfo = Lfo::new(phase, rate_hz, rate, control);
        let mut fixed_delay = move || ((least + swing * (0.5 + 0.5 * lfo.next())) * ONE) as i64;
        let mut delay = fixed_delay();
        for (block, wet) in wet.chunks_mut(control).enumerate() {
            let next = fixed_delay();
            let slope = (next - delay) / control as i64;
            let from = lead + block * control;
            let mut at = ((from as i64) << 32) - delay;
            for (i, wet) in wet.iter_mut().enumerate() {
                *wet = cubic(line, at);
                line[from + i] += feedback * *wet;
                at += (1 << 32) - slope;
            }
            delay = next;
        }
        blend(channel, wet, mix as f32, scale);
    }
}

/// The shortest delay and how far it swings, in frames.
pub(crate) fn delays(delay_ms: f64, depth_ms: f64, rate: u32) -> (f64, f64) {
    let frames_per_ms = f64::from(rate) / 1_000.0;
    // The cubic reads two frames past the delay: it must not need what has yet to be fed back.
    ((delay_ms * frames_per_ms).max(2.0), depth_ms * frames_per_ms)
}

/// The line at a fixed-point position: Lagrange's cubic through the two points on each side.
#[inline]
fn cubic(line: &[f32], at: i64) -> f32 {
    let first = (at >> 32) as usize;
    let t = ((at as u32) >> 8) as i32 as f32 * (1.0 / (1 << 24) as f32);
    let Some(&[a, b, c, d]) = line.get(first - 1..first + 3) else { return 0.0 };
    let c1 = c - a * (1.0 / 3.0) - b * 0.5 - d * (1.0 / 6.0);
    let c2 = (a + c) * 0.5 - b;
    let c3 = (d - a) * (1.0 / 6.0) + (b - c) * 0.5;
    ((c3 * t + c2) * t + c1) * t + b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn apply(audio: &mut Audio, params: [f64; 5]) {
        run(audio, &params, &mut Key::root(3).rng(), &mut Scratch::default());
    }

    /// Standing still it is the comb `(1 - mix) + mix z^-D / (1 - feedback z^-D)`, in level and phase.
    #[test]
    fn at_depth_zero_it_is_the_comb_of_the_textbook() {
        let rate = 48_000.0;
        for (delay_ms, feedback, mix) in [(1.0, 0.0, 0.5), (2.0, 0.7, 0.4), (0.51, -0.9, 1.0)] {
            let mut audio = Audio::mono(48_000, vec![0.0; 48_000]);
            audio.channels[0][0] = 1.0;
            apply(&mut audio, [1.0, delay_ms, 0.0, feedback, mix]);
            for hz in [50.0, 333.0, 1_000.0, 1_999.0] {
                let (mut re, mut im) = (0.0, 0.0);
                for (i, s) in audio.channels[0].iter().enumerate() {
                    let (sin, cos) = (TAU * hz * i as f64 / rate).sin_cos();
                    (re, im) = (re + f64::from(*s) * cos, im - f64::from(*s) * sin);
                }
                let (sin, cos) = (TAU * hz * delay_ms / 1_000.0).sin_cos();
                // z / (1 - f z) with z = cos - j sin, multiplied out by the conjugate of the denominator.
                let below = (1.0 - feedback * cos).powi(2) + (feedback * sin).powi(2);
                let want = (1.0 - mix + mix * (cos - feedback) / below, -mix * sin / below);
                let error = (re - want.0).hypot(im - want.1);
                assert!(error < 2e-3 * want.0.hypot(want.1).max(1.0), "{delay_ms} ms {hz} Hz: {error}");
            }
        }
    }

    /// Everything that is not the tone moved in time.
    #[test]
    fn a_swept_tone_stays_clean() {
        let (rate, hz, params) = (44_100.0, 1_000.0, [0.5, 1.0, 4.0, 0.0, 1.0]);
        let tone = |i: usize| (TAU * hz * i as f64 / rate).sin() as f32;
        let mut audio = Audio::mono(44_100, (0..88_200).map(tone).collect());
        apply(&mut audio, params);
        let phase = Key::root(3).rng().uniform(0.0, TAU);
        let (mut error, mut power) = (0.0, 0.0);
        for (i, s) in audio.channels[0].iter().enumerate().skip(1_000) {
            let t = i as f64 / rate;
            let delay = 1.0 + 4.0 * (0.5 + 0.5 * (phase + TAU * 0.5 * t).sin());
            let want = (TAU * hz * (t - delay / 1_000.0)).sin();
            error += (f64::from(*s) - want).powi(2);
            power += want * want;
        }
        let db = 10.0 * f64::log10(error / power);
        assert!(db < -65.0, "{db}");
    }

    #[test]
    fn nothing_mixed_in_is_nothing_done_and_loud_short_sounds_are_safe() {
        let mut audio = Audio::mono(8_000, vec![0.3, -0.7, f32::MAX]);
        apply(&mut audio, [1.0, 1.0, 2.0, 0.9, 0.0]);
        assert_eq!(audio.channels[0], [0.3, -0.7, f32::MAX]);
        for rate in [4_000, 192_000] {
            for frames in [0, 1, 2, 9_000] {
                let mut audio = Audio::mono(rate, vec![f32::MAX; frames]);
                apply(&mut audio, [10.0, 0.5, 10.0, 0.95, 1.0]);
                assert!(audio.is_finite() && audio.frames() == frames);
            }
        }
    }
}
