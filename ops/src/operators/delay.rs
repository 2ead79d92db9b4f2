//! Delay: echoes that repeat, each softer and duller than the one before.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;
use crate::wet;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "delay",
    version: 1,
    summary: "Adds echoes that repeat.",
    source: "Recursive comb with a low-pass in its loop: U. Zoelzer, DAFX, 2nd edition, section 2.6, Wiley 2011.",
    params: &[
        ParamDef {
            name: "time_s",
            unit: "s",
            help: "From one echo to the next, to the nearest frame.",
            kind: ParamKind::Number {
                min: 0.001,
                max: 5.0,
                identity: None,
                default: (0.1, 0.6),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "feedback",
            unit: "",
            help: "The amplitude of each echo over that of the one before.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 0.95,
                identity: None,
                default: (0.1, 0.5),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "damping_hz",
            unit: "Hz",
            help: "Where each echo has lost 3 dB more than the one before.",
            kind: ParamKind::Number {
                min: 200.0,
                max: 100_000.0,
                identity: None,
                default: (3_000.0, 20_000.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "mix",
            unit: "",
            help: "The share of the echoes; the rest is the dry sound.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 1.0,
                identity: Some(0.0),
                default: (0.1, 0.4),
                scale: Scale::Linear,
            },
        },
    ],
    default_p: 0.3,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 0.25, tolerance: 0.02, scale: Scale::Log },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Pedalboard, "Delay")],
};

/// What goes into the delay line, and what comes out of it.
#[derive(Default)]
struct Buffers {
    line: Vec<f32>,
    echoes: Vec<f32>,
}

/// Frames from one echo to the next.
pub(crate) fn frames(time_s: f64, rate: f64) -> usize {
    ((time_s * rate).round() as usize).max(1)
}

/// The pole of the low-pass that every echo goes through.
pub(crate) fn pole(damping_hz: f64, rate: f64) -> f64 {
    wet::pole(damping_hz, 0.5, rate)
}

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, scratch: &mut Scratch) {
    let &[time_s, feedback, damping_hz, mix] = params else { return };
    let Some(unit) = wet::unit(&audio.channels).filter(|_| mix > 0.0) else { return };
    let rate = f64::from(audio.rate);
    let (time, pole) = (frames(time_s, rate), pole(damping_hz, rate));
    let (gain, pole, feedback) = ((1.0 - pole) as f32, pole as f32, feedback as f32);
    let Buffers { line, echoes } = scratch.slot();
    for channel in &mut audio.channels {
        line.clear();
        line.extend(channel.iter().map(|sample| sample * unit));
        echoes.clear();
        echoes.resize(channel.len(), 0.0);
        let mut last = 0.0;
        for from in (time..channel.len()).step_by(time) {
            let to = channel.len().min(from + time);
            let echo = &mut echoes[from..to];
            wet::one_pole(&line[from - time..to - time], echo, gain, pole, &mut last);
            for (line, echo) in line[from..to].iter_mut().zip(echo) {
                *line = wet::settle(*line + feedback * *echo);
            }
        }
        wet::add(channel, echoes, 0, 1.0 - mix, mix / f64::from(unit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn delayed(audio: &mut Audio, params: [f64; 4]) {
        run(audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
    }

    /// The k-th echo of an impulse is the k-th power of the low-pass, k times the delay later.
    #[test]
    fn the_impulse_response_is_exact() {
        for (rate, time_s, damping_hz) in
            [(16_000, 0.01, 3_000.0), (44_100, 0.0213, 9_000.0), (4_000, 0.001, 500.0)]
        {
            let time = (time_s * f64::from(rate)).round() as usize;
            let mut audio = Audio::mono(rate, vec![0.0; 2_000]);
            audio.channels[0][3] = 0.5;
            delayed(&mut audio, [time_s, 0.6, damping_hz, 0.3]);

            let w = std::f64::consts::TAU * damping_hz / f64::from(rate);
            let half = 2.0 - w.cos();
            let pole = half - (half * half - 1.0).sqrt();
            let (mut line, mut echo) = (vec![0.0; 2_000], vec![0.0; 2_000]);
            for n in 0..2_000 {
                let dry = if n == 3 { 0.5 } else { 0.0 };
                if n >= time {
                    echo[n] = (1.0 - pole) * line[n - time] + pole * echo[n - 1];
                }
                line[n] = dry + 0.6 * echo[n];
                let want = 0.7 * dry + 0.3 * echo[n];
                let got = f64::from(audio.channels[0][n]);
                assert!((got - want).abs() < 1e-7, "{rate} {n}: {got} {want}");
            }
        }
    }

    /// Without damping the echoes are copies.
    #[test]
    fn echoes_fall_by_the_feedback() {
        let mut audio = Audio { rate: 8_000, channels: vec![vec![0.0; 500]; 2] };
        audio.channels[1][0] = 1.0;
        delayed(&mut audio, [0.0125, 0.5, 100_000.0, 0.5]);
        assert!(audio.channels[0].iter().all(|s| *s == 0.0));
        for (n, want) in [(0, 0.5), (100, 0.5), (200, 0.25), (300, 0.125), (50, 0.0)] {
            assert!((audio.channels[1][n] - want).abs() < 3e-3, "{n}: {}", audio.channels[1][n]);
        }
    }

    #[test]
    fn no_mix_and_no_time_left_change_nothing_wet() {
        let tone: Vec<f32> = (0..300).map(|i| (i as f32 * 0.1).sin()).collect();
        let mut audio = Audio::mono(8_000, tone.clone());
        delayed(&mut audio, [0.01, 0.5, 1_000.0, 0.0]);
        assert_eq!(audio.channels[0], tone);
        delayed(&mut audio, [1.0, 0.5, 1_000.0, 0.5]);
        assert!(audio.channels[0].iter().zip(&tone).all(|(y, x)| *y == 0.5 * x));
    }
}
