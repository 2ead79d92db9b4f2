//! Styles: distributions over everything but key and tempo.
//!
//! A style weighs grooves, instruments, accompaniment, density and colour. Key and tempo are drawn before it and
//! from streams of their own, so a style can tell nothing about either.

use super::instrument::Instrument as In;
use crate::rng::Rng;

/// How the drum kit plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Groove {
    /// Kick on one and three, snare on two and four.
    Backbeat,
    /// Kick on every beat.
    FourFloor,
    /// Ride pattern, hat on two and four, sparse kick.
    Ride,
    /// Rim or brush instead of the snare, soft.
    Soft,
}

/// How chords are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comping {
    /// Even repeated chords.
    Pulse,
    /// Bass note on the beat, chord between.
    Stride,
    /// A fixed syncopated cell.
    Cell,
    /// Broken chords.
    Arpeggio,
    /// Held until the chord changes.
    Held,
}

/// How the bass moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BassLine {
    /// One note for each chord.
    Roots,
    /// Repeated roots.
    Pulse,
    /// Root and fifth in turn.
    Fifths,
    /// A scale line through chord tones.
    Walk,
    /// A fixed syncopated cell.
    Cell,
}

type Weights<T> = &'static [(T, f64)];

/// One style. Fields named after a part are the probability that it plays.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) name: &'static str,
    pub(super) drums: f64,
    pub(super) percussion: f64,
    pub(super) bass: f64,
    pub(super) lead: f64,
    pub(super) pad: f64,
    /// A second chordal part.
    pub(super) second: f64,
    pub(super) comps: Weights<In>,
    pub(super) leads: Weights<In>,
    pub(super) pads: Weights<In>,
    pub(super) grooves: Weights<Groove>,
    pub(super) comping: Weights<Comping>,
    pub(super) bass_lines: Weights<BassLine>,
    /// Probability of swung eighths.
    pub(super) swing: f64,
    pub(super) sevenths: f64,
    /// Probability of a chromatic neighbour at a weak place of a melody.
    pub(super) chromatic: f64,
    /// Probability of a triple metre, where the tempo allows one.
    pub(super) triple: f64,
}

/// Draws one of `options` in proportion to its weight.
pub(super) fn weighted<T: Copy>(options: &[(T, f64)], rng: &mut Rng) -> Option<T> {
    let total: f64 = options.iter().map(|(_, weight)| weight).sum();
    let mut at = rng.f64() * total;
    for (value, weight) in options {
        at -= weight;
        if at < 0.0 {
            return Some(*value);
        }
    }
    options.last().map(|(value, _)| *value)
}

/// All styles, drawn uniformly.
pub(super) const STYLES: [Style; 7] = [
    Style {
        name: "ballad",
        drums: 0.55,
        percussion: 0.25,
        bass: 0.6,
        lead: 0.75,
        pad: 0.45,
        second: 0.4,
        comps: &[
            (In::Piano, 3.0),
            (In::ElectricPiano, 3.0),
            (In::Guitar, 2.0),
            (In::Organ, 1.0),
            (In::Strings, 1.0),
        ],
        leads: &[(In::Flute, 3.0), (In::Brass, 1.0), (In::Synth, 1.5), (In::Strings, 1.5), (In::Guitar, 1.5)],
        pads: &[(In::Strings, 3.0), (In::Synth, 2.0), (In::Organ, 1.5)],
        grooves: &[(Groove::Backbeat, 2.0), (Groove::Soft, 3.0)],
        comping: &[
            (Comping::Arpeggio, 3.0),
            (Comping::Pulse, 2.0),
            (Comping::Held, 1.0),
            (Comping::Cell, 1.0),
        ],
        bass_lines: &[(BassLine::Roots, 2.0), (BassLine::Fifths, 1.0), (BassLine::Cell, 2.0)],
        swing: 0.15,
        sevenths: 0.3,
        chromatic: 0.06,
        triple: 0.25,
    },
    Style {
        name: "chamber",
        drums: 0.0,
        percussion: 0.2,
        bass: 0.15,
        lead: 0.9,
        pad: 0.5,
        second: 0.7,
        comps: &[
            (In::Piano, 2.5),
            (In::Strings, 3.0),
            (In::Guitar, 1.0),
            (In::Brass, 2.0),
            (In::Mallets, 1.5),
        ],
        leads: &[(In::Flute, 4.0), (In::Brass, 2.0), (In::Strings, 3.0), (In::Mallets, 1.0)],
        pads: &[(In::Strings, 3.0), (In::Brass, 2.0), (In::Organ, 1.0)],
        grooves: &[(Groove::Soft, 1.0)],
        comping: &[
            (Comping::Pulse, 3.0),
            (Comping::Arpeggio, 3.0),
            (Comping::Stride, 1.5),
            (Comping::Held, 0.5),
        ],
        bass_lines: &[(BassLine::Roots, 1.0), (BassLine::Walk, 2.0)],
        swing: 0.0,
        sevenths: 0.15,
        chromatic: 0.1,
        triple: 0.35,
    },
    Style {
        name: "dance",
        drums: 0.9,
        percussion: 0.55,
        bass: 0.75,
        lead: 0.5,
        pad: 0.45,
        second: 0.5,
        comps: &[
            (In::Synth, 3.0),
            (In::Piano, 1.5),
            (In::ElectricPiano, 1.5),
            (In::Organ, 2.0),
            (In::Mallets, 1.5),
        ],
        leads: &[(In::Synth, 2.0), (In::Mallets, 2.0), (In::Flute, 1.5), (In::Brass, 1.5)],
        pads: &[(In::Synth, 2.0), (In::Strings, 2.0)],
        grooves: &[(Groove::FourFloor, 4.0), (Groove::Backbeat, 1.0)],
        comping: &[
            (Comping::Cell, 3.0),
            (Comping::Pulse, 2.0),
            (Comping::Arpeggio, 3.0),
            (Comping::Held, 1.0),
        ],
        bass_lines: &[(BassLine::Pulse, 3.0), (BassLine::Cell, 3.0), (BassLine::Roots, 1.0)],
        swing: 0.1,
        sevenths: 0.25,
        chromatic: 0.05,
        triple: 0.0,
    },
    Style {
        name: "folk",
        drums: 0.25,
        percussion: 0.5,
        bass: 0.45,
        lead: 0.85,
        pad: 0.2,
        second: 0.5,
        comps: &[(In::Guitar, 4.0), (In::Piano, 1.5), (In::Organ, 2.0), (In::Mallets, 1.0)],
        leads: &[(In::Flute, 4.0), (In::Strings, 2.5), (In::Guitar, 1.0), (In::Mallets, 1.0)],
        pads: &[(In::Strings, 2.0), (In::Organ, 2.0)],
        grooves: &[(Groove::Soft, 2.0), (Groove::Backbeat, 1.0)],
        comping: &[(Comping::Stride, 4.0), (Comping::Arpeggio, 2.5), (Comping::Pulse, 2.0)],
        bass_lines: &[(BassLine::Fifths, 3.0), (BassLine::Roots, 1.0), (BassLine::Walk, 1.0)],
        swing: 0.3,
        sevenths: 0.08,
        chromatic: 0.06,
        triple: 0.35,
    },
    Style {
        name: "jazz",
        drums: 0.75,
        percussion: 0.12,
        bass: 0.8,
        lead: 0.85,
        pad: 0.1,
        second: 0.35,
        comps: &[
            (In::Piano, 3.0),
            (In::ElectricPiano, 2.5),
            (In::Guitar, 2.0),
            (In::Organ, 2.0),
            (In::Mallets, 1.5),
        ],
        leads: &[(In::Brass, 3.0), (In::Flute, 2.0), (In::Mallets, 2.0), (In::Guitar, 1.5), (In::Piano, 1.0)],
        pads: &[(In::Strings, 2.0), (In::Brass, 2.0)],
        grooves: &[(Groove::Ride, 5.0), (Groove::Soft, 1.0)],
        comping: &[(Comping::Cell, 4.0), (Comping::Pulse, 1.0), (Comping::Stride, 1.0)],
        bass_lines: &[(BassLine::Walk, 4.0), (BassLine::Fifths, 1.0), (BassLine::Cell, 1.0)],
        swing: 0.75,
        sevenths: 0.75,
        chromatic: 0.16,
        triple: 0.12,
    },
    Style {
        name: "pop",
        drums: 0.85,
        percussion: 0.4,
        bass: 0.85,
        lead: 0.7,
        pad: 0.4,
        second: 0.55,
        comps: &[
            (In::Piano, 2.0),
            (In::ElectricPiano, 2.0),
            (In::Guitar, 2.0),
            (In::Synth, 2.0),
            (In::Mallets, 1.0),
            (In::Organ, 1.0),
        ],
        leads: &[
            (In::Synth, 2.0),
            (In::Flute, 1.5),
            (In::Brass, 2.0),
            (In::Mallets, 1.5),
            (In::Strings, 1.0),
        ],
        pads: &[(In::Synth, 1.5), (In::Strings, 2.0), (In::Organ, 1.5), (In::Brass, 1.0)],
        grooves: &[(Groove::Backbeat, 4.0), (Groove::FourFloor, 1.0), (Groove::Soft, 1.0)],
        comping: &[
            (Comping::Pulse, 3.0),
            (Comping::Cell, 3.0),
            (Comping::Arpeggio, 2.0),
            (Comping::Held, 0.7),
        ],
        bass_lines: &[
            (BassLine::Pulse, 2.0),
            (BassLine::Cell, 3.0),
            (BassLine::Roots, 1.0),
            (BassLine::Fifths, 1.0),
        ],
        swing: 0.15,
        sevenths: 0.2,
        chromatic: 0.06,
        triple: 0.08,
    },
    Style {
        name: "rock",
        drums: 0.9,
        percussion: 0.25,
        bass: 0.85,
        lead: 0.6,
        pad: 0.25,
        second: 0.5,
        comps: &[(In::Guitar, 5.0), (In::Organ, 2.5), (In::Piano, 1.5), (In::ElectricPiano, 1.0)],
        leads: &[(In::Guitar, 2.0), (In::Brass, 2.0), (In::Synth, 2.0), (In::Organ, 1.0)],
        pads: &[(In::Organ, 2.0), (In::Strings, 1.5), (In::Brass, 1.5)],
        grooves: &[(Groove::Backbeat, 1.0)],
        comping: &[(Comping::Pulse, 4.0), (Comping::Cell, 3.0), (Comping::Arpeggio, 1.0)],
        bass_lines: &[
            (BassLine::Pulse, 4.0),
            (BassLine::Cell, 2.0),
            (BassLine::Fifths, 1.0),
            (BassLine::Walk, 1.0),
        ],
        swing: 0.15,
        sevenths: 0.12,
        chromatic: 0.08,
        triple: 0.12,
    },
];
