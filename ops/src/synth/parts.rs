//! Pitched parts: the notes of one bar of one part.
//!
//! A bar is a pure function of (plan, part, bar number): bars can be written in any order, alone or together.

use super::Note;
use super::grid::Grid;
use super::harmony::{Chord, place, scale_over};
use super::plan::{ArpOrder, Line, Part, Plan};
use super::style::{BassLine, Comping};
use crate::rng::{Key, Rng};

/// Appends the notes of `bar` of part number `index`.
pub(super) fn write_bar(plan: &Plan, index: usize, bar: u64, out: &mut Vec<Note>) {
    let part = &plan.parts[index];
    if !plan.plays(part.key, part.rest, bar) {
        return;
    }
    let mut rng = part.key.with_str("bar").with(bar).rng();
    let mut pen = Pen { plan, part, index, bar, rng: &mut rng, out };
    match &part.line {
        Line::Bass { low, line, stride, cell } => pen.bass(*low, *line, *stride, cell),
        Line::Chords { comping, stride, cell, .. } => pen.chords(*comping, *stride, cell),
        Line::Lead { centre, cells, chromatic } => pen.lead(*centre, cells, *chromatic),
    }
}

struct Pen<'a> {
    plan: &'a Plan,
    part: &'a Part,
    index: usize,
    bar: u64,
    rng: &'a mut Rng,
    out: &'a mut Vec<Note>,
}

impl Pen<'_> {
    fn grid(&self) -> &Grid {
        &self.plan.grid
    }

    /// The chord at a step of the bar and the step, counted from this bar's start, at which it ends.
    fn chord(&self, step: usize) -> (Chord, usize) {
        let grid = self.grid();
        let first = self.bar * grid.beats as u64;
        let (chord, end) = self.plan.chord_at(first + (step / grid.steps) as u64);
        (chord, (end - first) as usize * grid.steps)
    }

    /// Whether a chord begins at this step.
    fn changes(&self, step: usize) -> bool {
        let grid = self.grid();
        let beat = self.bar * grid.beats as u64 + (step / grid.steps) as u64;
        step.is_multiple_of(grid.steps) && beat.is_multiple_of(self.plan.chord_beats as u64)
    }

    /// `cell` with the steps added at which chords change, ascending.
    fn with_changes(&self, cell: &[usize]) -> Vec<usize> {
        (0..self.grid().bar_steps()).filter(|step| cell.contains(step) || self.changes(*step)).collect()
    }

    fn changes_only(&self) -> Vec<usize> {
        self.with_changes(&[])
    }

    /// Writes one note from `step` to `end`, both counted from the bar's start, shortened by the part's legato.
    fn note(&mut self, step: usize, end: usize, pitch: u8, delay: f64, accent: f32) {
        let grid = &self.plan.grid;
        let onset = grid.time(self.bar, step);
        let gate = (grid.time(self.bar, end) - onset) * self.part.legato;
        let jitter = self.rng.normal() * self.plan.jitter + delay;
        let velocity = (f64::from(accent) * self.rng.uniform(0.85, 1.05)).clamp(0.1, 1.0);
        self.out.push(Note {
            part: self.index,
            onset_s: onset + jitter,
            seconds: gate.clamp(0.04, super::MAX_NOTE_SECONDS),
            pitch,
            velocity: velocity as f32,
        });
    }

    fn bass(&mut self, low: u8, line: BassLine, stride: usize, cell: &[usize]) {
        let bar_steps = self.grid().bar_steps();
        let even: Vec<usize> = (0..bar_steps).step_by(stride).collect();
        let onsets = match line {
            BassLine::Roots => self.changes_only(),
            BassLine::Cell => self.with_changes(cell),
            BassLine::Pulse | BassLine::Fifths | BassLine::Walk => self.with_changes(&even),
        };
        let tonic = self.plan.key.tonic();
        for (i, &step) in onsets.iter().enumerate() {
            let (chord, chord_end) = self.chord(step);
            let next = onsets.get(i + 1).copied().unwrap_or(bar_steps);
            let end = if line == BassLine::Roots { chord_end } else { next.min(chord_end) };
            let root = chord.tones[0];
            let on_change = self.changes(step);
            let tone = match line {
                _ if on_change => {
                    if self.rng.f64() < 0.12 {
                        chord.tones[1]
                    } else {
                        root
                    }
                }
                BassLine::Roots | BassLine::Pulse => root,
                BassLine::Fifths => {
                    if i % 2 == 1 {
                        chord.tones[2]
                    } else {
                        root
                    }
                }
                BassLine::Cell => *self.rng.pick(&[root, root, root, chord.tones[2], chord.tones[1]]),
                BassLine::Walk if next >= chord_end => {
                    // Approach the next root by step, mostly within the scale.
                    let (following, _) = self.chord(chord_end);
                    let by = *self.rng.pick(&[11, 1, 2, 10, 7]);
                    (following.tones[0] + by) % 12
                }
                BassLine::Walk => {
                    let scale = members(scale_over(self.plan.key.mode(), &chord));
                    *self.rng.pick(&scale)
                }
            };
            let pitch = place((tone + tonic) % 12, low);
            let accent = self.grid().accent(step);
            self.note(step, end, pitch, 0.0, accent);
        }
    }

    fn chords(&mut self, comping: Comping, stride: usize, cell: &[usize]) {
        let Line::Chords { voicing, order, .. } = &self.part.line else { return };
        let (voicing, order) = (*voicing, *order);
        let bar_steps = self.grid().bar_steps();
        let even: Vec<usize> = (0..bar_steps).step_by(stride).collect();
        let onsets = match comping {
            Comping::Held => self.changes_only(),
            Comping::Cell => self.with_changes(cell),
            Comping::Pulse | Comping::Arpeggio | Comping::Stride => self.with_changes(&even),
        };
        let tonic = self.plan.key.tonic();
        for (i, &step) in onsets.iter().enumerate() {
            let (chord, chord_end) = self.chord(step);
            let next = onsets.get(i + 1).copied().unwrap_or(bar_steps);
            let end = if comping == Comping::Held { chord_end } else { next.min(chord_end) };
            let pitches = voicing.pitches(&chord, tonic);
            let accent = self.grid().accent(step);
            let on_beat = step.is_multiple_of(self.grid().steps.max(stride));
            match comping {
                Comping::Arpeggio => {
                    let pitch = pitches[arp_index(order, i, pitches.len(), self.rng)];
                    self.note(step, end, pitch, 0.0, accent);
                }
                Comping::Stride if on_beat || self.changes(step) => {
                    let pitch = place((chord.tones[0] + tonic) % 12, voicing.low - 12);
                    self.note(step, end, pitch, 0.0, accent);
                }
                _ => {
                    let up = step % (2 * stride) != 0;
                    for (voice, &pitch) in pitches.iter().enumerate() {
                        let order = if up { pitches.len() - 1 - voice } else { voice };
                        self.note(step, end, pitch, order as f64 * self.part.strum, accent);
                    }
                }
            }
        }
    }

    fn lead(&mut self, centre: u8, cells: &[Vec<usize>; 2], chromatic: f64) {
        if self.rng.f64() < 0.08 {
            return;
        }
        let phrase = self.bar % 4;
        let full = &cells[usize::from(phrase == 2)];
        // A phrase ends on a long note.
        let cell = if phrase == 3 { &full[..full.len().div_ceil(2)] } else { &full[..] };
        let tonic = self.plan.key.tonic();
        let bar_steps = self.grid().bar_steps();
        let mut at = i32::from(centre) + (self.rng.normal() * 3.5).round().clamp(-7.0, 7.0) as i32;
        let mut lean = None;
        for (i, &step) in cell.iter().enumerate() {
            let (chord, _) = self.chord(step);
            let last = i + 1 == cell.len();
            let strong = step.is_multiple_of(self.grid().steps) || last;
            let mask = if strong {
                chord.sounding().iter().fold(0u16, |mask, tone| mask | 1 << tone)
            } else {
                scale_over(self.plan.key.mode(), &chord)
            };
            let reach = if i == 0 { 0 } else { *self.rng.pick(&[-4, -2, -2, -1, 1, 2, 2, 3, 5]) };
            // The further from the centre, the likelier the way back.
            let pull = (f64::from(at - i32::from(centre)) / 7.0).round() as i32;
            let target = at + reach - pull;
            let mut pitch = match lean.take() {
                Some(resolution) => nearest(mask, tonic, resolution),
                None => nearest(mask, tonic, target),
            };
            if !strong && self.rng.f64() < chromatic {
                pitch += if self.rng.f64() < 0.6 { -1 } else { 1 };
                lean = Some(at);
            }
            at = pitch;
            let end = cell.get(i + 1).copied().unwrap_or(bar_steps);
            let accent = self.grid().accent(step).max(0.7);
            self.note(step, end, pitch.clamp(36, 100) as u8, 0.0, accent);
        }
    }
}

/// The pitch nearest to `target` whose class, relative to `tonic`, is in `mask`; `target` itself for an empty mask.
fn nearest(mask: u16, tonic: u8, target: i32) -> i32 {
    (0..12)
        .flat_map(|distance| [target - distance, target + distance])
        .find(|pitch| mask & (1 << (pitch - i32::from(tonic)).rem_euclid(12)) != 0)
        .unwrap_or(target)
}

/// The pitch classes of a mask, ascending; the tonic for an empty one.
fn members(mask: u16) -> Vec<u8> {
    let classes: Vec<u8> = (0..12).filter(|pc| mask & (1 << pc) != 0).collect();
    if classes.is_empty() { vec![0] } else { classes }
}

fn arp_index(order: ArpOrder, i: usize, voices: usize, rng: &mut Rng) -> usize {
    match order {
        ArpOrder::Up => i % voices,
        ArpOrder::Down => voices - 1 - i % voices,
        ArpOrder::UpDown => {
            let period = (2 * voices - 2).max(1);
            let at = i % period;
            if at < voices { at } else { period - at }
        }
        ArpOrder::Any => rng.below(voices),
    }
}

/// A stream for rendering one note: the same whichever range asks for it.
pub(super) fn note_stream(sound: Key, note: &Note) -> Key {
    sound.with(note.part as u64).with(note.onset_s.to_bits()).with(u64::from(note.pitch))
}
