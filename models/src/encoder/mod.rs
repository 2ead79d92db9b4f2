//! Encoders: from log-mel frames to one embedding per subspace.
//!
//! [`vit`] says what the network is; [`tokens`] and [`stack`] are the two operations it consists of, and
//! [`rhythm`] adds tokens that hold periods in the open.

pub mod rhythm;
pub mod stack;
pub mod tokens;
pub mod vit;

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The encoder of a model and its sizes.
#[derive(Serialize, Deserialize, JsonSchema, Validate, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EncoderConfig {
    /// A transformer over full-height time slices of the log-mel spectrogram.
    Vit(#[garde(dive)] vit::VitConfig),
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self::Vit(vit::VitConfig::default())
    }
}

impl EncoderConfig {
    /// Width of an embedding.
    pub fn dim(&self) -> usize {
        match self {
            Self::Vit(config) => config.dim,
        }
    }
}
