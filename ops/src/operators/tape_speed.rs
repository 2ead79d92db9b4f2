//! Tape speed: pitch and tempo together, as on a tape that runs faster or slower.
//!
//! A shift and a rate of one ratio leave the frames of the vocoder where they were, so that every turn is zero
//! and what remains is its interpolator: a plain resampling.

use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Warp};

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "tape_speed",
    version: 1,
    summary: "Plays faster and higher, or slower and lower.",
    source: "Band-limited interpolation: J. O. Smith and P. Gossett, ICASSP 1984.",
    params: &[ParamDef {
        name: "speed",
        unit: "",
        help: "Speed: above 1 is faster and higher. A view of n seconds reads n * speed seconds of the clip.",
        kind: ParamKind::Number {
            min: 0.5,
            max: 2.0,
            identity: Some(1.0),
            default: (0.85, 1.18),
            scale: Scale::Log,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::Speed(0)],
    factor: FactorDef::Level { param: 0, apart: 0.05, tolerance: 0.005, scale: Scale::Log },
    kernel: Kernel::Warp(warp),
    peers: &[(Peer::Torchaudio, "transforms.Speed")],
};

/// The rate is worked out from the semitones, so that the two ratios are equal to the last bit.
fn warp(params: &[f64]) -> Warp {
    let semitones = 12.0 * params.first().copied().unwrap_or(1.0).log2();
    let pitch = Warp { semitones, rate: 1.0 };
    Warp { rate: pitch.pitch_ratio(), ..pitch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocoder::{Vocoder, input_frames};
    use std::f64::consts::TAU;

    /// A tone at `hz` becomes one at `hz * speed`, in phase at the centre, and nothing else: the worst ratio of tone
    /// to everything else was 81 dB, and 141 where the interpolator meets whole positions.
    #[test]
    fn tones_come_out_clean_at_their_new_pitch() {
        let (rate, frames) = (16_000.0, 16_000);
        let mut worst = f64::INFINITY;
        for speed in [0.5, 0.8, 0.93, 1.07, 1.25, 2.0] {
            let warp = warp(&[speed]);
            assert!((warp.rate - speed).abs() < 1e-14 && warp.rate == warp.pitch_ratio());
            for hz in [110.0, 440.0, 1_500.0, 3_000.0] {
                let length = input_frames(16_000, frames, warp);
                let centre = length as f64 / 2.0;
                let at = |i: usize| (0.5 * (TAU * hz * (i as f64 - centre) / rate).sin()) as f32;
                let input: Vec<f32> = (0..length).map(at).collect();
                let mut output = vec![vec![0.0; frames]];
                Vocoder::new(16_000).process(&[input], centre, warp, &mut output);
                let middle = frames as f64 / 2.0;
                let (mut signal, mut error) = (0.0, 0.0);
                for (i, sample) in output[0].iter().enumerate() {
                    let want = 0.5 * (TAU * hz * speed * (i as f64 - middle) / rate).sin();
                    signal += want * want;
                    error += (f64::from(*sample) - want).powi(2);
                }
                let db = 10.0 * (signal / error).log10();
                worst = worst.min(db);
            }
        }
        assert!(worst > 80.0, "{worst}");
    }
}
