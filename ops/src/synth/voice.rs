//! One note: a crossfaded wavetable under an envelope, with vibrato, unison, an overtone and noise.
//!
//! Envelope and pitch are evaluated in closed form at the edges of short blocks counted from the note's onset,
//! and interpolated linearly inside. Nothing carries over from sample to sample, so any range of a note can be
//! rendered alone.

use std::f64::consts::TAU;

use super::timbre::Timbre;
use super::wavetable::{Cycle, FRACTION_BITS, Tables, sine};
use crate::rng::Key;

/// Release time constants after which a note is over.
const RELEASES: f32 = 5.0;

/// Seconds for which a note of this timbre sounds after its gate.
pub(super) fn tail(timbre: &Timbre) -> f32 {
    RELEASES * timbre.release
}

/// A note to be rendered.
pub(super) struct Voice<'a> {
    pub(super) timbre: &'a Timbre,
    pub(super) onset_s: f64,
    pub(super) gate: f32,
    pub(super) hz: f64,
    pub(super) velocity: f32,
    /// Random stream of this note.
    pub(super) key: Key,
}

/// State of a note at a block edge.
#[derive(Clone, Copy)]
struct Edge {
    /// Level of the dull and of the bright table.
    levels: [f32; 2],
    /// Phase in cycles, before the starting phase.
    cycles: f64,
}

impl Voice<'_> {
    /// Adds the part of the note that lies within `out`, whose first sample is number `first` of the clip.
    pub(super) fn add(&self, tables: &mut Tables<'_>, rate: f64, first: i64, out: &mut [f32]) {
        let Some(cycle) = tables.get(self.hz, rate) else { return };
        let onset = (self.onset_s * rate).round() as i64;
        let frames = (f64::from(self.gate + tail(self.timbre)) * rate) as i64;
        let from = (first - onset).max(0);
        let to = (first + out.len() as i64 - onset).min(frames);
        if from >= to {
            return;
        }
        let rng = &mut self.key.rng();
        let starts = [rng.next_u32(), rng.next_u32()];
        let detune = 2f64.powf(f64::from(self.timbre.unison_cents) / 2400.0);
        let unison = self.timbre.unison_cents > 0.0;
        let block = ((rate / 400.0) as i64).max(8);
        let mut begin = from / block * block;
        let mut edge = self.edge(begin as f64 / rate);
        while begin < to {
            let next = self.edge((begin + block) as f64 / rate);
            // Samples of this block that lie in the range.
            let (skip, end) = ((from - begin).max(0), (to - begin).min(block));
            let at = (begin + skip + onset - first) as usize;
            let run = &mut out[at..at + (end - skip) as usize];
            if unison {
                for (start, ratio) in [(starts[0], detune), (starts[1], 1.0 / detune)] {
                    Ramp::new(&edge, &next, ratio, start, 0.7, block, skip).add(cycle, run);
                }
            } else {
                Ramp::new(&edge, &next, 1.0, starts[0], 1.0, block, skip).add(cycle, run);
            }
            begin += block;
            edge = next;
        }
        let span = Span { rate, first, onset, from, to };
        self.add_overtone(&span, starts[1], out);
        self.add_noise(&span, starts[0], out);
    }

    fn edge(&self, t: f64) -> Edge {
        let timbre = self.timbre;
        let seconds = t as f32;
        let body = self.body(seconds);
        let (from, to) = timbre.bright;
        let bright = to + (from - to) * (-seconds / timbre.bright_time).exp();
        // Played softly, an instrument is duller.
        let bright = bright * (0.4 + 0.6 * self.velocity);
        let (mut level, mut cycles) = (body * self.velocity, self.hz * t);
        if timbre.vibrato_cents > 0.0 || timbre.tremolo > 0.0 {
            let angle = TAU * f64::from(timbre.vibrato_rate) * t;
            let swing = angle.cos();
            level *= 1.0 - timbre.tremolo * 0.5 * (1.0 + swing as f32);
            let depth = f64::from(timbre.vibrato_cents) * std::f64::consts::LN_2 / 1200.0;
            cycles += self.hz * depth * (1.0 - swing) / (TAU * f64::from(timbre.vibrato_rate));
        }
        Edge { levels: [level * (1.0 - bright), level * bright], cycles }
    }

    /// The envelope at `t` seconds from the onset.
    fn body(&self, t: f32) -> f32 {
        let timbre = self.timbre;
        // Higher notes fade faster, as strings and bars do.
        let decay = timbre.decay * (261.63 / self.hz as f32).sqrt().clamp(0.5, 2.0);
        let held = t.min(self.gate);
        let attack = (held / timbre.attack).min(1.0);
        let faded = if timbre.sustain < 1.0 {
            let fade = (-(held - timbre.attack).max(0.0) / decay).exp();
            timbre.sustain + (1.0 - timbre.sustain) * fade
        } else {
            1.0
        };
        let after = t - self.gate;
        let release = if after > 0.0 {
            let left = (1.0 - after / tail(timbre)).max(0.0);
            left * (-after / timbre.release).exp()
        } else {
            1.0
        };
        attack * faded * release
    }

    fn add_overtone(&self, span: &Span, start: u32, out: &mut [f32]) {
        let Some((ratio, level, decay)) = self.timbre.overtone else { return };
        let step = self.hz * f64::from(ratio) / span.rate;
        let to = span.to.min((f64::from(decay) * 6.0 * span.rate) as i64);
        if step >= 0.48 || span.from >= to {
            return;
        }
        let begin = span.from as f64;
        let fade = (-1.0 / (f64::from(decay) * span.rate)).exp() as f32;
        let mut amplitude = level * self.velocity * (-begin / (f64::from(decay) * span.rate)).exp() as f32;
        let mut phase = (step * begin + f64::from(start) / 4_294_967_296.0).fract();
        let attack = f64::from(self.timbre.attack) * span.rate;
        let table = sine();
        for (i, sample) in span.slice(out, to).iter_mut().enumerate() {
            let rise = ((begin + i as f64) / attack).min(1.0) as f32;
            *sample += rise * amplitude * table.at(phase as f32);
            amplitude *= fade;
            phase += step;
            phase -= phase.floor();
        }
    }

    fn add_noise(&self, span: &Span, seed: u32, out: &mut [f32]) {
        let timbre = self.timbre;
        if timbre.breath > 0.0 {
            let level = 1.7 * timbre.breath * self.velocity;
            let block = ((span.rate / 400.0) as i64).max(8);
            let mut begin = span.from / block * block;
            while begin < span.to {
                let amplitude = level * self.body((begin as f64 / span.rate) as f32);
                let (from, to) = (begin.max(span.from), (begin + block).min(span.to));
                let at = (from + span.onset - span.first) as usize;
                for (i, sample) in out[at..at + (to - from) as usize].iter_mut().enumerate() {
                    *sample += amplitude * noise(seed, from as u32 + i as u32);
                }
                begin += block;
            }
        }
        if timbre.strike > 0.0 {
            let decay = 0.008 * span.rate;
            let to = span.to.min((decay * 6.0) as i64);
            if span.from < to {
                let fade = (-1.0 / decay).exp() as f32;
                let begin = (-(span.from as f64) / decay).exp() as f32;
                let mut amplitude = 1.7 * timbre.strike * self.velocity * self.velocity * begin;
                for (i, sample) in span.slice(out, to).iter_mut().enumerate() {
                    *sample += amplitude * noise(seed, span.from as u32 + i as u32);
                    amplitude *= fade;
                }
            }
        }
    }
}

/// Sample numbers: the range of a note, counted from its onset, that lies in an output buffer.
struct Span {
    rate: f64,
    first: i64,
    onset: i64,
    from: i64,
    to: i64,
}

impl Span {
    /// The samples of `out` from the start of the range until `to`.
    fn slice<'a>(&self, out: &'a mut [f32], to: i64) -> &'a mut [f32] {
        let at = (self.from + self.onset - self.first) as usize;
        &mut out[at..at + (to - self.from) as usize]
    }
}

/// Linear motion of phase and levels within a block.
struct Ramp {
    phase: u32,
    step: u32,
    levels: [f32; 2],
    slopes: [f32; 2],
}

impl Ramp {
    /// `ratio` detunes, `skip` samples of the block are passed over.
    fn new(from: &Edge, to: &Edge, ratio: f64, start: u32, gain: f32, block: i64, skip: i64) -> Self {
        let turn = 4_294_967_296.0;
        let (a, b) = (from.cycles * ratio, to.cycles * ratio);
        let step = ((b - a) / block as f64 * turn) as u32;
        let phase =
            start.wrapping_add((a.fract() * turn) as u32).wrapping_add(step.wrapping_mul(skip as u32));
        let share = 1.0 / block as f32;
        let slopes = [0, 1].map(|i| gain * (to.levels[i] - from.levels[i]) * share);
        let levels = [0, 1].map(|i| gain * from.levels[i] + slopes[i] * skip as f32);
        Self { phase, step, levels, slopes }
    }

    fn add(mut self, cycle: &Cycle, out: &mut [f32]) {
        const SCALE: f32 = 1.0 / (1u32 << FRACTION_BITS) as f32;
        for sample in out {
            let i = (self.phase >> FRACTION_BITS) as usize;
            let x = (self.phase & ((1 << FRACTION_BITS) - 1)) as i32 as f32 * SCALE;
            let ([d0, b0], [d1, b1]) = (cycle[i], cycle[i + 1]);
            *sample += (d0 + x * (d1 - d0)) * self.levels[0] + (b0 + x * (b1 - b0)) * self.levels[1];
            self.levels[0] += self.slopes[0];
            self.levels[1] += self.slopes[1];
            self.phase = self.phase.wrapping_add(self.step);
        }
    }
}

/// White noise in -1..1 as a function of (seed, sample number): a range needs nothing before it.
pub(super) fn noise(seed: u32, n: u32) -> f32 {
    let mut x = n.wrapping_mul(0x9E37_79B1) ^ seed;
    x = (x ^ (x >> 15)).wrapping_mul(0x85EB_CA77);
    x ^= x >> 13;
    x = x.wrapping_mul(0xC2B2_AE3D);
    (x ^ (x >> 16)) as i32 as f32 * (1.0 / 2_147_483_648.0)
}
