//! Phaser: the sound beside a copy that went through six all-passes, whose frequency swings.
//!
//! Where the copy arrives inverted the two cancel: notches, three of them, that sweep.

use std::f64::consts::{PI, TAU};

use super::modulation::{Lfo, control_frames};
use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "phaser",
    version: 1,
    summary: "Adds a copy through six swept all-passes: notches that move; alike in all channels.",
    source: "J. O. Smith, An all-pass approach to digital phasing and flanging, ICMC 1984.",
    params: &[
        ParamDef {
            name: "rate_hz",
            unit: "Hz",
            help: "How often the notches sweep up and down; the phase is drawn.",
            kind: ParamKind::Number {
                min: 0.01,
                max: 10.0,
                identity: None,
                default: (0.1, 2.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "centre_hz",
            unit: "Hz",
            help: "The middle notch in the middle of the sweep.",
            kind: ParamKind::Number {
                min: 50.0,
                max: 10_000.0,
                identity: None,
                default: (400.0, 2_000.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "depth_octaves",
            unit: "octaves",
            help: "How far it sweeps to each side.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 4.0,
                identity: None,
                default: (0.5, 2.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "feedback",
            unit: "",
            help: "How much of the copy enters the all-passes again; negative inverts it.",
            kind: ParamKind::Number {
                min: -0.95,
                max: 0.95,
                identity: None,
                default: (-0.5, 0.5),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "mix",
            unit: "",
            help: "The part of the copy; the rest is the sound as it was. At 0.5 the notches are deepest.",
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
    peers: &[(Peer::Pedalboard, "Phaser"), (Peer::Torchaudio, "functional.phaser")],
};

fn run(audio: &mut Audio, params: &[f64], rng: &mut Rng, _: &mut Scratch) {
    let &[rate_hz, centre_hz, depth_octaves, feedback, mix] = params else { return };
    if mix == 0.0 {
        return;
    }
    let phase = rng.uniform(0.0, TAU);
    let rate = audio.rate;
    let control = control_frames(rate);
    let coefficient = |swing: f64| {
        let cycles = centre_hz * (depth_octaves * swing).exp2() / f64::from(rate);
        let tan = (PI * cycles.min(0.49)).tan();
        (tan - 1.0) / (tan + 1.0)
    };
    for channel in &mut audio.channels {
        let mut lfo = Lfo::new(phase, rate_hz, rate, control);
        let mut cascade = Cascade::default();
        let mut a = coefficient(lfo.next());
        for block in channel.chunks_mut(control) {
            let next = coefficient(lfo.next());
            cascade.run(block, a, (next - a) / control as f64, feedback, mix);
            a = next;
        }
    }
}

/// Six first-order all-passes `(a + z^-1) / (1 + a z^-1)` in a row, and what last came out of them.
#[derive(Clone, Copy, Default)]
struct Cascade {
    state: [f64; 6],
    last: f64,
}

impl Cascade {
    /// Each all-pass is `y = a x + s`, then `s = x - a y = (1 - a^2) x - a s`. What a sample waits for is kept
    /// short: inputs of later stages are written as `a^k` times the first input plus sums of states, which
    /// are known before that input is, since only it depends on the feedback.
    fn run(&mut self, samples: &mut [f32], mut a: f64, slope: f64, feedback: f64, mix: f64) {
        let Self { state: [mut s0, mut s1, mut s2, mut s3, mut s4, mut s5], mut last } = *self;
        let dry = 1.0 - mix;
        for sample in samples {
            let x = f64::from(*sample);
            let (a2, b) = (a * a, 1.0 - a * a);
            let a4 = a2 * a2;
            let sum2 = a * s0 + s1;
            let sum4 = a2 * sum2 + (a * s2 + s3);
            let sum6 = a2 * sum4 + (a * s4 + s5);
            let (b_s0, b_s2, b_s4) = (b * s0, b * s2, b * s4);
            let x0 = x + feedback * last;
            let x2 = a2 * x0 + sum2;
            let x4 = a4 * x0 + sum4;
            last = a4 * a2 * x0 + sum6;
            let ab = a * b;
            s1 = ab * x0 + (b_s0 - a * s1);
            s0 = b * x0 - a * s0;
            s3 = ab * x2 + (b_s2 - a * s3);
            s2 = b * x2 - a * s2;
            s5 = ab * x4 + (b_s4 - a * s5);
            s4 = b * x4 - a * s4;
            a += slope;
            *sample = finite_f32(dry * x + mix * last);
        }
        *self = Self { state: [s0, s1, s2, s3, s4, s5], last };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;
    use realfft::num_complex::Complex;

    fn apply(audio: &mut Audio, params: [f64; 5]) {
        run(audio, &params, &mut Key::root(3).rng(), &mut Scratch::default());
    }

    /// Standing still it is `(1 - mix) + mix A^6 / (1 - feedback z^-1 A^6)` with all-passes A.
    #[test]
    fn at_depth_zero_it_has_the_response_of_the_closed_form() {
        for (rate, centre, feedback, mix) in
            [(16_000, 1_000.0, 0.0, 0.5), (48_000, 700.0, 0.8, 0.3), (4_000, 9_000.0, -0.6, 0.5)]
        {
            let mut audio = Audio::mono(rate, vec![0.0; rate as usize]);
            audio.channels[0][0] = 1.0;
            apply(&mut audio, [1.0, centre, 0.0, feedback, mix]);
            for hz in [40.0, 300.0, 1_000.0, 1_500.0] {
                let w = TAU * hz / f64::from(rate);
                let got: Complex<f64> = audio.channels[0]
                    .iter()
                    .enumerate()
                    .map(|(i, s)| Complex::from_polar(f64::from(*s), -w * i as f64))
                    .sum();
                let t = (PI * (centre / f64::from(rate)).min(0.49)).tan();
                let a = (t - 1.0) / (t + 1.0);
                let z = Complex::from_polar(1.0, -w);
                let copy = ((z + a) / (z * a + 1.0)).powi(6);
                let want = copy * mix / (-copy * z * feedback + 1.0) + (1.0 - mix);
                assert!((got - want).norm() < 1e-5, "{rate} {hz}: {got} {want}");
            }
        }
    }

    /// The fast form against the plain one, stage by stage, while the frequency sweeps.
    #[test]
    fn the_sweep_matches_the_plain_recurrence() {
        let x: Vec<f32> = (0..16_000).map(|i| ((i * i) as f32 * 1e-5).sin()).collect();
        let mut audio = Audio::mono(16_000, x.clone());
        apply(&mut audio, [3.0, 800.0, 2.0, 0.7, 0.5]);
        let phase = Key::root(3).rng().uniform(0.0, TAU);
        let coefficient = |n: usize| {
            let swing = (phase + TAU * 3.0 * n as f64 / 16_000.0).sin();
            let t = (PI * 800.0 * (2.0 * swing).exp2() / 16_000.0).tan();
            (t - 1.0) / (t + 1.0)
        };
        let (mut states, mut last) = ([0.0; 6], 0.0);
        for (n, (x, got)) in x.iter().zip(&audio.channels[0]).enumerate() {
            let (from, part) = (n / 32 * 32, (n % 32) as f64 / 32.0);
            let a = coefficient(from) + part * (coefficient(from + 32) - coefficient(from));
            let mut v = f64::from(*x) + 0.7 * last;
            for s in &mut states {
                let y = a * v + *s;
                *s = v - a * y;
                v = y;
            }
            last = v;
            assert!((f64::from(*got) - 0.5 * (f64::from(*x) + v)).abs() < 1e-6, "{n}");
        }
    }

    #[test]
    fn nothing_mixed_in_is_nothing_done_and_loud_short_sounds_are_safe() {
        let mut audio = Audio::mono(8_000, vec![0.3, -0.7, f32::MAX]);
        apply(&mut audio, [1.0, 500.0, 2.0, 0.9, 0.0]);
        assert_eq!(audio.channels[0], [0.3, -0.7, f32::MAX]);
        for rate in [4_000, 192_000] {
            for frames in [0, 1, 9_000] {
                let mut audio = Audio::mono(rate, vec![f32::MAX; frames]);
                apply(&mut audio, [10.0, 10_000.0, 4.0, 0.95, 1.0]);
                assert!(audio.is_finite() && audio.frames() == frames);
            }
        }
    }
}
