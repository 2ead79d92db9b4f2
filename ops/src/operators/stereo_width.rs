//! Stereo width: how far left and right differ.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Scratch, finite_f32,
};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "stereo_width",
    version: 1,
    summary: "Scales the difference of the first two channels and keeps their sum; mono stays as it is.",
    source: "Middle and side: A. D. Blumlein, British patent 394325, 1933.",
    params: &[ParamDef {
        name: "width",
        unit: "",
        help: "0 makes both channels equal, 1 changes nothing, 2 doubles their difference.",
        kind: ParamKind::Number {
            min: 0.0,
            max: 2.0,
            identity: Some(1.0),
            default: (0.0, 1.5),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 0.4, tolerance: 0.05, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[],
};

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[width] = params else { return };
    let [left, right, ..] = audio.channels.as_mut_slice() else { return };
    if width == 1.0 {
        return;
    }
    for (left, right) in left.iter_mut().zip(right) {
        let middle = 0.5 * (f64::from(*left) + f64::from(*right));
        let side = 0.5 * width * (f64::from(*left) - f64::from(*right));
        (*left, *right) = (finite_f32(middle + side), finite_f32(middle - side));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn widened(channels: Vec<Vec<f32>>, width: f64) -> Vec<Vec<f32>> {
        let mut audio = Audio { rate: 8_000, channels };
        run(&mut audio, &[width], &mut Key::root(0).rng(), &mut Scratch::default());
        audio.channels
    }

    #[test]
    fn the_sum_stays_and_the_difference_scales() {
        let stereo = vec![vec![0.5, -0.25, f32::MAX], vec![0.25, 0.75, f32::MIN]];
        assert_eq!(widened(stereo.clone(), 0.0), [[0.375, 0.25, 0.0], [0.375, 0.25, 0.0]]);
        assert_eq!(widened(stereo.clone(), 2.0), [[0.625, -0.75, f32::MAX], [0.125, 1.25, f32::MIN]]);
        assert_eq!(widened(stereo.clone(), 1.0), stereo);
    }

    #[test]
    fn mono_and_further_channels_stay() {
        assert_eq!(widened(vec![vec![0.3]], 0.0), [[0.3]]);
        assert_eq!(widened(vec![vec![0.5], vec![0.25], vec![0.3]], 0.0)[2], [0.3]);
    }
}
