//! The log: what `tracing` events become.

use std::io::{self, Write};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::run::progress::Progress;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people, between bars and lines of progress.
    Human,
    /// One JSON object per event, and nothing else; no progress.
    Json,
}

/// Writes above the bars, so that neither destroys the other.
#[derive(Debug, Clone)]
struct Above(Progress);

/// One event on its way.
struct Line {
    progress: Progress,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        if !text.trim().is_empty() {
            self.progress.say(text.trim_end());
        }
    }
}

impl<'a> MakeWriter<'a> for Above {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { progress: self.0.clone(), text: Vec::new() }
    }
}

/// Says why the command did not do what was asked, in the form that was asked for.
pub fn failed(format: LogFormat, message: &str) {
    match format {
        LogFormat::Human if message == "interrupted" => eprintln!("{message}"),
        LogFormat::Human => eprintln!("error: {message}"),
        LogFormat::Json => tracing::error!(error = message, "failed"),
    }
}

/// Says something that is no failure, in the form that was asked for.
pub fn notice(format: LogFormat, message: &str) {
    match format {
        LogFormat::Human => eprintln!("{message}"),
        LogFormat::Json => tracing::warn!("{message}"),
    }
}

/// Starts the log of this process; where progress is then shown.
///
/// # Errors
/// When `level` is not a filter of events.
pub fn start(format: LogFormat, level: Option<&str>) -> Result<Progress, String> {
    let usual = match format {
        LogFormat::Human => "warn",
        LogFormat::Json => "info",
    };
    // Libraries say at these levels what only their authors want to know.
    let level = level.map_or_else(|| format!("off,loev_pipeline={usual}"), str::to_owned);
    let filter = EnvFilter::builder().parse(&level).map_err(|e| format!("--log-level {level}: {e}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let (started, progress) = match format {
        LogFormat::Human => {
            let progress = Progress::detect();
            let builder = builder.with_target(false).with_ansi(false).with_writer(Above(progress.clone()));
            (builder.try_init(), progress)
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_writer(io::stderr);
            (builder.try_init(), Progress::Hidden)
        }
    };
    // A process has one log; a second start, as in tests, keeps the first.
    started.ok();
    Ok(progress)
}
