//! What an operator may tell the run while it works.

use loev_ops::AudioError;
use std::sync::Arc;

use super::interrupt::Interrupt;
use super::progress::Bar;
use super::rejects::Rejects;
use crate::error::RunError;

/// A stage at work: its name, its progress, its rejects, and whether it should stop.
#[derive(Debug, Clone)]
pub struct StageHandle {
    /// The stage's name in the pipeline.
    pub name: Arc<str>,
    /// Progress of the stage.
    pub bar: Bar,
    /// Rejects of the run.
    pub rejects: Arc<Rejects>,
    /// Ctrl-C.
    pub interrupt: Interrupt,
}

impl StageHandle {
    /// A stage outside of any run, as tests and `loev replay` need it.
    pub fn detached(name: &str) -> Self {
        Self {
            name: name.into(),
            bar: Bar::hidden(),
            rejects: Arc::default(),
            interrupt: Interrupt::default(),
        }
    }

    /// This stage could not use a clip.
    pub fn reject(&self, clip_id: &str, uri: &str, error: &AudioError) {
        self.rejects.add(&self.name, clip_id, uri, error);
    }

    /// An error of this stage.
    pub fn error(&self, message: impl Into<String>) -> RunError {
        RunError::stage(&self.name, message)
    }
}
