//! How far a run is: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Plain lines come at most this often per stage.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where progress goes.
#[derive(Debug, Clone)]
pub enum Progress {
    /// Bars on standard error.
    Bars(MultiProgress),
    /// Lines on standard error.
    Lines,
    /// Nowhere.
    Hidden,
}

impl Progress {
    /// Bars when standard error is a terminal, else lines.
    pub fn detect() -> Self {
        match std::io::stderr().is_terminal() {
            true => Self::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr())),
            false => Self::Lines,
        }
    }

    /// Starts the bar of a stage: `total` things called `unit`.
    pub fn bar(&self, stage: &str, total: u64, unit: &'static str) -> Bar {
        let bar = match self {
            Self::Bars(all) => {
                let bar = all.add(ProgressBar::new(total));
                if let Ok(style) = ProgressStyle::with_template(
                    "{prefix:>14.bold} {bar:28} {human_pos}/{human_len} {msg}  {per_sec}  {eta} left",
                ) {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            }
            Self::Lines | Self::Hidden => {
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
            }
        };
        bar.set_prefix(stage.to_owned());
        bar.set_message(unit);
        let lines = matches!(self, Self::Lines);
        let now = Instant::now();
        Bar(Arc::new(Inner {
            bar,
            unit,
            started: now,
            lines: lines.then(|| Mutex::new(now)),
            many: match self {
                Self::Bars(all) => Some(all.clone()),
                _ => None,
            },
        }))
    }

    /// Prints a line that stays.
    pub fn say(&self, line: &str) {
        match self {
            Self::Bars(all) => {
                all.suspend(|| eprintln!("{line}"));
            }
            Self::Lines => eprintln!("{line}"),
            Self::Hidden => {}
        }
    }
}

/// The progress of one stage. Clones share it.
#[derive(Debug, Clone)]
pub struct Bar(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bar: ProgressBar,
    unit: &'static str,
    started: Instant,
    lines: Option<Mutex<Instant>>,
    many: Option<MultiProgress>,
}

impl Bar {
    /// A bar that shows nothing.
    pub fn hidden() -> Self {
        Progress::Hidden.bar("", 0, "")
    }

    /// `n` more are done.
    pub fn add(&self, n: u64) {
        self.0.bar.inc(n);
        self.line(false);
    }

    /// Shows `note` beside the count.
    pub fn note(&self, note: String) {
        self.0.bar.set_message(format!("{} {note}", self.0.unit));
    }

    /// The stage is over.
    pub fn finish(&self) {
        self.line(true);
        self.0.bar.finish_and_clear();
        if let Some(many) = &self.0.many {
            many.remove(&self.0.bar);
        }
    }

    fn line(&self, last: bool) {
        let Some(previous) = &self.0.lines else { return };
        let mut previous = previous.lock().unwrap_or_else(PoisonError::into_inner);
        if !last && previous.elapsed() < LINE_EVERY {
            return;
        }
        *previous = Instant::now();
        let bar = &self.0.bar;
        let (done, total) = (bar.position(), bar.length().unwrap_or(0));
        let rate = done as f64 / self.0.started.elapsed().as_secs_f64().max(1e-9);
        let left = match total.checked_sub(done) {
            Some(n) if n > 0 && rate > 0.0 && !last => {
                format!(", {} left", HumanDuration(Duration::from_secs_f64((n as f64 / rate).min(1e9))))
            }
            _ => String::new(),
        };
        eprintln!("{}: {done}/{total} {}, {rate:.1}/s{left}", bar.prefix(), bar.message());
    }
}
