//! Probes: what can a small classifier read from frozen embeddings?
//!
//! ```text
//! embeddings, labels, splits
//!   train rows -> standardiser, vocabulary (problem), weights (fit, network)
//!   valid rows -> learning rate, weight decay and stopping epoch (fit)
//!   test rows  -> predictions, figures, confidence intervals (score)
//! ```
//!
//! Nothing flows backwards: test rows are standardised, predicted and scored, and used for nothing else.
//! Rows without a label are left out and counted. Every figure is the mean over seeds of that seed's figure,
//! and comes with the figure that the best constant answer, chosen on training rows, gets on the same test
//! rows. Results are a function of the data, the configuration and the key; probes run on the calling thread,
//! and callers run many beside each other. Embeddings probed under the same key are resampled alike, so their
//! intervals can be compared row by row.

pub mod baseline;
mod config;
mod error;
mod fit;
mod matmul;
mod network;
mod problem;
mod score;

use std::fmt;

use garde::Validate;
use loev_ops::mir::MusicalKey;
use loev_ops::rng::Key;

pub use baseline::mel_statistics;
pub use config::{MlpConfig, ProbeConfig, ProbeKind, Task, TaskSpec};
pub use error::ProbeError;

use crate::metrics::bootstrap::Bootstrap;
use fit::{Material, Rows, Standardiser};
use network::Shape;
use problem::Problem;
use score::Output;

/// The part of the data that a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// Rows to fit on.
    Train,
    /// Rows to choose learning rate, weight decay and stopping epoch on.
    Valid,
    /// Rows to score on.
    Test,
}

impl Split {
    /// Reads "train", "valid" or "test".
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Train, Self::Valid, Self::Test].into_iter().find(|split| split.as_str() == text)
    }

    /// The name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One label per row, `None` where it is missing. The variant is the task.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// Keys.
    Key(Vec<Option<MusicalKey>>),
    /// Tempi in BPM, 1 to 2000.
    Tempo(Vec<Option<f64>>),
    /// Tags; an empty list means that none applies, which is not the same as a missing label.
    Tags(Vec<Option<Vec<String>>>),
    /// Classes.
    Class(Vec<Option<String>>),
}

impl Labels {
    /// The task that these are labels of.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Self::Key(_) => Task::Key,
            Self::Tempo(_) => Task::Tempo,
            Self::Tags(_) => Task::Tags,
            Self::Class(_) => Task::Class,
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Key(labels) => labels.len(),
            Self::Tempo(labels) => labels.len(),
            Self::Tags(labels) => labels.len(),
            Self::Class(labels) => labels.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_present(&self, row: usize) -> bool {
        match self {
            Self::Key(labels) => labels[row].is_some(),
            Self::Tempo(labels) => labels[row].is_some(),
            Self::Tags(labels) => labels[row].is_some(),
            Self::Class(labels) => labels[row].is_some(),
        }
    }
}

/// Embeddings of one subspace with splits and labels, row by row.
#[derive(Clone, Copy, Debug)]
pub struct ProbeData<'a> {
    /// Row-major `rows x dim`.
    pub embeddings: &'a [f32],
    /// Values per embedding, at least 1.
    pub dim: usize,
    /// Split of each row.
    pub split: &'a [Split],
    /// Label of each row.
    pub labels: &'a Labels,
}

/// One figure on the test rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Name, as in the documentation of [`TaskSpec`].
    pub name: &'static str,
    /// Mean over seeds.
    pub value: f64,
    /// Lower end of the 95% bootstrap interval over test rows.
    pub lo: f64,
    /// Upper end of that interval.
    pub hi: f64,
    /// What the best constant answer, chosen on training rows, gets on the test rows: for `macro_roc_auc` 0.5,
    /// for `map` the mean share of positives, for `balanced_accuracy` one over the number of test classes.
    pub chance: f64,
    /// Tags left out of a mean over tags because the figure is undefined on them in the test rows.
    pub skipped: usize,
}

/// The answer to one test row by one seed.
///
/// The mean over seeds of a figure computed from predictions is the figure reported, for every metric that is a
/// mean over rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Row of [`ProbeData`].
    pub row: usize,
    /// Seed, from 0.
    pub seed: usize,
    /// Key name, BPM with two decimals, class, or comma-separated tags with a probability above 0.5.
    pub value: String,
    /// 0 to 1: probability of the key or class; probability within about 6% of the tempo; mean over tags of the
    /// probability of the decision taken.
    pub confidence: f64,
}

/// How many rows took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows fitted on.
    pub train: usize,
    /// Rows selected on. Rows whose class training never shows are not among them.
    pub valid: usize,
    /// Rows scored.
    pub test: usize,
    /// Rows of any split left out because their label is missing.
    pub missing: usize,
    /// Scored rows whose class, or one of whose tags, training never shows. Such a class counts as a miss; such
    /// a tag is ignored.
    pub unseen: usize,
}

/// A fitted and scored probe.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeResult {
    /// What was predicted.
    pub task: Task,
    /// The network.
    pub kind: ProbeKind,
    /// Figures on the test rows. A figure that is undefined there, such as `macro_roc_auc` when every tag has
    /// one class only, is absent.
    pub metrics: Vec<Metric>,
    /// Seed by seed, in row order.
    pub predictions: Vec<Prediction>,
    /// Rows that took part.
    pub rows: RowCounts,
    /// The learning rate chosen.
    pub learning_rate: f64,
    /// The weight decay chosen.
    pub weight_decay: f64,
}

/// Fits and scores one probe per configured kind on one task, the one of the labels.
///
/// # Errors
/// [`ProbeError`]: data of the wrong shape, embeddings that are not finite, labels out of range, a split
/// without labelled rows, a configuration out of range, or divergence at every learning rate.
pub fn probe(data: &ProbeData<'_>, config: &ProbeConfig, key: Key) -> Result<Vec<ProbeResult>, ProbeError> {
    config.validate().map_err(|report| ProbeError::Config(report.to_string().trim().to_owned()))?;
    check(data)?;
    let task = data.labels.task();
    let [train, valid, test] = [Split::Train, Split::Valid, Split::Test].map(|split| labelled(data, split));
    let train = not_empty(data, Split::Train, train)?;
    let test = not_empty(data, Split::Test, test)?;
    let problem = Problem::fit(data.labels, &train)?;
    // A tag that training never shows has no output, and the others of its row still count. A class without an
    // output has no cross-entropy.
    let usable = |row: &usize| task != Task::Class || problem.expressible(*row);
    let valid = not_empty(data, Split::Valid, valid.into_iter().filter(usable).collect())?;

    let standardiser = Standardiser::fit(&inputs(data, &train), data.dim);
    let standardised = |rows: &[usize]| {
        let mut inputs = inputs(data, rows);
        standardiser.apply(&mut inputs);
        inputs
    };
    let of = |rows: &[usize]| Rows { inputs: standardised(rows), targets: problem.targets(rows) };
    let (train_rows, valid_rows, test_inputs) = (of(&train), of(&valid), standardised(&test));

    let rows = RowCounts {
        train: train.len(),
        valid: valid.len(),
        test: test.len(),
        missing: (0..data.split.len()).filter(|&row| !data.labels.is_present(row)).count(),
        unseen: test.iter().filter(|&&row| !problem.expressible(row)).count(),
    };
    let bootstrap = Bootstrap::new(test.len(), config.bootstrap, key.with_str("bootstrap"));
    let run = |kind: &ProbeKind| {
        let shape = Shape { inputs: data.dim, hidden: kind.hidden(), outputs: problem.outputs() };
        let material = Material { train: &train_rows, valid: &valid_rows, shape, loss: problem.loss() };
        let fit_key = key.with_str(task.as_str()).with_str(&kind.name());
        let fitted = fit::fit(&material, config, fit_key)
            .ok_or_else(|| ProbeError::Diverged { task, kind: kind.name() })?;
        let mut predictions = Vec::with_capacity(test.len() * config.seeds);
        let mut outputs = Vec::with_capacity(config.seeds);
        for (seed, mut network) in fitted.networks.into_iter().enumerate() {
            let probabilities = network.predict(&test_inputs);
            let mut answers = Vec::with_capacity(test.len());
            for (&row, probabilities) in test.iter().zip(probabilities.chunks_exact(problem.outputs())) {
                let (answer, confidence) = problem.answer(probabilities);
                predictions.push(Prediction { row, seed, value: problem.text(&answer), confidence });
                answers.push(answer);
            }
            outputs.push(Output { answers, probabilities });
        }
        let metrics = score::score(&problem, &train, &test, &outputs, config, bootstrap);
        let (learning_rate, weight_decay) = (fitted.adam.rate, fitted.adam.decay);
        Ok(ProbeResult { task, kind: kind.clone(), metrics, predictions, rows, learning_rate, weight_decay })
    };
    config.kinds.iter().map(run).collect()
}

/// Shapes agree and every embedding is finite.
fn check(data: &ProbeData<'_>) -> Result<(), ProbeError> {
    let rows = data.split.len();
    let shape = |what, found, expected| {
        if found == expected { Ok(()) } else { Err(ProbeError::Shape { what, found, expected }) }
    };
    shape("labels", data.labels.len(), rows)?;
    shape("embeddings", data.embeddings.len(), rows * data.dim)?;
    if data.dim == 0 {
        return Err(ProbeError::Shape { what: "dimensions of an embedding", found: 0, expected: 1 });
    }
    match data.embeddings.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(ProbeError::NotFinite { row: at / data.dim, dimension: at % data.dim }),
        None => Ok(()),
    }
}

/// Rows of a split that have a label.
fn labelled(data: &ProbeData<'_>, split: Split) -> Vec<usize> {
    (0..data.split.len()).filter(|&row| data.split[row] == split && data.labels.is_present(row)).collect()
}

fn not_empty(data: &ProbeData<'_>, split: Split, usable: Vec<usize>) -> Result<Vec<usize>, ProbeError> {
    if usable.is_empty() {
        let rows = data.split.iter().filter(|&&of| of == split).count();
        return Err(ProbeError::EmptySplit { task: data.labels.task(), split, rows });
    }
    Ok(usable)
}

/// Copies the embeddings of the named rows.
fn inputs(data: &ProbeData<'_>, rows: &[usize]) -> Vec<f32> {
    let mut inputs = Vec::with_capacity(rows.len() * data.dim);
    fit::gather(data.embeddings, data.dim, rows, &mut inputs);
    inputs
}

#[cfg(test)]
mod tests;
