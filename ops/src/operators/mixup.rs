//! Mixup: another clip of the set under this one.
//!
//! The other clip is brought to the level of this one, both are weighted, and the sum is scaled such that its
//! power is that of this clip (two recordings are taken to be uncorrelated). With at most half the weight for the
//! other, this clip dominates, and the labels of the view are its labels.

use super::background::energy;
use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    Extent, FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "mixup",
    version: 1,
    summary: "Mixes in another clip; the labels stay those of this one.",
    source: "Tokozume, Ushiku and Harada, Learning from between-class examples, ICLR 2018; Zhang et al., mixup, \
             ICLR 2018.",
    params: &[ParamDef {
        name: "weight",
        unit: "",
        help: "Weight of the other clip in amplitude; this one has the rest.",
        kind: ParamKind::Number {
            min: 0.0,
            max: 0.5,
            identity: Some(0.0),
            default: (0.0, 0.4),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 0.1, tolerance: 0.01, scale: Scale::Linear },
    kernel: Kernel::Partner(Extent::View, run),
    peers: &[(Peer::TorchAudiomentations, "Mix")],
};

/// The gains of the view and of the other recording, both at the level of the view.
pub(crate) fn gains(weight: f64) -> (f64, f64) {
    let norm = 1.0 / (weight * weight + (1.0 - weight) * (1.0 - weight)).sqrt();
    ((1.0 - weight) * norm, weight * norm)
}

fn run(audio: &mut Audio, other: &Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[weight] = params else { return };
    let (here, there) = (energy(&audio.channels), energy(&other.channels));
    if weight <= 0.0 || here <= 0.0 || there <= 0.0 {
        return;
    }
    let (keep, add) = gains(weight);
    let add = add * (here / there).sqrt();
    for (channel, other) in audio.channels.iter_mut().zip(&other.channels) {
        for (sample, other) in channel.iter_mut().zip(other) {
            *sample = finite_f32(f64::from(*sample) * keep + f64::from(*other) * add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    /// Whole periods of different tones: exactly uncorrelated.
    fn tone(periods: f64, level: f64) -> Audio {
        let at = |i: usize| (level * (std::f64::consts::TAU * periods * i as f64 / 16_000.0).sin()) as f32;
        Audio::mono(16_000, (0..16_000).map(at).collect())
    }

    #[test]
    fn power_stays_and_the_parts_have_their_weights() {
        let (this, other) = (tone(440.0, 0.3), tone(261.0, 0.001));
        for weight in [0.1, 0.25, 0.5] {
            let mut audio = this.clone();
            run(&mut audio, &other, &[weight], &mut Key::root(0).rng(), &mut Scratch::default());
            assert!((energy(&audio.channels) / energy(&this.channels) - 1.0).abs() < 1e-5);
            let part = |of: &Audio| {
                let pairs = audio.channels[0].iter().zip(&of.channels[0]);
                pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / energy(&of.channels).sqrt()
            };
            assert!((part(&other) / part(&this) - weight / (1.0 - weight)).abs() < 1e-5);
        }
    }

    #[test]
    fn no_weight_and_silence_change_nothing() {
        let this = tone(440.0, 0.3);
        for (weight, level) in [(0.0, 0.5), (0.5, 0.0)] {
            let mut audio = this.clone();
            let other = tone(261.0, level);
            run(&mut audio, &other, &[weight], &mut Key::root(0).rng(), &mut Scratch::default());
            assert_eq!(audio, this);
        }
        let mut audio = Audio::mono(16_000, vec![f32::MAX; 100]);
        let other = audio.clone();
        run(&mut audio, &other, &[0.5], &mut Key::root(0).rng(), &mut Scratch::default());
        assert!(audio.is_finite());
    }
}
