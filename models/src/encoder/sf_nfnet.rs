//! A SlowFast network without batch normalisation over the log-mel spectrogram: the encoder of the
//! published method, and the ancestor of that one.
//!
//! ```text
//! log-mel -+- slow stem: every 16th frame, many channels -+- stage 1 -+- ... stage 4 -- mean --+-- embedding
//!          |                            fuse (to slow) ---'  fuse ----'                        |
//!          '- fast stem: every 4th frame, few channels ------ stage 1 --- ... stage 4 -- mean -'
//! ```
//!
//! Residual blocks of weight-standardised convolutions, scaled so that the variance of what flows is
//! known without measuring it (A. Brock et al., arXiv 2102.06171), along two paths of different frame
//! rates (C. Feichtenhofer et al., arXiv 1812.03982), as M. McCallum et al. (MULE, arXiv 2210.03799) put
//! them together for music. Under SimCLR and LOEV all subspaces share one embedding, and differ in their
//! projections; under LOEV++ the last blocks of the last stage exist once per subspace, in both paths,
//! each with initial values of its own.
//!
//! The published network departs from its ancestor in ways that weaken it. [`SfNfnetConfig`] has an
//! option for each; the defaults are the ancestor's, [`SfNfnetConfig::published`] sets all of them.

use super::{Noise, Pass, tokens::Normaliser};
use crate::{
    Method, ModelError, Result,
    layers::{
        channels::{scale, scaled_gelu, shift},
        conv::Conv,
        init::Init,
        linear::linear,
        standard::{Estimate, channel_norm, standardise},
    },
    params::{Params, Spec},
};
use candle_core::Tensor;
use garde::Validate;
use loev_ops::features::FrontEnd;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Brings the variance of GELU of a standard normal back to 1.
const GELU_SCALE: f64 = 1.701_504_349_708_557_1;
/// How much of a residual is added.
const ALPHA: f64 = 0.2;
/// What a residual's gain starts at: nearly the identity. At exactly 0, as published, nothing inside the
/// residual would get a gradient in the first step.
const GAIN: f64 = 0.01;
/// By how much each stage thins out the rows (frequency).
const ROW_STRIDES: [usize; 4] = [1, 2, 2, 2];
/// Rows that all strides together make one of.
const ROWS: usize = 32;

/// Where the fast path enters the slow one.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// As further channels of the same frames.
    #[default]
    Channel,
    /// As further frames after the slow ones, as published: about three times the arithmetic, and
    /// convolutions that run across the seam.
    Time,
}

/// What follows the convolutions of the stems.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// Weight-standardised convolutions, an activation between any two.
    #[default]
    Standardised,
    /// Plain convolutions, each followed by a norm of every channel over the view, and an activation. The
    /// published network has batch norm in that place, with as many parameters; its statistics tell views
    /// of one batch about each other, which a contrastive task invites to abuse.
    Normalised,
}

/// The non-linearity.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU times 1.7015, which keeps the variance at 1.
    #[default]
    ScaledGelu,
    /// ReLU as it is, as published: the variance shrinks from layer to layer.
    Relu,
}

/// Sizes and options of the network.
#[derive(Serialize, Deserialize, JsonSchema, Validate, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SfNfnetConfig {
    /// Channels of the slow stem, a multiple of 8; all other widths follow in proportion. The embedding is
    /// 13.5 times as wide.
    #[garde(range(min = 24, max = 1024))]
    #[schemars(range(min = 24, max = 1024))]
    pub width: usize,
    /// Residual blocks of each stage.
    #[garde(inner(range(min = 1, max = 64)))]
    #[schemars(inner(range(min = 1, max = 64)))]
    pub depths: [usize; 4],
    /// Where the fast path enters the slow one.
    #[garde(skip)]
    pub fusion: Fusion,
    /// What follows the convolutions of the stems.
    #[garde(skip)]
    pub stem: Stem,
    /// The non-linearity.
    #[garde(skip)]
    pub activation: Activation,
    /// A gain and a bias for each filter of a standardised convolution. Without, as published, the variance
    /// of its weights is also estimated without bias.
    #[garde(skip)]
    pub gain: bool,
    /// What the gates of squeeze-and-excitation are multiplied by: 2 makes up for a gate that is half open
    /// on average; 1 as published.
    #[garde(range(min = 0.1, max = 10.0))]
    #[schemars(range(min = 0.1, max = 10.0))]
    pub excite: f64,
    /// Whether mel bands are normalised by the statistics of the data; not so as published.
    #[garde(skip)]
    pub normalise: bool,
    /// Probability that a view leaves out the last residual in training; it rises evenly from 0 at the
    /// first. Drawn for each view, and the residuals that stay are scaled up; the published network drops
    /// with 0.1, for a whole batch at a time.
    #[garde(range(min = 0.0, max = 0.9))]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub stochastic_depth: f64,
    /// How many of the last stage's blocks each subspace has for itself under LOEV++.
    #[garde(range(min = 1, max = 64))]
    #[schemars(range(min = 1, max = 64))]
    pub branch_depth: usize,
}

impl Default for SfNfnetConfig {
    fn default() -> Self {
        Self {
            width: 128,
            depths: [1, 2, 6, 3],
            fusion: Fusion::Channel,
            stem: Stem::Standardised,
            activation: Activation::ScaledGelu,
            gain: true,
            excite: 2.0,
            normalise: true,
            stochastic_depth: 0.0,
            branch_depth: 2,
        }
    }
}

impl SfNfnetConfig {
    /// The settings of the published network.
    pub fn published() -> Self {
        Self {
            fusion: Fusion::Time,
            stem: Stem::Normalised,
            activation: Activation::Relu,
            gain: false,
            excite: 1.0,
            normalise: false,
            stochastic_depth: 0.1,
            ..Self::default()
        }
    }

    /// Width of an embedding: the channels that both paths end with.
    pub fn dim(&self) -> usize {
        PATHS.iter().map(|path| path.width(self) * 12).sum()
    }

    fn activate(&self, x: &Tensor, scale: f64) -> Result<Tensor> {
        Ok(match self.activation {
            Activation::ScaledGelu => scaled_gelu(x, GELU_SCALE * scale)?,
            Activation::Relu if scale == 1.0 => x.relu()?,
            Activation::Relu => (x.relu()? * scale)?,
        })
    }
}

/// One of the two ways through the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Slow,
    Fast,
}

const PATHS: [Route; 2] = [Route::Slow, Route::Fast];

impl Route {
    fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Fast => "fast",
        }
    }

    /// Channels of the stem, and of a group of a convolution.
    fn width(self, config: &SfNfnetConfig) -> usize {
        match self {
            Self::Slow => config.width,
            Self::Fast => config.width / 8,
        }
    }

    /// Channels after a stage.
    fn outside(self, config: &SfNfnetConfig, stage: usize) -> usize {
        self.width(config) * [2, 4, 12, 12][stage]
    }

    /// Channels before a stage, before anything is fused.
    fn before(self, config: &SfNfnetConfig, stage: usize) -> usize {
        match stage {
            0 => self.width(config),
            _ => self.outside(config, stage - 1),
        }
    }

    /// The four convolutions of the stem: filters, kernel, and how they move.
    fn stem(self, config: &SfNfnetConfig) -> [(usize, [usize; 2], Conv); 4] {
        let width = self.width(config);
        let plain = |kernel: [usize; 2]| (kernel, Conv { padding: kernel.map(|k| k / 2), ..Conv::default() });
        let strided = |kernel, stride| (kernel, Conv { stride, ..plain(kernel).1 });
        let layers = match self {
            // Seven of eight frames are passed over by the first kernel, as in the original.
            Self::Slow => [strided([3, 1], [2, 8]), plain([3, 1]), plain([3, 1]), strided([3, 3], [2, 2])],
            Self::Fast => [strided([3, 3], [2, 2]), plain([3, 3]), plain([3, 3]), strided([3, 3], [2, 2])],
        };
        let mut share = 16;
        layers.map(|(kernel, conv)| {
            share /= 2;
            ((width / share).max(1), kernel, conv)
        })
    }
}

/// A weight-standardised convolution.
struct Standard {
    name: String,
    /// `[out, in / groups, rows, columns]`.
    shape: [usize; 4],
    conv: Conv,
}

impl Standard {
    fn new(name: String, inside: usize, outside: usize, kernel: [usize; 2], conv: Conv) -> Self {
        Self { name, shape: [outside, inside / conv.groups, kernel[0], kernel[1]], conv }
    }

    fn pointwise(name: String, inside: usize, outside: usize) -> Self {
        Self::new(name, inside, outside, [1, 1], Conv::default())
    }

    fn specs(&self, gain: bool) -> Vec<Spec> {
        let mut specs = vec![weight(format!("{}.weight", self.name), &self.shape)];
        if gain {
            specs.push(vector(format!("{}.gain", self.name), self.shape[0], Init::Ones));
            specs.push(vector(format!("{}.bias", self.name), self.shape[0], Init::Zeros));
        }
        specs
    }

    fn forward(&self, params: &Params, gain: bool, x: &Tensor) -> Result<Tensor> {
        let get = |part: &str| params.get(&format!("{}.{part}", self.name));
        if !gain {
            let weight = standardise(&get("weight")?, Estimate::Unbiased)?;
            return Ok(self.conv.forward(x, &weight)?);
        }
        let per_filter = |t: Tensor| t.reshape((self.shape[0], 1, 1, 1));
        let weight = standardise(&get("weight")?, Estimate::Population)?;
        let weight = weight.broadcast_mul(&per_filter(get("gain")?)?)?;
        Ok(shift(&self.conv.forward(x, &weight)?, &get("bias")?)?)
    }
}

/// A convolution's weight, with the initial values of K. He et al. (arXiv 1502.01852).
fn weight(name: String, shape: &[usize]) -> Spec {
    let fan_in: usize = shape.iter().skip(1).product();
    let init = Init::Normal((2.0 / fan_in.max(1) as f64).sqrt());
    Spec { name, shape: shape.to_vec(), init, decay: true }
}

fn vector(name: String, length: usize, init: Init) -> Spec {
    Spec { name, shape: vec![length], init, decay: false }
}

/// A residual block.
struct Block {
    name: String,
    inside: usize,
    outside: usize,
    /// Channels of a group.
    group: usize,
    /// By how much rows are thinned out.
    stride: usize,
    /// Whether it changes the number of channels: then what is added to goes through a convolution too.
    transition: bool,
    /// One over the standard deviation of what comes in.
    beta: f64,
    /// Probability that a view leaves the residual out.
    drop: f64,
}

impl Block {
    fn middle(&self) -> usize {
        self.outside / 2
    }

    /// The four convolutions of the residual.
    fn residual(&self) -> [Standard; 4] {
        let (middle, groups) = (self.middle(), self.middle() / self.group);
        let name = |part: &str| format!("{}.{part}", self.name);
        let columns = Conv { stride: [self.stride, 1], padding: [0, 1], groups };
        let rows = Conv { padding: [1, 0], groups, ..Conv::default() };
        [
            Standard::pointwise(name("in"), self.inside, middle),
            Standard::new(name("columns"), middle, middle, [1, 3], columns),
            Standard::new(name("rows"), middle, middle, [3, 1], rows),
            Standard::pointwise(name("out"), middle, self.outside),
        ]
    }

    fn skip(&self) -> Option<Standard> {
        let name = format!("{}.skip", self.name);
        self.transition.then(|| Standard::pointwise(name, self.inside, self.outside))
    }

    fn specs(&self, gain: bool) -> impl Iterator<Item = Spec> + use<> {
        let (name, outside, squeezed) = (self.name.clone(), self.outside, self.outside / 2);
        let convolutions = self.residual().into_iter().chain(self.skip());
        let excite = [("down", squeezed, outside), ("up", outside, squeezed)];
        let vectors = vector(format!("{name}.gain"), 1, Init::Constant(GAIN));
        let excite = excite.into_iter().flat_map(move |(part, outside, inside)| {
            let name = format!("{name}.excite.{part}");
            [
                Spec {
                    name: format!("{name}.weight"),
                    shape: vec![outside, inside],
                    init: Init::Glorot,
                    decay: true,
                },
                vector(format!("{name}.bias"), outside, Init::Zeros),
            ]
        });
        convolutions.flat_map(move |c| c.specs(gain)).chain(excite).chain([vectors])
    }

    fn forward(&self, params: &Params, config: &SfNfnetConfig, pass: Pass<'_>, x: &Tensor) -> Result<Tensor> {
        let get = |part: &str| params.get(&format!("{}.{part}", self.name));
        let active = config.activate(x, self.beta)?;
        let skip = match self.skip() {
            Some(skip) => skip.forward(params, config.gain, &thinned(&active, self.stride)?)?,
            None => x.clone(),
        };
        let mut residual = active;
        for (i, convolution) in self.residual().iter().enumerate() {
            residual = if i == 0 { residual } else { config.activate(&residual, 1.0)? };
            residual = convolution.forward(params, config.gain, &residual)?;
        }
        let squeezed = residual.flatten_from(2)?.mean(2)?;
        let hidden =
            linear(&squeezed, &get("excite.down.weight")?, Some(&get("excite.down.bias")?))?.relu()?;
        let gate = linear(&hidden, &get("excite.up.weight")?, Some(&get("excite.up.bias")?))?;
        // The logistic function by way of tanh, which cannot overflow.
        let gate = ((gate * 0.5)?.tanh()? + 1.0)?;
        let gate = (gate.broadcast_mul(&get("gain")?)? * (0.5 * config.excite * ALPHA))?;
        let gate = match self.kept(pass, gate.dim(0)?) {
            Some(kept) => {
                let kept = Tensor::from_vec(kept, (gate.dim(0)?, 1), gate.device())?;
                gate.broadcast_mul(&kept.to_dtype(gate.dtype())?)?
            }
            None => gate,
        };
        Ok((skip + scale(&residual, &gate)?)?)
    }

    /// What each view's residual is multiplied by, when some may be left out: 0, or one over the share of
    /// views that keep it.
    fn kept(&self, pass: Pass<'_>, views: usize) -> Option<Vec<f32>> {
        let Noise { key, first } = pass.noise.filter(|_| self.drop > 0.0)?;
        let key = key.with_str(&self.name);
        let kept =
            |view: usize| if key.with((first + view) as u64).rng().f64() < self.drop { 0.0 } else { 1.0 };
        Some((0..views).map(|view| (kept(view) / (1.0 - self.drop)) as f32).collect())
    }
}

/// Means of `stride` neighbouring rows.
fn thinned(x: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let (views, channels, rows, columns) = x.dims4()?;
    Ok(x.reshape((views, channels, rows / stride, stride, columns))?.mean(3)?)
}

/// Frames whose bands have mean 0 and deviation 1.
fn normalised(normaliser: &Normaliser, features: &Tensor) -> Result<Tensor> {
    let band = |values: &[f32]| {
        Tensor::from_slice(values, values.len(), features.device())?.to_dtype(features.dtype())
    };
    let centred = features.broadcast_sub(&band(&normaliser.mean)?)?;
    Ok(centred.broadcast_div(&band(&normaliser.deviation)?)?)
}

/// The network, without its parameters.
#[derive(Debug, Clone)]
pub(crate) struct SfNfnet {
    config: SfNfnetConfig,
    subspaces: usize,
    /// Branches at the end; none when all subspaces share all blocks.
    branches: usize,
}

impl SfNfnet {
    pub fn new(
        config: &SfNfnetConfig,
        method: Method,
        subspaces: usize,
        frames: usize,
        front_end: &FrontEnd,
    ) -> Result<Self> {
        let fault = |message: String| Err(ModelError::Config(format!("encoder.sf_nfnet: {message}")));
        config.validate().map_err(|report| ModelError::Config(format!("encoder.sf_nfnet: {report}")))?;
        if !config.width.is_multiple_of(8) {
            return fault(format!("width {} is not a multiple of 8", config.width));
        }
        if config.branch_depth > config.depths[3] {
            return fault(format!(
                "branch_depth {} exceeds the last of depths, {}",
                config.branch_depth, config.depths[3]
            ));
        }
        if !front_end.mels.is_multiple_of(ROWS) {
            return fault(format!("{} mel bands are not a multiple of {ROWS}", front_end.mels));
        }
        // Unpadded kernels of 7 frames over every fourth frame.
        let least = if config.fusion == Fusion::Time { 25 } else { 1 };
        if frames < least {
            return fault(format!("a view has {frames} frames; fusion by time needs {least}"));
        }
        let branches = if method == Method::LoevPlusPlus { subspaces } else { 0 };
        Ok(Self { config: config.clone(), subspaces, branches })
    }

    /// The blocks of a path through a stage; those from the `from`-th on have names of their own.
    fn blocks(&self, path: Route, stage: usize) -> impl Iterator<Item = Block> {
        let config = &self.config;
        let earlier: usize = config.depths[..stage].iter().sum();
        let total: usize = config.depths.iter().sum();
        (0..config.depths[stage]).map(move |i| {
            let outside = path.outside(config, stage);
            let before = path.before(config, stage);
            let fused = if path == Route::Slow { self.fused_channels(stage) } else { 0 };
            // Every residual adds ALPHA^2; the count begins at one for each stage but the first.
            let residuals = i + usize::from(stage > 0);
            Block {
                name: format!("stage.{stage}.{}.{i}", path.name()),
                inside: if i == 0 { before + fused } else { outside },
                outside,
                group: path.width(config),
                stride: if i == 0 { ROW_STRIDES[stage] } else { 1 },
                transition: i == 0,
                beta: 1.0 / (1.0 + ALPHA * ALPHA * residuals as f64).sqrt(),
                drop: config.stochastic_depth * (earlier + i) as f64 / total as f64,
            }
        })
    }

    /// The blocks of a path that all subspaces share.
    fn shared(&self, path: Route, stage: usize) -> impl Iterator<Item = Block> {
        let own = if stage == 3 && self.branches > 0 { self.config.branch_depth } else { 0 };
        self.blocks(path, stage).take(self.config.depths[stage] - own)
    }

    /// The last blocks of a path, of one subspace.
    fn own(&self, path: Route, branch: usize) -> impl Iterator<Item = Block> {
        let from = self.config.depths[3] - self.config.branch_depth;
        self.blocks(path, 3).enumerate().skip(from).map(move |(i, block)| {
            let name = format!("branch.{branch}.{}.{i}", path.name());
            Block { name, ..block }
        })
    }

    /// Channels by which fusion widens the slow path.
    fn fused_channels(&self, stage: usize) -> usize {
        match self.config.fusion {
            Fusion::Time => 0,
            Fusion::Channel => self.fusion_width(stage),
        }
    }

    fn fusion_width(&self, stage: usize) -> usize {
        let wide = self.config.fusion == Fusion::Channel && stage == 3;
        Route::Slow.before(&self.config, stage) * if wide { 2 } else { 1 }
    }

    /// The two convolutions that bring the fast path to the rate and width of the slow one.
    fn fuse(&self, stage: usize) -> [Standard; 2] {
        let inside = Route::Fast.before(&self.config, stage);
        let (middle, padding) = match self.config.fusion {
            Fusion::Time => (inside, 0),
            Fusion::Channel => (if stage == 0 { 2 * inside } else { inside }, 3),
        };
        let name = |part: &str| format!("stage.{stage}.fuse.{part}");
        let conv = Conv { stride: [1, 4], padding: [0, padding], groups: 1 };
        [
            Standard::new(name("columns"), inside, middle, [1, 7], conv),
            Standard::pointwise(name("out"), middle, self.fusion_width(stage)),
        ]
    }

    fn stem_specs(&self, path: Route) -> impl Iterator<Item = Spec> {
        let mut inside = 1;
        path.stem(&self.config).into_iter().enumerate().flat_map(move |(i, (filters, kernel, conv))| {
            let name = format!("stem.{}.{i}", path.name());
            let own = std::mem::replace(&mut inside, filters);
            let convolution = Standard::new(name.clone(), own, filters, kernel, conv);
            match self.config.stem {
                Stem::Standardised => convolution.specs(true),
                Stem::Normalised => {
                    let mut specs = convolution.specs(false);
                    specs.push(vector(format!("{name}.bias"), filters, Init::Zeros));
                    specs.push(vector(format!("{name}.norm.weight"), filters, Init::Ones));
                    specs.push(vector(format!("{name}.norm.bias"), filters, Init::Zeros));
                    specs
                }
            }
        })
    }

    /// Every parameter.
    pub fn specs(&self) -> impl Iterator<Item = Spec> {
        let gain = self.config.gain;
        let stems = PATHS.into_iter().flat_map(|path| self.stem_specs(path));
        let stages = (0..4).flat_map(move |stage| {
            let fuse = self.fuse(stage).into_iter().flat_map(move |c| c.specs(gain));
            let blocks = PATHS.into_iter().flat_map(move |path| self.shared(path, stage));
            fuse.chain(blocks.flat_map(move |block| block.specs(gain)))
        });
        let branches = (0..self.branches).flat_map(move |branch| {
            let blocks = PATHS.into_iter().flat_map(move |path| self.own(path, branch));
            blocks.flat_map(move |block| block.specs(gain))
        });
        stems.chain(stages).chain(branches)
    }

    fn stem(&self, params: &Params, path: Route, x: &Tensor) -> Result<Tensor> {
        let (mut x, mut inside) = (x.clone(), 1);
        for (i, (filters, kernel, conv)) in path.stem(&self.config).into_iter().enumerate() {
            let name = format!("stem.{}.{i}", path.name());
            let own = std::mem::replace(&mut inside, filters);
            match self.config.stem {
                Stem::Standardised => {
                    x = if i == 0 { x } else { self.config.activate(&x, 1.0)? };
                    x = Standard::new(name, own, filters, kernel, conv).forward(params, true, &x)?;
                }
                Stem::Normalised => {
                    let get = |part: &str| params.get(&format!("{name}.{part}"));
                    x = conv.forward(&x, &get("weight")?)?;
                    x = shift(&x, &get("bias")?)?;
                    x = channel_norm(&x, &get("norm.weight")?, &get("norm.bias")?)?;
                    x = self.config.activate(&x, 1.0)?;
                }
            }
        }
        Ok(x)
    }

    /// One embedding `[views, dim]` per subspace, of `features: [views, frames, mels]` in dB.
    pub fn forward(
        &self,
        params: &Params,
        normaliser: &Normaliser,
        features: &Tensor,
        pass: Pass<'_>,
    ) -> Result<Vec<Tensor>> {
        let config = &self.config;
        let x = if config.normalise { normalised(normaliser, features)? } else { features.clone() };
        let x = x.transpose(1, 2)?.unsqueeze(1)?.contiguous()?;
        let mut slow = self.stem(params, Route::Slow, &x)?;
        let mut fast = self.stem(params, Route::Fast, &x)?;
        let axis = if config.fusion == Fusion::Time { 3 } else { 1 };
        for stage in 0..4 {
            let mut fused = fast.clone();
            for convolution in self.fuse(stage) {
                fused = convolution.forward(params, config.gain, &fused)?;
            }
            slow = Tensor::cat(&[&slow, &fused], axis)?;
            for block in self.shared(Route::Slow, stage) {
                slow = block.forward(params, config, pass, &slow)?;
            }
            for block in self.shared(Route::Fast, stage) {
                fast = block.forward(params, config, pass, &fast)?;
            }
        }
        let end = |slow: &Tensor, fast: &Tensor| -> Result<Tensor> {
            let pooled = [slow.flatten_from(2)?.mean(2)?, fast.flatten_from(2)?.mean(2)?];
            Ok(scaled_gelu(&Tensor::cat(&pooled, 1)?, GELU_SCALE)?)
        };
        if self.branches == 0 {
            return Ok(vec![end(&slow, &fast)?; self.subspaces]);
        }
        let branch = |branch: usize| {
            let mut ends = [slow.clone(), fast.clone()];
            for (path, x) in PATHS.into_iter().zip(&mut ends) {
                for block in self.own(path, branch) {
                    *x = block.forward(params, config, pass, x)?;
                }
            }
            end(&ends[0], &ends[1])
        };
        (0..self.branches).map(branch).collect()
    }
}

#[cfg(test)]
mod tests;
