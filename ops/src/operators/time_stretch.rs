//! Time stretch: the same music faster or slower, pitch untouched.

use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Warp};

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "time_stretch",
    version: 2,
    summary: "Changes the tempo and keeps the pitch.",
    source: "Phase-locked vocoder: Puckette, IEEE WASPAA 1995; Laroche and Dolson, IEEE Trans. SAP 7(3), 1999.",
    params: &[ParamDef {
        name: "rate",
        unit: "",
        help: "Speed: above 1 is faster. A view of n seconds reads n * rate seconds of the clip.",
        kind: ParamKind::Number {
            min: 0.5,
            max: 2.0,
            identity: Some(1.0),
            default: (0.7, 1.3),
            scale: Scale::Log,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::Tempo(0)],
    factor: FactorDef::Level { param: 0, apart: 0.08, tolerance: 0.01, scale: Scale::Log },
    kernel: Kernel::Warp(warp),
    peers: &[
        (Peer::Audiomentations, "TimeStretch"),
        (Peer::Pedalboard, "time_stretch"),
        (Peer::Torchaudio, "transforms.TimeStretch"),
    ],
};

fn warp(params: &[f64]) -> Warp {
    Warp { semitones: 0.0, rate: params.first().copied().unwrap_or(1.0) }
}
