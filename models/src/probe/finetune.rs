//! Fine-tuning: an encoder and a linear head learn a labelled task together.
//!
//! Where a probe asks what frozen embeddings hold, this asks what the encoder is worth as a start. Labels, targets,
//! answers and figures are those of probes, so that the two can be compared line by line.
//!
//! ```text
//! features of a view -> encoder -> embedding of one subspace -> normalised -> linear head -> probabilities
//! ```
//!
//! Both losses of probes (softmax and sigmoid with cross-entropy) have the gradient `p - target` by the logits; it is
//! formed here and handed to the backward pass, so that no loss passes through automatic differentiation.

use candle_core::{DType, Tensor, backprop::GradStore};
use garde::Validate;
use loev_ops::rng::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::Loss;
use super::problem::Problem;
use super::score::{self, Output};
use super::{Labels, Metric, Prediction, ProbeConfig, RowCounts, Split};
use crate::encoder::Pass;
use crate::layers::{init::Init, linear::linear, norm::layer_norm};
use crate::metrics::bootstrap::Bootstrap;
use crate::optim::{AdamW, AdamWConfig, Schedule, norm};
use crate::params::{Params, Spec};
use crate::{Model, ModelError, Result};

/// How to fine-tune.
#[derive(Serialize, Deserialize, JsonSchema, Validate, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuneConfig {
    /// Passes over the training rows at most.
    #[garde(range(min = 1, max = 10_000))]
    #[schemars(range(min = 1, max = 10_000))]
    pub epochs: usize,
    /// Passes without a lower loss on validation rows after which training ends; the best pass is kept.
    #[garde(range(min = 1, max = 10_000))]
    #[schemars(range(min = 1, max = 10_000))]
    pub patience: usize,
    /// Views per step.
    #[garde(range(min = 1, max = 65_536))]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch: usize,
    /// Highest learning rate of the head.
    #[garde(range(min = 1e-9, max = 1.0))]
    #[schemars(range(min = 1e-9, max = 1.0))]
    pub lr: f64,
    /// Learning rate of the encoder, as a share of the head's. 0 leaves the encoder as it is.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub encoder_lr: f64,
    /// Share of all steps over which the learning rate rises from 0; from there it falls to 0 in half a cosine.
    #[garde(range(min = 0.0, max = 1.0))]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup: f64,
    /// Decoupled weight decay of matrices.
    #[garde(range(min = 0.0, max = 10.0))]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    /// Largest norm of all gradients together; longer ones are scaled down to it.
    #[garde(range(min = 1e-6))]
    #[schemars(range(min = 1e-6))]
    pub clip: f64,
    /// Resamples of the test rows behind each 95% confidence interval.
    #[garde(range(min = 100, max = 100_000))]
    #[schemars(range(min = 100, max = 100_000))]
    pub bootstrap: usize,
    /// Relative tolerance of tempo accuracy.
    #[garde(range(min = 0.001, max = 0.2))]
    #[schemars(range(min = 0.001, max = 0.2))]
    pub tempo_tolerance: f64,
}

impl Default for FinetuneConfig {
    fn default() -> Self {
        Self {
            epochs: 20,
            patience: 5,
            batch: 64,
            lr: 0.003,
            encoder_lr: 0.1,
            warmup: 0.1,
            weight_decay: 0.05,
            clip: 1.0,
            bootstrap: 1000,
            tempo_tolerance: 0.04,
        }
    }
}

/// What fine-tuning gave on the test rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Finetuned {
    /// Figures, as those of probes.
    pub metrics: Vec<Metric>,
    /// One answer per test row.
    pub predictions: Vec<Prediction>,
    /// Rows that took part.
    pub rows: RowCounts,
}

/// An encoder and its head in training.
///
/// The caller shows views of labelled rows, one [`Self::step`] per batch; after each pass it says the mean
/// probabilities of the validation rows ([`Self::end_epoch`]), and at the end those of the test rows
/// ([`Self::score`]). A row may have any number of views.
#[derive(Debug)]
pub struct Finetuning<'a> {
    model: Model,
    subspace: usize,
    head: Params,
    problem: Problem<'a>,
    config: FinetuneConfig,
    key: Key,
    optimisers: [AdamW; 2],
    schedule: Schedule,
    steps: usize,
    train: Vec<usize>,
    valid: Vec<usize>,
    test: Vec<usize>,
    missing: usize,
    best: Option<Best>,
    epoch: usize,
}

/// The pass with the lowest loss on validation rows.
#[derive(Debug)]
struct Best {
    epoch: usize,
    loss: f64,
    weights: Vec<Tensor>,
}

impl<'a> Finetuning<'a> {
    /// Fine-tuning of `model` and the embedding of its subspace `subspace` on labelled rows, before its first step.
    /// `views` is the number of training views of a pass.
    ///
    /// # Errors
    /// [`ModelError::Config`] for settings that cannot work and for a subspace that the model has not;
    /// [`ModelError::Data`] when the labels do not fit the splits, a split has no usable label, or a label is
    /// impossible.
    pub fn new(
        model: Model,
        subspace: &str,
        labels: &'a Labels,
        splits: &[Split],
        config: &FinetuneConfig,
        views: usize,
        key: Key,
    ) -> Result<Self> {
        config.validate().map_err(|report| ModelError::Config(format!("finetune: {report}")))?;
        let names = &model.config().subspaces;
        let Some(subspace) = names.iter().position(|name| name == subspace) else {
            return Err(ModelError::Config(format!(
                "the model has no subspace {subspace:?}; it has {}",
                names.join(", ")
            )));
        };
        if labels.len() != splits.len() {
            let (labels, splits) = (labels.len(), splits.len());
            return Err(ModelError::Data(format!("{labels} labels for {splits} rows")));
        }
        let labelled = |split: Split| -> Vec<usize> {
            (0..splits.len()).filter(|&row| splits[row] == split && labels.is_present(row)).collect()
        };
        let [train, valid, test] = [Split::Train, Split::Valid, Split::Test].map(labelled);
        if let Some((split, _)) = [(Split::Train, &train), (Split::Valid, &valid), (Split::Test, &test)]
            .into_iter()
            .find(|(_, rows)| rows.is_empty())
        {
            let task = labels.task();
            return Err(ModelError::Data(format!("no {split} row has a label for the task {task}")));
        }
        let problem = Problem::fit(labels, &train).map_err(|error| ModelError::Data(error.to_string()))?;
        let valid: Vec<usize> = valid.into_iter().filter(|&row| problem.expressible(row)).collect();

        let (dim, outputs) = (model.config().encoder.dim(), problem.outputs());
        let spec = |name: &str, shape: Vec<usize>, init| {
            let decay = shape.len() > 1;
            Spec { name: name.to_owned(), shape, init, decay }
        };
        let specs = [
            spec("norm.weight", vec![dim], Init::Ones),
            spec("norm.bias", vec![dim], Init::Zeros),
            spec("weight", vec![outputs, dim], Init::Glorot),
            spec("bias", vec![outputs], Init::Zeros),
        ];
        let head = Params::new(specs, key.with_str("head"), model.device(), DType::F32)?;
        let adam = AdamWConfig { weight_decay: config.weight_decay, ..AdamWConfig::default() };
        let optimisers = [AdamW::new(adam, model.params())?, AdamW::new(adam, &head)?];
        let steps = views.div_ceil(config.batch).max(1) * config.epochs;
        let warmup = (config.warmup * steps as f64).round() as usize;
        Ok(Self {
            schedule: Schedule { lr: config.lr, warmup, steps, last: 0.0 },
            missing: (0..splits.len()).filter(|&row| !labels.is_present(row)).count(),
            config: config.clone(),
            best: None,
            epoch: 0,
            steps: 0,
            model,
            subspace,
            head,
            problem,
            key,
            optimisers,
            train,
            valid,
            test,
        })
    }

    /// Rows of a split that take part, in order.
    pub fn rows(&self, split: Split) -> &[usize] {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
            Split::Test => &self.test,
        }
    }

    /// Values of one view: frames times mel bands.
    pub fn width(&self) -> usize {
        self.model.config().frames * self.model.config().front_end.mels
    }

    /// What the head makes of the embedding of its subspace.
    fn logits(&self, embeddings: &[Tensor]) -> Result<Tensor> {
        let embedding = embeddings
            .get(self.subspace)
            .ok_or_else(|| ModelError::Config("the model has lost a subspace".into()))?;
        let [weight, bias] = ["norm.weight", "norm.bias"].map(|name| self.head.get(name));
        let x = layer_norm(embedding, &weight?, &bias?)?;
        Ok(linear(&x, &self.head.get("weight")?, Some(&self.head.get("bias")?))?)
    }

    /// One step on views with features in dB, `rows[i]` being the training row of view `i`. Returns the mean loss.
    ///
    /// # Errors
    /// [`ModelError::Data`] for features that do not fit, [`ModelError::NotFinite`] for a loss or gradient that is
    /// not finite.
    pub fn step(&mut self, features: Vec<f32>, rows: &[usize]) -> Result<f64> {
        let step = self.steps + 1;
        let features = self.model.features(features, rows.len())?;
        let frozen = self.config.encoder_lr == 0.0;
        let embeddings = match frozen {
            true => self.model.embed(&features)?,
            false => self.model.embed_for_training(&features, Pass::default())?,
        };
        let logits = self.logits(&embeddings)?;
        let mut values = logits.flatten_all()?.to_vec1::<f32>()?;
        let (outputs, targets) = (self.problem.outputs(), self.problem.targets(rows));
        let loss = self.problem.loss().total(&values, &targets, outputs) / rows.len().max(1) as f64;
        if !loss.is_finite() {
            return Err(ModelError::NotFinite { what: "the loss".into(), step });
        }
        self.problem.loss().activate(&mut values, outputs);
        let share = 1.0 / rows.len().max(1) as f32;
        let slope: Vec<f32> = values.iter().zip(&targets).map(|(p, t)| (p - t) * share).collect();
        let slope = Tensor::from_vec(slope, logits.shape(), logits.device())?;
        let grads = (logits * slope)?.sum_all()?.backward()?;

        let square = square(&grads, self.model.params())? + square(&grads, &self.head)?;
        if !square.is_finite() {
            return Err(ModelError::NotFinite { what: "a gradient".into(), step });
        }
        let clip = (self.config.clip / square.sqrt().max(1e-12)).min(1.0);
        let lr = self.schedule.at(step);
        let [encoder, head] = &mut self.optimisers;
        head.step(&self.head, &grads, lr, clip)?;
        if !frozen {
            encoder.step(self.model.params(), &grads, lr * self.config.encoder_lr, clip)?;
        }
        self.steps = step;
        Ok(loss)
    }

    /// Probabilities of views, `views x outputs`.
    ///
    /// # Errors
    /// [`ModelError::Data`] for features that do not fit.
    pub fn predict(&self, features: Vec<f32>, views: usize) -> Result<Vec<f32>> {
        let embeddings = self.model.embed(&self.model.features(features, views)?)?;
        let mut values = self.logits(&embeddings)?.flatten_all()?.to_vec1::<f32>()?;
        self.problem.loss().activate(&mut values, self.problem.outputs());
        Ok(values)
    }

    /// Values that [`Self::predict`] gives for each view.
    pub fn outputs(&self) -> usize {
        self.problem.outputs()
    }

    /// Takes the mean probabilities of the validation rows after a pass. Returns the loss on them, and whether
    /// training goes on.
    ///
    /// # Errors
    /// [`ModelError::Data`] unless there are as many as [`Self::rows`] times [`Self::outputs`].
    pub fn end_epoch(&mut self, probabilities: &[f32]) -> Result<(f64, bool)> {
        self.fits(probabilities, Split::Valid)?;
        let targets = self.problem.targets(&self.valid);
        let loss = log_loss(self.problem.loss(), probabilities, &targets) / self.valid.len().max(1) as f64;
        self.epoch += 1;
        if self.best.as_ref().is_none_or(|best| loss < best.loss) {
            let weights = self.all().map(|var| Ok(var.as_detached_tensor().copy()?));
            self.best = Some(Best { epoch: self.epoch, loss, weights: weights.collect::<Result<_>>()? });
        }
        let since = self.best.as_ref().map_or(0, |best| self.epoch - best.epoch);
        Ok((loss, self.epoch < self.config.epochs && since < self.config.patience))
    }

    /// Goes back to the best pass.
    ///
    /// # Errors
    /// When tensors cannot be copied.
    pub fn restore(&mut self) -> Result<()> {
        if let Some(best) = self.best.take() {
            for (var, values) in self.all().zip(&best.weights) {
                var.set(values)?;
            }
        }
        Ok(())
    }

    /// Figures of mean probabilities of the test rows.
    ///
    /// # Errors
    /// [`ModelError::Data`] unless there are as many as [`Self::rows`] times [`Self::outputs`].
    pub fn score(&self, probabilities: &[f32]) -> Result<Finetuned> {
        self.fits(probabilities, Split::Test)?;
        let answers: Vec<_> = probabilities
            .chunks_exact(self.problem.outputs().max(1))
            .map(|probabilities| self.problem.answer(probabilities))
            .collect();
        let prediction = |(&row, (answer, confidence)): (&usize, &(_, f64))| Prediction {
            row,
            seed: 0,
            value: self.problem.text(answer),
            confidence: *confidence,
        };
        let predictions = self.test.iter().zip(&answers).map(prediction).collect();
        let output = Output {
            answers: answers.iter().map(|(answer, _)| answer.clone()).collect(),
            probabilities: probabilities.to_vec(),
        };
        let bootstrap =
            Bootstrap::new(self.test.len(), self.config.bootstrap, self.key.with_str("bootstrap"));
        let config = ProbeConfig { tempo_tolerance: self.config.tempo_tolerance, ..ProbeConfig::default() };
        let metrics = score::score(&self.problem, &self.train, &self.test, &[output], &config, bootstrap);
        let rows = RowCounts {
            train: self.train.len(),
            valid: self.valid.len(),
            test: self.test.len(),
            missing: self.missing,
            unseen: self.test.iter().filter(|&&row| !self.problem.expressible(row)).count(),
        };
        Ok(Finetuned { metrics, predictions, rows })
    }

    /// The encoder as it is now.
    pub fn into_model(self) -> Model {
        self.model
    }

    fn all(&self) -> impl Iterator<Item = &candle_core::Var> {
        self.model.params().iter().chain(self.head.iter()).map(|(_, parameter)| &parameter.var)
    }

    fn fits(&self, probabilities: &[f32], split: Split) -> Result<()> {
        let (found, rows) = (probabilities.len(), self.rows(split).len());
        match found == rows * self.problem.outputs() {
            true => Ok(()),
            false => Err(ModelError::Data(format!("{found} probabilities for {rows} {split} rows"))),
        }
    }
}

/// The squared norm of the gradients of `params`.
fn square(grads: &GradStore, params: &Params) -> Result<f64> {
    let norms = params.iter().map(|(_, p)| grads.get(&p.var).map_or(Ok(0.0), norm));
    norms.map(|norm| Ok(norm?.powi(2))).sum()
}

/// Cross-entropy of probabilities, summed over rows.
fn log_loss(loss: Loss, probabilities: &[f32], targets: &[f32]) -> f64 {
    let log = |p: f64| p.max(1e-12).ln();
    let of = |(&p, &t): (&f32, &f32)| {
        let (p, t) = (f64::from(p), f64::from(t));
        match loss {
            Loss::Softmax => -t * log(p),
            Loss::Sigmoid => -t * log(p) - (1.0 - t) * log(1.0 - p),
        }
    };
    probabilities.iter().zip(targets).map(of).sum()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::Method;
    use crate::model::tests::small;

    const VIEWS: usize = 48;

    /// Views whose class is which band is loud, under noise.
    fn views(key: Key) -> (Vec<f32>, Vec<usize>) {
        let mut rng = key.rng();
        let classes: Vec<usize> = (0..VIEWS).map(|i| i % 3).collect();
        let value = |class: usize, band: usize, noise: f64| {
            let loud = if band == class { 1.0 } else { 0.0 };
            (loud + 0.4 * noise) as f32
        };
        let features = classes
            .iter()
            .flat_map(|&class| (0..9 * 5).map(move |i| (class, i % 5)))
            .map(|(class, band)| value(class, band, rng.normal()))
            .collect();
        (features, classes)
    }

    fn tune(config: &FinetuneConfig) -> (Finetuned, Model, Model) {
        let before = Model::new(small(Method::Loev), &Device::Cpu).unwrap();
        let copy = Model::new(small(Method::Loev), &Device::Cpu).unwrap();
        let (features, classes) = views(Key::root(5));
        let splits: Vec<Split> = (0..VIEWS)
            .map(|i| match i / 3 % 4 {
                0 | 1 => Split::Train,
                2 => Split::Valid,
                _ => Split::Test,
            })
            .collect();
        let labels = Labels::Class(classes.iter().map(|class| Some(format!("c{class}"))).collect());
        let mut tuning =
            Finetuning::new(copy, "pitch_shift", &labels, &splits, config, 24, Key::root(2)).unwrap();
        let width = tuning.width();
        let of = |rows: &[usize]| -> Vec<f32> {
            rows.iter().flat_map(|&row| features[row * width..(row + 1) * width].to_vec()).collect()
        };
        loop {
            for rows in tuning.rows(Split::Train).to_vec().chunks(config.batch) {
                tuning.step(of(rows), rows).unwrap();
            }
            let valid = tuning.rows(Split::Valid).to_vec();
            let probabilities = tuning.predict(of(&valid), valid.len()).unwrap();
            let (loss, goes_on) = tuning.end_epoch(&probabilities).unwrap();
            assert!(loss.is_finite());
            if !goes_on {
                break;
            }
        }
        tuning.restore().unwrap();
        let test = tuning.rows(Split::Test).to_vec();
        let found = tuning.score(&tuning.predict(of(&test), test.len()).unwrap()).unwrap();
        (found, before, tuning.into_model())
    }

    fn weights(model: &Model) -> Vec<Vec<f32>> {
        model.params().iter().map(|(_, p)| p.var.flatten_all().unwrap().to_vec1().unwrap()).collect()
    }

    #[test]
    fn a_task_is_learned_and_the_encoder_moves() {
        let config = FinetuneConfig { epochs: 60, patience: 60, batch: 8, lr: 0.01, ..Default::default() };
        let (found, before, after) = tune(&config);
        assert_eq!((found.rows.train, found.rows.valid, found.rows.test), (24, 12, 12));
        assert_eq!(found.predictions.len(), 12);
        assert!(found.metrics[0].value > 0.9, "{:?}", found.metrics);
        assert!(found.metrics[0].chance < 0.5);
        assert_ne!(weights(&before), weights(&after));
    }

    #[test]
    fn a_frozen_encoder_stays_and_runs_are_equal() {
        let config = FinetuneConfig { epochs: 3, batch: 8, encoder_lr: 0.0, ..Default::default() };
        let (found, before, after) = tune(&config);
        assert_eq!(weights(&before), weights(&after));
        assert_eq!(found, tune(&config).0);
    }

    /// The gradient handed to the backward pass is that of the loss.
    #[test]
    fn slopes_are_those_of_the_losses() {
        for loss in [Loss::Softmax, Loss::Sigmoid] {
            let logits = [0.3f32, -1.1, 2.0, 0.4];
            let targets = [0.0f32, 1.0, 0.0, 0.0];
            let mut p = logits;
            loss.activate(&mut p, 4);
            for i in 0..4 {
                let at = |delta: f32| {
                    let mut moved = logits;
                    moved[i] += delta;
                    loss.total(&moved, &targets, 4)
                };
                let want = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((f64::from(p[i] - targets[i]) - want).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn unusable_tasks_are_refused() {
        let model = || Model::new(small(Method::Simclr), &Device::Cpu).unwrap();
        let splits = [Split::Train, Split::Valid, Split::Test];
        let tempo = |values: [Option<f64>; 3]| Labels::Tempo(values.to_vec());
        let refuse = |labels: &Labels, subspace: &str| {
            let config = FinetuneConfig::default();
            Finetuning::new(model(), subspace, labels, &splits, &config, 1, Key::root(1))
                .unwrap_err()
                .to_string()
        };
        let good = tempo([Some(100.0), Some(90.0), Some(80.0)]);
        assert!(refuse(&good, "tempo").contains("it has invariant"));
        assert!(refuse(&tempo([Some(100.0), None, Some(80.0)]), "invariant").contains("no valid row"));
        assert!(refuse(&tempo([Some(-3.0), Some(90.0), Some(80.0)]), "invariant").contains("-3 BPM"));
    }
}
