//! Audio of any container and codec.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use loev_ops::source::{Limits, Source, probe_file};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file of its own name for every input: what is known of a file is remembered by its name.
struct Scratch(PathBuf);

impl Scratch {
    fn new(data: &[u8]) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let dir = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("loev-fuzz-{}-{number}", std::process::id()));
        std::fs::write(&path, data).expect("a file for the input");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Probes a file and reads it at its start, in its middle and at its end.
///
/// # Panics
///
/// When a file that was probed well gives audio of another length, or audio that is not finite.
pub fn decode(data: &[u8]) {
    let file = Scratch::new(data);
    let source = Source::File(file.0.clone());
    let limits = Limits { max_seconds: 600.0, ..Limits::default() };
    let seconds = match probe_file(&file.0, &limits) {
        Ok(info) => {
            assert!(info.seconds >= limits.min_seconds && info.seconds <= limits.max_seconds, "{info:?}");
            assert!((1..=limits.max_channels).contains(&info.channels), "{info:?}");
            info.seconds
        }
        // Reading does not ask for a probe first.
        Err(_) => 0.3,
    };
    let length = seconds.min(0.25);
    let places = [0.0, (seconds - length) / 2.0, seconds - length];
    for (i, start) in places.into_iter().enumerate() {
        let rate = [16_000, 48_000, 16_000][i];
        let read = if i == 1 { Source::read } else { Source::read_mono };
        if let Ok(audio) = read(&source, start, length, rate) {
            let frames = (length * f64::from(rate)).round() as usize;
            assert!(audio.channels.iter().all(|c| c.len() == frames), "{start} s of {seconds} s");
            assert!(audio.is_finite(), "{start} s of {seconds} s");
        }
    }
}
