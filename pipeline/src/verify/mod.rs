//! Whether a run still is what its receipts say, and whether another one came to the same.
//!
//! ```text
//! files      digests, sizes, rows, schemas of every file against its receipt     verify/files.rs
//! rows       names, joins, splits, clips that were lost                          verify/rows.rs
//! views      a sample is drawn and rendered again                                verify/views.rs
//! against    two manifests side by side                                          verify/against.rs
//! ```
//!
//! A check collects what it finds and goes on: one damaged file does not hide another.

use std::fmt;
use std::path::Path;

use crate::error::RunError;
use crate::resume::ledger::Stored;
use crate::run::dir::{Manifest, RunDir};
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::spec::Pipeline;

pub mod against;
mod files;
mod rows;
mod views;

/// What to check, and how much.
#[derive(Debug, Clone)]
pub struct Options {
    /// Views of each stage to draw and render again.
    pub views: usize,
    /// Source files of each stage to read again.
    pub sources: usize,
    /// Threads for queries.
    pub threads: usize,
    /// Where progress is shown.
    pub progress: Progress,
    /// How it is stopped.
    pub interrupt: Interrupt,
}

/// What was looked at, and what is wrong.
#[derive(Debug, Default)]
pub struct Report {
    /// What was found to be right: the kind of check, and how much of it.
    pub passed: Vec<(&'static str, String)>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of check.
    pub check: &'static str,
    /// What, where.
    pub what: String,
}

impl Report {
    /// Notes a fault.
    pub fn fault(&mut self, check: &'static str, what: impl Into<String>) {
        self.faults.push(Fault { check, what: what.into() });
    }

    /// Notes what was looked at, unless it was wrong.
    fn passed(&mut self, check: &'static str, faults_before: usize, what: String) {
        if self.faults.len() == faults_before {
            self.passed.push((check, what));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (check, what) in &self.passed {
            writeln!(f, "ok     {check:<10} {what}")?;
        }
        for Fault { check, what } in &self.faults {
            writeln!(f, "FAULT  {check:<10} {what}")?;
        }
        Ok(())
    }
}

/// A run that is looked at.
struct Run {
    dir: RunDir,
    manifest: Manifest,
    pipeline: Pipeline,
    /// The receipts of each stage, in the order of the manifest.
    stages: Vec<(String, Stored)>,
}

/// Checks the run in `root`.
///
/// # Errors
/// When the directory holds no run that can be read; what is wrong with a run that can is in the report.
pub async fn verify(root: &Path, options: &Options) -> Result<Report, RunError> {
    let manifest = RunDir::read_manifest(root)?;
    let pipeline = RunDir::read_pipeline(root)?;
    let dir = RunDir::open(root);
    let mut stages = Vec::new();
    for name in manifest.stages.keys() {
        stages.push((name.clone(), Stored::read(&dir, name)?));
    }
    let run = Run { dir, manifest, pipeline, stages };
    let mut report = Report::default();
    files::check(&run, options, &mut report)?;
    rows::check(&run, options, &mut report).await?;
    views::check(&run, options, &mut report).await?;
    Ok(report)
}
