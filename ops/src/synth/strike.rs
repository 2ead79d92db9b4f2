//! One-shot drum and percussion sounds.
//!
//! Each is a short mono buffer rendered from its own key: struck sine tones that glide and fade, and noise through
//! a resonator. Sizes, tunings and decays vary from clip to clip.

use std::f64::consts::TAU;

use super::wavetable::sine;
use crate::rng::{Key, Rng};

/// An unpitched sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sound {
    /// Bass drum.
    Kick,
    /// Snare drum.
    Snare,
    /// Side stick or brush.
    Rim,
    /// Hand clap.
    Clap,
    /// Closed hi-hat.
    Hat,
    /// Open hi-hat.
    OpenHat,
    /// Ride cymbal.
    Ride,
    /// Shaker.
    Shaker,
    /// Tambourine.
    Tambourine,
    /// Conga or tom.
    Conga,
}

impl Sound {
    /// All sounds.
    pub const ALL: [Self; 10] = [
        Self::Kick,
        Self::Snare,
        Self::Rim,
        Self::Clap,
        Self::Hat,
        Self::OpenHat,
        Self::Ride,
        Self::Shaker,
        Self::Tambourine,
        Self::Conga,
    ];

    /// The position in [`Sound::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// The buffer of this sound at a sample rate, for the kit of `key`; peak about 1.
    pub(super) fn render(self, key: Key, rate: f64) -> Vec<f32> {
        let rng = &mut key.with(self.index() as u64).rng();
        let mut shot = Shot::new(rate);
        match self {
            Self::Kick => {
                let pitch = rng.uniform(42.0, 70.0);
                let drop = rng.uniform(60.0, 180.0);
                shot.tone(pitch, drop, rng.uniform(0.015, 0.04), rng.uniform(0.06, 0.16), 1.0);
                shot.noise(rng, 2500.0, 0.7, 0.005, 0.5);
            }
            Self::Snare => {
                let pitch = rng.uniform(150.0, 240.0);
                shot.tone(pitch, 40.0, 0.01, rng.uniform(0.03, 0.08), 0.5);
                shot.tone(pitch * 1.65, 0.0, 0.01, 0.03, 0.25);
                let (centre, decay) = (rng.uniform(1500.0, 4500.0), rng.uniform(0.04, 0.12));
                shot.noise(rng, centre, 0.6, decay, 1.0);
            }
            Self::Rim => {
                let (pitch, decay) = (rng.uniform(400.0, 1700.0), rng.uniform(0.006, 0.02));
                shot.tone(pitch, 0.0, 0.01, decay, 0.6);
                let (centre, decay) = (rng.uniform(1500.0, 4000.0), rng.uniform(0.01, 0.05));
                shot.noise(rng, centre, 0.8, decay, 0.7);
            }
            Self::Clap => {
                let centre = rng.uniform(900.0, 2200.0);
                for delay in [0.0, 0.011, 0.022] {
                    shot.noise_at(rng, delay, centre, 1.5, 0.006, 0.8);
                }
                let decay = rng.uniform(0.04, 0.1);
                shot.noise_at(rng, 0.03, centre, 1.2, decay, 0.7);
            }
            Self::Hat => shot.cymbal(rng, (5000.0, 7500.0), (0.015, 0.05)),
            Self::OpenHat => shot.cymbal(rng, (5000.0, 7500.0), (0.09, 0.18)),
            Self::Ride => {
                shot.cymbal(rng, (4500.0, 7000.0), (0.1, 0.22));
                let pitch = rng.uniform(2200.0, 3800.0);
                shot.tone(pitch, 0.0, 0.01, 0.08, 0.2);
                shot.tone(pitch * 1.47, 0.0, 0.01, 0.06, 0.15);
            }
            Self::Shaker => {
                let (centre, decay) = (rng.uniform(3500.0, 6500.0), rng.uniform(0.015, 0.04));
                shot.noise_at(rng, 0.0, centre, 1.2, 0.01, 0.3);
                shot.noise_at(rng, 0.012, centre, 1.2, decay, 0.8);
            }
            Self::Tambourine => {
                shot.cymbal(rng, (5500.0, 7500.0), (0.05, 0.12));
                let pitch = rng.uniform(3000.0, 5000.0);
                shot.tone(pitch, 0.0, 0.01, 0.04, 0.15);
            }
            Self::Conga => {
                let (pitch, decay) = (rng.uniform(110.0, 330.0), rng.uniform(0.05, 0.12));
                shot.tone(pitch, 25.0, 0.012, decay, 0.9);
                shot.noise(rng, 1800.0, 0.8, 0.008, 0.4);
            }
        }
        shot.finish()
    }
}

struct Shot {
    rate: f64,
    samples: Vec<f32>,
}

impl Shot {
    fn new(rate: f64) -> Self {
        Self { rate, samples: Vec::new() }
    }

    fn reserve(&mut self, seconds: f64) -> usize {
        let frames = (seconds * self.rate) as usize;
        if self.samples.len() < frames {
            self.samples.resize(frames, 0.0);
        }
        frames
    }

    /// A sine that glides from `pitch + drop` to `pitch` (Hz) with time constant `glide`, fading with `decay`.
    fn tone(&mut self, pitch: f64, drop: f64, glide: f64, decay: f64, level: f64) {
        if pitch + drop > 0.45 * self.rate {
            return;
        }
        let frames = self.reserve(decay * 6.0);
        let fade = (-1.0 / (decay * self.rate)).exp() as f32;
        let settle = (-1.0 / (glide * self.rate)).exp();
        let (mut amplitude, mut extra, mut phase) = (level as f32, drop, 0.0f64);
        let table = sine();
        for sample in &mut self.samples[..frames] {
            *sample += amplitude * table.at(phase as f32);
            phase += (pitch + extra) / self.rate;
            phase -= phase.floor();
            extra *= settle;
            amplitude *= fade;
        }
    }

    fn noise(&mut self, rng: &mut Rng, centre: f64, q: f64, decay: f64, level: f64) {
        self.noise_at(rng, 0.0, centre, q, decay, level);
    }

    /// White noise through a two-pole resonator about `centre` Hz, fading with `decay`, from `delay` seconds on.
    fn noise_at(&mut self, rng: &mut Rng, delay: f64, centre: f64, q: f64, decay: f64, level: f64) {
        let first = (delay * self.rate) as usize;
        let frames = self.reserve(delay + decay * 6.0);
        let fade = (-1.0 / (decay * self.rate)).exp() as f32;
        // Band-pass with 0 dB peak gain (R. Bristow-Johnson's audio EQ cookbook).
        let w = TAU * centre.min(0.42 * self.rate) / self.rate;
        let alpha = w.sin() / (2.0 * q);
        let (gain, a1, a2) =
            (alpha / (1.0 + alpha), -2.0 * w.cos() / (1.0 + alpha), (1.0 - alpha) / (1.0 + alpha));
        let (gain, a1, a2) = (gain as f32, a1 as f32, a2 as f32);
        let mut state = rng.next_u32();
        let (mut x1, mut x2, mut y1, mut y2) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
        let mut amplitude = 2.0 * level as f32;
        for sample in &mut self.samples[first..frames] {
            let x = white(&mut state);
            let y = gain * (x - x2) - a1 * y1 - a2 * y2;
            (x2, x1, y2, y1) = (x1, x, y1, y);
            *sample += amplitude * y;
            amplitude *= fade;
        }
    }

    fn cymbal(&mut self, rng: &mut Rng, centre: (f64, f64), decay: (f64, f64)) {
        let centre = rng.uniform(centre.0, centre.1);
        let decay = rng.uniform(decay.0, decay.1);
        self.noise(rng, centre, 1.3, decay, 0.8);
    }

    /// Fades the last tenth out, so that no buffer ends in a click.
    fn finish(mut self) -> Vec<f32> {
        let tail = self.samples.len() / 10;
        for (i, sample) in self.samples.iter_mut().rev().take(tail).enumerate() {
            *sample *= i as f32 / tail as f32;
        }
        self.samples
    }
}

/// White noise in -1..1 from a xorshift generator; a cheap sequence for sound, where quality does not matter.
fn white(state: &mut u32) -> f32 {
    *state |= 1;
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state as i32 as f32 / 2_147_483_648.0
}
