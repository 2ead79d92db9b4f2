//! Options of a `probe` stage.

use garde::Validate;
use loev_models::probe::{ProbeConfig, TaskSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Probes on frozen embeddings, per subspace, with chance level, a baseline and confidence intervals.
///
/// The options of the probes' training stand beside these in the same map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Probe {
    /// The `embed` stage whose embeddings are probed.
    pub from: String,
    /// Stage that holds the label columns and the split. Absent: the one that the embeddings are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Column that says `train`, `valid` or `test` for each clip.
    #[serde(default = "super::default_split")]
    #[garde(length(chars, min = 1))]
    pub split: String,
    /// What to predict: for each task its kind and the label column, such as `{key: key}`.
    #[garde(length(min = 1), dive)]
    pub tasks: Vec<TaskSpec>,
    /// The probes' own options, read from the same map.
    #[serde(flatten, skip_deserializing)]
    #[schemars(skip)]
    #[garde(dive)]
    pub config: ProbeConfig,
}
