//! The one error type of this crate.

use std::path::PathBuf;

/// Why a model could not be built, trained, saved, loaded or probed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The tensor library refused: a shape, a device, memory.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A setting, or a combination of settings, that cannot work.
    #[error("{0}")]
    Config(String),
    /// Data that do not fit the model or the task: a wrong shape, an empty split.
    #[error("{0}")]
    Data(String),
    /// A number that is NaN or infinite.
    #[error("step {step}: {what} is not finite; the learning rate may be too high, or the input damaged")]
    NotFinite {
        /// The loss, or the first parameter in order of names.
        what: String,
        /// The training step, from 1.
        step: usize,
    },
    /// A contrastive loss over views of which no two belong together.
    #[error("no view has a positive in {head}: there is nothing to pull together")]
    NoPositives {
        /// The head.
        head: String,
    },
    /// A contrastive loss over views that all belong together.
    #[error(
        "all views of {head} belong together: there is nothing to tell apart; a batch needs two segments"
    )]
    NoNegatives {
        /// The head.
        head: String,
    },
    /// A parameter that the first training step left without a gradient.
    #[error("parameter {parameter} got no gradient, or only zeros, in the first training step")]
    NoGradient {
        /// Its name.
        parameter: String,
    },
    /// A checkpoint that is damaged or belongs to another model.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// A device that is not there or not built in.
    #[error("{0}")]
    Device(String),
    /// The GPU failed, or has no memory left.
    #[error(transparent)]
    Gpu(#[from] loev_ops::gpu::GpuError),
    /// A file that could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Results of this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
