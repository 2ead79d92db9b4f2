//! Time mask: silence over a part of the view.
//!
//! Edges are raised cosines inside the mask, so that nothing clicks and nothing outside it changes.

use std::f64::consts::PI;

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

/// Duration of an edge, in seconds; half the mask at most.
const EDGE_S: f64 = 0.005;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "time_mask",
    version: 1,
    summary: "Silences a part of the view.",
    source: "SpecAugment, on samples: Park et al., Interspeech 2019.",
    params: &[
        ParamDef {
            name: "start",
            unit: "",
            help: "Where the mask lies: 0 at the beginning of the view, 1 at its end.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 1.0,
                identity: None,
                default: (0.0, 1.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "length",
            unit: "",
            help: "How long it is, as a fraction of the view.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 1.0,
                identity: Some(0.0),
                default: (0.02, 0.15),
                scale: Scale::Linear,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 1, apart: 0.05, tolerance: 0.005, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "TimeMask"), (Peer::Torchaudio, "transforms.TimeMasking")],
};

/// Where the mask lies, in frames.
pub(crate) struct Mask {
    pub from: usize,
    pub masked: usize,
    /// Of the mask, on either side.
    pub edge: usize,
}

impl Mask {
    /// `start` and `length` as they are drawn.
    pub(crate) fn new(start: f64, length: f64, rate: u32, frames: usize) -> Self {
        let masked = ((length * frames as f64).round() as usize).min(frames);
        let from = ((start * (frames - masked) as f64).round() as usize).min(frames - masked);
        let edge = ((EDGE_S * f64::from(rate)).round() as usize).min(masked / 2);
        Self { from, masked, edge }
    }
}

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[start, length] = params else { return };
    let Mask { from, masked, edge } = Mask::new(start, length, audio.rate, audio.frames());
    for channel in &mut audio.channels {
        let mask = &mut channel[from..from + masked];
        mask[edge..masked - edge].fill(0.0);
        for i in 0..edge {
            let gain = (0.5 + 0.5 * (PI * (i as f64 + 0.5) / edge as f64).cos()) as f32;
            mask[i] *= gain;
            mask[masked - 1 - i] *= gain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn masked(frames: usize, start: f64, length: f64) -> Vec<f32> {
        let mut audio = Audio::mono(16_000, vec![1.0; frames]);
        run(&mut audio, &[start, length], &mut Key::root(0).rng(), &mut Scratch::default());
        audio.channels.remove(0)
    }

    #[test]
    fn the_mask_lies_where_it_should_with_smooth_edges() {
        let out = masked(16_000, 0.5, 0.25);
        let (from, to) = (6_000, 10_000);
        assert!(out[..from].iter().chain(&out[to..]).all(|s| *s == 1.0));
        assert!(out[from + 80..to - 80].iter().all(|s| *s == 0.0));
        // A raised cosine of 80 frames is nowhere steeper than pi / 160 per frame.
        assert!(out.windows(2).all(|w| (w[1] - w[0]).abs() < 0.0197));
        assert!((out[from + 39] + out[from + 40] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn limits() {
        assert_eq!(masked(500, 0.3, 0.0), vec![1.0; 500]);
        assert_eq!(masked(16_000, 0.0, 0.1)[1_600], 1.0);
        assert_eq!(masked(16_000, 1.0, 0.1)[14_399], 1.0);
        assert!(masked(16_000, 1.0, 1.0)[100] == 0.0);
        assert!(masked(0, 1.0, 1.0).is_empty());
        assert_eq!(masked(1, 1.0, 1.0), [0.0]);
    }
}
