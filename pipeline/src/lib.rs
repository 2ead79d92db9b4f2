//! The pipelines of loev: from a YAML file to trained models and tables.
//!
//! ```text
//! spec    YAML ─► typed pipeline, diagnostics, graph
//! resume  recipes and receipts: what is done, what is left, and why
//! run     the run directory, progress, rejects; carries the stages out in order
//! stages  what each kind of stage does
//! exec    physical operators: Draw, Batch, Render, Embed, Write; pool and lanes
//! compare two runs side by side
//! verify  whether a run still is what its receipts say
//! listen  pages of views to hear and see
//! report  a page with what a run found
//! bench   what a GPU does with rendering and training
//! cli     the `loev` command
//! ```

mod allocator;
pub mod bench;
pub mod cli;
pub mod compare;
pub mod error;
pub mod exec;
pub mod listen;
pub mod report;
pub mod resume;
pub mod run;
pub mod spec;
pub mod stages;
pub mod verify;

pub use error::RunError;
