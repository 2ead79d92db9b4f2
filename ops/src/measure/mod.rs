//! Figures of recordings: loudness, levels, onsets. A recording is read in pieces, so that memory does not grow with
//! its length.
//!
//! Levels and loudness are measured at the recording's own rate; a procedural clip, which has none, is measured at
//! 48 kHz.

mod onset;
mod waveform;

pub use onset::OnsetDetector;
pub use waveform::{Waveform, WaveformMeter};

use crate::audio::Audio;
use crate::error::AudioError;
use crate::loudness::LoudnessMeter;
use crate::source::{Pieces, Source};

/// The part of a recording that is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Where it begins, in seconds.
    pub start_s: f64,
    /// How long it is, in seconds; to the end of the recording if `None`.
    pub seconds: Option<f64>,
}

impl Part {
    /// All of a recording.
    pub const WHOLE: Self = Self { start_s: 0.0, seconds: None };
}

/// The integrated loudness in LUFS ([`crate::loudness`]); `None` where nothing is above -70 LUFS.
///
/// # Errors
/// Whatever keeps the part from being read, as [`Source::read`].
pub fn loudness(source: &Source, part: Part) -> Result<Option<f64>, AudioError> {
    let mut meter = None;
    read(source, part, None, |piece| {
        meter.get_or_insert_with(|| LoudnessMeter::new(piece.rate)).push(piece);
    })?;
    Ok(meter.and_then(|meter| meter.integrated()))
}

/// Statistics of the samples.
///
/// # Errors
/// As [`loudness`].
pub fn waveform(source: &Source, part: Part) -> Result<Option<Waveform>, AudioError> {
    let mut meter = None;
    read(source, part, None, |piece| {
        meter.get_or_insert_with(|| WaveformMeter::new(piece.rate)).push(piece);
    })?;
    Ok(meter.and_then(|meter| meter.finish()))
}

/// The onsets, in seconds of the recording, ascending; and how many seconds were listened to. See [`OnsetDetector`].
///
/// # Errors
/// As [`loudness`].
pub fn onsets(source: &Source, part: Part) -> Result<(Vec<f64>, f64), AudioError> {
    let mut detector = OnsetDetector::new();
    let seconds = read(source, part, Some(OnsetDetector::RATE), |piece| match piece.channels.as_slice() {
        [only] => detector.push(only),
        _ => detector.push(&piece.to_mono()),
    })?;
    let onsets = detector.finish().into_iter().map(|onset| part.start_s + onset).collect();
    Ok((onsets, seconds))
}

/// Decodes all of it, and keeps nothing.
///
/// # Errors
/// As [`loudness`].
pub fn check(source: &Source, part: Part) -> Result<(), AudioError> {
    read(source, part, None, |_| {}).map(|_| ())
}

/// Reads a part piece by piece and returns how many seconds it has: all channels at the recording's own rate, or the
/// mean of them at `rate`.
fn read(
    source: &Source,
    part: Part,
    rate: Option<u32>,
    mut each: impl FnMut(&Audio),
) -> Result<f64, AudioError> {
    let pieces = Pieces::new(source, part.start_s, part.seconds, rate)?;
    let asked = pieces.seconds();
    for (start_s, seconds) in pieces {
        let piece = match rate {
            None => source.read(start_s, seconds, pieces.rate())?,
            Some(rate) => source.read_mono(start_s, seconds, rate)?,
        };
        each(&piece);
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RejectKind;
    use crate::loudness::integrated_loudness;
    use crate::wav::write_wav;

    #[test]
    fn pieces_measure_as_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        let tone = |hz: f64| -> Vec<f32> {
            (0..44_100 * 45)
                .map(|i| (0.2 * (f64::from(i) / 44_100.0 * hz * std::f64::consts::TAU).sin()) as f32)
                .collect()
        };
        let (left, right) = (tone(440.0), tone(660.0));
        write_wav(&path, 44_100, &[&left, &right]).unwrap();
        let source = Source::File(path);
        let whole = Audio { rate: 44_100, channels: vec![left, right] };
        let got = loudness(&source, Part::WHOLE).unwrap().unwrap();
        assert!((got - integrated_loudness(&whole).unwrap()).abs() < 1e-6);
        let mut meter = WaveformMeter::new(44_100);
        meter.push(&whole);
        assert_eq!(waveform(&source, Part::WHOLE).unwrap(), meter.finish());
        check(&source, Part::WHOLE).unwrap();

        let kind = |start_s, seconds| check(&source, Part { start_s, seconds }).unwrap_err().kind;
        assert_eq!(kind(44.0, Some(1.5)), RejectKind::TooShort);
        assert_eq!(kind(45.0, None), RejectKind::TooShort);
        assert_eq!(kind(-1.0, None), RejectKind::TooShort);
        assert_eq!(kind(f64::NAN, Some(1.0)), RejectKind::TooShort);
        assert!(check(&source, Part { start_s: 44.0, seconds: Some(1.0) }).is_ok());
    }

    #[test]
    fn a_procedural_clip_is_measured_too() {
        let source = Source::parse("synth:v1?seed=1&index=2&seconds=25").unwrap();
        let loudness = loudness(&source, Part::WHOLE).unwrap().unwrap();
        assert!((-40.0..-5.0).contains(&loudness), "{loudness}");
        let (onsets, seconds) = onsets(&source, Part { start_s: 5.0, seconds: Some(10.0) }).unwrap();
        assert_eq!(seconds, 10.0);
        assert!(!onsets.is_empty() && onsets.iter().all(|onset| (5.0..15.0).contains(onset)));
    }
}
