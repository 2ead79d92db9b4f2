//! A first look at a file: what it is, how long it is, and whether its end can be decoded.

use std::path::Path;
use std::sync::Arc;

use super::Source;
use super::decode::{self, Stream};
use super::guard::guarded;
use super::input::Input;
use super::watch::Watch;
use crate::error::{AudioError, RejectKind};

/// What a file may be at most, and must be at least.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Most channels.
    pub max_channels: u16,
    /// Lowest sample rate in Hz.
    pub min_rate: u32,
    /// Highest sample rate in Hz.
    pub max_rate: u32,
    /// Longest duration in seconds.
    pub max_seconds: f64,
    /// Largest file in bytes.
    pub max_bytes: u64,
    /// Shortest duration in seconds.
    pub min_seconds: f64,
    /// Longest time in seconds that a call may work on a file, on top of one second for every second of
    /// audio that is decoded and every 10 MB of the file.
    pub max_work_s: f64,
    /// Most bytes of headers and tags, and of one packet: what a reader takes into memory at once.
    pub max_step_bytes: u64,
    /// Most frames that a byte may decode to. The emptiest FLAC frame is 65,535 frames of silence in 12
    /// bytes; beyond that, packets share their bytes.
    pub max_frames_per_byte: u64,
}

impl Default for Limits {
    /// 32 channels, 2 to 384 kHz, 0.1 s to 6 hours, 8 GiB; a minute of work, steps of 64 MiB,
    /// 8192 frames per byte.
    fn default() -> Self {
        Self {
            max_channels: 32,
            min_rate: 2000,
            max_rate: 384_000,
            max_seconds: 6.0 * 3600.0,
            max_bytes: 8 << 30,
            min_seconds: 0.1,
            max_work_s: 60.0,
            max_step_bytes: 64 << 20,
            max_frames_per_byte: 8192,
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub struct FileInfo {
    /// Short name of the codec: `flac`, `mp3`, `vorbis`, `aac`, `pcm_s16le`, ...
    pub codec: String,
    /// Short name of the container: `wave`, `flac`, `mp3`, `ogg`, `isomp4`, ...
    pub container: String,
    /// Sample rate in Hz.
    pub rate: u32,
    /// Channels.
    pub channels: u16,
    /// Frames that can be decoded, without an encoder's delay and padding where the file states them.
    pub frames: u64,
    /// Duration in seconds: `frames / rate`.
    pub seconds: f64,
    /// Size of the file.
    pub bytes: u64,
    /// BLAKE3 digest of the file's bytes, in hexadecimal.
    pub digest: String,
}

impl FileInfo {
    fn new(info: StreamInfo, digest: String) -> Self {
        let StreamInfo { codec, container, rate, channels, frames, seconds, bytes } = info;
        Self { codec, container, rate, channels, frames, seconds, bytes, digest }
    }
}

/// What a look at a recording finds without reading all of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamInfo {
    /// Short name of the codec, as in [`FileInfo`].
    pub codec: String,
    /// Short name of the container, as in [`FileInfo`].
    pub container: String,
    /// Sample rate in Hz.
    pub rate: u32,
    /// Channels.
    pub channels: u16,
    /// Frames that can be decoded, as in [`FileInfo`].
    pub frames: u64,
    /// Duration in seconds: `frames / rate`.
    pub seconds: f64,
    /// Size of the file.
    pub bytes: u64,
}

/// Looks at a file: header, length, the decodability of its last half second, and a digest.
///
/// Every byte is read once for the digest. Of the audio only the tail is decoded, except that the
/// packets of a file whose header does not count its frames are counted.
///
/// # Errors
///
/// [`RejectKind::Missing`] and [`RejectKind::Io`]; [`RejectKind::Empty`]; [`RejectKind::Unsupported`] for
/// what is no audio or in no supported codec; [`RejectKind::Corrupt`]; [`RejectKind::Truncated`] when
/// the audio ends before the length that the header promises; [`RejectKind::TooShort`] and
/// [`RejectKind::OverLimit`] against `limits`; [`RejectKind::NotFinite`] in the tail;
/// [`RejectKind::Panicked`].
pub fn probe_file(path: &Path, limits: &Limits) -> Result<FileInfo, AudioError> {
    probe_input(&Input::File(path.to_owned()), limits)
}

/// As [`probe_file`], of a file wherever it lies. An object costs each of its bytes once, and those of the
/// headers and the tail perhaps twice.
///
/// # Errors
///
/// As [`probe_file`]; [`RejectKind::BadUri`] for a procedural clip, which has no file, and for an object
/// without a [`Remote`](super::Remote).
pub fn probe(source: &Source, limits: &Limits) -> Result<FileInfo, AudioError> {
    match source {
        Source::File(path) => probe_file(path, limits),
        Source::Remote(url) => probe_input(&Input::object(url)?, limits),
        Source::Pcm(samples) => {
            let digest = samples.digest()?;
            Ok(FileInfo::new(samples.info(limits)?, digest))
        }
        Source::Synth(_) => Err(no_file(source)),
    }
}

/// As [`probe`] without the digest: of a file whose header counts its frames, only the header and the last half second
/// are read.
///
/// # Errors
///
/// As [`probe`].
pub fn inspect(source: &Source, limits: &Limits) -> Result<StreamInfo, AudioError> {
    let look = |input: &Input| guarded(input, limits, |watch| look(input, limits, watch));
    match source {
        Source::File(path) => look(&Input::File(path.clone())),
        Source::Remote(url) => look(&Input::object(url)?),
        Source::Pcm(samples) => samples.info(limits),
        Source::Synth(_) => Err(no_file(source)),
    }
}

fn no_file(source: &Source) -> AudioError {
    let message = format!("'{}': a procedural clip has no file", source.uri());
    AudioError::new(RejectKind::BadUri, message)
}

fn probe_input(path: &Input, limits: &Limits) -> Result<FileInfo, AudioError> {
    guarded(path, limits, |watch| {
        let info = look(path, limits, watch)?;
        Ok(FileInfo::new(info, digest(path)?))
    })
}

fn look(path: &Input, limits: &Limits, watch: &Arc<Watch>) -> Result<StreamInfo, AudioError> {
    let stream = Stream::open(path, limits, watch)?;
    let (codec, container, bytes) = (stream.codec(), stream.container(), stream.bytes());
    let rate = stream.rate();
    let tail = decode::measure(path, stream, limits)?;
    let seconds = tail.frames as f64 / f64::from(rate);
    within(&path.to_string(), tail.channels, seconds, limits)?;
    let channels = tail.channels as u16;
    Ok(StreamInfo { codec, container, rate, channels, frames: tail.frames, seconds, bytes })
}

/// Whether a recording is one that the limits let in.
pub(super) fn within(name: &str, channels: usize, seconds: f64, limits: &Limits) -> Result<(), AudioError> {
    let over = |what: String| AudioError::new(RejectKind::OverLimit, format!("{name}: {what}"));
    if channels > usize::from(limits.max_channels) {
        return Err(over(format!("{channels} channels; at most {} are read", limits.max_channels)));
    }
    if seconds > limits.max_seconds {
        return Err(over(format!("{seconds:.0} s long; at most {:.0} s are read", limits.max_seconds)));
    }
    if seconds < limits.min_seconds {
        let message = format!("{name}: {seconds:.3} s long; at least {} s are needed", limits.min_seconds);
        return Err(AudioError::new(RejectKind::TooShort, message));
    }
    Ok(())
}

fn digest(path: &Input) -> Result<String, AudioError> {
    let failed = |e: std::io::Error| decode::io_error(path, &e);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(path.open().map_err(failed)?).map_err(failed)?;
    Ok(hasher.finalize().to_hex().to_string())
}
