//! Encoders: from log-mel frames to one embedding per subspace.
//!
//! [`vit`] says what the flagship is; [`tokens`] and [`stack`] are the two operations it consists of, and
//! [`rhythm`] adds tokens that hold periods in the open. [`sf_nfnet`] is the published method's encoder.

pub mod rhythm;
pub mod sf_nfnet;
pub mod stack;
pub mod tokens;
pub mod vit;

use crate::{
    Method, Result,
    gpu::Precision,
    params::{Params, Spec},
};
use candle_core::Tensor;
use garde::Validate;
use loev_ops::{features::FrontEnd, rng::Key};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokens::{Kept, Normaliser};

/// The encoder of a model and its sizes.
#[derive(Serialize, Deserialize, JsonSchema, Validate, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EncoderConfig {
    /// A transformer over full-height time slices of the log-mel spectrogram.
    Vit(#[garde(dive)] vit::VitConfig),
    /// The published method's SlowFast convolutional network: for comparison, many times slower to train.
    SfNfnet(#[garde(dive)] sf_nfnet::SfNfnetConfig),
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
            Self::SfNfnet(config) => config.dim(),
        }
    }
}

/// How features go through an encoder: as they do for embedding, unless something is set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pass<'a> {
    /// Whether a backward pass is to follow.
    pub graph: bool,
    /// The patches that views keep; all of them when there is nothing here.
    pub kept: Option<&'a Kept>,
    /// What a training step draws its random choices from; nothing is drawn without.
    pub noise: Option<Noise>,
    /// What products are made of on a GPU.
    pub precision: Precision,
}

/// What a step of training draws its random numbers from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Noise {
    /// The key of the step.
    pub key: Key,
    /// Number, in the step's batch, of the first view at hand.
    pub first: usize,
}

impl Noise {
    /// That of the views from the `at`-th on.
    pub fn from(self, at: usize) -> Self {
        Self { first: self.first + at, ..self }
    }
}

/// The network of an encoder, without its parameters.
#[derive(Debug, Clone)]
pub(crate) enum Encoder {
    Vit(vit::Vit),
    SfNfnet(sf_nfnet::SfNfnet),
}

impl Encoder {
    pub fn new(
        config: &EncoderConfig,
        method: Method,
        subspaces: usize,
        frames: usize,
        front_end: &FrontEnd,
    ) -> Result<Self> {
        match config {
            EncoderConfig::Vit(config) => {
                vit::Vit::new(config, method, subspaces, frames, front_end).map(Self::Vit)
            }
            EncoderConfig::SfNfnet(config) => {
                sf_nfnet::SfNfnet::new(config, method, subspaces, frames, front_end).map(Self::SfNfnet)
            }
        }
    }

    /// Patch tokens of a view; 0 for an encoder without tokens.
    pub fn patches(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.patches(),
            Self::SfNfnet(_) => 0,
        }
    }

    /// How many blocks lie above a parameter: 0 for the last block and what follows it. An encoder without
    /// tokens does not tell.
    pub fn depth_from_top(&self, name: &str) -> usize {
        match self {
            Self::Vit(vit) => vit.depth_from_top(name),
            Self::SfNfnet(_) => 0,
        }
    }

    /// Every parameter.
    pub fn specs(&self) -> Box<dyn Iterator<Item = Spec> + '_> {
        match self {
            Self::Vit(vit) => Box::new(vit.specs()),
            Self::SfNfnet(network) => Box::new(network.specs()),
        }
    }

    /// One embedding `[views, dim]` per subspace, of `features: [views, frames, mels]` in dB.
    pub fn forward(
        &self,
        params: &Params,
        normaliser: &Normaliser,
        features: &Tensor,
        pass: Pass<'_>,
    ) -> Result<Vec<Tensor>> {
        match self {
            Self::Vit(vit) => vit.forward(params, normaliser, features, pass),
            Self::SfNfnet(network) => network.forward(params, normaliser, features, pass),
        }
    }
}
