//! Fade: the level rises at the beginning of the view and falls at its end.

use std::f64::consts::PI;

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

const LINEAR: usize = 0;
const EXPONENTIAL: usize = 1;

/// Where an exponential fade begins, in dB.
const EXPONENTIAL_FROM_DB: f64 = -60.0;

const fn seconds() -> ParamKind {
    ParamKind::Number { min: 0.0, max: 30.0, identity: Some(0.0), default: (0.0, 1.0), scale: Scale::Linear }
}

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "fade",
    version: 1,
    summary: "Fades the view in and out.",
    source: "Definition: gains t, 10^(3 (t - 1)) and (1 - cos(pi t)) / 2 over t from 0 to 1.",
    params: &[
        ParamDef {
            name: "in_s",
            unit: "s",
            help: "Duration of the fade at the beginning; of the view at most.",
            kind: seconds(),
        },
        ParamDef {
            name: "out_s",
            unit: "s",
            help: "Duration of the fade at the end; of the view at most.",
            kind: seconds(),
        },
        ParamDef {
            name: "curve",
            unit: "",
            help: "The gain over time: a line, an exponential from -60 dB, or a raised cosine.",
            kind: ParamKind::Choice {
                options: &["linear", "exponential", "raised_cosine"],
                default: &["linear", "exponential", "raised_cosine"],
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Torchaudio, "transforms.Fade")],
};

/// The frames of a fade, of all `frames` at most.
pub(crate) fn length(seconds: f64, rate: u32, frames: usize) -> usize {
    ((seconds * f64::from(rate)).round() as usize).min(frames)
}

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[in_s, out_s, curve] = params else { return };
    let frames = audio.frames();
    let [fade_in, fade_out] = [in_s, out_s].map(|seconds| length(seconds, audio.rate, frames));
    for channel in &mut audio.channels {
        rise(channel[..fade_in].iter_mut(), fade_in, curve as usize);
        rise(channel[frames - fade_out..].iter_mut().rev(), fade_out, curve as usize);
    }
}

/// Multiplies `count` samples by the gains of a curve, taken in the middle of each sample. Recurrences in double
/// precision stay within 1e-9 of the closed form for minutes of audio.
fn rise<'a>(samples: impl Iterator<Item = &'a mut f32>, count: usize, curve: usize) {
    let step = 1.0 / count.max(1) as f64;
    match curve {
        LINEAR => {
            for (i, sample) in samples.enumerate() {
                *sample *= ((i as f64 + 0.5) * step) as f32;
            }
        }
        EXPONENTIAL => {
            let factor = 10f64.powf(-EXPONENTIAL_FROM_DB / 20.0 * step);
            let mut gain = 10f64.powf(EXPONENTIAL_FROM_DB / 20.0) * factor.sqrt();
            for sample in samples {
                *sample *= gain as f32;
                gain *= factor;
            }
        }
        _ => {
            let (sin, cos) = (PI * step).sin_cos();
            let (mut y, mut x) = (PI * step / 2.0).sin_cos();
            for sample in samples {
                *sample *= (0.5 - 0.5 * x) as f32;
                (x, y) = (x * cos - y * sin, x * sin + y * cos);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn faded(frames: usize, params: [f64; 3]) -> Vec<f32> {
        let mut audio = Audio::mono(48_000, vec![1.0; frames]);
        run(&mut audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
        audio.channels.remove(0)
    }

    #[test]
    fn gains_follow_the_closed_forms() {
        for (curve, closed) in [
            (0.0, (|t| t) as fn(f64) -> f64),
            (1.0, |t| 10f64.powf(3.0 * (t - 1.0))),
            (2.0, |t| 0.5 - 0.5 * (PI * t).cos()),
        ] {
            let gains = faded(480_000, [1.5, 6.0, curve]);
            for (i, gain) in gains.iter().enumerate() {
                let rise = closed(((i as f64 + 0.5) / 72_000.0).min(1.0));
                let fall = closed(((480_000.0 - i as f64 - 0.5) / 288_000.0).min(1.0));
                assert!((f64::from(*gain) - rise * fall).abs() < 3e-7, "{curve} {i}: {gain}");
            }
        }
    }

    #[test]
    fn a_fade_is_no_longer_than_the_view_and_none_changes_nothing() {
        assert_eq!(faded(1_000, [0.0, 0.0, 2.0]), vec![1.0; 1_000]);
        assert!(faded(1_000, [30.0, 0.0, 0.0])[999] > 0.999);
        assert!(faded(0, [1.0, 1.0, 0.0]).is_empty());
        assert_eq!(faded(1, [1.0, 0.0, 0.0]), [0.5]);
    }
}
