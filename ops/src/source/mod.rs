//! Where audio comes from: a file, an object in a store, samples decoded before, or a procedural clip.
//!
//! A source is named by an address: `synth:...` ([`crate::synth`]), a path, `file://` and a path,
//! `s3://` or `gs://` with a bucket and a key ([`Remote`]), `pcm:...` ([`Pcm`]). [`Source::read`] returns
//! any time range of it at any rate. [`probe`] looks at a file once, when a data set is taken in, and tells good files
//! from bad ones.

mod decode;
mod guard;
mod input;
mod known;
mod mp4;
mod mpeg;
mod ogg;
mod opus;
mod part;
mod pcm;
mod pieces;
mod probe;
mod remote;
#[cfg(test)]
mod tests;
mod vorbis;
mod watch;

use std::path::PathBuf;

use crate::audio::Audio;
use crate::error::{AudioError, RejectKind};
use crate::resample;
use crate::synth::ClipSpec;
use decode::{Span, Stream};
use guard::guarded;
use input::Input;
pub use pcm::{Pcm, add_pcm_root, encode_pcm};
pub use pieces::Pieces;
pub use probe::{FileInfo, Limits, StreamInfo, inspect, probe, probe_file};
pub use remote::{Remote, RemoteInfo, SCHEMES, set_remote};

/// A clip's audio, by address.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// An audio file.
    File(PathBuf),
    /// An object: `s3://` or `gs://`, a bucket, and a key as it is, without escapes.
    Remote(String),
    /// A procedural clip.
    Synth(ClipSpec),
    /// Samples that were decoded before.
    Pcm(Pcm),
}

impl Source {
    /// Reads an address: `synth:...`, `pcm:...`, `file://` and an absolute path (`%20` and the like decoded), a
    /// plain path, or `s3://bucket/key` and `gs://bucket/key` (nothing decoded).
    ///
    /// # Errors
    ///
    /// [`RejectKind::BadUri`] for an empty address, a malformed `synth:` one, or another scheme.
    pub fn parse(uri: &str) -> Result<Self, AudioError> {
        let bad = |why: &str| AudioError::new(RejectKind::BadUri, format!("'{uri}': {why}"));
        if uri.trim().is_empty() {
            return Err(bad("an empty address"));
        }
        if uri.starts_with("synth:") {
            return ClipSpec::parse(uri).map(Self::Synth);
        }
        if uri.starts_with("pcm:") {
            return Pcm::parse(uri).map(Self::Pcm);
        }
        if let Some(path) = uri.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(bad("after file:// an absolute path is needed"));
            }
            return match percent_decoded(path) {
                Some(path) => Ok(Self::File(PathBuf::from(path))),
                None => Err(bad("not UTF-8 after decoding its % escapes")),
            };
        }
        match uri.split_once("://") {
            Some((scheme, rest)) if SCHEMES.contains(&scheme) => match rest.split_once('/') {
                Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                    Ok(Self::Remote(uri.to_owned()))
                }
                _ => Err(bad(&format!("after {scheme}:// a bucket, a slash and a key are needed"))),
            },
            Some((scheme, _)) => {
                Err(bad(&format!("unknown scheme '{scheme}'; use a path, file://, s3://, gs:// or synth:")))
            }
            None => Ok(Self::File(PathBuf::from(uri))),
        }
    }

    /// The address, which [`Self::parse`] reads back.
    pub fn uri(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Remote(url) => url.clone(),
            Self::Synth(clip) => clip.uri(),
            Self::Pcm(samples) => samples.uri(),
        }
    }

    /// The clip's duration in seconds.
    ///
    /// For a file this looks at its tail, and at all of it where no header counts its frames (MP3
    /// without a LAME tag, raw AAC); [`probe_file`] stores the figure, so ask once.
    ///
    /// # Errors
    ///
    /// As [`probe_file`].
    pub fn seconds(&self) -> Result<f64, AudioError> {
        match self {
            Self::File(path) => seconds_of(&Input::File(path.clone())),
            Self::Remote(url) => seconds_of(&Input::object(url)?),
            Self::Synth(clip) => Ok(clip.seconds),
            Self::Pcm(samples) => Ok(samples.seconds()),
        }
    }

    /// Reads `seconds` of audio from `start_s` on, resampled to `rate` Hz: exactly
    /// `round(seconds * rate)` frames of every source channel.
    ///
    /// The start is exact to the nearest frame of the source. Audio around the range is read too, so
    /// that the resampler's edges fall outside of it; before the start and after the end of the clip
    /// there is silence. Only the range, those margins and what the codec needs to settle are
    /// decoded. The cost of finding the place depends on the container: a few reads in WAV, AIFF,
    /// FLAC, Ogg and MP4; in MP3 all frame headers before it, once per file and process, since an
    /// estimate from the bit rate would not be exact; in raw AAC all headers each time; in Matroska,
    /// whose clock is too coarse, all of the audio before it is decoded.
    ///
    /// # Errors
    ///
    /// [`RejectKind::TooShort`] when the range begins before 0 or ends more than one frame after the
    /// clip; otherwise what [`probe_file`] would say of the file.
    pub fn read(&self, start_s: f64, seconds: f64, rate: u32) -> Result<Audio, AudioError> {
        self.read_as(start_s, seconds, rate, false)
    }

    /// As [`Self::read`], mixed to the mean of all channels first: cheaper than reading all of them.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_mono(&self, start_s: f64, seconds: f64, rate: u32) -> Result<Audio, AudioError> {
        self.read_as(start_s, seconds, rate, true)
    }

    fn read_as(&self, start_s: f64, seconds: f64, rate: u32, mono: bool) -> Result<Audio, AudioError> {
        if !(start_s >= -1e-9 && start_s.is_finite() && seconds >= 0.0 && seconds.is_finite()) {
            let message = format!("{}: no audio at {start_s} s for {seconds} s", self.uri());
            return Err(AudioError::new(RejectKind::TooShort, message));
        }
        let start_s = start_s.max(0.0);
        let limits = Limits::default();
        let read_input = |input: &Input| {
            guarded(input, &limits, |watch| {
                let stream = Stream::open(input, &limits, watch)?;
                let (name, native, promised) = (stream.name(), stream.rate(), stream.promised_frames());
                let stream = if mono { stream.mixed() } else { stream };
                read_span(&name, native, promised, (start_s, seconds), rate, |span| stream.decode(span))
            })
        };
        match self {
            Self::File(path) => read_input(&Input::File(path.clone())),
            Self::Remote(url) => read_input(&Input::object(url)?),
            Self::Synth(clip) => {
                if (start_s + seconds - clip.seconds) * f64::from(rate) > 1.0 {
                    return Err(too_short(&self.uri(), start_s + seconds, clip.seconds));
                }
                let audio = clip.render(start_s, seconds, rate);
                Ok(if mono { Audio::mono(rate, audio.to_mono()) } else { audio })
            }
            Self::Pcm(samples) => samples.read((start_s, seconds), rate, mono),
        }
    }
}

fn seconds_of(input: &Input) -> Result<f64, AudioError> {
    guarded(input, &Limits::default(), |watch| {
        let (frames, rate) = decode::count_frames(input, watch)?;
        Ok(frames as f64 / f64::from(rate))
    })
}

/// Reads a range (start and length in seconds) of a recording of `native` Hz, of which `decode` gives a span.
fn read_span(
    name: &str,
    native: u32,
    promised: Option<u64>,
    (start_s, seconds): (f64, f64),
    rate: u32,
    decode: impl FnOnce(&Span) -> Result<Vec<Vec<f32>>, AudioError>,
) -> Result<Audio, AudioError> {
    if rate == 0 {
        return Err(AudioError::new(RejectKind::OverLimit, "a sample rate of 0 Hz"));
    }
    let at_native = |s: f64| (s * f64::from(native)).round();
    if let Some(frames) = promised
        && at_native(start_s + seconds) > frames as f64 + 1.0
    {
        return Err(too_short(name, start_s + seconds, frames as f64 / f64::from(native)));
    }
    let frames_out = (seconds * f64::from(rate)).round() as usize;
    let frames_in = (frames_out as f64 * f64::from(native) / f64::from(rate)).ceil() as usize;
    let (before, skip) = resample::reach(native, rate);
    let first = at_native(start_s) as i64;
    let span = Span {
        first: first - before as i64,
        frames: frames_in + 2 * before,
        // One frame of slack, as the range's end was rounded and may reach one frame too far.
        needed: first..(at_native(start_s + seconds) as i64 - 1).max(first),
    };
    let channels = decode(&span)?;
    if !decode::is_finite(&channels) {
        return Err(AudioError::new(RejectKind::NotFinite, format!("{name}: {}", decode::NOT_FINITE)));
    }
    let channels = channels
        .iter()
        .map(|c| resample::resample_from(c, native, rate, skip, frames_out))
        .collect::<Result<_, _>>()?;
    Ok(Audio { rate, channels })
}

fn too_short(name: &str, asked: f64, has: f64) -> AudioError {
    AudioError::new(
        RejectKind::TooShort,
        format!("{name}: {has:.3} s long; audio up to {asked:.3} s was asked for"),
    )
}

/// `%41` to `A`; a `%` that no two hexadecimal digits follow stays. `None` when not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let digit = |b: Option<&u8>| b.and_then(|&b| char::from(b).to_digit(16)).map(|d| d as u8);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        match (byte, digit(bytes.get(i + 1)), digit(bytes.get(i + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                i += 3;
            }
            _ => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}
