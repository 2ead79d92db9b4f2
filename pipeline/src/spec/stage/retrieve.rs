//! Options of a `retrieve` stage.

use garde::Validate;
use loev_models::probe::TaskSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether near is alike: for each query its nearest clips by cosine, per subspace, and how far their labels agree with
/// the query's, beside random neighbours.
///
/// A query's own clip is never its neighbour. Queries that are views have the labels that hold for the view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Retrieve {
    /// The `embed` stage, of clips, whose mean embeddings are searched.
    pub from: String,
    /// Another `embed` stage of the same model, of clips or of views, whose embeddings are the queries. Absent: the
    /// clips that are searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<String>,
    /// Stage that holds the labels of clips and the split. Absent: the one that the embeddings are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// What should agree: for each task its kind and the label column, such as `{key: key}`.
    #[garde(length(min = 1), dive)]
    pub tasks: Vec<TaskSpec>,
    /// Numbers of neighbours to look at.
    #[serde(default = "default_k")]
    #[garde(length(min = 1), inner(range(min = 1, max = 10_000)))]
    pub k: Vec<usize>,
    /// Take only the clips of this part, as queries and as neighbours. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// Column that says `train`, `valid` or `test` for each clip, where `part` is given.
    #[serde(default = "super::default_split")]
    #[garde(length(chars, min = 1))]
    pub split: String,
    /// Neighbours of each query that the table `NAME_neighbours` keeps.
    #[serde(default = "default_keep")]
    #[garde(range(min = 1, max = 10_000))]
    pub keep: usize,
    /// Tempi this far apart agree, relative to the query's.
    #[serde(default = "default_tolerance")]
    #[garde(range(min = 0.0, max = 0.2))]
    pub tempo_tolerance: f64,
    /// Resamples of the queries' clips behind each 95% confidence interval.
    #[serde(default = "default_bootstrap")]
    #[garde(range(min = 100, max = 100_000))]
    pub bootstrap: usize,
}

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Clips that are fitted on.
    Train,
    /// Clips that choices are made on.
    Valid,
    /// Clips that are scored.
    Test,
}

impl Part {
    /// The word in the column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

fn default_k() -> Vec<usize> {
    vec![1, 3, 5, 10, 100]
}

fn default_keep() -> usize {
    10
}

fn default_tolerance() -> f64 {
    0.04
}

fn default_bootstrap() -> usize {
    1000
}
