//! `loev bench`: measures this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Failure, print};
use crate::bench;
use crate::error::RunError;

/// What is measured.
#[derive(Debug, Args)]
pub struct BenchArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure what a GPU does with rendering and training, and check it against the CPU. Needs nothing but the GPU.
    Gpu(GpuArguments),
}

#[derive(Debug, Args)]
struct GpuArguments {
    /// The GPU: cuda:0, cuda:1, ...
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// How long each thing is measured, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Write everything to this file as JSON, for `models/benches/peers/torch_gpu.py` to compare with.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn bench(arguments: &BenchArguments) -> Result<(), Failure> {
    let What::Gpu(arguments) = &arguments.what;
    if !(arguments.seconds.is_finite() && arguments.seconds > 0.0) {
        return Err(Failure::Usage("--seconds: a time above 0 is needed".to_owned()));
    }
    let device = loev_models::device::device(&arguments.device).map_err(RunError::from)?;
    let mut printed = Ok(());
    let mut say = |text: &str| {
        if printed.is_ok() {
            printed = print(text);
        }
    };
    let report = bench::gpu(&device, arguments.seconds, &mut say)?;
    printed?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| RunError::Engine(e.to_string()))?;
        std::fs::write(path, text).map_err(RunError::io("cannot write", path))?;
    }
    match report.holds() {
        true => Ok(()),
        false => {
            Err(RunError::Engine("some of what was checked does not hold; see the tables".to_owned()).into())
        }
    }
}
