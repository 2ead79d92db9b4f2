//! Options of a `decode` stage.

use garde::Validate;
use loev_ops::chain::Channels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Clips decoded once, whole, and stored as 16-bit samples.
///
/// The table has the columns of its input; `uri`, `seconds`, `rate`, `channels`, `frames`, `container`, `codec`, `bytes`
/// and `digest` are those of the stored samples. `clipped` counts samples beyond full scale, and `source_uri` is where the
/// clip was read from (`source_digest` the digest it had, if any).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Decode {
    /// Stage that holds the clips (`files`, `synth` or `sql`).
    pub from: String,
    /// Sample rate of what is stored. Clips are resampled to it.
    #[serde(default = "default_rate")]
    #[garde(range(min = 4000, max = 192_000))]
    #[schemars(extend("x-unit" = "Hz"))]
    pub sample_rate: u32,
    /// Channels of what is stored: `mono` or `stereo`.
    #[serde(default)]
    pub channels: Channels,
}

fn default_rate() -> u32 {
    16_000
}
