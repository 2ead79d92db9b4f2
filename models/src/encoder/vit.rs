//! A vision transformer over full-height time slices of the log-mel spectrogram, with one class token
//! per subspace.
//!
//! The patch embedding is a matrix product over `patch_frames` whole frames; there is no convolution.
//! Beside the slices, a few tokens hold the view's modulation spectrum ([`super::rhythm`]). Blocks are pre-norm; the last of each path asks only for class tokens. Under all methods but LOEV++ all
//! blocks are shared and all class tokens travel together; under LOEV++ the last `branch_depth` blocks
//! and the final norm exist once per subspace, each with initial values of its own.

use super::{
    Noise, Pass,
    rhythm::{RATES, Rhythm},
    stack::{self, Branch, Plan, Pools, StackDrops},
    tokens::{Normaliser, TokenShape, tokens},
};
use crate::{
    ModelError, Result,
    kernels::block::BlockShape,
    layers::{init::Init, linear::linear, norm::layer_norm},
    model::Method,
    params::{Params, Spec},
};
use candle_core::Tensor;
use garde::Validate;
use loev_ops::features::FrontEnd;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sizes of the transformer.
#[derive(Serialize, Deserialize, JsonSchema, Validate, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct VitConfig {
    /// Width of a token and of an embedding; a multiple of `heads`.
    #[garde(range(min = 1, max = 8192))]
    #[schemars(range(min = 1, max = 8192))]
    pub dim: usize,
    /// Blocks that a token passes, shared and own together.
    #[garde(range(min = 1, max = 128))]
    #[schemars(range(min = 1, max = 128))]
    pub depth: usize,
    /// Attention heads.
    #[garde(range(min = 1, max = 128))]
    #[schemars(range(min = 1, max = 128))]
    pub heads: usize,
    /// Frames of a patch.
    #[garde(range(min = 1, max = 1024))]
    #[schemars(range(min = 1, max = 1024))]
    pub patch_frames: usize,
    /// Width of the MLP's hidden layer over `dim`.
    #[garde(range(min = 1, max = 16))]
    #[schemars(range(min = 1, max = 16))]
    pub mlp_ratio: usize,
    /// How many of the blocks each subspace has for itself under LOEV++; at most `depth`.
    #[garde(range(min = 1, max = 128))]
    #[schemars(range(min = 1, max = 128))]
    pub branch_depth: usize,
    /// Tokens that hold the modulation spectrum of as many groups of mel bands, beside the time slices:
    /// they make tempo learnable in far fewer steps. 0 for none.
    #[garde(range(max = 1024))]
    #[schemars(range(max = 1024))]
    pub rhythm: usize,
    /// Stochastic depth in training: the probability that a view goes without what attention, or the MLP,
    /// of the last block adds; it rises to that from 0 at the first block. What stays is scaled up
    /// (arXiv 1603.09382).
    #[garde(range(min = 0.0, max = 0.9))]
    #[schemars(range(min = 0.0, max = 0.9))]
    #[serde(skip_serializing_if = "is_off")]
    pub drop_path: f64,
    /// Dropout in training: the probability that a value of what attention, or the MLP, adds is zero.
    #[garde(range(min = 0.0, max = 0.9))]
    #[schemars(range(min = 0.0, max = 0.9))]
    #[serde(skip_serializing_if = "is_off")]
    pub dropout: f64,
}

/// A rate that is off is not written: models from before there were rates stay what they are.
fn is_off(rate: &f64) -> bool {
    *rate == 0.0
}

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            dim: 96,
            depth: 4,
            heads: 3,
            patch_frames: 4,
            mlp_ratio: 4,
            branch_depth: 1,
            rhythm: 8,
            drop_path: 0.0,
            dropout: 0.0,
        }
    }
}

/// The network, without its parameters.
#[derive(Debug, Clone)]
pub(crate) struct Vit {
    tokens: TokenShape,
    rhythm: Option<Rhythm>,
    plan: Plan,
    drop_path: f64,
    dropout: f64,
    pools: Pools,
}

impl Vit {
    pub fn new(
        config: &VitConfig,
        method: Method,
        classes: usize,
        frames: usize,
        front_end: &FrontEnd,
    ) -> Result<Self> {
        let fault = |message: String| Err(ModelError::Config(format!("encoder.vit: {message}")));
        config.validate().map_err(|report| ModelError::Config(format!("encoder.vit: {report}")))?;
        let VitConfig { dim, depth, heads, patch_frames, mlp_ratio, branch_depth, rhythm, .. } = *config;
        let VitConfig { drop_path, dropout, .. } = *config;
        let mels = front_end.mels;
        if dim % heads != 0 {
            return fault(format!("dim {dim} is not a multiple of heads {heads}"));
        }
        if branch_depth > depth {
            return fault(format!("branch_depth {branch_depth} exceeds depth {depth}"));
        }
        let tokens = TokenShape { frames, mels, patch_frames, dim, classes };
        if tokens.patches() == 0 {
            return fault(format!("a view has {frames} frames, less than one patch of {patch_frames}"));
        }
        let (trunk, branches) = match method {
            Method::Simclr | Method::Loev | Method::LoevReference => {
                (depth - 1, vec![Branch { classes: 0..classes, depth: 1 }])
            }
            Method::LoevPlusPlus => {
                let branches = (0..classes).map(|k| Branch { classes: k..k + 1, depth: branch_depth });
                (depth - branch_depth, branches.collect())
            }
        };
        let hidden = dim * mlp_ratio;
        let frame_rate = f64::from(front_end.sample_rate) / front_end.hop as f64;
        let rhythm = (rhythm > 0 && frames > 1).then(|| Rhythm::new(frames, mels, rhythm, frame_rate));
        let patches = tokens.patches() + rhythm.as_ref().map_or(0, Rhythm::groups);
        let plan = Plan { dim, heads, hidden, classes, patches, trunk, branches };
        Ok(Self { tokens, rhythm, plan, drop_path, dropout, pools: Pools::default() })
    }

    /// Patches of a view: its time slices.
    pub fn patches(&self) -> usize {
        self.tokens.patches()
    }

    /// The prefix of each block's parameters, in the order of [`stack::run`].
    fn blocks(&self) -> impl Iterator<Item = String> {
        let trunk = (0..self.plan.trunk).map(|i| format!("trunk.{i}."));
        let branches = self.plan.branches.iter().enumerate();
        trunk.chain(branches.flat_map(|(k, b)| (0..b.depth).map(move |i| format!("branch.{k}.{i}."))))
    }

    /// How many blocks a path has above a parameter.
    pub fn depth_from_top(&self, name: &str) -> usize {
        let branch = |k: usize| self.plan.branches.get(k).map_or(0, |branch| branch.depth);
        let parts: Vec<&str> = name.split('.').collect();
        let number = |i: usize| parts.get(i).and_then(|part| part.parse::<usize>().ok());
        match (parts.first(), number(1), number(2)) {
            (Some(&"branch"), Some(k), Some(i)) => branch(k).saturating_sub(i + 1),
            (Some(&"branch"), ..) => 0,
            (Some(&"trunk"), Some(i), _) => branch(0) + self.plan.trunk.saturating_sub(i + 1),
            _ => branch(0) + self.plan.trunk,
        }
    }

    /// Every parameter.
    pub fn specs(&self) -> impl Iterator<Item = Spec> {
        let (dim, hidden) = (self.plan.dim, self.plan.hidden);
        let tokens = self.tokens.parameters().into_iter().map(|(name, shape)| {
            let (init, decay) = match name {
                "patch.weight" => (Init::Glorot, true),
                "position" => (Init::Position, false),
                "class" => (Init::Normal(0.02), false),
                _ => (Init::Zeros, false),
            };
            Spec { name: name.to_owned(), shape, init, decay }
        });
        let rhythm = self.rhythm.iter().flat_map(move |rhythm| {
            [
                layer_spec("rhythm.weight".to_owned(), vec![dim, RATES]),
                layer_spec("rhythm.bias".to_owned(), vec![dim]),
                Spec {
                    name: "rhythm.group".to_owned(),
                    shape: vec![rhythm.groups(), dim],
                    init: Init::Normal(0.02),
                    decay: false,
                },
            ]
        });
        let blocks = self.blocks().flat_map(move |prefix| {
            BlockShape::parameters(dim, hidden)
                .map(|(name, shape)| layer_spec(format!("{prefix}{name}"), shape))
        });
        let norms = (0..self.plan.branches.len()).flat_map(move |k| {
            ["weight", "bias"].map(|part| layer_spec(format!("branch.{k}.norm.{part}"), vec![dim]))
        });
        tokens.chain(rhythm).chain(blocks).chain(norms)
    }

    /// One embedding `[views, dim]` per class token, of `features: [views, frames, mels]` in dB. Blocks
    /// drop what the configuration says where `pass` has noise.
    pub fn forward(
        &self,
        params: &Params,
        normaliser: &Normaliser,
        features: &Tensor,
        pass: Pass<'_>,
    ) -> Result<Vec<Tensor>> {
        let names = self.tokens.parameters();
        let parameters = names.iter().map(|(name, _)| params.get(name)).collect::<Result<Vec<_>>>()?;
        let mut x = tokens(self.tokens, pass.precision, normaliser, pass.kept, &parameters, features)?;
        if let Some(rhythm) = &self.rhythm {
            let spectra = rhythm.spectra(normaliser, features)?;
            let [weight, bias, group] =
                ["weight", "bias", "group"].map(|part| params.get(&format!("rhythm.{part}")));
            let added = linear(&spectra, &weight?, Some(&bias?))?.broadcast_add(&group?.unsqueeze(0)?)?;
            x = Tensor::cat(&[&x, &added], 1)?;
        }
        let plan = Plan { patches: x.dim(1)? - self.plan.classes, ..self.plan.clone() };
        let names = BlockShape::parameters(plan.dim, plan.hidden);
        let blocks = self
            .blocks()
            .map(|prefix| names.iter().map(|(name, _)| params.get(&format!("{prefix}{name}"))).collect())
            .collect::<Result<Vec<Vec<_>>>>()?;
        let (path, dropout) = (self.drop_path, self.dropout);
        let drops = pass.noise.map(|Noise { key, first }| StackDrops { key, first, path, dropout });
        let out = stack::run(&plan, &self.pools, &x, &blocks, drops.as_ref(), pass.graph, pass.precision)?;
        let mut embeddings = Vec::with_capacity(plan.classes);
        for (k, branch) in plan.branches.iter().enumerate() {
            let weight = params.get(&format!("branch.{k}.norm.weight"))?;
            let bias = params.get(&format!("branch.{k}.norm.bias"))?;
            for class in branch.classes.clone() {
                let token = out.narrow(1, class, 1)?.squeeze(1)?.contiguous()?;
                embeddings.push(layer_norm(&token, &weight, &bias)?);
            }
        }
        Ok(embeddings)
    }
}

/// A parameter of a linear or norm layer, told by its name and rank.
pub(crate) fn layer_spec(name: String, shape: Vec<usize>) -> Spec {
    let matrix = shape.len() > 1;
    let init = match (matrix, name.ends_with("weight")) {
        (true, _) => Init::Glorot,
        (false, true) => Init::Ones,
        (false, false) => Init::Zeros,
    };
    Spec { name, shape, init, decay: matrix }
}
