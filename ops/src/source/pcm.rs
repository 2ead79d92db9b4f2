//! Samples that were decoded before: a range of a file of 16-bit integers, without a header.
//!
//! ```text
//! pcm:audio/pcm/shard-00003.0123456789abcdef.pcm?offset=96000&frames=48000&rate=16000&channels=1
//!     path below the folder of a run                bytes        of each channel   Hz
//! ```
//!
//! Samples are little-endian, those of one frame side by side; full scale is 32768, as it is for every decoder.
//! The path is relative, so that a run can be moved and copied; it is looked for in the runs that are open
//! ([`add_pcm_root`]). `loev` puts a digest of all that determines a file into its name, so that two runs that have a
//! file of one name have the same samples in it.

use std::io::{ErrorKind, Read};
use std::path::{Component, Path};
use std::sync::{Arc, PoisonError, RwLock};

use super::decode::{Span, file_error, io_error, mix_into};
use super::guard::guarded;
use super::input::Input;
use super::part::Part;
use super::probe::{StreamInfo, within};
use super::watch::Watch;
use super::{Limits, Source, read_span};
use crate::address::{number, parameters};
use crate::audio::Audio;
use crate::error::{AudioError, RejectKind};

/// Bytes of a sample.
const WIDTH: usize = 2;
/// The sample that stands for 1.0, if there were one.
const FULL_SCALE: f32 = 32_768.0;
/// What is read at a time for a digest.
const BLOCK: u64 = 1 << 20;

/// A range of a file of samples. Where it comes from, its numbers have been checked against each other and against
/// [`Limits`]; against the file they are when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcm {
    path: String,
    offset: u64,
    frames: u64,
    rate: u32,
    channels: u16,
}

/// Where relative paths begin: folders, and prefixes of objects.
static ROOTS: RwLock<Vec<Source>> = RwLock::new(Vec::new());

/// Looks for samples below this folder too, a [`Source::File`] or a [`Source::Remote`], for the rest of the process.
pub fn add_pcm_root(root: Source) {
    let root = match root {
        Source::File(folder) => Source::File(std::path::absolute(&folder).unwrap_or(folder)),
        other => other,
    };
    let mut roots = ROOTS.write().unwrap_or_else(PoisonError::into_inner);
    if !roots.contains(&root) {
        roots.push(root);
    }
}

/// Samples as they are stored: rounded to the nearest of 65,536 steps, without dither; and how many of them were beyond
/// the first or the last step.
pub fn encode_pcm(audio: &Audio) -> (Vec<u8>, u64) {
    let channels = audio.channels.len();
    let mut bytes = vec![0; audio.frames() * channels * WIDTH];
    let mut clipped = 0;
    for (i, channel) in audio.channels.iter().enumerate() {
        let places = bytes.chunks_exact_mut(WIDTH).skip(i).step_by(channels);
        for (place, sample) in places.zip(channel) {
            let step = (sample * FULL_SCALE).round_ties_even();
            let kept = step.clamp(-FULL_SCALE, FULL_SCALE - 1.0);
            clipped += u64::from(kept != step);
            place.copy_from_slice(&(kept as i16).to_le_bytes());
        }
    }
    (bytes, clipped)
}

impl Pcm {
    /// Short name of the codec, as in [`super::FileInfo`].
    pub const CODEC: &str = "pcm_s16le";
    /// Short name of the container.
    pub const CONTAINER: &str = "pcm";

    /// `frames` frames of `channels` samples, from byte `offset` of a file on.
    ///
    /// # Errors
    /// [`RejectKind::BadUri`] for a path that is empty, absolute or leads upwards, numbers beyond [`Limits`], a range
    /// without a frame or beyond what can be counted, and an offset that is not a whole number of frames.
    pub fn new(path: &str, offset: u64, frames: u64, rate: u32, channels: u16) -> Result<Self, AudioError> {
        let samples = Self { path: path.to_owned(), offset, frames, rate, channels };
        match samples.fault() {
            Some(why) => Err(AudioError::new(RejectKind::BadUri, format!("'{}': {why}", samples.uri()))),
            None => Ok(samples),
        }
    }

    /// Reads an address.
    ///
    /// # Errors
    /// [`RejectKind::BadUri`] as [`Self::new`], and for a parameter that is missing, unknown, given twice or no number.
    pub fn parse(uri: &str) -> Result<Self, AudioError> {
        let bad = |why: String| AudioError::new(RejectKind::BadUri, format!("'{uri}': {why}"));
        let rest = uri.strip_prefix("pcm:").ok_or_else(|| bad("does not start with pcm:".to_owned()))?;
        let missing = || bad("has no ?offset=..&frames=..&rate=..&channels=..".to_owned());
        let (path, query) = rest.split_once('?').ok_or_else(missing)?;
        let names = ["offset", "frames", "rate", "channels"];
        let [offset, frames, rate, channels] = parameters(query, names).map_err(bad)?;
        Self::new(
            path,
            number("offset", offset).map_err(bad)?,
            number("frames", frames).map_err(bad)?,
            number("rate", rate).map_err(bad)?,
            number("channels", channels).map_err(bad)?,
        )
    }

    /// The address, which [`Self::parse`] reads back.
    pub fn uri(&self) -> String {
        let Self { path, offset, frames, rate, channels } = self;
        format!("pcm:{path}?offset={offset}&frames={frames}&rate={rate}&channels={channels}")
    }

    /// Duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.frames as f64 / f64::from(self.rate)
    }

    fn fault(&self) -> Option<String> {
        let limits = Limits::default();
        let mut parts = Path::new(&self.path).components();
        if self.path.is_empty() || self.path.contains('?') {
            return Some("a path is needed, without a question mark".to_owned());
        }
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Some("the path must be below the folder of a run".to_owned());
        }
        if !(1..=limits.max_channels).contains(&self.channels) {
            return Some(format!("{} channels; 1 to {} are read", self.channels, limits.max_channels));
        }
        if !(limits.min_rate..=limits.max_rate).contains(&self.rate) {
            let (least, most) = (limits.min_rate, limits.max_rate);
            return Some(format!("{} Hz; rates of {least} to {most} Hz are read", self.rate));
        }
        if self.frames == 0 || self.seconds() > limits.max_seconds {
            return Some(format!("{} frames; 1 frame to {} s are read", self.frames, limits.max_seconds));
        }
        if !self.offset.is_multiple_of(self.frame_bytes()) {
            return Some(format!("byte {} is within a frame of {} bytes", self.offset, self.frame_bytes()));
        }
        match self.end() {
            Some(_) => None,
            None => Some("ends beyond what a file can hold".to_owned()),
        }
    }

    fn frame_bytes(&self) -> u64 {
        u64::from(self.channels) * WIDTH as u64
    }

    /// Size in bytes.
    fn bytes(&self) -> Option<u64> {
        self.frames.checked_mul(self.frame_bytes())
    }

    /// One past the last byte in the file.
    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.bytes()?).filter(|end| i64::try_from(*end).is_ok())
    }

    /// The file, in the run that was opened last of those that have it.
    fn input(&self) -> Result<Input, AudioError> {
        let roots = ROOTS.read().unwrap_or_else(PoisonError::into_inner).clone();
        for root in roots.iter().rev() {
            match root {
                Source::File(folder) => {
                    let path = folder.join(&self.path);
                    if path.exists() {
                        return Ok(Input::File(path));
                    }
                }
                Source::Remote(prefix) => {
                    match Input::object(&format!("{}/{}", prefix.trim_end_matches('/'), self.path)) {
                        Err(error) if error.kind == RejectKind::Missing => {}
                        found => return found,
                    }
                }
                Source::Synth(_) | Source::Pcm(_) => {}
            }
        }
        let message = format!("{}: no run that is open has this file", self.uri());
        Err(AudioError::new(RejectKind::Missing, message))
    }

    /// Opens the file, which must be long enough, for `work` on it.
    fn with<T>(
        &self,
        limits: &Limits,
        work: impl FnOnce(&Input, &Arc<Watch>) -> Result<T, AudioError>,
    ) -> Result<T, AudioError> {
        let input = self.input()?;
        guarded(&input, limits, |watch| {
            let stamp = input.open().and_then(|file| file.stamp()).map_err(|e| io_error(&input, &e))?;
            let Some(stamp) = stamp else {
                return Err(file_error(&input, RejectKind::Io, "not a regular file"));
            };
            if self.end().is_none_or(|end| end > stamp.length) {
                let message = format!("{} bytes, where {} needs more", stamp.length, self.uri());
                return Err(file_error(&input, RejectKind::Truncated, &message));
            }
            work(&input, watch)
        })
    }

    /// The bytes of `frames` frames from `first` on, which must be within the range.
    fn load(
        &self,
        input: &Input,
        watch: &Arc<Watch>,
        first: u64,
        frames: u64,
    ) -> Result<Vec<u8>, AudioError> {
        let start = self.offset + first * self.frame_bytes();
        let mut bytes = vec![0; (frames * self.frame_bytes()) as usize];
        let mut read = || {
            let mut part = Part::new(input.open()?, start..start + bytes.len() as u64, watch)?;
            part.read_exact(&mut bytes)
        };
        match read() {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(file_error(input, RejectKind::Truncated, "shorter than it was when it was opened"))
            }
            Err(error) => Err(io_error(input, &error)),
        }
    }

    fn decode(
        &self,
        input: &Input,
        watch: &Arc<Watch>,
        span: &Span,
        mono: bool,
    ) -> Result<Vec<Vec<f32>>, AudioError> {
        let last = self.frames as i64;
        let first = span.first.clamp(0, last);
        let end = span.first.saturating_add(span.frames as i64).clamp(first, last);
        let bytes = self.load(input, watch, first as u64, (end - first) as u64)?;
        let channels = usize::from(self.channels);
        let before = (first - span.first).clamp(0, span.frames as i64) as usize;
        let mut planes = vec![vec![0.0; span.frames]; channels];
        for (i, plane) in planes.iter_mut().enumerate() {
            let samples = bytes.chunks_exact(WIDTH).skip(i).step_by(channels);
            for (to, sample) in plane.iter_mut().skip(before).zip(samples) {
                if let [low, high] = sample {
                    *to = f32::from(i16::from_le_bytes([*low, *high])) / FULL_SCALE;
                }
            }
        }
        if mono && channels > 1 {
            let mut mixed = vec![vec![0.0; span.frames]];
            mix_into(&mut mixed, 0..span.frames, &planes, 0..span.frames);
            planes = mixed;
        }
        Ok(planes)
    }

    /// As [`Source::read`], or as [`Source::read_mono`].
    pub(super) fn read(&self, range: (f64, f64), rate: u32, mono: bool) -> Result<Audio, AudioError> {
        self.with(&Limits::default(), |input, watch| {
            let decode = |span: &Span| self.decode(input, watch, span, mono);
            read_span(&self.uri(), self.rate, Some(self.frames), range, rate, decode)
        })
    }

    /// What there is to say of it.
    pub(super) fn info(&self, limits: &Limits) -> Result<StreamInfo, AudioError> {
        within(&self.uri(), usize::from(self.channels), self.seconds(), limits)?;
        self.with(limits, |_, _| {
            Ok(StreamInfo {
                codec: Self::CODEC.to_owned(),
                container: Self::CONTAINER.to_owned(),
                rate: self.rate,
                channels: self.channels,
                frames: self.frames,
                seconds: self.seconds(),
                bytes: self.bytes().unwrap_or(u64::MAX),
            })
        })
    }

    /// BLAKE3 of the samples' bytes, in hexadecimal.
    pub(super) fn digest(&self) -> Result<String, AudioError> {
        self.with(&Limits::default(), |input, watch| {
            let mut hasher = blake3::Hasher::new();
            let step = BLOCK / self.frame_bytes();
            for first in (0..self.frames).step_by(step as usize) {
                hasher.update(&self.load(input, watch, first, step.min(self.frames - first))?);
            }
            Ok(hasher.finalize().to_hex().to_string())
        })
    }
}

#[cfg(test)]
mod tests;
