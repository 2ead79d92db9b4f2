//! Second recordings: backgrounds, impulse responses and other clips that a view needs beside its own.

use std::collections::HashMap;

use crate::audio::Audio;
use crate::error::{AudioError, RejectKind};
use crate::operator::Extent;
use crate::source::Source;
use crate::views::Partner;

/// What whole recordings may take up in memory, in samples: 64 MiB.
const MAX_CACHED: usize = 16 << 20;

/// Reads second recordings, and keeps those that are read as a whole (impulse responses) while there is room.
#[derive(Default)]
pub(crate) struct Partners {
    whole: HashMap<String, Audio>,
    /// The rate and the channels of what is kept, and how many samples that is.
    kept: (u32, usize),
    cached: usize,
    /// The one at hand.
    current: Option<Audio>,
}

impl Partners {
    /// The recording for a view as it is now: at its rate, with its channels, and for [`Extent::View`] with its `frames`.
    ///
    /// # Errors
    /// Whatever keeps the file from being read; [`RejectKind::NotFinite`] and [`RejectKind::Empty`] for samples that are
    /// not finite or not there.
    pub(crate) fn read(
        &mut self,
        partner: &Partner,
        extent: Extent,
        rate: u32,
        channels: usize,
        frames: usize,
    ) -> Result<&Audio, AudioError> {
        let Extent::Whole { max_seconds } = extent else {
            let audio = read_looped(partner, rate, frames)?;
            return Ok(self.current.insert(checked(audio.with_channels(channels))?));
        };
        if self.kept != (rate, channels) {
            self.whole.clear();
            (self.kept, self.cached) = ((rate, channels), 0);
        }
        if !self.whole.contains_key(&partner.uri) {
            let source = Source::parse(&partner.uri)?;
            let seconds = source.seconds()?.min(max_seconds);
            let audio = checked(source.read(0.0, seconds, rate)?.with_channels(channels))?;
            let size = audio.frames() * channels;
            if self.cached + size > MAX_CACHED {
                self.whole.clear();
                self.cached = 0;
            }
            self.cached += size;
            self.whole.insert(partner.uri.clone(), audio);
        }
        self.whole.get(&partner.uri).ok_or_else(|| AudioError::new(RejectKind::Empty, "no audio"))
    }
}

/// So many frames from the start of the partner on, beginning again at the end of the recording.
fn read_looped(partner: &Partner, rate: u32, frames: usize) -> Result<Audio, AudioError> {
    let source = Source::parse(&partner.uri)?;
    let need = frames as f64 / f64::from(rate);
    match source.read(partner.start_s, need, rate) {
        Err(error) if error.kind == RejectKind::TooShort => {}
        read => return read,
    }
    let seconds = source.seconds()?;
    let whole = source.read(0.0, seconds, rate)?;
    if whole.frames() == 0 {
        return Err(AudioError::new(RejectKind::Empty, format!("{}: no audio", source.uri())));
    }
    let first = (partner.start_s * f64::from(rate)).round() as usize;
    let looped = |channel: &Vec<f32>| {
        channel.iter().cycle().skip(first % channel.len()).take(frames).copied().collect()
    };
    Ok(Audio { rate, channels: whole.channels.iter().map(looped).collect() })
}

fn checked(audio: Audio) -> Result<Audio, AudioError> {
    if audio.frames() == 0 {
        return Err(AudioError::new(RejectKind::Empty, "no audio"));
    }
    if !audio.is_finite() {
        return Err(AudioError::new(RejectKind::NotFinite, "samples that are not finite"));
    }
    Ok(audio)
}
