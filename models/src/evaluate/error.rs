//! What can be wrong with the material of an evaluation.

use loev_ops::neighbours::NeighboursError;
use loev_ops::ridge::RidgeError;

use crate::probe::{Split, Task};

/// Why an evaluation could not be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// Slices disagree in length.
    #[error("{what}: {found} values where {expected} are needed")]
    Shape {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
    /// An embedding holds NaN or infinity.
    #[error("the embedding of row {row} is not finite")]
    NotFinite {
        /// The row.
        row: usize,
    },
    /// A split that cannot be done without has nothing to offer.
    #[error(
        "the {split} split has no segment with two views: pairs are fitted on train, tuned on valid and scored on test clips"
    )]
    EmptySplit {
        /// The split.
        split: Split,
    },
    /// There is nothing to regress on.
    #[error("the views have no factor whose parameter differs within a segment")]
    NoParameters,
    /// Nothing to search, or nothing to search for.
    #[error("there are no {what}")]
    Empty {
        /// Queries or neighbours.
        what: &'static str,
    },
    /// More neighbours are asked for than there are.
    #[error(
        "{k} neighbours are asked for, and a query has {candidates} candidates (its own clip is left out)"
    )]
    TooFew {
        /// How many are asked for.
        k: usize,
        /// How many there are.
        candidates: usize,
    },
    /// No query, or no neighbour, has a label.
    #[error("no {what} has a label for the {task} task")]
    NoLabels {
        /// Queries or neighbours.
        what: &'static str,
        /// The task.
        task: Task,
    },
    /// Queries and neighbours have labels of different tasks.
    #[error("queries have labels of the {queries} task and neighbours of the {items} task")]
    Tasks {
        /// The task of the queries' labels.
        queries: Task,
        /// The task of the neighbours' labels.
        items: Task,
    },
    /// A regression cannot be fitted.
    #[error(transparent)]
    Ridge(#[from] RidgeError),
    /// Neighbours cannot be searched.
    #[error(transparent)]
    Neighbours(#[from] NeighboursError),
}
