//! Gain: every sample times a constant.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "gain",
    version: 2,
    summary: "Changes the level.",
    source: "Definition of the decibel: amplitudes times 10^(db / 20).",
    params: &[ParamDef {
        name: "db",
        unit: "dB",
        help: "The change of level.",
        kind: ParamKind::Number {
            min: -60.0,
            max: 24.0,
            identity: Some(0.0),
            default: (-15.0, 5.0),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::AddLoudness(0)],
    factor: FactorDef::Level { param: 0, apart: 3.0, tolerance: 0.1, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[
        (Peer::Audiomentations, "Gain"),
        (Peer::TorchAudiomentations, "Gain"),
        (Peer::Pedalboard, "Gain"),
        (Peer::Torchaudio, "functional.gain"),
    ],
};

/// What samples are multiplied by.
pub(crate) fn factor(db: f64) -> f32 {
    10f64.powf(db / 20.0) as f32
}

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[db] = params else { return };
    let factor = factor(db);
    for channel in &mut audio.channels {
        for sample in channel {
            *sample = (*sample * factor).clamp(f32::MIN, f32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn twenty_decibels_are_a_factor_of_ten() {
        let mut audio = Audio::mono(8000, vec![0.01, -0.05, f32::MAX]);
        run(&mut audio, &[20.0], &mut Key::root(0).rng(), &mut Scratch::default());
        let got = &audio.channels[0];
        assert!((got[0] - 0.1).abs() < 1e-7 && (got[1] + 0.5).abs() < 1e-7);
        assert_eq!(got[2], f32::MAX);
    }
}
