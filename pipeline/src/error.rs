//! Why a run failed. Configuration errors are [`crate::spec::SpecError`]; this is everything after.

use std::path::PathBuf;

use datafusion::error::DataFusionError;

/// A failure while a pipeline was running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Ctrl-C, or a termination signal.
    #[error("interrupted")]
    Interrupted,
    /// More memory than `--memory` allows.
    #[error(
        "{used} MiB of resident memory, more than --memory allows ({limit} MiB); use a smaller batch or encoder, \
         or allow more",
        used = used >> 20, limit = limit >> 20
    )]
    Memory {
        /// The limit, in bytes.
        limit: u64,
        /// What was in use, in bytes.
        used: u64,
    },
    /// The file system refused something.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done, such as `cannot write`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A stage cannot work with what it was given.
    #[error("stage `{stage}`: {message}")]
    Stage {
        /// The stage's name in the pipeline.
        stage: String,
        /// What is wrong, and what to do about it.
        message: String,
    },
    /// More clips were rejected than `max_rejects` allows.
    #[error(
        "stage `{stage}` rejected {rejected} of {clips} clips, more than max_rejects allows ({limit}); \
         see the table `rejects`"
    )]
    TooManyRejects {
        /// The stage's name in the pipeline.
        stage: String,
        /// Clips rejected so far, by all stages.
        rejected: u64,
        /// Clips that the run started with.
        clips: u64,
        /// The limit, as written in the pipeline.
        limit: String,
    },
    /// The run directory belongs to something else, or is damaged.
    #[error("{path}: {message}", path = path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// SQL, over a run's tables.
    #[error(transparent)]
    Sql(#[from] loev_sql::SqlError),
    /// The query engine.
    #[error("{0}")]
    Engine(String),
    /// Training, embedding or probing.
    #[error(transparent)]
    Model(#[from] loev_models::ModelError),
    /// The GPU.
    #[error(transparent)]
    Gpu(#[from] loev_ops::gpu::GpuError),
    /// Probes.
    #[error(transparent)]
    Probe(#[from] loev_models::probe::ProbeError),
    /// Parquet.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

impl RunError {
    /// An error of a stage, with a message.
    pub fn stage(stage: &str, message: impl Into<String>) -> Self {
        Self::Stage { stage: stage.to_owned(), message: message.into() }
    }

    /// A closure for `map_err` on file system calls.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Our own errors travel through query plans as external errors: take them out again.
impl From<DataFusionError> for RunError {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<RunError>() {
                Ok(ours) => *ours,
                Err(other) => Self::Engine(other.to_string()),
            },
            DataFusionError::Context(_, inner) => Self::from(*inner),
            DataFusionError::Shared(inner) => match inner.find_root() {
                DataFusionError::External(ours) if is_interrupt(ours.as_ref()) => Self::Interrupted,
                root => Self::Engine(root.strip_backtrace()),
            },
            other => Self::Engine(other.strip_backtrace()),
        }
    }
}

fn is_interrupt(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref::<RunError>(), Some(RunError::Interrupted))
}

impl From<RunError> for DataFusionError {
    fn from(error: RunError) -> Self {
        Self::External(Box::new(error))
    }
}
