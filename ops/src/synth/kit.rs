//! Drums and percussion: patterns of unpitched hits.

use super::grid::{Grid, Metre, rhythm_cell};
use super::plan::{Plan, log_uniform};
use super::strike::Sound;
use super::style::{Groove, Style, weighted};
use super::{Hit, instrument::Instrument};
use crate::rng::{Key, Rng};

/// The unpitched players of a clip; either may be missing.
#[derive(Debug, Clone)]
pub(super) struct Kit {
    drums: Option<Drums>,
    percussion: Option<Percussion>,
    key: Key,
}

#[derive(Debug, Clone)]
struct Drums {
    groove: Groove,
    /// Kicks beside those of the groove.
    extra_kicks: Vec<usize>,
    backbeat: Sound,
    cymbal: Sound,
    cymbal_stride: usize,
    open: f64,
    ghosts: f64,
    fills: f64,
    rest: f64,
}

#[derive(Debug, Clone)]
struct Percussion {
    shaker: Option<(Sound, usize)>,
    /// A cell of hits on a second sound.
    cell: Option<(Sound, Vec<usize>)>,
    rest: f64,
}

impl Kit {
    pub(super) fn draw(grid: &Grid, style: &Style, key: Key) -> Self {
        let rng = &mut key.rng();
        let drums = rng.f64() < style.drums;
        let percussion = rng.f64() < style.percussion;
        Self {
            drums: drums.then(|| Drums::draw(grid, style, rng)),
            percussion: percussion.then(|| Percussion::draw(grid, rng)),
            key,
        }
    }

    pub(super) fn has_drums(&self) -> bool {
        self.drums.is_some()
    }

    pub(super) fn has_percussion(&self) -> bool {
        self.percussion.is_some()
    }

    /// Appends the hits of one bar.
    pub(super) fn write_bar(&self, plan: &Plan, bar: u64, out: &mut Vec<Hit>) {
        if let Some(drums) = &self.drums
            && plan.plays(self.key.with(0), drums.rest, bar)
        {
            let mut rng = self.key.with(0).with(bar).rng();
            drums.write(&mut Sticks { plan, bar, player: Instrument::Drums, rng: &mut rng, out });
        }
        if let Some(percussion) = &self.percussion
            && plan.plays(self.key.with(1), percussion.rest, bar)
        {
            let mut rng = self.key.with(1).with(bar).rng();
            percussion.write(&mut Sticks { plan, bar, player: Instrument::Percussion, rng: &mut rng, out });
        }
    }
}

struct Sticks<'a> {
    plan: &'a Plan,
    bar: u64,
    player: Instrument,
    rng: &'a mut Rng,
    out: &'a mut Vec<Hit>,
}

impl Sticks<'_> {
    fn hit(&mut self, sound: Sound, step: usize, velocity: f64) {
        let onset = self.plan.grid.time(self.bar, step) + 0.5 * self.plan.jitter * self.rng.normal();
        let velocity = (velocity * self.rng.uniform(0.88, 1.08)).clamp(0.05, 1.0);
        self.out.push(Hit { player: self.player, sound, onset_s: onset, velocity: velocity as f32 });
    }
}

impl Drums {
    fn draw(grid: &Grid, style: &Style, rng: &mut Rng) -> Self {
        let groove = weighted(style.grooves, rng).unwrap_or(Groove::Backbeat);
        let groove =
            if groove == Groove::FourFloor && grid.metre != Metre::Four { Groove::Backbeat } else { groove };
        let kick_stride = grid.stride(log_uniform(rng, 1.5, 4.0)).min(grid.steps);
        let kick_fill = rng.uniform(0.0, 0.25);
        let extra_kicks = if groove == Groove::FourFloor || rng.f64() < 0.35 {
            Vec::new()
        } else {
            let cell = rhythm_cell(grid, kick_stride, kick_fill, rng);
            // The backbeat stays free of kicks.
            cell.into_iter().filter(|step| !backbeats(grid).contains(step)).collect()
        };
        let backbeat = match groove {
            Groove::Soft | Groove::Ride => *rng.pick(&[Sound::Rim, Sound::Rim, Sound::Snare]),
            Groove::FourFloor => *rng.pick(&[Sound::Clap, Sound::Snare]),
            Groove::Backbeat => *rng.pick(&[Sound::Snare, Sound::Snare, Sound::Snare, Sound::Clap]),
        };
        let cymbal = if groove == Groove::Ride || rng.f64() < 0.15 { Sound::Ride } else { Sound::Hat };
        Self {
            groove,
            extra_kicks,
            backbeat,
            cymbal,
            cymbal_stride: grid.stride(log_uniform(rng, 1.8, 8.0)),
            open: if rng.f64() < 0.4 { rng.uniform(0.02, 0.2) } else { 0.0 },
            ghosts: if rng.f64() < 0.3 { 0.15 } else { 0.0 },
            fills: rng.uniform(0.0, 0.5),
            rest: 0.06,
        }
    }

    fn write(&self, sticks: &mut Sticks<'_>) {
        let grid = &sticks.plan.grid;
        let (steps, bar_steps) = (grid.steps, grid.bar_steps());
        let fill = sticks.bar % 4 == 3 && sticks.rng.f64() < self.fills;
        let fill_from = if fill { bar_steps - steps } else { bar_steps };
        let backbeats = backbeats(grid);
        for step in 0..fill_from {
            let on_beat = step.is_multiple_of(steps);
            let kick = match self.groove {
                Groove::FourFloor => on_beat,
                _ => on_beat && !backbeats.contains(&step) && (step == 0 || grid.metre == Metre::Four),
            };
            if kick {
                sticks.hit(Sound::Kick, step, if step == 0 { 1.0 } else { 0.85 });
            } else if self.extra_kicks.contains(&step) {
                sticks.hit(Sound::Kick, step, 0.65);
            }
            if backbeats.contains(&step) {
                sticks.hit(self.backbeat, step, 0.9);
            } else if self.ghosts > 0.0 && step.is_multiple_of(2) && sticks.rng.f64() < self.ghosts {
                sticks.hit(self.backbeat, step, 0.2);
            }
            if step.is_multiple_of(self.cymbal_stride) {
                let open = !on_beat && sticks.rng.f64() < self.open;
                let sound = if open && self.cymbal == Sound::Hat { Sound::OpenHat } else { self.cymbal };
                sticks.hit(sound, step, f64::from(sticks.plan.grid.accent(step)) * 0.8);
            } else if self.groove == Groove::Ride && steps == 8 && step % 16 == 12 {
                // The skip note of a ride pattern.
                sticks.hit(self.cymbal, step, 0.45);
            }
        }
        for step in (fill_from..bar_steps).step_by(if steps == 8 { 2 } else { 1 }) {
            if sticks.rng.f64() < 0.8 {
                let velocity = sticks.rng.uniform(0.4, 0.9);
                sticks.hit(self.backbeat, step, velocity);
            }
        }
    }
}

impl Percussion {
    fn draw(grid: &Grid, rng: &mut Rng) -> Self {
        let both = rng.f64();
        let shaker = (both < 0.7).then(|| {
            let sound = *rng.pick(&[Sound::Shaker, Sound::Shaker, Sound::Tambourine]);
            (sound, grid.stride(log_uniform(rng, 1.8, 8.0)))
        });
        let cell = (both > 0.4).then(|| {
            let sound = *rng.pick(&[Sound::Conga, Sound::Conga, Sound::Tambourine, Sound::Clap]);
            let stride = grid.stride(log_uniform(rng, 1.5, 4.5)).min(grid.steps);
            let fill = rng.uniform(0.2, 0.6);
            (sound, rhythm_cell(grid, stride, fill, rng))
        });
        Self { shaker, cell, rest: 0.1 }
    }

    fn write(&self, sticks: &mut Sticks<'_>) {
        let bar_steps = sticks.plan.grid.bar_steps();
        for step in 0..bar_steps {
            let accent = f64::from(sticks.plan.grid.accent(step));
            if let Some((sound, stride)) = self.shaker
                && step.is_multiple_of(stride)
            {
                sticks.hit(sound, step, accent * 0.85);
            }
            if let Some((sound, cell)) = &self.cell
                && cell.contains(&step)
            {
                sticks.hit(*sound, step, accent);
            }
        }
    }
}

/// Linear level and pan of a sound in this clip.
pub(super) fn level(plan: &Plan, sound: Sound) -> (f32, f32) {
    let kit = plan.kit.key.with_str("level").rng().uniform(-6.0, 4.0);
    let mut rng = plan.kit.key.with_str("level").with(1 + sound.index() as u64).rng();
    let base = match sound {
        Sound::Kick => 10.0,
        Sound::Snare | Sound::Clap | Sound::Conga => 7.0,
        Sound::Rim | Sound::Tambourine | Sound::Shaker => 4.0,
        Sound::Hat | Sound::OpenHat => 3.0,
        Sound::Ride => 1.0,
    };
    let gain = 10f64.powf((base + kit + rng.uniform(-4.0, 4.0)) / 20.0) as f32;
    let width = if sound == Sound::Kick { 0.0 } else { 0.5 };
    (gain, rng.uniform(-width, width) as f32)
}

/// The steps that the snare answers on.
fn backbeats(grid: &Grid) -> &'static [usize] {
    match grid.metre {
        Metre::Four => &[8, 24],
        Metre::Three => &[8, 16],
        Metre::Six => &[6],
    }
}
