//! Options of a `leak` stage.

use garde::Validate;
use loev_ops::features::FrontEnd;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::train::check_front_end;

/// Whether the way views are made gives away what was done: linear probes on cues that have nothing to do with the music.
///
/// Each segment of the first epoch is heard untouched, through the variant chain at its identity, through the variant
/// chain as drawn, and as the whole view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Leak {
    /// The `views` stage.
    pub from: String,
    /// Stage that holds the split. Absent: the one that the views are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Column that says `train`, `valid` or `test` for each clip. Clips without are left out.
    #[serde(default = "super::default_split")]
    #[garde(length(chars, min = 1))]
    pub split: String,
    /// How the spectrum is seen. Its sample rate must be that of the views.
    #[serde(default)]
    #[garde(custom(check_front_end))]
    pub front_end: FrontEnd,
    /// Resamples of the test clips behind each 95% confidence interval.
    #[serde(default = "default_bootstrap")]
    #[garde(range(min = 100, max = 100_000))]
    pub bootstrap: usize,
}

fn default_bootstrap() -> usize {
    1000
}
