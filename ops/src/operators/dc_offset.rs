//! DC offset: a constant added to every sample, as faulty converters do.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "dc_offset",
    version: 1,
    summary: "Adds a constant to every sample; nothing is clipped.",
    source: "Definition: y = x + c.",
    params: &[ParamDef {
        name: "offset",
        unit: "",
        help: "The constant; full scale is 1.",
        kind: ParamKind::Number {
            min: -0.5,
            max: 0.5,
            identity: Some(0.0),
            default: (-0.1, 0.1),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    // Loudness is measured behind a high-pass.
    labels: &[],
    factor: FactorDef::Level { param: 0, apart: 0.05, tolerance: 0.005, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Torchaudio, "functional.dcshift")],
};

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[offset] = params else { return };
    if offset == 0.0 {
        return;
    }
    for sample in audio.channels.iter_mut().flatten() {
        *sample = finite_f32(f64::from(*sample) + offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn the_mean_moves_and_nothing_is_clipped() {
        let mut audio = Audio { rate: 8_000, channels: vec![vec![0.9, -0.4], vec![f32::MAX, -0.0]] };
        run(&mut audio, &[0.25], &mut Key::root(0).rng(), &mut Scratch::default());
        assert_eq!(audio.channels, [[1.15, -0.15], [f32::MAX, 0.25]]);
        let before = audio.clone();
        run(&mut audio, &[0.0], &mut Key::root(0).rng(), &mut Scratch::default());
        assert_eq!(audio, before);
    }
}
