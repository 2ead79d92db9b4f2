//! A model: its configuration, its parameters, and the way from log-mel frames to embeddings and on to
//! the projections that a contrastive loss compares.

use crate::{
    ModelError, Result,
    encoder::{Encoder, EncoderConfig, Pass, rhythm::RATES, tokens::Normaliser, vit::layer_spec},
    gpu::Precision,
    layers::{
        activation::{gelu, relu},
        linear::linear,
    },
    params::{Params, Spec},
};
use candle_core::{DType, Device, Tensor};
use loev_ops::{features::FrontEnd, rng::Key};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How subspaces are made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// One subspace in which all augmentations are ignored (arXiv 2002.05709).
    Simclr,
    /// One subspace per factor and an invariant one, over one shared encoder (arXiv 2412.18955).
    Loev,
    /// The same, with encoder blocks of its own for each subspace.
    #[serde(rename = "loev++")]
    LoevPlusPlus,
    /// LOEV as its authors published it, for comparison: projections of linear layers without bias, a ReLU
    /// after each, and always the reference formula of the loss. Meant for views that are sampled by
    /// independent chance.
    #[serde(rename = "loev-reference")]
    LoevReference,
}

/// Everything that says what a model is; a checkpoint holds it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// How subspaces are made.
    pub method: Method,
    /// Names of the subspaces; the first is `invariant`, and under SimCLR the only one.
    pub subspaces: Vec<String>,
    /// What makes frames of audio.
    pub front_end: FrontEnd,
    /// Frames of a view.
    pub frames: usize,
    /// Widths of the layers of each projection; GELU lies between them, nothing after the last. Under
    /// [`Method::LoevReference`] a ReLU follows every layer, and layers have no bias.
    #[serde(default = "default_projection")]
    pub projection: Vec<usize>,
    /// Seed of the initial values.
    #[serde(default)]
    pub seed: u64,
}

/// Layers of a projection unless the configuration says otherwise.
pub fn default_projection() -> Vec<usize> {
    vec![256, 64]
}

impl ModelConfig {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the name of the setting.
    pub fn validate(&self) -> Result<()> {
        let fault = |message: String| Err(ModelError::Config(message));
        self.front_end.validate().map_err(|m| ModelError::Config(format!("front_end: {m}")))?;
        if self.subspaces.is_empty() {
            return fault("subspaces: at least one is needed".into());
        }
        let mut seen = BTreeSet::new();
        for name in &self.subspaces {
            if name.is_empty() || !seen.insert(name) {
                return fault(format!("subspaces: {name:?} is empty or there twice"));
            }
        }
        if self.method == Method::Simclr && self.subspaces.len() != 1 {
            return fault(format!("subspaces: simclr has one, not {}", self.subspaces.len()));
        }
        if self.projection.is_empty() || self.projection.contains(&0) {
            return fault("projection: at least one layer is needed, each wider than 0".into());
        }
        Ok(())
    }
}

impl ModelConfig {
    /// Operations of the matrix products of one training step on `views` views, forward and backward: two for each
    /// product of two numbers. Norms, soft-max, activations and the optimiser are left out, so that what a machine
    /// reaches of its rate by this count is the share that goes into the network itself.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an encoder that is not a ViT.
    pub fn training_operations(&self, views: usize) -> Result<f64> {
        let EncoderConfig::Vit(vit) = &self.encoder else {
            return Err(ModelError::Config("encoder: operations are counted of a ViT alone".into()));
        };
        let (dim, hidden, mels) = (vit.dim, vit.dim * vit.mlp_ratio, self.front_end.mels);
        let (classes, patches) = (self.subspaces.len(), self.frames / vit.patch_frames.max(1));
        let block = |tokens: usize, queries: usize| {
            queries * dim * (2 * dim + 2 * hidden) + tokens * dim * 2 * dim + 2 * queries * tokens * dim
        };
        let rest = patches + vit.rhythm;
        // Under LOEV++ each subspace ends in blocks of its own, with one class token.
        let (branches, own, kept) = match self.method {
            Method::LoevPlusPlus => (classes, vit.branch_depth, 1),
            _ => (1, 1, classes),
        };
        let shared = vit.depth.saturating_sub(own) * block(classes + rest, classes + rest);
        let branch = own.saturating_sub(1) * block(kept + rest, kept + rest) + block(kept + rest, kept);
        let widths: Vec<usize> = std::iter::once(dim).chain(self.projection.iter().copied()).collect();
        let heads = widths.windows(2).map(|w| w[0] * w[1]).sum::<usize>() * classes;
        // What features and positions feed needs no gradient of its input.
        let embedding = (patches * vit.patch_frames * mels + vit.rhythm * RATES) * dim;
        let spectra = self.frames.saturating_sub(1) * vit.rhythm * (mels + 2 * RATES);
        let view = 3 * (shared + branches * branch + heads) + 2 * embedding + spectra;
        let pairs = classes * views * views * widths.last().copied().unwrap_or(0) * 3;
        Ok(2.0 * (views * view + pairs) as f64)
    }
}

/// A model before it has parameters. It takes memory in proportion to its configuration, not to its
/// sizes, so it can tell what a file should hold before anything is made of the file.
#[derive(Debug)]
pub(crate) struct Blueprint {
    config: ModelConfig,
    encoder: Encoder,
}

impl Blueprint {
    pub fn new(config: ModelConfig) -> Result<Self> {
        config.validate()?;
        let ModelConfig { encoder, method, subspaces, frames, front_end, .. } = &config;
        let encoder = Encoder::new(encoder, *method, subspaces.len(), *frames, front_end)?;
        Ok(Self { config, encoder })
    }

    /// Every parameter, one at a time: a configuration of a few bytes may ask for billions.
    pub fn specs(&self) -> impl Iterator<Item = Spec> {
        let biased = self.config.method != Method::LoevReference;
        let projections = (0..self.config.subspaces.len()).flat_map(move |k| {
            let widths = self.config.projection.iter();
            let inside = std::iter::once(self.config.encoder.dim()).chain(widths.clone().copied());
            widths.zip(inside).enumerate().flat_map(move |(i, (&width, inside))| {
                let weight = layer_spec(format!("projection.{k}.{i}.weight"), vec![width, inside]);
                let bias = layer_spec(format!("projection.{k}.{i}.bias"), vec![width]);
                std::iter::once(weight).chain(biased.then_some(bias))
            })
        });
        self.encoder.specs().chain(projections)
    }

    /// Mel bands of a frame.
    pub fn mels(&self) -> usize {
        self.config.front_end.mels
    }

    /// The model with `params`, which must be those of [`Self::specs`].
    pub fn with(self, params: Params, device: &Device) -> Model {
        let normaliser = Normaliser::identity(self.mels());
        let Self { config, encoder } = self;
        Model { config, encoder, params, normaliser, device: device.clone(), precision: Precision::default() }
    }
}

/// A model with its parameters, on one device.
#[derive(Debug, Clone)]
pub struct Model {
    config: ModelConfig,
    encoder: Encoder,
    params: Params,
    normaliser: Normaliser,
    device: Device,
    precision: Precision,
}

impl Model {
    /// A model with initial values drawn from `config.seed`.
    ///
    /// # Errors
    /// [`ModelError::Config`] when the configuration cannot work.
    pub fn new(config: ModelConfig, device: &Device) -> Result<Self> {
        Self::with_dtype(config, device, DType::F32)
    }

    pub(crate) fn with_dtype(config: ModelConfig, device: &Device, dtype: DType) -> Result<Self> {
        let blueprint = Blueprint::new(config)?;
        let key = Key::root(blueprint.config.seed).with_str("parameters");
        let params = Params::new(blueprint.specs(), key, device, dtype)?;
        Ok(blueprint.with(params, device))
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Number of trainable values.
    pub fn parameters(&self) -> usize {
        self.params.count()
    }

    /// The parameters, by name.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The device that holds the parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What products are made of on a GPU; the CPU computes in f32 whatever this says.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Sets what products are made of on a GPU.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Patch tokens of a view; 0 for an encoder without tokens.
    pub fn patches(&self) -> usize {
        self.encoder.patches()
    }

    /// The statistics by which frames are normalised.
    pub fn normaliser(&self) -> &Normaliser {
        &self.normaliser
    }

    /// Sets the statistics by which frames are normalised.
    ///
    /// # Errors
    /// [`ModelError::Data`] unless there is one finite mean and one deviation above zero per band.
    pub fn set_normaliser(&mut self, normaliser: Normaliser) -> Result<()> {
        let mels = self.config.front_end.mels;
        let sound = normaliser.mean.len() == mels
            && normaliser.deviation.len() == mels
            && normaliser.mean.iter().all(|m| m.is_finite())
            && normaliser.deviation.iter().all(|d| d.is_finite() && *d > 0.0);
        if !sound {
            return Err(ModelError::Data(format!(
                "statistics do not fit {mels} mel bands, or are not finite"
            )));
        }
        self.normaliser = normaliser;
        Ok(())
    }

    /// Features of `views` views from one slice, `[views, frames, mels]`, on the model's device.
    ///
    /// # Errors
    /// [`ModelError::Data`] when the length is not that of `views` views.
    pub fn features(&self, values: Vec<f32>, views: usize) -> Result<Tensor> {
        let (frames, mels) = (self.config.frames, self.config.front_end.mels);
        if values.len() != views * frames * mels {
            let n = values.len();
            return Err(ModelError::Data(format!(
                "{n} values are not {views} views of {frames} frames and {mels} bands"
            )));
        }
        Ok(Tensor::from_vec(values, (views, frames, mels), &self.device)?)
    }

    /// One embedding `[views, dim]` per subspace, of `features: [views, frames, mels]` in raw dB. No
    /// gradients are kept.
    pub fn embed(&self, features: &Tensor) -> Result<Vec<Tensor>> {
        self.embed_without_graph(features, Pass::default())
    }

    /// Embeddings with their graph, and with the random choices of `pass`.
    pub(crate) fn embed_for_training(&self, features: &Tensor, pass: Pass<'_>) -> Result<Vec<Tensor>> {
        let pass = Pass { graph: true, precision: self.precision, ..pass };
        self.precision.apply();
        self.encoder.forward(&self.params, &self.normaliser, features, pass)
    }

    /// [`Self::embed_for_training`], of which nothing is kept for a backward pass.
    pub(crate) fn embed_without_graph(&self, features: &Tensor, pass: Pass<'_>) -> Result<Vec<Tensor>> {
        let pass = Pass { graph: false, precision: self.precision, ..pass };
        self.precision.apply();
        let embeddings = self.encoder.forward(&self.params, &self.normaliser, features, pass)?;
        Ok(embeddings.iter().map(Tensor::detach).collect())
    }

    /// How many blocks lie above a parameter: 0 for the last block and what follows it, most for the
    /// embedding of patches.
    pub fn depth_from_top(&self, name: &str) -> usize {
        if name.starts_with("projection.") { 0 } else { self.encoder.depth_from_top(name) }
    }

    /// What the loss of subspace `k` compares: `[views, last width]`, of embeddings `[views, dim]`.
    ///
    /// # Errors
    /// [`ModelError::Config`] when there is no such subspace.
    pub fn project(&self, k: usize, embedding: &Tensor) -> Result<Tensor> {
        let mut x = embedding.clone();
        for i in 0..self.config.projection.len() {
            let weight = self.params.get(&format!("projection.{k}.{i}.weight"))?;
            if self.config.method == Method::LoevReference {
                x = relu(&linear(&x, &weight, None)?)?;
                continue;
            }
            let bias = self.params.get(&format!("projection.{k}.{i}.bias"))?;
            x = if i == 0 { x } else { gelu(&x)? };
            x = linear(&x, &weight, Some(&bias))?;
        }
        Ok(x)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::encoder::Noise;
    use crate::{
        encoder::vit::VitConfig,
        layers::check::{distance, wave},
        loss::contrastive,
    };

    pub fn small(method: Method) -> ModelConfig {
        let subspaces: &[&str] = match method {
            Method::Simclr => &["invariant"],
            _ => &["invariant", "pitch_shift", "time_stretch"],
        };
        let vit = VitConfig {
            dim: 12,
            depth: 3,
            heads: 2,
            patch_frames: 2,
            mlp_ratio: 2,
            branch_depth: 1,
            rhythm: 2,
            drop_path: 0.3,
            dropout: 0.2,
        };
        ModelConfig {
            encoder: EncoderConfig::Vit(vit),
            method,
            subspaces: subspaces.iter().map(|&s| s.into()).collect(),
            front_end: FrontEnd { mels: 5, ..FrontEnd::default() },
            frames: 9,
            projection: vec![10, 6],
            seed: 3,
        }
    }

    const METHODS: [Method; 4] = [Method::Simclr, Method::Loev, Method::LoevPlusPlus, Method::LoevReference];

    #[test]
    fn shapes_and_names() {
        for method in METHODS {
            let config = small(method);
            let subspaces = config.subspaces.len();
            let model = Model::new(config, &Device::Cpu).unwrap();
            let features = wave(&[4, 9, 5], 0.7, 1.0).to_dtype(DType::F32).unwrap();
            let embeddings = model.embed(&features).unwrap();
            assert_eq!(embeddings.len(), subspaces);
            for (k, embedding) in embeddings.iter().enumerate() {
                assert_eq!(embedding.dims(), &[4, 12]);
                assert_eq!(model.project(k, embedding).unwrap().dims(), &[4, 6]);
            }
            assert!(model.project(subspaces, &embeddings[0]).is_err());
        }
    }

    /// By hand: no bias, and no value below zero after any layer, the last too.
    #[test]
    fn the_reference_projection_is_rectified_to_its_end() {
        let model = Model::with_dtype(small(Method::LoevReference), &Device::Cpu, DType::F64).unwrap();
        let rows = |name: &str| model.params().get(name).unwrap().to_vec2::<f64>().unwrap();
        let layers = [rows("projection.2.0.weight"), rows("projection.2.1.weight")];
        let embedding = wave(&[3, 12], 0.7, 1.0);
        let got = model.project(2, &embedding).unwrap().to_vec2::<f64>().unwrap();
        for (x, got) in embedding.to_vec2::<f64>().unwrap().iter().zip(got) {
            let want = layers.iter().fold(x.clone(), |x, layer| {
                let dot = |w: &Vec<f64>| w.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>().max(0.0);
                layer.iter().map(dot).collect()
            });
            assert!(want.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} {want:?}");
            assert!(got.contains(&0.0) && got.iter().any(|x| *x > 0.0), "{got:?}");
        }
    }

    #[test]
    fn branches_start_apart_and_views_stay_apart() {
        let model = Model::new(small(Method::LoevPlusPlus), &Device::Cpu).unwrap();
        let values = |k: usize| {
            let t = model.params().get(&format!("branch.{k}.0.mlp.up.weight")).unwrap();
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_ne!(values(0), values(1));
        let features = wave(&[4, 9, 5], 0.7, 1.0).to_dtype(DType::F32).unwrap();
        let (all, one) =
            (model.embed(&features).unwrap(), model.embed(&features.narrow(0, 2, 1).unwrap()).unwrap());
        assert!(distance(&all[1].narrow(0, 2, 1).unwrap(), &one[1]) < 1e-6);
    }

    /// The gradient of the whole training loss, over every parameter of every method.
    #[test]
    fn gradients_of_the_loss_match_differences() {
        for method in METHODS {
            let model = Model::with_dtype(small(method), &Device::Cpu, DType::F64).unwrap();
            let features = wave(&[6, 9, 5], 0.7, 1.0);
            let groups = [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 2]];
            let loss = || {
                let noise = Some(Noise { key: Key::root(5), first: 0 });
                let pass = Pass { noise, ..Pass::default() };
                let embeddings = model.embed_for_training(&features, pass).unwrap();
                let mut total = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
                for (k, e) in embeddings.iter().enumerate() {
                    let z = model.project(k, e).unwrap();
                    total = (total + contrastive(&z, &groups[k], 0.5).unwrap()).unwrap();
                }
                total
            };
            let grads = loss().backward().unwrap();
            // Class tokens start small, so that norms bend sharply about them: a short step.
            let step = 1e-6;
            for (name, parameter) in model.params().iter() {
                let var = &parameter.var;
                let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
                let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let values = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let set =
                    |v: Vec<f64>| var.set(&Tensor::from_vec(v, var.shape(), &Device::Cpu).unwrap()).unwrap();
                for i in (0..values.len()).step_by(values.len().div_ceil(3)) {
                    let at = |delta: f64| {
                        let mut moved = values.clone();
                        moved[i] += delta;
                        set(moved);
                        loss().to_scalar::<f64>().unwrap()
                    };
                    let want = (at(step) - at(-step)) / (2.0 * step);
                    assert!(
                        (grad[i] - want).abs() < 2e-7 * (1.0 + want.abs()),
                        "{name}[{i}]: {} {want}",
                        grad[i]
                    );
                }
                set(values);
            }
        }
    }

    #[test]
    fn configurations_that_cannot_work_are_named() {
        let with = |change: &dyn Fn(&mut ModelConfig)| {
            let mut config = small(Method::Loev);
            change(&mut config);
            Model::new(config, &Device::Cpu).unwrap_err().to_string()
        };
        let vit = |c: &mut ModelConfig, f: &dyn Fn(&mut VitConfig)| {
            if let EncoderConfig::Vit(v) = &mut c.encoder {
                f(v);
            }
        };
        assert!(with(&|c| c.method = Method::Simclr).contains("simclr"));
        assert!(with(&|c| c.subspaces.clear()).contains("subspaces"));
        assert!(with(&|c| c.subspaces[1] = "invariant".into()).contains("twice"));
        assert!(with(&|c| c.projection.clear()).contains("projection"));
        assert!(with(&|c| c.frames = 1).contains("frames"));
        assert!(with(&|c| vit(c, &|v| v.heads = 5)).contains("multiple"));
        assert!(with(&|c| vit(c, &|v| v.branch_depth = 9)).contains("branch_depth"));
        assert!(with(&|c| vit(c, &|v| v.dim = 0)).contains("dim"));
    }

    #[test]
    fn parameter_counts_follow_from_the_sizes() {
        let count = |method| {
            let config = ModelConfig {
                encoder: EncoderConfig::default(),
                front_end: FrontEnd::default(),
                frames: 301,
                projection: default_projection(),
                ..small(method)
            };
            Model::new(config, &Device::Cpu).unwrap().parameters()
        };
        let (block, norm): (usize, usize) = (12 * 96 * 96 + 96 * 7 + 384, 2 * 96);
        let projection = 96 * 256 + 256 + 256 * 64 + 64;
        let rhythm = 96 * 64 + 96 + 8 * 96;
        let tokens = |classes: usize| 4 * 96 * 96 + 96 + 75 * 96 + classes * 96 + rhythm;
        assert_eq!(count(Method::Simclr), tokens(1) + 4 * block + norm + projection);
        assert_eq!(count(Method::Loev), tokens(3) + 4 * block + norm + 3 * projection);
        assert_eq!(count(Method::LoevPlusPlus), tokens(3) + 6 * block + 3 * norm + 3 * projection);
        assert_eq!(count(Method::Loev) - count(Method::LoevReference), 3 * (256 + 64));
    }

    #[test]
    fn configuration_reads_and_writes() {
        let config = small(Method::LoevPlusPlus);
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains("\"loev++\""));
        assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), config);
        let vit: EncoderConfig = serde_json::from_str(r#"{"vit": {"dim": 64, "heads": 2}}"#).unwrap();
        assert_eq!(vit.dim(), 64);
        assert!(serde_json::from_str::<EncoderConfig>(r#"{"vit": {"dims": 64}}"#).is_err());
    }
}
