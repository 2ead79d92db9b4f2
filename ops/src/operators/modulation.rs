//! What the modulated effects share: the oscillator that moves them, and the scale at which they work.

use std::f64::consts::TAU;

use crate::audio::Audio;

/// A sine by recurrence: two products a value, no call of `sin`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lfo {
    sin: f64,
    cos: f64,
    step: (f64, f64),
}

impl Lfo {
    /// Starts at `phase`, in radians, with one value every `frames` frames.
    pub(super) fn new(phase: f64, hz: f64, rate: u32, frames: usize) -> Self {
        let (sin, cos) = phase.sin_cos();
        Self { sin, cos, step: turn(hz, rate, frames).sin_cos() }
    }

    /// The present value, within -1..1; then moves on.
    pub(super) fn next(&mut self) -> f64 {
        let now = self.sin.clamp(-1.0, 1.0);
        let (sin, cos) = self.step;
        (self.sin, self.cos) = (self.sin * cos + self.cos * sin, self.cos * cos - self.sin * sin);
        now
    }
}

/// How far an oscillator turns in so many frames, in radians.
pub(crate) fn turn(hz: f64, rate: u32, frames: usize) -> f64 {
    TAU * hz * frames as f64 / f64::from(rate)
}

/// How many frames lie between two values of an oscillator, between which effects interpolate: 2 ms.
pub(crate) fn control_frames(rate: u32) -> usize {
    (rate as usize / 500).max(8)
}

/// What to multiply the audio by so that sums of a few samples cannot overflow: 1 for all audio within 2^20, else a
/// power of two, so that nothing is rounded.
pub(super) fn headroom(audio: &Audio) -> f32 {
    const LIMIT: f32 = (1u32 << 20) as f32;
    // Without a branch per sample, so that it is vectorised.
    let loud = |channel: &Vec<f32>| channel.iter().fold(false, |loud, s| loud | (s.abs() > LIMIT));
    if audio.channels.iter().any(loud) { 1.0 / f32::from_bits((127 + 108) << 23) } else { 1.0 }
}

/// Puts `wet`, made at the scale of [`headroom`], in place of a part `mix` of `samples`.
pub(super) fn blend(samples: &mut [f32], wet: &[f32], mix: f32, scale: f32) {
    let back = 1.0 / scale;
    for (sample, wet) in samples.iter_mut().zip(wet) {
        let dry = *sample * scale;
        *sample = ((dry + mix * (wet - dry)) * back).clamp(f32::MIN, f32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recurrence_stays_a_sine() {
        let mut lfo = Lfo::new(0.3, 1.7, 16_000, 32);
        for i in 0..100_000 {
            let want = (0.3 + TAU * 1.7 * 32.0 / 16_000.0 * f64::from(i)).sin();
            assert!((lfo.next() - want).abs() < 1e-9);
        }
    }
}
