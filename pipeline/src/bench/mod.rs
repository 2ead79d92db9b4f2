//! `loev bench gpu`: what a GPU does with this program, measured in one go, with nothing but what it makes itself.
//!
//! ```text
//! ceilings   copies and matrix products: what the machine could do
//! parity     every operator beside the CPU's rendering of the same draws
//! checks     every kernel of training beside its reference in f64
//! render     views a second, by operator and for the whole chain, log-mel included
//! training   views a second of whole steps, and their share of the ceiling
//! ```
//!
//! Times are of the clock around work that was waited for, after a warm-up.

mod ceilings;
mod render;
mod training;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use loev_models::Device;
use loev_ops::gpu::{Gpu, GpuError};
use serde::Serialize;

use crate::error::RunError;

pub use ceilings::Ceilings;
pub use render::RenderRow;
pub use training::TrainingRow;

/// A value beside its reference.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// What is measured: a difference, or decibels.
    pub measure: String,
    /// What it is.
    pub value: f64,
    /// What it may be at most; at least, for decibels.
    pub tolerance: f64,
    /// Whether it is within that.
    pub holds: bool,
}

/// What the time of a piece of work went to.
#[derive(Debug, Clone, Serialize)]
pub struct Kernels {
    /// The work.
    pub of: String,
    /// Seconds of it by the clock, without anybody looking.
    pub seconds: f64,
    /// Kernel, how many times, and seconds in all; the most first. What candle runs by itself is not among them.
    pub spent: Vec<(&'static str, usize, f64)>,
}

impl Kernels {
    /// Looks at what `work` spends its time on.
    fn of<E: From<GpuError>>(
        of: String,
        seconds: f64,
        gpu: &Gpu,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self, E> {
        gpu.begin_profile();
        let done = work();
        let spent =
            gpu.end_profile()?.into_iter().map(|spent| (spent.name, spent.count, spent.seconds)).collect();
        done.map(|()| Self { of, seconds, spent })
    }

    fn table(&self) -> String {
        let mut text =
            format!("\n| {}: {:.2} ms | times | share |\n| --- | --- | --- |\n", self.of, 1e3 * self.seconds);
        for (name, count, seconds) in self.spent.iter().take(SHOWN) {
            let _ = writeln!(text, "| {name} | {count} | {:.1}% |", 100.0 * seconds / self.seconds);
        }
        let all: f64 = self.spent.iter().map(|spent| spent.2).sum();
        let _ = writeln!(text, "| all kernels of loev | | {:.1}% |", 100.0 * all / self.seconds);
        text
    }
}

/// Kernels that are shown; the file has all.
const SHOWN: usize = 12;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version of this program.
    pub loev: &'static str,
    /// The GPU.
    pub device: String,
    /// What the machine could do.
    pub ceilings: Ceilings,
    /// Rendering beside the CPU's.
    pub parity: Vec<Check>,
    /// Kernels of training beside their references.
    pub checks: Vec<Check>,
    /// Views a second of rendering.
    pub render: Vec<RenderRow>,
    /// Views a second of training.
    pub training: Vec<TrainingRow>,
}

impl Report {
    /// Whether everything that was checked holds.
    pub fn holds(&self) -> bool {
        self.parity.iter().chain(&self.checks).all(|check| check.holds)
    }
}

/// Measures. `say` is told of each thing when it is known; each is timed for `seconds`.
///
/// # Errors
/// When the device is no GPU, or fails.
pub fn gpu(device: &Device, seconds: f64, say: &mut dyn FnMut(&str)) -> Result<Report, RunError> {
    let Some(gpu) = loev_models::device::gpu(device)? else {
        return Err(RunError::Engine(
            "there is no GPU to measure: give --device cuda:0, in a build with `--features cuda`".to_owned(),
        ));
    };
    let least = Duration::from_secs_f64(seconds.clamp(0.01, 600.0));
    say(&format!("# {}\n", gpu.name()));
    let ceilings = ceilings::measure(device, &gpu, least)?;
    say(&ceilings.table());
    let parity = render::parity(&gpu)?;
    say(&checks_table("parity with the CPU", &parity));
    let checks = training::checks(device, &gpu)?;
    say(&checks_table("kernels of training", &checks));
    let render = render::measure(&gpu, least, say)?;
    let training = training::measure(device, &gpu, &ceilings, least, say)?;
    let loev = env!("CARGO_PKG_VERSION");
    Ok(Report { loev, device: gpu.name(), ceilings, parity, checks, render, training })
}

fn checks_table(title: &str, checks: &[Check]) -> String {
    let mut text =
        format!("\n| {title} | measure | value | tolerance | |\n| --- | --- | --- | --- | --- |\n");
    for Check { name, measure, value, tolerance, holds } in checks {
        let verdict = if *holds { "" } else { "**does not hold**" };
        let _ = writeln!(text, "| {name} | {measure} | {value:.4} | {tolerance} | {verdict} |");
    }
    text
}

/// The mean seconds of `work`, done over and over for `least`; `wait` returns when all of it is done.
fn seconds_of<E>(
    least: Duration,
    mut work: impl FnMut() -> Result<(), E>,
    wait: impl Fn() -> Result<(), E>,
) -> Result<f64, E> {
    for _ in 0..2 {
        work()?;
    }
    wait()?;
    let (mut times, mut spent) = (1u32, Duration::ZERO);
    loop {
        let start = Instant::now();
        for _ in 0..times {
            work()?;
        }
        wait()?;
        let took = start.elapsed();
        spent += took;
        // The longest run counts: short ones are mostly waiting.
        if spent >= least {
            return Ok(took.as_secs_f64() / f64::from(times));
        }
        times = times.saturating_mul(2).min(1 << 20);
    }
}

/// Waits for all work of a GPU.
fn wait(gpu: &Gpu) -> impl Fn() -> Result<(), RunError> + '_ {
    move || Ok(gpu.synchronise()?)
}
