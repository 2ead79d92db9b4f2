//! Options of an `equivariance` stage.

use garde::Validate;
use loev_models::evaluate::EquivarianceConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether subspaces follow their factors: what was done is read from two embeddings of views, and what it does is
/// foretold from one. Per subspace and parameter, with intervals over clips.
///
/// The options of the regressions stand beside these in the same map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Equivariance {
    /// The `embed` stage, of a `views` stage, whose embeddings are measured.
    pub from: String,
    /// Stage that holds the split. Absent: the one that the views are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Column that says `train`, `valid` or `test` for each clip. Clips without are left out.
    #[serde(default = "super::default_split")]
    #[garde(length(chars, min = 1))]
    pub split: String,
    /// The regressions' own options, read from the same map.
    #[serde(flatten, skip_deserializing)]
    #[schemars(skip)]
    #[garde(dive)]
    pub config: EquivarianceConfig,
}
