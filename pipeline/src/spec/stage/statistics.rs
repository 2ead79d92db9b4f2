//! Options of a `statistics` stage.

use garde::Validate;
use loev_ops::features::FrontEnd;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Features;
use super::train::check_front_end;

/// Mean and standard deviation of each mel band over a data set, in dB, by which training normalises its features
/// (`train: {statistics: NAME}`). One row per band.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Statistics {
    /// A `views` stage, or a stage that holds clips (`files`, `synth`, `sql` or `decode`).
    pub from: String,
    /// How audio becomes features; the same as in training.
    #[serde(default)]
    #[garde(custom(check_front_end))]
    pub front_end: FrontEnd,
    /// Length of a segment of clips. Views have a length of their own.
    #[serde(default = "default_seconds")]
    #[garde(range(min = 0.1, max = 120.0))]
    #[schemars(extend("x-unit" = "s"))]
    pub seconds: f64,
    /// Distance between the starts of two segments of clips. Absent: the length of a segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0.01, max = 3600.0))]
    #[schemars(extend("x-unit" = "s"))]
    pub hop: Option<f64>,
}

fn default_seconds() -> f64 {
    10.0
}

impl Statistics {
    /// The features that are counted.
    pub fn features(&self) -> Features {
        let Self { from, front_end, seconds, hop } = self.clone();
        Features { from, front_end, seconds, hop }
    }
}
