//! Options of a `synth` stage.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Procedural music with exact labels: key, tempo, metre, style and instruments.
///
/// Clips are rendered from their id whenever they are needed; no audio is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Synth {
    /// Number of clips.
    #[garde(range(min = 1, max = 100_000_000))]
    pub clips: u64,
    /// Length of a clip.
    #[serde(default = "default_seconds")]
    #[garde(range(min = 1.0, max = 600.0))]
    #[schemars(extend("x-unit" = "s"))]
    pub seconds: f64,
    /// Seed of the music. Absent: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Number of shards, the unit of work and of resume. Part of the run's identity. Absent: 8, doubled while
    /// a shard would hold more than 256 clips, up to 1024; `shard % 8` is a clip's own at any of these numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 65536))]
    pub shards: Option<u32>,
}

fn default_seconds() -> f64 {
    12.0
}
