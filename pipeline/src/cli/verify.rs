//! `loev verify`.

use std::path::PathBuf;

use super::{Failure, print, runtime};
use crate::error::RunError;
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::verify::{self, Options};

#[derive(Debug, clap::Args)]
pub struct VerifyArguments {
    /// The run's directory.
    run: PathBuf,
    /// Compare with another run: its run.json, or its directory.
    #[arg(long, value_name = "MANIFEST")]
    against: Option<PathBuf>,
    /// Views of each stage to draw and render again.
    #[arg(long, default_value_t = 32)]
    views: usize,
    /// Source files of each stage to read again.
    #[arg(long, default_value_t = 32)]
    sources: usize,
}

pub fn verify(arguments: &VerifyArguments, progress: Progress, interrupt: Interrupt) -> Result<(), Failure> {
    let options = Options {
        views: arguments.views,
        sources: arguments.sources,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        progress,
        interrupt,
    };
    let mut report = runtime()?.block_on(verify::verify(&arguments.run, &options))?;
    if let Some(other) = &arguments.against {
        let compared = verify::against::compare(&arguments.run, other)?;
        report.passed.extend(compared.passed);
        report.faults.extend(compared.faults);
    }
    print(&report.to_string())?;
    match report.faults.len() {
        0 => Ok(()),
        faults => {
            let message = format!("{faults} {} found", if faults == 1 { "fault" } else { "faults" });
            Err(RunError::RunDir { path: arguments.run.clone(), message }.into())
        }
    }
}
