//! Polarity: every sample negated.

use crate::audio::Audio;
use crate::operator::{FactorDef, Kernel, OperatorDef, Peer, Scratch};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "polarity",
    version: 1,
    summary: "Inverts the polarity.",
    source: "Definition: y = -x.",
    params: &[],
    default_p: 0.5,
    labels: &[],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[
        (Peer::Audiomentations, "PolarityInversion"),
        (Peer::TorchAudiomentations, "PolarityInversion"),
        (Peer::Pedalboard, "Invert"),
    ],
};

fn run(audio: &mut Audio, _: &[f64], _: &mut Rng, _: &mut Scratch) {
    for sample in audio.channels.iter_mut().flatten() {
        *sample = -*sample;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn twice_is_nothing() {
        let mut audio = Audio { rate: 8000, channels: vec![vec![0.5, -1.0], vec![0.0, 2.0]] };
        let before = audio.clone();
        run(&mut audio, &[], &mut Key::root(0).rng(), &mut Scratch::default());
        assert_eq!(audio.channels, [[-0.5, 1.0], [-0.0, -2.0]]);
        run(&mut audio, &[], &mut Key::root(0).rng(), &mut Scratch::default());
        assert_eq!(audio, before);
    }
}
