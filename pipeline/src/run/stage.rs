//! What an operator may tell the run while it works.

use loev_ops::AudioError;
use std::sync::Arc;

use super::interrupt::Interrupt;
use super::progress::Bar;
use super::rejects::{Collected, Reject};
use crate::error::RunError;

/// A stage at work: its name, its progress, its rejects, and whether it should stop.
#[derive(Debug, Clone)]
pub struct StageHandle {
    /// The stage's name in the pipeline.
    pub name: Arc<str>,
    /// Progress of the stage.
    pub bar: Bar,
    /// Clips that the stage could not use.
    pub rejects: Arc<Collected>,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// Whether progress is counted in rendered rows.
    pub counts_rows: bool,
}

impl StageHandle {
    /// A stage outside of any run, as tests and `loev replay` need it.
    pub fn detached(name: &str) -> Self {
        Self {
            name: name.into(),
            bar: Bar::hidden(),
            rejects: Arc::default(),
            interrupt: Interrupt::default(),
            counts_rows: false,
        }
    }

    /// A partition of this stage could not use a clip.
    pub fn reject(&self, partition: usize, clip_id: &str, uri: &str, error: &AudioError) {
        self.rejects.add(partition, Reject::new(clip_id, uri, error));
    }

    /// The same stage, with the rows that are rendered as its progress.
    #[must_use]
    pub fn counting(&self) -> Self {
        Self { counts_rows: true, ..self.clone() }
    }

    /// An error of this stage.
    pub fn error(&self, message: impl Into<String>) -> RunError {
        RunError::stage(&self.name, message)
    }
}
