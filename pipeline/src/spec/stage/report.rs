//! Options of a `report` stage.

use clap::ValueEnum;
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One page of HTML with what the run found: the graph, training curves, figures with intervals, similarity matrices, and
/// a map of clips that plays them.
///
/// It reads all other stages, and is made again when one of them changes. The page is `NAME.html` in the run's directory;
/// the table lists its figures with the SQL that they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Report {
    /// Where the sound of clips goes.
    #[serde(default = "default_audio")]
    pub audio: Sound,
    /// Most that the sound in the page may take; clips beyond it are silent.
    #[serde(default = "default_audio_mb")]
    #[garde(range(min = 0.0, max = 2000.0))]
    #[schemars(extend("x-unit" = "MB"))]
    pub audio_mb: f64,
    /// Sound of each clip, from its middle.
    #[serde(default = "default_audio_seconds")]
    #[garde(range(min = 0.5, max = 600.0))]
    #[schemars(extend("x-unit" = "s"))]
    pub audio_seconds: f64,
    /// Clips on the map; of more, every so manieth is taken.
    #[serde(default = "default_clips")]
    #[garde(range(min = 2, max = 100_000))]
    pub clips: usize,
}

/// Where the sound of clips goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Sound {
    /// Into the page itself.
    Inline,
    /// Into a folder beside the page.
    Beside,
    /// Nowhere: no clip is read.
    None,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            audio: default_audio(),
            audio_mb: default_audio_mb(),
            audio_seconds: default_audio_seconds(),
            clips: default_clips(),
        }
    }
}

fn default_audio() -> Sound {
    Sound::Inline
}

fn default_audio_mb() -> f64 {
    20.0
}

fn default_audio_seconds() -> f64 {
    6.0
}

fn default_clips() -> usize {
    3000
}
