//! Options of a `finetune` stage.

use garde::Validate;
use loev_models::probe::TaskSpec;
use loev_models::probe::finetune::FinetuneConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A trained encoder and a linear head learn a labelled task together; the figures are those of probes.
///
/// Training reads stored features: of segments of clips, or of views, whose labels follow what was done to them. The
/// answer for a clip is the mean over its segments; a view answers for itself. The options of the optimiser stand
/// beside these in the same map. The encoder is kept as a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Finetune {
    /// The `features` stage to learn from. Its front end and length must be those of the model.
    pub from: String,
    /// The `train` or `finetune` stage whose model is the start.
    pub model: String,
    /// The subspace whose embedding the head reads.
    #[serde(default = "default_subspace")]
    #[garde(length(chars, min = 1))]
    pub subspace: String,
    /// What to predict: its kind and the label column, such as `{key: key}`.
    #[garde(dive)]
    pub task: TaskSpec,
    /// Stage that holds the label column and the split of clips. Absent: the one that the features are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Column that says `train`, `valid` or `test`.
    #[serde(default = "super::default_split")]
    #[garde(length(chars, min = 1))]
    pub split: String,
    /// The optimiser's options, read from the same map.
    #[serde(flatten, skip_deserializing)]
    #[schemars(skip)]
    #[garde(dive)]
    pub config: FinetuneConfig,
}

fn default_subspace() -> String {
    "invariant".to_string()
}
