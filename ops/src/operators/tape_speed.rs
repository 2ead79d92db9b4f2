//! Tape speed: pitch and tempo together, as on a tape that runs faster or slower.
//! A plain resampling: a pass of its own, not one of the vocoder.

use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer};

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "tape_speed",
    version: 1,
    summary: "Plays faster and higher, or slower and lower.",
    source: "Band-limited interpolation: J. O. Smith and P. Gossett, ICASSP 1984.",
    params: &[ParamDef {
        name: "speed",
        unit: "",
        help: "Speed: above 1 is faster and higher. A view of n seconds reads n * speed seconds of the clip.",
        kind: ParamKind::Number {
            min: 0.5,
            max: 2.0,
            identity: Some(1.0),
            default: (0.85, 1.18),
            scale: Scale::Log,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::Speed(0)],
    factor: FactorDef::Level { param: 0, apart: 0.05, tolerance: 0.005, scale: Scale::Log },
    kernel: Kernel::Speed(speed),
    peers: &[(Peer::Torchaudio, "transforms.Speed")],
};

fn speed(params: &[f64]) -> f64 {
    params.first().copied().unwrap_or(1.0)
}
