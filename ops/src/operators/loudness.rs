//! Loudness: the level at which the view has a given loudness.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::loudness::integrated;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "loudness",
    version: 1,
    summary: "Sets the integrated loudness; what is below -70 LUFS, as silence is, stays as it is.",
    source: "ITU-R BS.1770-4 and EBU R 128.",
    params: &[ParamDef {
        name: "target_lufs",
        unit: "LUFS",
        help: "The integrated loudness that the view gets.",
        kind: ParamKind::Number {
            min: -70.0,
            max: 0.0,
            identity: None,
            default: (-30.0, -12.0),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::SetLoudness(0)],
    factor: FactorDef::Level { param: 0, apart: 3.0, tolerance: 0.1, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "LoudnessNormalization")],
};

/// Energies of the view, hop by hop.
#[derive(Default)]
struct Energies(Vec<f64>);

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, scratch: &mut Scratch) {
    let &[target] = params else { return };
    let Energies(energies) = scratch.slot();
    let Some(loudness) = integrated(audio, energies) else { return };
    let gain = 10f64.powf((target - loudness) / 20.0);
    for sample in audio.channels.iter_mut().flatten() {
        *sample = finite_f32(f64::from(*sample) * gain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loudness::integrated_loudness;
    use crate::rng::Key;

    fn apply(audio: &mut Audio, target: f64) {
        run(audio, &[target], &mut Key::root(0).rng(), &mut Scratch::default());
    }

    #[test]
    fn the_target_is_met_whatever_the_rate_and_length() {
        for rate in [4_000, 16_000, 44_100, 192_000] {
            for frames in [1, 300, rate as usize / 3, rate as usize * 2] {
                let swell = |i: usize| (i as f32 * 0.17).sin() * (0.01 + i as f32 / frames as f32);
                let samples: Vec<f32> = (1..=frames).map(swell).collect();
                let mut audio = Audio { rate, channels: vec![samples.clone(), samples] };
                apply(&mut audio, -19.0);
                let got = integrated_loudness(&audio).unwrap();
                assert!((got + 19.0).abs() < 1e-3, "{rate} Hz, {frames} frames: {got}");
            }
        }
    }

    #[test]
    fn silence_stays_silent_and_loud_sounds_finite() {
        for level in [0.0, 1e-6] {
            let mut audio = Audio::mono(16_000, vec![level; 16_000]);
            let before = audio.clone();
            apply(&mut audio, 0.0);
            assert_eq!(audio, before);
        }
        for frames in [0, 1, 16_000] {
            let mut audio = Audio::mono(
                16_000,
                (0..frames).map(|i| if i % 9 < 4 { f32::MAX } else { f32::MIN }).collect(),
            );
            apply(&mut audio, 0.0);
            assert!(audio.is_finite() && audio.peak() < 10.0);
        }
    }
}
