//! Procedural music with exact labels.
//!
//! A clip is a pure function of `(seed, index)`: its [`Score`] holds the labels (key, tempo, metre, style,
//! instruments) and the notes they are true of; [`ClipSpec::render`] makes any range of it audible. Nothing is
//! stored, and a range rendered alone equals the same range cut from a longer rendering.
//!
//! What makes a label hard to guess by trivial means:
//! * Key, tempo and all else come from separate random streams, so they are independent. Key and mode are uniform
//!   over 24, BPM is log-uniform over 60..180.
//! * Densities (of hits, of notes, of chord changes) are drawn in events per second and rounded to a musical
//!   subdivision, so a fast clip is no busier than a slow one.
//! * Registers are drawn so that mean pitch height is the same for every tonic; every clip is detuned by up to 20
//!   cents; timbre, level, equaliser, room and hiss are drawn anew.
//!
//! What makes it decidable by ear: progressions with a leading tone and a tonic, at a chord every 0.7 to 1.7 s or
//! so; a drum kit, percussion, or a pulsing accompaniment, with accents by metrical weight.
//!
//! ```text
//! ClipSpec -> Plan (decided once) -> notes and hits, bar by bar -> voices, one-shots -> mix
//!             plan.rs, style.rs,     parts.rs, kit.rs              voice.rs, strike.rs  mix.rs
//!             harmony.rs, timbre.rs
//! ```

mod grid;
mod harmony;
mod instrument;
mod kit;
mod mix;
mod parts;
mod plan;
mod render;
mod strike;
mod style;
#[cfg(test)]
mod tests;
mod timbre;
mod voice;
mod wavetable;

use std::collections::BTreeSet;

pub use instrument::Instrument;
pub use strike::Sound;

use crate::Audio;
use crate::address::{number, parameters};
use crate::error::{AudioError, RejectKind};
use crate::mir::MusicalKey;
use crate::rng::Key;
use plan::Plan;

/// Version of the music: a change of what any clip sounds like raises it.
pub const VERSION: u32 = 1;

/// Longest clip, in seconds.
pub const MAX_SECONDS: f64 = 3600.0;

/// Longest time from onset to end of gate of a note.
const MAX_NOTE_SECONDS: f64 = 3.2;

/// How long before a range a note may start and still sound in it.
const REACH_SECONDS: f64 = MAX_NOTE_SECONDS + 2.0;

/// A procedural clip: number `index` of the set `seed`, `seconds` long.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipSpec {
    /// The data set.
    pub seed: u64,
    /// The clip within it.
    pub index: u64,
    /// Duration. It cuts the music and does not change it.
    pub seconds: f64,
}

/// One pitched note.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Which of [`Score::parts`] plays it.
    pub part: usize,
    /// Onset in clip time, in seconds; below 0 for a note that sounds as the clip starts.
    pub onset_s: f64,
    /// Time until the note is let go, in seconds.
    pub seconds: f64,
    /// MIDI pitch, before the clip's tuning.
    pub pitch: u8,
    /// 0..1.
    pub velocity: f32,
}

/// One unpitched hit.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// [`Instrument::Drums`] or [`Instrument::Percussion`].
    pub player: Instrument,
    /// What is struck.
    pub sound: Sound,
    /// Onset in clip time, in seconds.
    pub onset_s: f64,
    /// 0..1.
    pub velocity: f32,
}

/// The labels of a clip and the notes behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Key, uniform over 24.
    pub key: MusicalKey,
    /// Beats per minute, 60..=180 log-uniform, two decimals; in 6/8 a beat is a dotted quarter.
    pub bpm: f64,
    /// `4/4`, `3/4` or `6/8`.
    pub metre: String,
    /// Name of the style.
    pub style: String,
    /// Sorted names, from [`Instrument::ALL`], of the instruments heard between the clip's start and end.
    pub instruments: Vec<String>,
    /// Deviation from A = 440 Hz, in cents, within 20.
    pub tuning_cents: f64,
    /// Instruments of the pitched parts.
    pub parts: Vec<Instrument>,
    /// Pitched notes that sound within the clip, by onset.
    pub notes: Vec<Note>,
    /// Unpitched hits within the clip, by onset.
    pub hits: Vec<Hit>,
}

impl ClipSpec {
    /// The address of this clip, `synth:v1?seed=17&index=123&seconds=12`; [`ClipSpec::parse`] reads it back exactly.
    pub fn uri(&self) -> String {
        format!("synth:v{VERSION}?seed={}&index={}&seconds={}", self.seed, self.index, self.seconds)
    }

    /// Reads an address.
    ///
    /// # Errors
    /// [`RejectKind::BadUri`] for another scheme or version, a parameter that is missing, unknown, given twice or
    /// no number, or a duration not within 0..=[`MAX_SECONDS`].
    pub fn parse(uri: &str) -> Result<Self, AudioError> {
        let bad = |why: String| AudioError::new(RejectKind::BadUri, format!("`{uri}`: {why}"));
        let rest = uri.strip_prefix("synth:").ok_or_else(|| bad("does not start with `synth:`".into()))?;
        let (version, query) =
            rest.split_once('?').ok_or_else(|| bad("has no `?seed=..&index=..&seconds=..`".into()))?;
        if version != format!("v{VERSION}") {
            return Err(bad(format!("this build makes version v{VERSION}, not `{version}`")));
        }
        let [seed, index, seconds] = parameters(query, ["seed", "index", "seconds"]).map_err(bad)?;
        let spec = Self {
            seed: number("seed", seed).map_err(bad)?,
            index: number("index", index).map_err(bad)?,
            seconds: number("seconds", seconds).map_err(bad)?,
        };
        if spec.seconds > 0.0 && spec.seconds <= MAX_SECONDS {
            Ok(spec)
        } else {
            Err(bad(format!("seconds must lie above 0 and not above {MAX_SECONDS}")))
        }
    }

    /// The labels and notes.
    pub fn score(&self) -> Score {
        let plan = self.plan();
        let (mut notes, mut hits) = write_notes(&plan, -REACH_SECONDS, self.seconds);
        notes.retain(|note| note.onset_s + note.seconds > 0.0 && note.onset_s < self.seconds);
        hits.retain(|hit| hit.onset_s >= 0.0 && hit.onset_s < self.seconds);
        notes.sort_by(|a, b| a.onset_s.total_cmp(&b.onset_s));
        hits.sort_by(|a, b| a.onset_s.total_cmp(&b.onset_s));
        let heard: BTreeSet<Instrument> = notes
            .iter()
            .map(|note| plan.parts[note.part].instrument)
            .chain(hits.iter().map(|hit| hit.player))
            .collect();
        Score {
            key: plan.key,
            bpm: plan.grid.bpm,
            metre: plan.grid.metre.name().to_owned(),
            style: plan.style.name.to_owned(),
            instruments: heard.into_iter().map(|instrument| instrument.name().to_owned()).collect(),
            tuning_cents: plan.tuning,
            parts: plan.parts.iter().map(|part| part.instrument).collect(),
            notes,
            hits,
        }
    }

    /// The beats within the clip, in seconds, ascending: one every `60 / bpm` seconds, exactly.
    pub fn beats(&self) -> Vec<f64> {
        let grid = self.plan().grid;
        let at = |beat: u64| beat as f64 * grid.beat_seconds() - grid.lead;
        let first = (grid.lead / grid.beat_seconds()).ceil() as u64;
        (first..).map(at).take_while(|t| *t < self.seconds).filter(|t| *t >= 0.0).collect()
    }

    /// The chords of the clip, from its start to its end without a gap: start and end in seconds, and the name in
    /// Harte's syntax, such as `A:min7`. Neighbours differ. Inversions are not told, since every part voices its
    /// own.
    pub fn chords(&self) -> Vec<(f64, f64, String)> {
        let plan = self.plan();
        let at = |beat: u64| beat as f64 * plan.grid.beat_seconds() - plan.grid.lead;
        let mut chords: Vec<(f64, f64, String)> = Vec::new();
        let mut beat = (plan.grid.lead / plan.grid.beat_seconds()).floor() as u64;
        while at(beat) < self.seconds {
            let (chord, end) = plan.chord_at(beat);
            let (start_s, end_s) = (at(beat).max(0.0), at(end).min(self.seconds));
            let name = chord.name(plan.key.tonic());
            match chords.last_mut() {
                Some((_, until, last)) if *last == name => *until = end_s,
                _ if start_s < end_s => chords.push((start_s, end_s, name)),
                _ => {}
            }
            beat = end;
        }
        chords
    }

    /// Stereo audio of `seconds` from `start_s` on, both rounded to frames of `rate` Hz: finite, peak below 1.
    ///
    /// The music goes on beyond the clip's start and end; keeping a range inside is up to the caller. A range
    /// rendered alone equals the same range of a longer rendering up to rounding.
    pub fn render(&self, start_s: f64, seconds: f64, rate: u32) -> Audio {
        let rate = rate.max(1);
        let first = (start_s * f64::from(rate)).round() as i64;
        let frames = (seconds.clamp(0.0, MAX_SECONDS) * f64::from(rate)).round() as usize;
        let [left, right] = render::render(&self.plan(), first, frames, f64::from(rate));
        Audio { rate, channels: vec![left, right] }
    }

    fn plan(&self) -> Plan {
        let root = Key::root(self.seed).with_str("synth").with(u64::from(VERSION)).with(self.index);
        Plan::new(root)
    }
}

/// The notes and hits of all bars that overlap a range of clip time, in no particular order.
fn write_notes(plan: &Plan, from_s: f64, to_s: f64) -> (Vec<Note>, Vec<Hit>) {
    // Onsets may come early by human inexactness.
    const EARLY: f64 = 0.05;
    let (mut notes, mut hits) = (Vec::new(), Vec::new());
    for bar in plan.grid.bars(from_s, to_s + EARLY) {
        for index in 0..plan.parts.len() {
            parts::write_bar(plan, index, bar, &mut notes);
        }
        plan.kit.write_bar(plan, bar, &mut hits);
    }
    (notes, hits)
}
