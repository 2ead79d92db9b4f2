//! Reading a recording piece by piece, so that memory does not grow with its length.

use super::Source;
use super::probe::{Limits, inspect};
use crate::error::{AudioError, RejectKind};

/// The length of a piece. Whole seconds begin at a frame of the source and at one of what it is resampled to,
/// whatever the rates are.
const PIECE_SECONDS: f64 = 20.0;
/// The rate of a procedural clip, which has none of its own, in Hz.
const SYNTH_RATE: u32 = 48_000;

/// The pieces of a part of a recording, in their order: start and length of each in seconds, for [`Source::read`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pieces {
    rate: u32,
    seconds: f64,
    /// Frames at `rate`: where the part begins, how many it has, and how many of them have been given out.
    first: f64,
    count: f64,
    done: f64,
}

impl Pieces {
    /// Cuts up `seconds` of a recording (to its end if `None`) from `start_s` on, to be read at `rate` Hz (at its own
    /// if `None`, and at 48 kHz if it is a procedural clip).
    ///
    /// # Errors
    /// [`RejectKind::TooShort`] when the part is not within the recording, or has no frame; otherwise as
    /// [`inspect`].
    pub fn new(
        source: &Source,
        start_s: f64,
        seconds: Option<f64>,
        rate: Option<u32>,
    ) -> Result<Self, AudioError> {
        let (native, length) = match source {
            Source::Synth(clip) => (SYNTH_RATE, clip.seconds),
            _ => {
                let info = inspect(source, &Limits { min_seconds: 0.0, ..Limits::default() })?;
                (info.rate, info.seconds)
            }
        };
        let rate = rate.unwrap_or(native);
        // Down, so that the end is not beyond that of the recording.
        let frames = |seconds: f64| (seconds * f64::from(rate) + 1e-6).floor();
        let seconds = seconds.unwrap_or(length - start_s);
        // What is read is what there is: the recording's own rounding of its length does not count.
        let within =
            start_s >= 0.0 && seconds >= 0.0 && start_s + seconds <= length + 1.0 / f64::from(native.max(1));
        if !within || frames(seconds) < 1.0 {
            let message = format!(
                "{}: {length:.3} s long; {seconds:.3} s from {start_s:.3} s on were asked for",
                source.uri()
            );
            return Err(AudioError::new(RejectKind::TooShort, message));
        }
        Ok(Self { rate, seconds, first: frames(start_s), count: frames(seconds), done: 0.0 })
    }

    /// The rate in Hz at which the pieces are to be read.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The length that was asked for, in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

impl Iterator for Pieces {
    type Item = (f64, f64);

    fn next(&mut self) -> Option<(f64, f64)> {
        let rate = f64::from(self.rate);
        let frames = (PIECE_SECONDS * rate).min(self.count - self.done);
        let start = self.first + self.done;
        self.done += frames;
        (frames > 0.0).then_some((start / rate, frames / rate))
    }
}
