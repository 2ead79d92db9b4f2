//! Random crop: another part of the clip, a little earlier or later.
//!
//! Views of one segment have one centre; this operator moves it for each view by itself. The audio is read from
//! the clip, so that nothing is padded and nothing wraps round.

use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer};

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "random_crop",
    version: 1,
    summary: "Moves the view within the clip.",
    source: "Definition: y(t) = x(t + shift_s).",
    params: &[ParamDef {
        name: "shift_s",
        unit: "s",
        help: "How much later in the clip the view lies.",
        kind: ParamKind::Number {
            min: -10.0,
            max: 10.0,
            identity: Some(0.0),
            default: (-0.5, 0.5),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::Shift(0)],
    factor: FactorDef::Level { param: 0, apart: 0.25, tolerance: 0.01, scale: Scale::Linear },
    kernel: Kernel::Shift(shift),
    peers: &[
        (Peer::Audiomentations, "AdjustDuration, Shift"),
        (Peer::TorchAudiomentations, "RandomCrop, Shift"),
    ],
};

fn shift(params: &[f64]) -> f64 {
    params.first().copied().unwrap_or(0.0)
}
