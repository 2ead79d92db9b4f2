//! Musical time: metre, steps, swing, and their place on the clock.

use crate::rng::Rng;

/// The metre of a clip. A beat is the felt one: a dotted quarter in 6/8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metre {
    Four,
    Three,
    Six,
}

impl Metre {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Four => "4/4",
            Self::Three => "3/4",
            Self::Six => "6/8",
        }
    }
}

/// Where the beats lie. A bar has `beats * steps` steps; the clip starts `lead` seconds into the music.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    pub(super) metre: Metre,
    pub(super) bpm: f64,
    /// Beats of a bar.
    pub(super) beats: usize,
    /// Steps of a beat: 8 (thirty-seconds), or 6 in 6/8.
    pub(super) steps: usize,
    /// Where the second eighth of a beat falls, 0.5 (straight) to 2/3.
    pub(super) swing: f64,
    pub(super) lead: f64,
}

impl Grid {
    pub(super) fn new(metre: Metre, bpm: f64, swing: f64) -> Self {
        let (beats, steps) = match metre {
            Metre::Four => (4, 8),
            Metre::Three => (3, 8),
            Metre::Six => (2, 6),
        };
        let swing = if metre == Metre::Six { 0.5 } else { swing };
        Self { metre, bpm, beats, steps, swing, lead: 0.0 }
    }

    pub(super) fn beat_seconds(&self) -> f64 {
        60.0 / self.bpm
    }

    pub(super) fn bar_seconds(&self) -> f64 {
        self.beats as f64 * self.beat_seconds()
    }

    pub(super) fn bar_steps(&self) -> usize {
        self.beats * self.steps
    }

    /// Clip time, in seconds, of a step counted from the start of `bar`; it may lie in a later bar.
    pub(super) fn time(&self, bar: u64, step: usize) -> f64 {
        let beat = bar as f64 * self.beats as f64 + (step / self.steps) as f64;
        let x = (step % self.steps) as f64 / self.steps as f64;
        let warped =
            if x < 0.5 { x * 2.0 * self.swing } else { self.swing + (x - 0.5) * 2.0 * (1.0 - self.swing) };
        (beat + warped) * self.beat_seconds() - self.lead
    }

    /// The bars that overlap a range of clip time.
    pub(super) fn bars(&self, from_s: f64, to_s: f64) -> std::ops::Range<u64> {
        let bar = self.bar_seconds();
        let first = ((from_s + self.lead) / bar).floor().max(0.0) as u64;
        let end = ((to_s + self.lead) / bar).ceil().max(0.0) as u64;
        first..end
    }

    /// The even subdivision whose rate is nearest to `rate` notes a second, as a distance in steps.
    ///
    /// Densities are drawn in notes per second and rounded to a subdivision here, so that a fast tempo does not
    /// mean many notes: the count of notes must not tell the tempo.
    pub(super) fn stride(&self, rate: f64) -> usize {
        let options: &[usize] = if self.steps == 6 { &[6, 2, 1] } else { &[8, 4, 2, 1] };
        let distance =
            |stride: usize| (self.steps as f64 / (stride as f64 * self.beat_seconds()) / rate).ln().abs();
        options.iter().copied().min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap_or(self.steps)
    }

    /// Chord duration in beats, nearest to `seconds` among the musical ones.
    pub(super) fn chord_beats(&self, seconds: f64) -> usize {
        let options: &[usize] = match self.metre {
            Metre::Four => &[1, 2, 4, 8],
            Metre::Three => &[3, 6],
            Metre::Six => &[1, 2, 4],
        };
        let distance = |beats: usize| (beats as f64 * self.beat_seconds() / seconds).ln().abs();
        options.iter().copied().min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap_or(self.beats)
    }

    /// Metrical weight of a step of the bar: 1 downbeat, then beats, then what lies between.
    pub(super) fn accent(&self, step: usize) -> f32 {
        if step == 0 {
            1.0
        } else if step.is_multiple_of(self.steps) {
            if self.metre == Metre::Four && step == 2 * self.steps { 0.9 } else { 0.82 }
        } else if self.steps == 8 && step % 8 == 4 {
            0.66
        } else {
            0.55
        }
    }
}

/// A random rhythm of one bar on multiples of `stride`: strong places are likelier, `fill` 0..1 is the share of
/// places taken. Never empty.
pub(super) fn rhythm_cell(grid: &Grid, stride: usize, fill: f64, rng: &mut Rng) -> Vec<usize> {
    let mut cell: Vec<usize> = (0..grid.bar_steps())
        .step_by(stride)
        .filter(|&step| {
            let strength = f64::from(grid.accent(step)) - 0.7;
            rng.f64() < (fill + strength * 0.6).clamp(0.05, 0.98)
        })
        .collect();
    if cell.is_empty() {
        cell.push(0);
    }
    cell
}
