//! The reader that `decode_compare.py` and `decode_speed.py` drive.
//!
//! `cargo bench -p loev-ops --bench peers-decode -- JOBS.json` runs one job after the other on one thread
//! and prints a line of JSON for each. A job is `{"path": ..}` with, as wanted, `start` and `seconds`
//! (all of the file where missing), `rate` in Hz (the file's own where missing), `mono`, and `out`, a
//! file that takes the samples: 32-bit floats, channels interleaved. `took` in the answer is processor
//! time where Linux tells it, otherwise wall-clock time.

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use loev_ops::Audio;
use loev_ops::source::{Limits, Source, probe_file};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    path: String,
    #[serde(default)]
    start: f64,
    seconds: Option<f64>,
    rate: Option<u32>,
    #[serde(default)]
    mono: bool,
    out: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds an argument of its own.
    let Some(path) = std::env::args().skip(1).find(|a| !a.starts_with("--")) else {
        println!("usage: cargo bench -p loev-ops --bench peers-decode -- JOBS.json");
        return Ok(());
    };
    let jobs: Vec<Job> = serde_json::from_slice(&std::fs::read(path)?)?;
    for job in jobs {
        println!("{}", run(&job).unwrap_or_else(|e| json!({"path": job.path, "error": e.to_string()})));
    }
    Ok(())
}

fn run(job: &Job) -> Result<Value, Box<dyn Error>> {
    let source = Source::parse(&job.path)?;
    let (began, busy) = (Instant::now(), cpu_seconds());
    let (rate, seconds) = match (job.rate, job.seconds) {
        (Some(rate), Some(seconds)) => (rate, seconds),
        (rate, seconds) => {
            let info = probe_file(Path::new(&job.path), &Limits::default())?;
            (rate.unwrap_or(info.rate), seconds.unwrap_or(info.seconds - job.start))
        }
    };
    let read = if job.mono { Source::read_mono } else { Source::read };
    let audio = read(&source, job.start, seconds, rate)?;
    let took = match (busy, cpu_seconds()) {
        (Some(before), Some(after)) => after - before,
        _ => began.elapsed().as_secs_f64(),
    };
    if let Some(out) = &job.out {
        write(out, &audio)?;
    }
    Ok(json!({
        "path": job.path,
        "rate": audio.rate,
        "channels": audio.channels.len(),
        "frames": audio.frames(),
        "took": took,
    }))
}

/// What this thread has computed so far, as Linux counts it: a busy machine does not disturb it.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse::<f64>().ok().map(|ns| ns * 1e-9)
}

fn write(out: &Path, audio: &Audio) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(out)?);
    for i in 0..audio.frames() {
        for channel in &audio.channels {
            file.write_all(&channel[i].to_le_bytes())?;
        }
    }
    file.flush()
}
