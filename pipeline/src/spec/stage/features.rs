//! Options of a `features` stage.

use garde::Validate;
use loev_ops::chain::{Chain, Channels, Sampling};
use loev_ops::features::FrontEnd;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::train::check_front_end;

/// Stored log-mel features, in dB: of every view of a `views` stage, or of the segments of clips, one after the other.
///
/// From views that store their audio (`materialize: true`), the features are computed from the stored samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Features {
    /// A `views` stage, or a stage that holds clips (`files`, `synth`, `sql` or `decode`).
    pub from: String,
    /// How audio becomes features. Its sample rate must be that of the views; clips are resampled to it.
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
    3.0
}

impl Features {
    /// The chain that renders segments of clips: none of its operators changes anything.
    pub fn clean_chain(&self) -> Chain {
        Chain {
            sample_rate: self.front_end.sample_rate,
            seconds: self.seconds,
            channels: Channels::Mono,
            base: Vec::new(),
            variant: Vec::new(),
            sampling: Sampling::Factorial,
        }
    }
}
