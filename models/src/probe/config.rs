//! The YAML form of a probe: what to predict and how to fit.

use std::fmt;

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a probe predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One of 24 major and minor keys.
    Key,
    /// Beats per minute.
    Tempo,
    /// Any number of tags out of those seen in training.
    Tags,
    /// One class out of those seen in training.
    Class,
}

impl Task {
    /// The name as written in YAML and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tempo => "tempo",
            Self::Tags => "tags",
            Self::Class => "class",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task and the column that holds its labels, for example `{key: key}` or `{tempo: bpm}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "snake_case")]
pub enum TaskSpec {
    /// Musical key, from a text column such as "F# minor". Metrics: accuracy, mirex_symmetric, mirex_one_sided.
    Key(#[garde(length(min = 1))] String),
    /// Tempo, from a numeric column in beats per minute. Metrics: acc1, acc2.
    Tempo(#[garde(length(min = 1))] String),
    /// Tags, from a column of lists of text. Metrics: macro_roc_auc, map.
    Tags(#[garde(length(min = 1))] String),
    /// One class per row, from a text column. Metrics: accuracy, balanced_accuracy.
    Class(#[garde(length(min = 1))] String),
}

impl TaskSpec {
    /// What is predicted.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Self::Key(_) => Task::Key,
            Self::Tempo(_) => Task::Tempo,
            Self::Tags(_) => Task::Tags,
            Self::Class(_) => Task::Class,
        }
    }

    /// The column of labels.
    #[must_use]
    pub fn column(&self) -> &str {
        match self {
            Self::Key(column) | Self::Tempo(column) | Self::Tags(column) | Self::Class(column) => column,
        }
    }
}

/// A probe's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// One linear layer: what the embedding holds in the open.
    Linear,
    /// One hidden layer: what the embedding holds at all.
    Mlp(#[garde(dive)] MlpConfig),
}

impl ProbeKind {
    /// Name for tables: `linear`, `mlp512`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Linear => "linear".to_owned(),
            Self::Mlp(mlp) => format!("mlp{}", mlp.hidden),
        }
    }

    /// Width of the hidden layer, if there is one.
    pub(super) fn hidden(&self) -> Option<usize> {
        match self {
            Self::Linear => None,
            Self::Mlp(mlp) => Some(mlp.hidden),
        }
    }
}

/// A probe with one hidden layer of rectified units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct MlpConfig {
    /// Hidden units, 1 to 8192.
    #[garde(range(min = 1, max = 8192))]
    pub hidden: usize,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { hidden: 512 }
    }
}

/// How probes are fitted and scored.
///
/// Each network is trained with Adam on standardised embeddings until the loss on validation rows stops
/// falling, and the weights of the best epoch are kept. Learning rate and weight decay are the pair of lowest
/// validation loss in the first seed. Test rows are only ever scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// Networks to fit, each on every task.
    #[garde(length(min = 1), dive)]
    pub kinds: Vec<ProbeKind>,
    /// Adam learning rates to choose from by validation loss, each above 0 and at most 1.
    #[garde(length(min = 1), inner(custom(learning_rate_holds)))]
    pub learning_rates: Vec<f64>,
    /// Longest training, in passes over the training rows, 1 to 10000.
    #[garde(range(min = 1, max = 10_000))]
    pub epochs: usize,
    /// Passes without a lower validation loss after which training ends, 1 to 10000.
    #[garde(range(min = 1, max = 10_000))]
    pub patience: usize,
    /// Training rows per step, 1 to 65536.
    #[garde(range(min = 1, max = 65_536))]
    pub batch: usize,
    /// L2 penalties to choose from by validation loss, each 0 to 10: half of it times the sum of squared weights
    /// (not biases) is added to the mean loss per row. 1 / (C rows) in terms of scikit-learn's C.
    #[garde(length(min = 1), inner(custom(weight_decay_holds)))]
    pub weight_decays: Vec<f64>,
    /// Independent trainings (first weights, order of rows) whose figures are averaged, 1 to 100.
    #[garde(range(min = 1, max = 100))]
    pub seeds: usize,
    /// Resamples of the test rows behind each 95% confidence interval, 100 to 100000.
    #[garde(range(min = 100, max = 100_000))]
    pub bootstrap: usize,
    /// Relative tolerance of tempo accuracy, above 0 and at most 0.2.
    #[garde(custom(tempo_tolerance_holds))]
    pub tempo_tolerance: f64,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            kinds: vec![ProbeKind::Linear, ProbeKind::Mlp(MlpConfig::default())],
            learning_rates: vec![0.003, 0.01],
            epochs: 100,
            patience: 10,
            batch: 64,
            weight_decays: vec![0.003, 0.02, 0.1],
            seeds: 3,
            bootstrap: 1000,
            tempo_tolerance: 0.04,
        }
    }
}

// garde's `range` lets NaN pass, so the floating-point options are checked here.

fn learning_rate_holds(value: &f64, _: &()) -> garde::Result {
    within(*value, *value > 0.0 && *value <= 1.0, "a learning rate is above 0 and at most 1")
}

fn weight_decay_holds(value: &f64, _: &()) -> garde::Result {
    within(*value, (0.0..=10.0).contains(value), "weight decay is 0 to 10")
}

fn tempo_tolerance_holds(value: &f64, _: &()) -> garde::Result {
    within(*value, *value > 0.0 && *value <= 0.2, "a tempo tolerance is above 0 and at most 0.2")
}

fn within(value: f64, holds: bool, rule: &str) -> garde::Result {
    if holds { Ok(()) } else { Err(garde::Error::new(format!("{rule}, not {value}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_specs_are_one_key_maps() {
        let specs: Vec<TaskSpec> = serde_json::from_str(
            r#"[{"key": "key"}, {"tempo": "bpm"}, {"tags": "instruments"}, {"class": "style"}]"#,
        )
        .unwrap();
        let read: Vec<(Task, &str)> = specs.iter().map(|spec| (spec.task(), spec.column())).collect();
        let expected =
            [(Task::Key, "key"), (Task::Tempo, "bpm"), (Task::Tags, "instruments"), (Task::Class, "style")];
        assert_eq!(read, expected);
        assert!(serde_json::from_str::<TaskSpec>(r#"{"mood": "x"}"#).is_err());
        assert!(TaskSpec::Key(String::new()).validate().is_err());
    }

    #[test]
    fn defaults_are_valid_and_unknown_fields_are_refused() {
        assert!(ProbeConfig::default().validate().is_ok());
        let config: ProbeConfig =
            serde_json::from_str(r#"{"kinds": ["linear", {"mlp": {"hidden": 64}}, {"mlp": {}}]}"#).unwrap();
        let names: Vec<String> = config.kinds.iter().map(ProbeKind::name).collect();
        assert_eq!(names, ["linear", "mlp64", "mlp512"]);
        assert_eq!(config.seeds, ProbeConfig::default().seeds);
        assert!(serde_json::from_str::<ProbeConfig>(r#"{"seed": 3}"#).is_err());
        assert!(serde_json::from_str::<ProbeConfig>(r#"{"kinds": [{"mlp": {"width": 3}}]}"#).is_err());
    }

    #[test]
    fn out_of_range_options_are_refused() {
        let refused = |change: fn(&mut ProbeConfig)| {
            let mut config = ProbeConfig::default();
            change(&mut config);
            config.validate().is_err()
        };
        assert!(refused(|c| c.kinds.clear()));
        assert!(refused(|c| c.kinds = vec![ProbeKind::Mlp(MlpConfig { hidden: 0 })]));
        assert!(refused(|c| c.learning_rates = vec![0.01, f64::NAN]));
        assert!(refused(|c| c.learning_rates = vec![0.0]));
        assert!(refused(|c| c.weight_decays = vec![f64::INFINITY]));
        assert!(refused(|c| c.seeds = 0));
        assert!(refused(|c| c.bootstrap = 10));
        assert!(refused(|c| c.tempo_tolerance = f64::NAN));
    }

    #[test]
    fn the_schema_carries_the_documentation() {
        let schema = serde_json::to_string(&schemars::schema_for!(ProbeConfig)).unwrap();
        assert!(schema.contains("L2 penalties to choose from"));
        assert!(schema.contains("\"default\":512"));
        assert!(schema.contains("\"additionalProperties\":false"));
    }
}
