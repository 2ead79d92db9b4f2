//! Pan: the balance between left and right.

use std::f64::consts::{FRAC_PI_4, SQRT_2};

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Scratch, finite_f32,
};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "pan",
    version: 1,
    summary: "Moves the first two channels left or right by a constant-power balance; mono stays as it is.",
    source: "Sine and cosine law, scaled to 1 in the middle: J. M. Eargle, The Microphone Book, Focal Press, 2004.",
    params: &[ParamDef {
        name: "position",
        unit: "",
        help: "From -1, left alone and 3 dB up, to 1, right alone.",
        kind: ParamKind::Number {
            min: -1.0,
            max: 1.0,
            identity: Some(0.0),
            default: (-0.7, 0.7),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 0.25, tolerance: 0.02, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[],
};

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[position] = params else { return };
    let [left, right, ..] = audio.channels.as_mut_slice() else { return };
    if position == 0.0 {
        return;
    }
    for (channel, gain) in [(left, gain(-position)), (right, gain(position))] {
        for sample in channel {
            *sample = finite_f32(f64::from(*sample) * gain);
        }
    }
}

/// The gain of the channel on the positive side. The squares of both sides add up to 2 everywhere.
pub(crate) fn gain(position: f64) -> f64 {
    // Written as a sine, which is exactly 0 at the far end.
    SQRT_2 * ((1.0 + position) * FRAC_PI_4).sin()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn panned(channels: Vec<Vec<f32>>, position: f64) -> Vec<Vec<f32>> {
        let mut audio = Audio { rate: 8_000, channels };
        run(&mut audio, &[position], &mut Key::root(0).rng(), &mut Scratch::default());
        audio.channels
    }

    #[test]
    fn power_is_constant_and_the_ends_are_hard() {
        for position in [-1.0, -0.9, -0.3, 0.2, 0.5, 1.0] {
            let both = panned(vec![vec![0.5], vec![0.5]], position);
            let power = both[0][0].powi(2) + both[1][0].powi(2);
            assert!((power - 0.5).abs() < 1e-6 && (both[1][0] > both[0][0]) == (position > 0.0));
        }
        assert_eq!(panned(vec![vec![0.5], vec![0.5]], -1.0)[1], [0.0]);
        assert_eq!(panned(vec![vec![f32::MAX], vec![0.5]], -1.0), [[f32::MAX], [0.0]]);
    }

    #[test]
    fn the_middle_and_mono_and_further_channels_stay() {
        assert_eq!(panned(vec![vec![0.3], vec![-0.7]], 0.0), [[0.3], [-0.7]]);
        assert_eq!(panned(vec![vec![0.3]], 0.8), [[0.3]]);
        assert_eq!(panned(vec![vec![0.3]; 3], 0.8)[2], [0.3]);
    }
}
