//! What a file may take before it is given up: time in all, and bytes in one step.
//!
//! Readers ask for bytes, and [`Part`](super::part::Part) asks here whether they may have them. So a
//! reader that runs in circles ends with an error at its next read, and one that takes a tag or a packet
//! of gigabytes into memory ends when it has read more than a step may.

use std::io::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Limits;

/// Slower storage than this does not count against a file.
const BYTES_PER_SECOND: f64 = 10e6;
/// Longest time between two looks at the clock that counts: a process that was stopped for an hour
/// goes on with the same files.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// The account of one file during one call. All of a call happens on one thread.
pub(super) struct Watch {
    start: Instant,
    max_seconds: f64,
    max_step: u64,
    /// Microseconds after `start` when the clock was last looked at.
    seen: AtomicU64,
    /// Microseconds spent, and those that may be.
    spent: AtomicU64,
    allowed: AtomicU64,
    /// Bytes that the step may still read.
    bytes: AtomicU64,
    late: AtomicBool,
    large: AtomicBool,
}

impl Watch {
    pub fn new(limits: &Limits) -> Self {
        Self {
            start: Instant::now(),
            max_seconds: limits.max_work_s,
            max_step: limits.max_step_bytes,
            seen: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            allowed: AtomicU64::new(micros(limits.max_work_s)),
            bytes: AtomicU64::new(u64::MAX),
            late: AtomicBool::new(false),
            large: AtomicBool::new(false),
        }
    }

    /// Allows for a file of so many bytes.
    pub fn expect_bytes(&self, bytes: u64) {
        self.allowed.fetch_add(micros(bytes as f64 / BYTES_PER_SECOND), Ordering::Relaxed);
    }

    /// Allows for audio that has been decoded: as long as it plays.
    pub fn decoded(&self, frames: u64, rate: u32) {
        self.allowed.fetch_add(micros(frames as f64 / f64::from(rate)), Ordering::Relaxed);
    }

    /// Begins a step that keeps what it reads: headers, or one packet.
    pub fn step(&self) {
        self.bytes.store(self.max_step, Ordering::Relaxed);
    }

    /// Begins a step that passes over what it reads.
    pub fn pass(&self) {
        self.bytes.store(u64::MAX, Ordering::Relaxed);
    }

    /// Whether `bytes` more may be read.
    ///
    /// # Errors
    ///
    /// When time is up, or the step has read too much.
    pub fn take(&self, bytes: usize) -> Result<()> {
        let left = self.bytes.load(Ordering::Relaxed);
        match left.checked_sub(bytes as u64) {
            Some(left) => self.bytes.store(left, Ordering::Relaxed),
            None => self.large.store(true, Ordering::Relaxed),
        }
        self.look();
        match self.verdict() {
            Some(why) => Err(Error::other(why)),
            None => Ok(()),
        }
    }

    /// Reads what comes over a network, which counts as if it had come at [`BYTES_PER_SECOND`] if it came
    /// more slowly.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn waiting(&self, read: impl FnOnce() -> Result<usize>) -> Result<usize> {
        self.look();
        let got = read();
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let waited = now.saturating_sub(self.seen.load(Ordering::Relaxed));
        let counted = micros(*got.as_ref().unwrap_or(&0) as f64 / BYTES_PER_SECOND);
        self.seen.fetch_add(waited.saturating_sub(counted), Ordering::Relaxed);
        got
    }

    /// Looks at the clock.
    pub fn look(&self) {
        self.look_at(self.start.elapsed());
    }

    pub fn look_at(&self, now: Duration) {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let gap = now.saturating_sub(self.seen.swap(now, Ordering::Relaxed));
        let gap = gap.min(LONGEST_GAP.as_micros() as u64);
        let spent = self.spent.fetch_add(gap, Ordering::Relaxed) + gap;
        if spent > self.allowed.load(Ordering::Relaxed) {
            self.late.store(true, Ordering::Relaxed);
        }
    }

    /// What has been exceeded.
    pub fn verdict(&self) -> Option<String> {
        if self.large.load(Ordering::Relaxed) {
            return Some(format!("a header, a tag or a packet of more than {} bytes", self.max_step));
        }
        self.late.load(Ordering::Relaxed).then(|| {
            format!(
                "takes longer than {} s, and a second for every second of audio and every {:.0} MB",
                self.max_seconds,
                BYTES_PER_SECOND / 1e6
            )
        })
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(max_work_s: f64) -> Watch {
        Watch::new(&Limits { max_work_s, max_step_bytes: 100, ..Limits::default() })
    }

    #[test]
    fn time_runs_out_unless_audio_comes_of_it() {
        let spend = |watch: &Watch, milliseconds| {
            std::thread::sleep(Duration::from_millis(milliseconds));
            watch.take(1).is_err()
        };
        let poor = watch(0.005);
        assert!(spend(&poor, 10) && poor.verdict().unwrap().contains("longer than 0.005 s"));
        let rich = watch(0.005);
        rich.decoded(96_000, 48_000);
        assert!(!spend(&rich, 10));
        let large = watch(0.005);
        large.expect_bytes(20_000_000);
        assert!(!spend(&large, 10));
    }

    #[test]
    fn time_on_the_network_counts_by_its_bytes() {
        let slow = |bytes| {
            let watch = watch(0.02);
            let read = || {
                std::thread::sleep(Duration::from_millis(40));
                Ok(bytes)
            };
            watch.waiting(read).unwrap();
            watch.look();
            watch.verdict()
        };
        assert_eq!(slow(1000), None);
        assert!(slow(1_000_000).is_some(), "more in circles than there is");
    }

    #[test]
    fn a_process_that_was_stopped_keeps_its_time() {
        let watch = watch(6.0);
        watch.look_at(Duration::from_secs(3600));
        assert_eq!(watch.verdict(), None);
        watch.look_at(Duration::from_secs(3602));
        assert!(watch.verdict().is_some());
    }

    #[test]
    fn a_step_reads_so_much_and_no_more() {
        let watch = watch(60.0);
        assert!(watch.take(1 << 30).is_ok(), "what is passed over is not counted");
        watch.step();
        assert!(watch.take(60).is_ok() && watch.take(40).is_ok());
        watch.step();
        assert!(watch.take(100).is_ok() && watch.take(1).is_err());
        assert!(watch.verdict().unwrap().contains("more than 100 bytes"));
    }
}
