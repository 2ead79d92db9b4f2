//! Clipping: what lies beyond a threshold is cut off.
//!
//! The threshold is relative to the peak of the view, so that quiet and loud music clip alike.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "clipping",
    version: 1,
    summary: "Clips what exceeds a threshold below the peak.",
    source: "Definition: y = min(max(x, -t), t).",
    params: &[ParamDef {
        name: "threshold_db",
        unit: "dB",
        help: "The threshold, relative to the peak of the view.",
        kind: ParamKind::Number {
            min: -40.0,
            max: 0.0,
            identity: Some(0.0),
            default: (-15.0, -3.0),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 3.0, tolerance: 0.25, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "ClippingDistortion"), (Peer::Pedalboard, "Clipping")],
};

/// The part of the peak that stays.
pub(crate) fn share(threshold_db: f64) -> f64 {
    10f64.powf(threshold_db / 20.0)
}

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[threshold_db] = params else { return };
    if threshold_db >= 0.0 {
        return;
    }
    let threshold = (f64::from(audio.peak()) * share(threshold_db)) as f32;
    for channel in &mut audio.channels {
        for sample in channel {
            *sample = sample.min(threshold).max(-threshold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn the_threshold_is_relative_to_the_peak_of_all_channels() {
        let clip = |scale: f32| {
            let channels = vec![vec![0.05 * scale, -scale], vec![0.5 * scale, -0.09 * scale]];
            let mut audio = Audio { rate: 8_000, channels };
            run(&mut audio, &[-20.0], &mut Key::root(0).rng(), &mut Scratch::default());
            audio.channels.concat().iter().map(|s| s / scale).collect::<Vec<_>>()
        };
        for scale in [1e-30, 1.0, f32::MAX] {
            for (got, want) in clip(scale).iter().zip([0.05, -0.1, 0.1, -0.09]) {
                assert!((got - want).abs() < 1e-7, "{got} {want}");
            }
        }
    }

    #[test]
    fn at_the_peak_nothing_changes() {
        let audio = Audio::mono(16_000, vec![0.3, -0.7, 0.7, f32::MIN_POSITIVE]);
        let mut clipped = audio.clone();
        run(&mut clipped, &[0.0], &mut Key::root(0).rng(), &mut Scratch::default());
        assert_eq!(clipped, audio);
    }
}
