//! The pipelines of loev: from a YAML file to trained models and tables.
//!
//! ```text
//! spec    YAML ─► typed pipeline, diagnostics, graph
//! run     the run directory, progress, rejects; carries the stages out in order
//! stages  what each kind of stage does
//! exec    physical operators: Draw, Batch, Render, Embed, Write; pool and lanes
//! cli     the `loev` command
//! ```

pub mod cli;
pub mod error;
pub mod exec;
pub mod listen;
pub mod run;
pub mod spec;
pub mod stages;

pub use error::RunError;
