//! Reverse: the view played backwards.

use crate::audio::Audio;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, Peer, Scratch};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "reverse",
    version: 1,
    summary: "Plays the view backwards.",
    source: "Definition: y[n] = x[N - 1 - n].",
    params: &[],
    default_p: 0.5,
    labels: &[LabelEffect::Reverse],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "Reverse"), (Peer::TorchAudiomentations, "TimeInversion")],
};

fn run(audio: &mut Audio, _: &[f64], _: &mut Rng, _: &mut Scratch) {
    for channel in &mut audio.channels {
        channel.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn channels_turn_and_stay_in_their_places() {
        let mut audio = Audio { rate: 8_000, channels: vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]] };
        run(&mut audio, &[], &mut Key::root(0).rng(), &mut Scratch::default());
        assert_eq!(audio.channels, [[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]]);
    }
}
