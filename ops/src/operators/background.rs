//! Background: another recording under the music, at a signal-to-noise ratio.
//!
//! Levels are powers over the view and all its channels. Where the music or the background is silent, nothing
//! is added.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    Extent, FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "background",
    version: 1,
    summary: "Adds another recording at a signal-to-noise ratio.",
    source: "Definition of the signal-to-noise ratio: powers over the view, 10^(snr_db / 10) apart.",
    params: &[ParamDef {
        name: "snr_db",
        unit: "dB",
        help: "Level of the music over that of the background.",
        kind: ParamKind::Number {
            min: -20.0,
            max: 100.0,
            identity: None,
            default: (3.0, 30.0),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 6.0, tolerance: 0.5, scale: Scale::Linear },
    kernel: Kernel::Partner(Extent::View, run),
    peers: &[
        (Peer::Audiomentations, "AddBackgroundNoise"),
        (Peer::TorchAudiomentations, "AddBackgroundNoise"),
        (Peer::Torchaudio, "transforms.AddNoise"),
    ],
};

fn run(audio: &mut Audio, background: &Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[snr_db] = params else { return };
    let (music, noise) = (energy(&audio.channels), energy(&background.channels));
    if music <= 0.0 || noise <= 0.0 {
        return;
    }
    let scale = (music / noise).sqrt() * gain(snr_db);
    for (channel, background) in audio.channels.iter_mut().zip(&background.channels) {
        for (sample, other) in channel.iter_mut().zip(background) {
            *sample = finite_f32(f64::from(*sample) + f64::from(*other) * scale);
        }
    }
}

/// The gain of the background at the level of the music.
pub(crate) fn gain(snr_db: f64) -> f64 {
    10f64.powf(-snr_db / 20.0)
}

/// The sum of squares of all samples.
pub(super) fn energy(channels: &[Vec<f32>]) -> f64 {
    let mut sums = [0.0f64; 8];
    for channel in channels {
        let (blocks, rest) = channel.as_chunks::<8>();
        for samples in blocks.iter().map(<[f32; 8]>::as_slice).chain([rest]) {
            for (sum, sample) in sums.iter_mut().zip(samples) {
                *sum += f64::from(*sample) * f64::from(*sample);
            }
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn recording(step: f32, level: f32) -> Audio {
        let channel = |phase: f32| (0..9_001).map(|i| level * (i as f32 * step + phase).sin()).collect();
        Audio { rate: 16_000, channels: vec![channel(0.0), channel(1.0)] }
    }

    #[test]
    fn the_ratio_is_exact_whatever_the_levels() {
        for (music, noise) in [(0.5, 0.01), (1e-6, 1.0), (1e30, 1e-30)] {
            let clean = recording(0.11, music);
            let mut audio = clean.clone();
            let background = recording(0.07, noise);
            run(&mut audio, &background, &[12.0], &mut Key::root(0).rng(), &mut Scratch::default());
            let added = audio.channels.iter().flatten().zip(clean.channels.iter().flatten());
            let added: f64 = added.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
            let db = 10.0 * (energy(&clean.channels) / added).log10();
            assert!((db - 12.0).abs() < 1e-4, "{db}");
        }
    }

    #[test]
    fn silence_adds_nothing() {
        for (music, noise) in [(0.5, 0.0), (0.0, 0.5)] {
            let mut audio = recording(0.11, music);
            let before = audio.clone();
            let background = recording(0.07, noise);
            run(&mut audio, &background, &[-20.0], &mut Key::root(0).rng(), &mut Scratch::default());
            assert_eq!(audio, before);
        }
    }
}
