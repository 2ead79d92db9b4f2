//! What is decided once for a clip: key, tempo, style, harmony, who plays and how.
//!
//! Key, tempo and everything else come from random streams of their own. A plan holds no notes: any bar of it can
//! be written down alone (see [`super::parts`]), so rendering a crop costs the crop.

use super::grid::{Grid, Metre, rhythm_cell};
use super::harmony::{Chord, Voicing, progression};
use super::instrument::Instrument;
use super::kit::Kit;
use super::style::{BassLine, Comping, STYLES, Style, weighted};
use super::timbre::{Role, Timbre};
use crate::mir::MusicalKey;
use crate::rng::{Key, Rng};

/// Slowest and fastest tempo, in beats per minute.
pub(super) const BPM: (f64, f64) = (60.0, 180.0);

/// What a pitched part plays.
#[derive(Debug, Clone)]
pub(super) enum Line {
    Bass { low: u8, line: BassLine, stride: usize, cell: Vec<usize> },
    Chords { voicing: Voicing, comping: Comping, stride: usize, cell: Vec<usize>, order: ArpOrder },
    Lead { centre: u8, cells: [Vec<usize>; 2], chromatic: f64 },
}

/// Order of a broken chord.
#[derive(Debug, Clone, Copy)]
pub(super) enum ArpOrder {
    Up,
    Down,
    UpDown,
    Any,
}

/// One pitched part: an instrument and what it plays.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) instrument: Instrument,
    pub(super) line: Line,
    pub(super) timbre: Timbre,
    /// Linear level of one voice.
    pub(super) gain: f32,
    /// -1 left to 1 right.
    pub(super) pan: f32,
    /// Share of the step until the next note that a note is held.
    pub(super) legato: f64,
    /// Delay between the voices of a chord, in seconds.
    pub(super) strum: f64,
    /// Probability of resting for a section.
    pub(super) rest: f64,
    pub(super) key: Key,
}

/// Everything about a clip but its notes.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) key: MusicalKey,
    pub(super) grid: Grid,
    pub(super) style: &'static Style,
    /// Tuning of the whole clip, in cents.
    pub(super) tuning: f64,
    pub(super) chords: Vec<Chord>,
    pub(super) chord_beats: usize,
    pub(super) parts: Vec<Part>,
    pub(super) kit: Kit,
    /// Standard deviation of onset times, in seconds.
    pub(super) jitter: f64,
    /// Bars of a section, over which parts may rest.
    pub(super) section: u64,
    /// Root of the streams that only rendering uses.
    pub(super) sound: Key,
}

impl Plan {
    pub(super) fn new(root: Key) -> Self {
        let key = MusicalKey::from_index(root.with_str("key").rng().below(crate::mir::KEYS))
            .unwrap_or(MusicalKey::new(0, crate::mir::Mode::Major));
        let bpm = root.with_str("tempo").rng().uniform(BPM.0.ln(), BPM.1.ln()).exp();
        let bpm = (bpm * 100.0).round() / 100.0;
        let rng = &mut root.with_str("plan").rng();
        let style = &STYLES[rng.below(STYLES.len())];
        let mut grid = draw_grid(bpm, style, rng);
        grid.lead = rng.uniform(1.0, 5.0) * grid.bar_seconds();
        let chords = progression(key.mode(), style.sevenths, rng);
        let chord_beats = grid.chord_beats(log_uniform(rng, 0.75, 1.6));
        let kit = Kit::draw(&grid, style, root.with_str("kit"));
        let mut plan = Self {
            key,
            style,
            tuning: rng.uniform(-20.0, 20.0),
            chords,
            chord_beats,
            parts: Vec::new(),
            kit,
            jitter: rng.uniform(0.0, 0.006),
            section: (5.0 / grid.bar_seconds()).round().max(1.0) as u64,
            sound: root.with_str("sound"),
            grid,
        };
        plan.draw_parts(root.with_str("parts"), rng);
        plan
    }

    /// The chord sounding at a beat counted from the start of the music, and the beat at which it ends.
    pub(super) fn chord_at(&self, beat: u64) -> (Chord, u64) {
        let index = beat / self.chord_beats as u64;
        (self.chords[(index % self.chords.len() as u64) as usize], (index + 1) * self.chord_beats as u64)
    }

    /// Whether a part with this probability of resting plays in `bar`.
    pub(super) fn plays(&self, key: Key, rest: f64, bar: u64) -> bool {
        rest <= 0.0 || key.with_str("section").with(bar / self.section).rng().f64() >= rest
    }

    fn draw_parts(&mut self, root: Key, rng: &mut Rng) {
        let style = self.style;
        let mut used: Vec<Instrument> = Vec::new();
        let has_beat = self.kit.has_drums() || self.kit.has_percussion();
        let has_bass = rng.f64() < style.bass;
        if has_bass {
            self.push(Instrument::Bass, Role::Bass, root, rng);
        }
        let chordal = 1 + usize::from(rng.f64() < style.second);
        for nth in 0..chordal {
            if let Some(instrument) = unused(style.comps, &used, rng) {
                used.push(instrument);
                let role = if nth == 0 && !(has_beat && has_bass) { Role::Anchor } else { Role::Comp };
                self.push(instrument, role, root, rng);
            }
        }
        for (chance, from, role) in
            [(style.lead, style.leads, Role::Lead), (style.pad, style.pads, Role::Pad)]
        {
            if rng.f64() < chance
                && let Some(instrument) = unused(from, &used, rng)
            {
                used.push(instrument);
                self.push(instrument, role, root, rng);
            }
        }
    }

    fn push(&mut self, instrument: Instrument, role: Role, root: Key, rng: &mut Rng) {
        let grid = &self.grid;
        let line = match role {
            Role::Bass => {
                let line = weighted(self.style.bass_lines, rng).unwrap_or(BassLine::Roots);
                let stride = grid.stride(log_uniform(rng, 1.2, 4.5));
                let fill = rng.uniform(0.35, 0.7);
                Line::Bass {
                    low: 28 + rng.below(12) as u8,
                    line,
                    stride,
                    cell: rhythm_cell(grid, stride, fill, rng),
                }
            }
            Role::Anchor | Role::Comp | Role::Pad => {
                let comping = match role {
                    Role::Pad => Comping::Held,
                    Role::Anchor if rng.f64() < 0.9 => {
                        *rng.pick(&[Comping::Pulse, Comping::Stride, Comping::Arpeggio])
                    }
                    _ => weighted(self.style.comping, rng).unwrap_or(Comping::Pulse),
                };
                let rate = if comping == Comping::Arpeggio { (2.2, 8.0) } else { (1.1, 4.5) };
                let stride = grid.stride(log_uniform(rng, rate.0, rate.1));
                let fill = rng.uniform(0.3, 0.65);
                let voicing = Voicing {
                    low: 46 + rng.below(24) as u8,
                    open: rng.f64() < 0.4,
                    doubled: rng.f64() < 0.35,
                    lean: rng.f64() < 0.5,
                };
                let order = *rng.pick(&[ArpOrder::Up, ArpOrder::Down, ArpOrder::UpDown, ArpOrder::Any]);
                Line::Chords { voicing, comping, stride, cell: rhythm_cell(grid, stride, fill, rng), order }
            }
            Role::Lead => {
                let stride = grid.stride(log_uniform(rng, 1.8, 6.5));
                let mut cell = || {
                    let fill = rng.uniform(0.35, 0.8);
                    rhythm_cell(grid, stride, fill, rng)
                };
                let cells = [cell(), cell()];
                Line::Lead { centre: 60 + rng.below(24) as u8, cells, chromatic: self.style.chromatic }
            }
        };
        let level = match role {
            Role::Bass => -1.0,
            Role::Lead => 0.0,
            Role::Anchor => -3.0,
            Role::Comp => -5.0,
            Role::Pad => -9.0,
        } + rng.uniform(-4.0, 4.0);
        let rest = match role {
            Role::Anchor => 0.0,
            Role::Bass | Role::Comp => 0.1,
            Role::Lead | Role::Pad => 0.15,
        };
        let key = root.with(self.parts.len() as u64);
        let mut sound = key.with_str("timbre").rng();
        self.parts.push(Part {
            instrument,
            line,
            timbre: Timbre::draw(instrument, role, &mut sound),
            gain: 10f64.powf(level / 20.0) as f32,
            pan: if role == Role::Bass { 0.0 } else { rng.uniform(-0.6, 0.6) as f32 },
            legato: rng.uniform(0.45, 1.0),
            strum: if instrument == Instrument::Guitar { rng.uniform(0.0, 0.018) } else { 0.0 },
            rest,
            key,
        });
    }
}

fn draw_grid(bpm: f64, style: &Style, rng: &mut Rng) -> Grid {
    let triple = rng.f64() < style.triple;
    let six = rng.f64() < 0.5;
    let metre = match (triple, six) {
        (true, true) if bpm <= 110.0 => Metre::Six,
        (true, _) if bpm >= 75.0 => Metre::Three,
        _ => Metre::Four,
    };
    let swung = rng.f64() < style.swing;
    let swing = rng.uniform(0.58, 0.667);
    Grid::new(metre, bpm, if swung { swing } else { 0.5 })
}

/// An instrument of `options` not used yet; `None` when all are.
fn unused(options: &[(Instrument, f64)], used: &[Instrument], rng: &mut Rng) -> Option<Instrument> {
    let free: Vec<_> = options.iter().copied().filter(|(instrument, _)| !used.contains(instrument)).collect();
    weighted(&free, rng)
}

/// A number whose logarithm is uniform between those of `low` and `high`.
pub(super) fn log_uniform(rng: &mut Rng, low: f64, high: f64) -> f64 {
    rng.uniform(low.ln(), high.ln()).exp()
}
