//! Options of a `train` stage.

use garde::Validate;
use loev_models::Method;
use loev_models::encoder::EncoderConfig;
use loev_models::model::{ModelConfig, default_projection};
use loev_models::train::TrainConfig;
use loev_ops::features::FrontEnd;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Contrastive training of an encoder on views. The stage's table holds the metrics of every logged step.
///
/// The options of the optimiser stand beside these in the same map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Train {
    /// The `views` stage to train on.
    pub from: String,
    /// `simclr` has one space that ignores all augmentations; `loev` adds one subspace per factor over a
    /// shared encoder; `loev++` gives each subspace last encoder blocks of its own; `loev-reference` is `loev`
    /// with the projections and the loss of the authors' code, on views with `sampling: bernoulli`.
    #[serde(default = "default_method")]
    pub method: Method,
    /// The encoder and its size.
    #[serde(default)]
    #[garde(dive)]
    pub encoder: EncoderConfig,
    /// The log-mel features that the encoder reads. Its sample rate must be that of the views.
    #[serde(default)]
    #[garde(custom(check_front_end))]
    pub front_end: FrontEnd,
    /// The `statistics` stage by whose means and deviations features are normalised. Absent: those of the first
    /// `statistics_batches` batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<String>,
    /// Views per step; a multiple of the views per segment.
    #[serde(default = "default_batch")]
    #[garde(range(min = 2, max = 65536))]
    #[schemars(extend("x-unit" = "views"))]
    pub batch: usize,
    /// Widths of the layers of the projection that the loss compares views in, one per subspace; training
    /// alone uses it.
    #[serde(default = "default_projection")]
    #[garde(length(min = 1, max = 8), inner(range(min = 1, max = 65536)))]
    pub projection: Vec<usize>,
    /// Lanes that render batches beside the training thread. Part of the run's identity: results depend on
    /// it, and not on the number of threads.
    #[serde(default = "default_lanes")]
    #[garde(range(min = 1, max = 64))]
    pub lanes: usize,
    /// Segments among which the order of an epoch is shuffled.
    #[serde(default = "default_window")]
    #[garde(range(min = 1, max = 10_000_000))]
    #[schemars(extend("x-unit" = "segments"))]
    pub shuffle_window: usize,
    /// States to go on from when training is stopped. They do not change its result.
    #[serde(default)]
    #[garde(dive)]
    pub checkpoints: Checkpoints,
    /// The optimiser's options, read from the same map.
    #[serde(flatten, skip_deserializing)]
    #[schemars(skip)]
    #[garde(dive)]
    pub training: TrainConfig,
}

/// When the state of a training is written, and which are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoints {
    /// Steps from one state to the next.
    #[garde(range(min = 1))]
    #[schemars(range(min = 1), extend("x-unit" = "steps"))]
    pub every: usize,
    /// States kept while training goes on: the last ones.
    #[garde(range(min = 1, max = 1000))]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: usize,
    /// Also keep, as `checkpoints/NAME/best.safetensors`, the model with the lowest mean loss between two states.
    #[garde(skip)]
    pub best: bool,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { every: 100, keep: 2, best: true }
    }
}

impl Train {
    /// The model to train: one embedding per subspace, from views of so many frames.
    pub fn model_config(&self, subspaces: Vec<String>, frames: usize, seed: u64) -> ModelConfig {
        ModelConfig {
            encoder: self.encoder.clone(),
            method: self.method,
            subspaces,
            front_end: self.front_end.clone(),
            frames,
            projection: self.projection.clone(),
            seed,
        }
    }
}

fn default_method() -> Method {
    Method::LoevPlusPlus
}

fn default_batch() -> usize {
    64
}

fn default_lanes() -> usize {
    2
}

fn default_window() -> usize {
    4096
}

pub(super) fn check_front_end(front_end: &FrontEnd, _context: &()) -> garde::Result {
    front_end.validate().map_err(garde::Error::new)
}
