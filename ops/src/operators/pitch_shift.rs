//! Pitch shift: frequencies times 2^(semitones / 12), time untouched.

use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Warp};

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "pitch_shift",
    version: 2,
    summary: "Shifts the pitch and keeps the tempo.",
    source: "Phase-locked vocoder: Puckette, IEEE WASPAA 1995; Laroche and Dolson, IEEE Trans. SAP 7(3), 1999.",
    params: &[ParamDef {
        name: "semitones",
        unit: "semitones",
        help: "How far up the pitch moves.",
        kind: ParamKind::Number {
            min: -12.0,
            max: 12.0,
            identity: Some(0.0),
            default: (-4.0, 4.0),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::Transpose(0)],
    factor: FactorDef::Level { param: 0, apart: 1.0, tolerance: 0.1, scale: Scale::Linear },
    kernel: Kernel::Warp(warp),
    peers: &[
        (Peer::Audiomentations, "PitchShift"),
        (Peer::TorchAudiomentations, "PitchShift"),
        (Peer::Pedalboard, "PitchShift"),
        (Peer::Torchaudio, "functional.pitch_shift"),
    ],
};

fn warp(params: &[f64]) -> Warp {
    Warp { semitones: params.first().copied().unwrap_or(0.0), rate: 1.0 }
}
