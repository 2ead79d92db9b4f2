//! What can be wrong with the material of a probe.

use super::{Split, Task};

/// Why a probe could not be fitted or scored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Slices of the probe's data disagree in length.
    #[error("{what}: {found} values where {expected} are needed")]
    Shape {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that the number of rows and dimensions calls for.
        expected: usize,
    },
    /// A split that the probe cannot do without has no labelled row.
    #[error(
        "none of the {rows} {split} rows has a usable label for the {task} probe: a probe is fitted on train \
         rows, tuned on valid rows and scored on test rows"
    )]
    EmptySplit {
        /// The task.
        task: Task,
        /// The split.
        split: Split,
        /// Rows of the split; their labels are missing or are classes that training never shows.
        rows: usize,
    },
    /// No training row carries any tag.
    #[error("no training row has a tag, so there is nothing to learn")]
    NoTags,
    /// An embedding holds NaN or infinity.
    #[error("embedding of row {row} is not finite in dimension {dimension}")]
    NotFinite {
        /// Row of the data.
        row: usize,
        /// Dimension of the embedding.
        dimension: usize,
    },
    /// A tempo label that is no tempo.
    #[error("row {row} has a tempo of {bpm} BPM; tempi lie between {min} and {max} BPM")]
    Tempo {
        /// Row of the data.
        row: usize,
        /// The label.
        bpm: f64,
        /// Slowest tempo accepted.
        min: f64,
        /// Fastest tempo accepted.
        max: f64,
    },
    /// The configuration is outside its documented ranges.
    #[error("probe configuration: {0}")]
    Config(String),
    /// Every learning rate led to a loss that is not finite.
    #[error("the {kind} {task} probe diverged at every learning rate; try smaller ones")]
    Diverged {
        /// The task.
        task: Task,
        /// Name of the kind of probe.
        kind: String,
    },
}
