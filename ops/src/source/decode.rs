//! Decoding with symphonia: opening, exact seeking, and counting.
//!
//! All positions are frames on the clip's own time line, where 0 is the first frame to be heard: an
//! encoder's delay lies before 0, its padding after the end, both are cut off.
//!
//! ```text
//!   seek to      preroll       first                             first + frames
//!      |----------|--------------|=============== span =================|
//!   packets       decoded,       kept; of it `needed` must exist, the rest
//!   only counted  not kept       is silence where the clip has no audio
//! ```
//!
//! Codecs that overlap blocks or borrow bits from earlier frames need the preroll before their output
//! equals that of decoding from the start. Where a container's clock does not tick once per frame
//! (Matroska), positions cannot be trusted, and decoding begins at the start of the file.
//!
//! An encoder's delay is cut off where the file states it: LAME tag, Ogg granule positions, Opus
//! pre-skip, MP4 edit list. An MP3 without a LAME tag and raw AAC do not; such a clip starts with some
//! 25 ms of silence. AAC's noise substitution draws from a generator inside the decoder: the same range
//! gives the same samples, a range that begins elsewhere differs in that noise.
//!
//! A chained Ogg file plays its links one after the other. Each is opened as a file of its own.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};

use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3, CODEC_ID_OPUS, CODEC_ID_VORBIS,
};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::Timestamp;
use symphonia::default::formats::MpaReader;

use super::input::Input;
use super::known::{self, Known, Mpeg};
use super::part::Part;
use super::watch::Watch;
use super::{Limits, mp4, mpeg, ogg, opus, vorbis};
use crate::error::{AudioError, RejectKind};

/// Packets in a row without a frame, after which a stream is given up.
const MAX_IDLE_PACKETS: u32 = 10_000;
/// Frames that a lossy stream may lack at its end before it counts as cut off: encoders and taggers
/// disagree by a packet or two about what they count.
const LOSSY_SLACK: i64 = 4 * 2048;
/// The tail that a probe decodes.
const TAIL_SECONDS: f64 = 0.5;
/// Steps back after a failed seek. Near the end of a file, readers can lose their way.
const SEEK_BACK_SECONDS: [f64; 4] = [0.0, 2.0, 10.0, 60.0];
/// An Ogg reader that lands on the last page misplaces it by the stream's end padding, so it is made
/// to land before it. A page holds some tenths of a second, rarely seconds.
const OGG_TAIL_SECONDS: f64 = 10.0;
/// Most packets that end in one Ogg page.
const MAX_PAGE_PACKETS: usize = 256;
/// The largest sample that is sound: its square and sums of it fit f32.
const MAX_SAMPLE: f32 = 1e10;
/// What is said of others.
pub(super) const NOT_FINITE: &str = "samples that are not finite, or beyond 1e10";
/// How far behind its tags the first frame of an MPEG audio file is looked for.
const HEAD_BYTES: u64 = 64 << 10;

/// Frames to decode, from `first` (which may be negative) on, and the part of them that must exist.
pub(super) struct Span {
    pub first: i64,
    pub frames: usize,
    pub needed: Range<i64>,
}

/// What there is at the end of a stream.
pub(super) struct Tail {
    pub frames: u64,
    pub channels: usize,
}

/// Symphonia's decoders, and one for Opus.
static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<opus::Decoder>();
    codecs
});

/// A file, opened, at its first packet.
pub(super) struct Stream {
    path: Input,
    /// The bytes of the file that hold the stream.
    range: Range<u64>,
    /// `None` where the reader is opened when the place is known.
    format: Option<Box<dyn FormatReader>>,
    container: &'static str,
    mpeg: Option<Arc<Mpeg>>,
    /// The links of a chain and their frames, when there is more than one.
    links: Vec<(Range<u64>, u64)>,
    track: u32,
    params: AudioCodecParameters,
    rate: u32,
    /// Whether a tick of the track's clock is a frame.
    exact: bool,
    /// The time stamp of frame 0.
    origin: i64,
    /// Frames according to the header, where it is known to count them.
    promised: Option<u64>,
    max_frames: i64,
    max_channels: usize,
    max_frames_per_byte: u64,
    watch: Arc<Watch>,
    /// Whether the mean of all channels is wanted, rather than each.
    mixed: bool,
    /// Packets that were read to learn when the first one begins, if that is still to be learnt.
    ahead: Option<VecDeque<Packet>>,
}

/// The frames of a file and its rate.
pub(super) fn count_frames(path: &Input, watch: &Arc<Watch>) -> Result<(u64, u32), AudioError> {
    let limits = Limits::default();
    let stream = Stream::open(path, &limits, watch)?;
    let rate = stream.rate();
    Ok((measure(path, stream, &limits)?.frames, rate))
}

/// Finds the true end of a stream and decodes the audio before it.
///
/// # Errors
///
/// [`RejectKind::Truncated`] when less can be decoded than the header promises.
pub(super) fn measure(path: &Input, stream: Stream, limits: &Limits) -> Result<Tail, AudioError> {
    let tail = (TAIL_SECONDS * f64::from(stream.rate)) as i64;
    let lossy = stream.is_lossy();
    let promised = stream.promised.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    if promised == Some(0) {
        return Err(stream.error(RejectKind::Empty, "no audio"));
    }
    if promised.is_some_and(|n| n > stream.max_frames) {
        let message = format!("longer than {:.0} s", limits.max_seconds);
        return Err(stream.error(RejectKind::OverLimit, &message));
    }
    let (name, rate) = (stream.name(), f64::from(stream.rate));
    let (stream, end) = match promised {
        Some(end) => (stream, end),
        None => {
            let (end, channels) = stream.count(tail)?;
            return Ok(Tail { frames: end.max(0) as u64, channels });
        }
    };
    let span = Span { first: (end - tail).max(0), frames: tail.min(end) as usize, needed: 0..0 };
    let decoded = stream.decode_some(&span)?;
    let reached = decoded.end.clamp(0, end);
    if end - reached > if lossy { LOSSY_SLACK.min(end / 2) } else { 0 } {
        let message = format!("{name}: ends before the {:.2} s that its header promises", end as f64 / rate);
        return Err(AudioError::new(RejectKind::Truncated, message));
    }
    if !is_finite(&decoded.planes) {
        return Err(file_error(path, RejectKind::NotFinite, NOT_FINITE));
    }
    Ok(Tail { frames: reached as u64, channels: decoded.channels })
}

/// Decoded frames, and where the stream was when decoding stopped.
struct Decoded {
    /// One plane per channel, or one of their mean.
    planes: Vec<Vec<f32>>,
    /// Channels of the stream, 0 before the first frame.
    channels: usize,
    /// One past the last frame seen.
    end: i64,
}

impl Stream {
    /// Opens a file and finds its audio track.
    ///
    /// # Errors
    ///
    /// See [`super::probe_file`].
    pub fn open(path: &Input, limits: &Limits, watch: &Arc<Watch>) -> Result<Self, AudioError> {
        let fail = |kind, message: &str| Err(file_error(path, kind, message));
        let failed = |e: std::io::Error| io_error(path, &e);
        let file = path.open().map_err(failed)?;
        let Some(stamp) = file.stamp().map_err(failed)? else {
            return fail(RejectKind::Io, "not a regular file");
        };
        if stamp.length == 0 {
            return fail(RejectKind::Empty, "an empty file");
        }
        if stamp.length > limits.max_bytes {
            return fail(
                RejectKind::OverLimit,
                &format!("{} bytes; at most {} are read", stamp.length, limits.max_bytes),
            );
        }
        watch.expect_bytes(stamp.length);
        let whole = 0..stamp.length;
        match known::recall(path, &stamp) {
            Some(Known::Mpeg(mpeg)) => return Self::recalled(path, whole, mpeg, limits, watch),
            Some(Known::Ogg(links)) if links.len() > 1 => {
                return Self::chained(path, whole, &links, limits, watch);
            }
            Some(Known::Ogg(_)) => return Self::open_range(path, whole, limits, watch),
            None => {}
        }
        let mut stream = Self::open_range(path, whole.clone(), limits, watch)?;
        watch.pass();
        let mut file = Part::new(file, whole.clone(), watch).map_err(failed)?;
        match stream.container {
            "ogg" => {
                let mut links = Vec::new();
                let ranges = ogg::links(&mut file, stamp.length).map_err(failed)?;
                if ranges.len() > 1 {
                    for range in ranges {
                        let link = Self::open_range(path, range.clone(), limits, watch)?;
                        if link.rate != stream.rate {
                            return fail(
                                RejectKind::Unsupported,
                                "a chained stream whose sample rate changes",
                            );
                        }
                        let frames = match link.promised {
                            Some(frames) => frames,
                            None => link.count(0)?.0.max(0) as u64,
                        };
                        links.push((range, frames));
                    }
                }
                let links = Arc::new(links);
                known::remember(path, &stamp, Known::Ogg(Arc::clone(&links)));
                if links.len() > 1 { Self::chained(path, whole, &links, limits, watch) } else { Ok(stream) }
            }
            "mp1" | "mp2" | "mp3" => match stream.learn(&mut file).map_err(failed)? {
                Some(mpeg) => {
                    let mpeg = Arc::new(mpeg);
                    known::remember(path, &stamp, Known::Mpeg(Arc::clone(&mpeg)));
                    Self::recalled(path, whole, mpeg, limits, watch)
                }
                // The first packet has been taken from the reader.
                None => Self::open_range(path, whole, limits, watch),
            },
            _ => Ok(stream),
        }
    }

    /// Opens part of a file, which must be a stream of its own.
    fn open_range(
        path: &Input,
        range: Range<u64>,
        limits: &Limits,
        watch: &Arc<Watch>,
    ) -> Result<Self, AudioError> {
        let fail = |kind, message: &str| Err(file_error(path, kind, message));
        let failed = |e: std::io::Error| io_error(path, &e);
        let bytes = range.end - range.start;
        watch.step();
        let part = path.open().and_then(|file| Part::new(file, range.clone(), watch)).map_err(failed)?;
        let source = MediaSourceStream::new(Box::new(part), MediaSourceStreamOptions::default());
        let mut hint = Hint::new();
        if let Some(extension) = path.extension() {
            hint.with_extension(extension);
        }
        let format = symphonia::default::get_probe()
            .probe(&hint, source, FormatOptions::default(), MetadataOptions::default())
            .map_err(|e| not_opened(path, &e))?;
        let container = format.format_info().short_name;
        let Some(track) = format.default_track(TrackType::Audio) else {
            return fail(RejectKind::Unsupported, "no audio track in a known codec");
        };
        let Some(mut params) = track.codec_params.as_ref().and_then(|p| p.audio()).cloned() else {
            return fail(RejectKind::Unsupported, "no audio track in a known codec");
        };
        let rate = within_limits(path, &params, limits)?;
        let channels = params.channels.as_ref().map_or(1, |c| c.count());
        if params.codec == CODEC_ID_VORBIS && channels > 2 {
            let headers = params.extra_data.as_deref().and_then(vorbis::with_couplings_reversed);
            let Some(headers) = headers else {
                return fail(RejectKind::Corrupt, "a Vorbis header that is not valid");
            };
            params.with_extra_data(headers.into());
        }
        let exact = track
            .time_base
            .is_some_and(|tb| u64::from(tb.numer.get()) * u64::from(rate) == u64::from(tb.denom.get()));
        // Without a LAME tag an MPEG or ADTS reader extrapolates the length from the first frames.
        let guessed = matches!(container, "mp1" | "mp2" | "mp3" | "aac" | "adts") && track.delay.is_none();
        let duration = track.duration.filter(|_| exact).map(|d| d.get());
        let mut promised = if guessed { None } else { track.num_frames.or(duration) };
        // A WAV that was streamed has a length of "all ones" in its header: no length at all.
        let width = u64::from(params.bits_per_sample.unwrap_or(8)).div_ceil(8) * channels as u64;
        if matches!(container, "wave" | "wav") {
            let size = promised.unwrap_or(0).saturating_mul(width);
            if size > u64::from(u32::MAX) - 65_536 && size > bytes {
                promised = None;
            }
        }
        let mut origin = if exact { track.start_ts.get().max(0) } else { 0 };
        let mut heard = None;
        if params.codec == CODEC_ID_OPUS {
            origin += opus::pre_skip(&params);
        } else if container == "isomp4" && exact {
            let mut file =
                path.open().and_then(|file| Part::new(file, 0..range.end, watch)).map_err(failed)?;
            let part = mp4::heard(&mut file, range.end, track.id).map_err(failed)?;
            origin += part.map_or(0, |h| h.delay as i64);
            heard = part.and_then(|h| h.frames);
        }
        let promised = promised.map(|n| n.saturating_sub(origin as u64).min(heard.unwrap_or(u64::MAX)));
        Ok(Self {
            path: path.clone(),
            range,
            track: track.id,
            origin,
            rate,
            exact,
            promised,
            params,
            container,
            format: Some(format),
            mpeg: None,
            links: Vec::new(),
            max_frames: (f64::from(rate) * limits.max_seconds) as i64,
            max_channels: usize::from(limits.max_channels),
            max_frames_per_byte: limits.max_frames_per_byte,
            watch: Arc::clone(watch),
            mixed: false,
            ahead: None,
        })
    }

    /// Opens an MPEG audio file whose headers are known.
    fn recalled(
        path: &Input,
        range: Range<u64>,
        mpeg: Arc<Mpeg>,
        limits: &Limits,
        watch: &Arc<Watch>,
    ) -> Result<Self, AudioError> {
        let rate = within_limits(path, &mpeg.params, limits)?;
        Ok(Self {
            path: path.clone(),
            range,
            track: 0,
            origin: 0,
            rate,
            exact: true,
            promised: mpeg.promised,
            params: mpeg.params.clone(),
            container: mpeg.container,
            format: None,
            mpeg: Some(mpeg),
            links: Vec::new(),
            max_frames: (f64::from(rate) * limits.max_seconds) as i64,
            max_channels: usize::from(limits.max_channels),
            max_frames_per_byte: limits.max_frames_per_byte,
            watch: Arc::clone(watch),
            mixed: false,
            ahead: None,
        })
    }

    /// Opens a chain as one stream.
    fn chained(
        path: &Input,
        range: Range<u64>,
        links: &[(Range<u64>, u64)],
        limits: &Limits,
        watch: &Arc<Watch>,
    ) -> Result<Self, AudioError> {
        let first = links.first().map_or(range.clone(), |link| link.0.clone());
        let mut stream = Self::open_range(path, first, limits, watch)?;
        stream.range = range;
        stream.promised = Some(links.iter().map(|link| link.1).sum());
        stream.links = links.to_vec();
        Ok(stream)
    }

    /// Finds out where the frames of an MPEG audio file begin. Takes the first packet from the reader.
    fn learn(&mut self, file: &mut Part) -> std::io::Result<Option<Mpeg>> {
        let Some(Ok(Some(packet))) = self.format.as_mut().map(|f| f.next_packet()) else { return Ok(None) };
        let Some(first) = place_of(file, &packet.data)? else { return Ok(None) };
        let Some(index) = mpeg::Index::new(file, first)? else { return Ok(None) };
        if index.samples() != packet.block_dur().get() as i64 {
            return Ok(None);
        }
        Ok(Some(Mpeg {
            params: self.params.clone(),
            container: self.container,
            delay: -packet.pts.get(),
            promised: self.promised,
            index: Mutex::new(index),
        }))
    }

    /// Opens the reader of an MPEG audio file at or before `frame`.
    fn place(&mut self, mpeg: &Mpeg, frame: i64) -> Result<(), AudioError> {
        let failed = |e: std::io::Error| io_error(&self.path, &e);
        let opened = |from| {
            self.path
                .open()
                .and_then(|file| Part::new(file, from..self.range.end, &self.watch))
                .map_err(failed)
        };
        self.watch.pass();
        let mut file = opened(0)?;
        let mut index = known::lock(&mpeg.index);
        let samples = index.samples();
        let number = frame.saturating_add(mpeg.delay).max(0) / samples;
        let found = index.locate(&mut file, number as u64).map_err(failed)?;
        drop(index);
        let (number, byte) = found.ok_or_else(|| self.error(RejectKind::Corrupt, "no MPEG frames"))?;
        self.watch.step();
        let part = opened(byte)?;
        let source = MediaSourceStream::new(Box::new(part), MediaSourceStreamOptions::default());
        let reader =
            MpaReader::try_new(source, FormatOptions::default()).map_err(|e| self.decode_error(&e))?;
        self.format = Some(Box::new(reader));
        self.origin = mpeg.delay - number as i64 * samples;
        Ok(())
    }

    /// Frames per second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The file, for messages.
    pub fn name(&self) -> String {
        self.path.to_string()
    }

    /// Short name of the codec.
    pub fn codec(&self) -> String {
        codec_name(self.params.codec)
    }

    /// Short name of the container.
    pub fn container(&self) -> String {
        self.container.to_owned()
    }

    /// Frames according to the header, `None` where it does not count them.
    pub fn promised_frames(&self) -> Option<u64> {
        self.promised
    }

    /// The same stream, decoded to the mean of its channels.
    pub fn mixed(self) -> Self {
        Self { mixed: true, ..self }
    }

    /// Decodes a span: one buffer of `span.frames` per channel, or one of all.
    ///
    /// # Errors
    ///
    /// [`RejectKind::Corrupt`] when a needed packet cannot be decoded, [`RejectKind::TooShort`] or
    /// [`RejectKind::Truncated`] when needed frames do not exist.
    pub fn decode(self, span: &Span) -> Result<Vec<Vec<f32>>, AudioError> {
        let (path, promised, rate) = (self.path.clone(), self.promised, f64::from(self.rate));
        let decoded = self.decode_some(span)?;
        if decoded.end < span.needed.end {
            let message = format!(
                "ends at {:.3} s; audio up to {:.3} s was asked for",
                decoded.end.max(0) as f64 / rate,
                span.needed.end as f64 / rate
            );
            let kind = match promised {
                Some(n) if span.needed.end <= n as i64 => RejectKind::Truncated,
                _ => RejectKind::TooShort,
            };
            return Err(file_error(&path, kind, &message));
        }
        if decoded.planes.is_empty() {
            return Err(file_error(&path, RejectKind::Empty, "no audio"));
        }
        Ok(decoded.planes)
    }

    /// Decodes what there is of a span, from the nearest safe place before it.
    fn decode_some(mut self, span: &Span) -> Result<Decoded, AudioError> {
        if !self.links.is_empty() {
            return self.decode_links(span);
        }
        let mut start = span.first.max(0) - self.preroll();
        if let Some(mpeg) = self.mpeg.take() {
            self.place(&mpeg, start)?;
            return self.decode_from_here(span, None).map(|(decoded, _)| decoded);
        }
        if self.container == "ogg"
            && let Some(frames) = self.promised
        {
            start = start.min(frames as i64 - (OGG_TAIL_SECONDS * f64::from(self.rate)) as i64);
        }
        // An Ogg reader with several streams can wait forever in a seek.
        let seekable = self.exact && self.format.as_ref().is_some_and(|f| f.tracks().len() == 1);
        if !seekable || start < i64::from(self.rate) / 2 {
            return self.decode_from_here(span, None).map(|(decoded, _)| decoded);
        }
        for back in SEEK_BACK_SECONDS {
            let target = start - (back * f64::from(self.rate)) as i64;
            if target <= 0 {
                break;
            }
            let Some(stamp) = self.origin.checked_add(target) else { break };
            let to = SeekTo::Timestamp { ts: Timestamp::from(stamp), track_id: self.track };
            self.watch.pass();
            if self.format.as_mut().is_none_or(|f| f.seek(SeekMode::Accurate, to).is_err()) {
                continue;
            }
            self.ahead = Some(VecDeque::new());
            let (decoded, overshot) = self.decode_from_here(span, Some(target))?;
            if !overshot {
                return Ok(decoded);
            }
        }
        let mut again = self.reopen()?;
        again.decode_from_here(span, None).map(|(decoded, _)| decoded)
    }

    /// Decodes a span of a chain, link by link.
    fn decode_links(self, span: &Span) -> Result<Decoded, AudioError> {
        let mut out = Decoded { planes: Vec::new(), channels: 0, end: i64::MIN };
        let mut before = 0;
        for (range, frames) in &self.links {
            let frames = *frames as i64;
            let first = (span.first - before).max(0);
            let end = (span.first + span.frames as i64 - before).min(frames);
            if first < end {
                let part = Span {
                    first,
                    frames: (end - first) as usize,
                    needed: (span.needed.start - before).max(0)..(span.needed.end - before).min(frames),
                };
                let limits = Limits { max_bytes: u64::MAX, ..Limits::default() };
                let link = Self::open_range(&self.path, range.clone(), &limits, &self.watch)?;
                let decoded = Self { mixed: self.mixed, ..link }.decode_some(&part)?;
                if out.planes.is_empty() {
                    out.channels = decoded.channels;
                    out.planes = vec![vec![0.0; span.frames]; decoded.planes.len()];
                }
                if out.channels != decoded.channels {
                    return Err(self.error(RejectKind::Unsupported, "the number of channels changes"));
                }
                let at = (first + before - span.first) as usize;
                for (to, from) in out.planes.iter_mut().zip(&decoded.planes) {
                    if let Some(to) = to.get_mut(at..at + from.len()) {
                        to.copy_from_slice(from);
                    }
                }
                out.end = before + decoded.end.min(frames);
                if decoded.end < end {
                    break;
                }
            }
            before += frames;
        }
        Ok(out)
    }

    /// The same stream at its first packet again.
    fn reopen(self) -> Result<Self, AudioError> {
        let limits = Limits { max_bytes: u64::MAX, ..Limits::default() };
        let again = Self::open_range(&self.path, self.range, &limits, &self.watch)?;
        Ok(Self { mixed: self.mixed, ..again })
    }

    /// Decodes a span with the reader where it is. The flag says that the first packet came after
    /// `sought`, so that the span may lack its beginning.
    fn decode_from_here(&mut self, span: &Span, sought: Option<i64>) -> Result<(Decoded, bool), AudioError> {
        let mut decoder = self.decoder()?;
        let stop = span.first + span.frames as i64;
        let begin = span.first.max(0) - self.preroll();
        let limit = self.promised.map_or(i64::MAX, |n| n as i64);
        let mut out = Decoded { planes: Vec::new(), channels: 0, end: i64::MIN };
        let mut scratch: Vec<Vec<f32>> = Vec::new();
        let mut walk = Walk::default();
        let mut first_packet = true;
        // One past the last frame, as the packets state their durations.
        let mut declared = i64::MIN;
        let mut longest = 0;
        while out.end < stop {
            let Some(packet) = self.next_packet(&mut walk)? else { break };
            let length = i64::try_from(packet.block_dur().get()).unwrap_or(0);
            let at = if self.exact { packet.pts.get() } else { walk.decoded }.saturating_sub(self.origin);
            if std::mem::take(&mut first_packet) && sought.is_some_and(|target| at > target) {
                return Ok((out, true));
            }
            if self.exact && length > 0 && at.saturating_add(length) < begin {
                walk.idle = 0;
                continue;
            }
            if at > self.max_frames {
                return Err(self.error(RejectKind::OverLimit, "longer than the limit"));
            }
            let buffer = match decoder.decode(&packet) {
                Ok(buffer) => buffer,
                // What comes before the span only has to settle the decoder.
                Err(_) if at.saturating_add(length) <= span.first.max(0) && self.exact => continue,
                Err(e) => return Err(self.decode_error(&e)),
            };
            if buffer.spec().rate() != self.rate {
                let message =
                    format!("decodes to {} Hz; its header says {}", buffer.spec().rate(), self.rate);
                return Err(self.error(RejectKind::Unsupported, &message));
            }
            if buffer.spec().channels().count() > self.max_channels {
                return Err(self.error(RejectKind::OverLimit, "decodes to more channels than are read"));
            }
            let frames = buffer.frames() as i64;
            if frames == 0 {
                continue;
            }
            walk.idle = 0;
            walk.decoded = walk.decoded.saturating_add(frames);
            self.watch.decoded(frames as u64, self.rate);
            if walk.decoded as u64 > self.bytes().saturating_mul(self.max_frames_per_byte) {
                let message = format!("{} frames decoded from {} bytes", walk.decoded, self.bytes());
                return Err(self.error(RejectKind::OverLimit, &message));
            }
            buffer.copy_to_vecs_planar(&mut scratch);
            if out.planes.is_empty() {
                out.channels = scratch.len();
                out.planes = vec![vec![0.0; span.frames]; if self.mixed { 1 } else { scratch.len() }];
            }
            if out.channels != scratch.len() {
                return Err(self.error(RejectKind::Corrupt, "the number of channels changes"));
            }
            // A container may declare a gap between packets, which is silence; frames that are missing
            // although none is declared were lost, if they make a packet. Less is a muxer's rounding.
            longest = longest.max(frames.max(length));
            let lost = declared > i64::MIN && at.saturating_sub(declared) >= longest;
            if lost && at > span.needed.start.max(0) && declared < span.needed.end {
                return Err(self.error(RejectKind::Corrupt, "frames are missing in the middle"));
            }
            declared = declared.max(at.saturating_add(frames.max(length)));
            // The part of this packet that lies in the span and is to be heard.
            let (from, to) = (at.max(span.first).max(0), at.saturating_add(frames).min(stop).min(limit));
            if from < to {
                let target = (from - span.first) as usize..(to - span.first) as usize;
                let source = (from - at) as usize..(to - at) as usize;
                if self.mixed && scratch.len() > 1 {
                    mix_into(&mut out.planes, target, &scratch, source);
                } else {
                    for (plane, samples) in out.planes.iter_mut().zip(&scratch) {
                        if let (Some(target), Some(source)) =
                            (plane.get_mut(target.clone()), samples.get(source.clone()))
                        {
                            target.copy_from_slice(source);
                        }
                    }
                }
            }
            out.end = out.end.max(at.saturating_add(frames)).min(limit);
            if out.end == limit {
                break;
            }
        }
        Ok((out, false))
    }

    /// Counts all frames, and decodes those of the last `tail` packets' worth to learn the channels.
    fn count(mut self, tail: i64) -> Result<(i64, usize), AudioError> {
        if !self.exact {
            let span = Span { first: 0, frames: 0, needed: 0..0 };
            let all = Span { first: self.max_frames, ..span };
            let decoded = self.decode_from_here(&all, None)?.0;
            return Ok((decoded.end.max(0), decoded.channels));
        }
        let mpeg = self.mpeg.take();
        if let Some(mpeg) = &mpeg {
            self.place(mpeg, i64::MAX)?;
        }
        let mut walk = Walk::default();
        let mut end = 0;
        while let Some(packet) = self.next_packet(&mut walk)? {
            let length = i64::try_from(packet.block_dur().get()).unwrap_or(0);
            if length > 0 {
                walk.idle = 0;
            }
            end = packet.pts.get().saturating_sub(self.origin).saturating_add(length);
            if end > self.max_frames {
                return Err(self.error(RejectKind::OverLimit, "longer than the limit"));
            }
        }
        if end <= 0 {
            return Err(self.error(RejectKind::Empty, "no audio"));
        }
        let first = (end - tail).max(0);
        let span = Span { first, frames: (end - first) as usize, needed: first..end };
        let path = self.path.clone();
        let decoded = match mpeg {
            Some(mpeg) => Self { mpeg: Some(mpeg), ..self }.decode_some(&span)?,
            None => self.reopen()?.decode_some(&span)?,
        };
        if !is_finite(&decoded.planes) {
            return Err(file_error(&path, RejectKind::NotFinite, NOT_FINITE));
        }
        Ok((decoded.end.min(end), decoded.channels))
    }

    /// The next packet of the track; `None` at the end, wherever that comes.
    fn next_packet(&mut self, walk: &mut Walk) -> Result<Option<Packet>, AudioError> {
        if self.container == "ogg" && self.params.codec == CODEC_ID_VORBIS && self.ahead.is_none() {
            self.ahead = Some(self.first_packets(walk)?);
        }
        match self.ahead.as_mut().and_then(VecDeque::pop_front) {
            Some(packet) => Ok(Some(packet)),
            None => self.read_packet(walk),
        }
    }

    /// The packets of the first page, at their right times.
    ///
    /// A first page that ends earlier than its packets last means that as much is not heard at its
    /// beginning (Vorbis I, A.2). The reader overlooks it where audio begins in the page of the headers.
    fn first_packets(&mut self, walk: &mut Walk) -> Result<VecDeque<Packet>, AudioError> {
        let mut packets: VecDeque<Packet> = VecDeque::new();
        let mut end = None;
        while packets.len() < MAX_PAGE_PACKETS
            && let Some(packet) = self.read_packet(walk)?
        {
            let at = packet.pts.get();
            let early = end.map_or(0, |end: i64| end.saturating_sub(at));
            end = Some(at.saturating_add(packet.block_dur().get() as i64));
            if early > 0 {
                for packet in &mut packets {
                    packet.pts = Timestamp::from(packet.pts.get().saturating_sub(early));
                }
            }
            packets.push_back(packet);
            if early != 0 {
                break;
            }
        }
        Ok(packets)
    }

    fn read_packet(&mut self, walk: &mut Walk) -> Result<Option<Packet>, AudioError> {
        loop {
            walk.idle += 1;
            if walk.idle > MAX_IDLE_PACKETS {
                return Err(self.error(RejectKind::Corrupt, "packets without audio"));
            }
            self.watch.step();
            self.watch.look();
            if let Some(why) = self.watch.verdict() {
                return Err(self.error(RejectKind::OverLimit, &why));
            }
            let Some(format) = self.format.as_mut() else { return Ok(None) };
            match format.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track => return Ok(Some(packet)),
                Ok(Some(_)) => {}
                // New headers in the middle, where a chain was not told by its serial numbers.
                Ok(None) | Err(Error::ResetRequired) => return Ok(None),
                Err(Error::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
                Err(e) => return Err(self.decode_error(&e)),
            }
        }
    }

    fn decoder(&self) -> Result<Box<dyn AudioDecoder>, AudioError> {
        // Delay and padding are cut off here, by position: that holds after seeks too.
        let options = AudioDecoderOptions::default().gapless(false);
        CODECS.make_audio_decoder(&self.params, &options).map_err(|e| match e {
            Error::Unsupported(what) => {
                self.error(RejectKind::Unsupported, &format!("codec {}: {what}", self.codec()))
            }
            e => self.decode_error(&e),
        })
    }

    /// Frames to decode before output is that of a decoder that started at the beginning.
    fn preroll(&self) -> i64 {
        match self.params.codec {
            // Ten frames: at low rates the bit reservoir reaches that far back.
            CODEC_ID_MP1 | CODEC_ID_MP2 | CODEC_ID_MP3 => 10 * 1152,
            // Two blocks of the largest size.
            CODEC_ID_VORBIS => 2 * 8192,
            CODEC_ID_AAC => 4 * 1024,
            // RFC 7845 asks for 80 ms; after half a second nothing can be told from a decoder that ran on.
            CODEC_ID_OPUS => 24_000,
            _ => 0,
        }
    }

    fn is_lossy(&self) -> bool {
        matches!(
            self.params.codec,
            CODEC_ID_MP1 | CODEC_ID_MP2 | CODEC_ID_MP3 | CODEC_ID_VORBIS | CODEC_ID_AAC | CODEC_ID_OPUS
        )
    }

    fn error(&self, kind: RejectKind, message: &str) -> AudioError {
        file_error(&self.path, kind, message)
    }

    fn decode_error(&self, error: &Error) -> AudioError {
        let kind = match error {
            Error::IoError(e) if e.raw_os_error().is_some() => RejectKind::Io,
            Error::Unsupported(_) => RejectKind::Unsupported,
            Error::LimitError(_) => RejectKind::OverLimit,
            _ => RejectKind::Corrupt,
        };
        self.error(kind, &error.to_string())
    }
}

/// How far a reader has come.
#[derive(Default)]
struct Walk {
    /// Packets since the last one with audio.
    idle: u32,
    /// Frames decoded.
    decoded: i64,
}

/// Whether all samples are finite, and stay so when they are squared.
pub(super) fn is_finite(planes: &[Vec<f32>]) -> bool {
    planes.iter().flatten().all(|x| x.abs() <= MAX_SAMPLE)
}

/// Puts the mean of the frames `from` of all channels at `to` of the only plane.
pub(super) fn mix_into(planes: &mut [Vec<f32>], to: Range<usize>, channels: &[Vec<f32>], from: Range<usize>) {
    let scale = 1.0 / channels.len() as f32;
    let Some(target) = planes.first_mut().and_then(|plane| plane.get_mut(to)) else { return };
    for (i, channel) in channels.iter().enumerate() {
        let source = channel.get(from.clone()).unwrap_or_default();
        match i {
            0 => target.iter_mut().zip(source).for_each(|(sum, x)| *sum = *x),
            i if i + 1 == channels.len() => {
                target.iter_mut().zip(source).for_each(|(sum, x)| *sum = (*sum + x) * scale);
            }
            _ => target.iter_mut().zip(source).for_each(|(sum, x)| *sum += x),
        }
    }
}

/// The error for a file that could not be read.
pub(super) fn io_error(path: &Input, error: &std::io::Error) -> AudioError {
    match error.kind() {
        ErrorKind::NotFound => file_error(path, RejectKind::Missing, "no such file"),
        _ => file_error(path, RejectKind::Io, &error.to_string()),
    }
}

pub(super) fn file_error(path: &Input, kind: RejectKind, message: &str) -> AudioError {
    AudioError::new(kind, format!("{path}: {message}"))
}

/// Why a probe failed: not audio at all, or audio whose headers are damaged.
fn not_opened(path: &Input, error: &Error) -> AudioError {
    let mut magic = [0u8; 12];
    let known = path.open().and_then(|mut f| f.read_exact(&mut magic)).is_ok()
        && (matches!(
            &magic[..4],
            b"fLaC" | b"RIFF" | b"RF64" | b"OggS" | b"FORM" | [0x1a, 0x45, 0xdf, 0xa3]
        ) || &magic[..3] == b"ID3"
            || &magic[4..8] == b"ftyp");
    match error {
        Error::IoError(e) if e.raw_os_error().is_some() => io_error(path, e),
        Error::IoError(_) if known => file_error(path, RejectKind::Truncated, "ends within its headers"),
        Error::LimitError(what) => file_error(path, RejectKind::OverLimit, what),
        Error::DecodeError(what) if known => file_error(path, RejectKind::Corrupt, what),
        _ => file_error(path, RejectKind::Unsupported, "not audio in a known container"),
    }
}

fn codec_name(id: AudioCodecId) -> String {
    match CODECS.get_audio_decoder(id) {
        Some(known) => known.codec.info.short_name.to_owned(),
        None => id.to_string(),
    }
}

/// The sample rate of a stream that is within the limits.
fn within_limits(path: &Input, params: &AudioCodecParameters, limits: &Limits) -> Result<u32, AudioError> {
    let fail = |kind, message: &str| Err(file_error(path, kind, message));
    let Some(rate) = params.sample_rate.filter(|r| *r > 0) else {
        return fail(RejectKind::Unsupported, "a stream that does not state its sample rate");
    };
    if !(limits.min_rate..=limits.max_rate).contains(&rate) {
        let message = format!("{rate} Hz; rates of {} to {} Hz are read", limits.min_rate, limits.max_rate);
        return fail(RejectKind::OverLimit, &message);
    }
    let channels = params.channels.as_ref().map_or(1, |c| c.count());
    if channels > usize::from(limits.max_channels) {
        let message = format!("{channels} channels; at most {} are read", limits.max_channels);
        return fail(RejectKind::OverLimit, &message);
    }
    Ok(rate)
}

/// The place of an MPEG audio file's first packet, after any ID3v2 tags.
fn place_of(file: &mut (impl Read + Seek), packet: &[u8]) -> std::io::Result<Option<u64>> {
    let mut at = 0;
    let mut bytes = Vec::new();
    loop {
        file.seek(SeekFrom::Start(at))?;
        bytes.clear();
        Read::by_ref(file).take(10).read_to_end(&mut bytes)?;
        let [b'I', b'D', b'3', _, _, flags, size @ ..] = bytes.as_slice() else { break };
        let size = size.iter().fold(0, |n, b| n << 7 | u64::from(b & 0x7f));
        at += 10 + size + if flags & 0x10 != 0 { 10 } else { 0 };
    }
    file.seek(SeekFrom::Start(at))?;
    bytes.clear();
    Read::by_ref(file).take(HEAD_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes.windows(packet.len().max(4)).position(|w| w == packet).map(|i| at + i as u64))
}
