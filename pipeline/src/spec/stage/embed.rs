//! Options of an `embed` stage.

use garde::Validate;
use loev_models::gpu::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Embeddings by a trained model. Of clips: one row per segment and subspace, and the clip's mean. Of a `views` stage:
/// one row per view and subspace, with what was drawn for its factors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Embed {
    /// Stage that holds the clips (`files`, `synth`, `sql` or `decode`), or a `views` stage. Views must have the sample rate and
    /// length that the model was trained on.
    pub from: String,
    /// The `train` or `finetune` stage whose model is used.
    pub model: String,
    /// Distance between the starts of two segments of clips. Absent: the length of the model's views. Views say
    /// themselves where they lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0.01, max = 3600.0))]
    #[schemars(extend("x-unit" = "s"))]
    pub hop: Option<f64>,
    /// Segments or views computed at once.
    #[serde(default = "default_batch")]
    #[garde(range(min = 1, max = 65536))]
    #[schemars(extend("x-unit" = "segments"))]
    pub batch: usize,
    /// Embed with mel statistics too (means and deviations of the bands), as the table `NAME_baseline`;
    /// probes show it beside the model.
    #[serde(default = "default_baseline")]
    pub baseline: bool,
    /// What products of matrices are made of on a GPU: `bf16` unless `f32` is asked for, which takes many times as long.
    /// The CPU always computes in f32.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    #[garde(skip)]
    pub precision: Precision,
}

fn default_baseline() -> bool {
    true
}

fn default_batch() -> usize {
    32
}
