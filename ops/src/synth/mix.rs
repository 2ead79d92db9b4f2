//! The mix of a clip: room, equaliser, noise floor, level.
//!
//! The room is a handful of early reflections: finite, so that a range needs only [`PRE_ROLL`] seconds before
//! itself. The equaliser is recursive; its memory has died away within the same pre-roll.

use super::voice::noise;
use crate::rng::Key;

/// Seconds rendered before a range, for reflections and filters to be as if the clip had run from its start.
pub(super) const PRE_ROLL: f64 = 0.16;

/// Longest reflection, in seconds.
const ROOM: f64 = 0.075;

const TAPS: usize = 6;

/// What is common to all parts of a clip.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    /// For left and right, the delay in seconds and level of each reflection.
    taps: [[(f64, f32); TAPS]; 2],
    /// How much of each part goes to the room.
    pub(super) send: f32,
    shelves: [Band; 3],
    floor: f32,
    floor_seed: u32,
    gain: f32,
}

#[derive(Debug, Clone, Copy)]
struct Band {
    shape: Shape,
    hz: f64,
    db: f64,
    q: f64,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Low,
    Peak,
    High,
}

impl Mix {
    pub(super) fn draw(key: Key) -> Self {
        let rng = &mut key.rng();
        let size = rng.uniform(0.3, 1.0);
        let mut taps = [[(0.0, 0.0); TAPS]; 2];
        for side in &mut taps {
            for (i, tap) in side.iter_mut().enumerate() {
                let spread = (i as f64 + rng.uniform(0.4, 1.0)) / TAPS as f64;
                let level = 0.5 * (-1.8 * spread).exp() * if rng.f64() < 0.5 { -1.0 } else { 1.0 };
                *tap = (ROOM * size * spread, level as f32);
            }
        }
        let mut band = |shape, hz: (f64, f64), db: (f64, f64), q: (f64, f64)| Band {
            shape,
            hz: rng.uniform(hz.0.ln(), hz.1.ln()).exp(),
            db: rng.uniform(db.0, db.1),
            q: rng.uniform(q.0, q.1),
        };
        let shelves = [
            band(Shape::Low, (120.0, 400.0), (-8.0, 6.0), (0.6, 0.8)),
            band(Shape::Peak, (400.0, 3000.0), (-7.0, 7.0), (0.5, 1.5)),
            band(Shape::High, (1800.0, 5000.0), (-14.0, 6.0), (0.6, 0.8)),
        ];
        Self {
            taps,
            send: rng.uniform(0.0, 1.0) as f32,
            shelves,
            floor: 10f64.powf(rng.uniform(-75.0, -40.0) / 20.0) as f32,
            floor_seed: rng.next_u32(),
            gain: 10f64.powf(rng.uniform(-10.0, 2.0) / 20.0) as f32,
        }
    }

    /// Finishes a mix in place. `sides` are left and right, `wet` the sum that goes to the room; all start at
    /// sample number `first` of the clip.
    pub(super) fn finish(&self, sides: &mut [Vec<f32>; 2], wet: &[f32], rate: f64, first: i64) {
        for (side, taps) in sides.iter_mut().zip(&self.taps) {
            for (delay, level) in taps {
                let delay = (delay * rate).round() as usize;
                if delay < side.len() {
                    for (sample, reflected) in side[delay..].iter_mut().zip(wet) {
                        *sample += level * reflected;
                    }
                }
            }
        }
        let [left, right] = sides;
        equalise(&self.shelves, rate, left, right);
        for (seed, side) in [(self.floor_seed, left), (!self.floor_seed, right)] {
            for (i, sample) in side.iter_mut().enumerate() {
                let hiss = self.floor * noise(seed, (first + i as i64) as u32);
                *sample = limit(self.gain * *sample + hiss);
            }
        }
    }
}

/// A smooth limiter with slope 1 at zero: below 1 for all finite input. The rational function is the [3/2] Padé
/// approximant of tanh, which meets 1 at an input of 3.
fn limit(x: f32) -> f32 {
    let x = x.clamp(-3.0, 3.0);
    let square = x * x;
    0.99 * x * (27.0 + square) / (27.0 + 9.0 * square)
}

impl Band {
    /// Coefficients b0, b1, b2, a1, a2 after R. Bristow-Johnson's audio EQ cookbook.
    fn coefficients(&self, rate: f64) -> [f32; 5] {
        let a = 10f64.powf(self.db / 40.0);
        let w = std::f64::consts::TAU * self.hz.min(0.45 * rate) / rate;
        let (sin, cos) = w.sin_cos();
        let alpha = sin / (2.0 * self.q);
        let (b, a) = match self.shape {
            Shape::Peak => (
                [1.0 + alpha * a, -2.0 * cos, 1.0 - alpha * a],
                [1.0 + alpha / a, -2.0 * cos, 1.0 - alpha / a],
            ),
            Shape::Low | Shape::High => {
                // The high shelf is the low shelf mirrored: cos changes its sign.
                let (c, sign) = if matches!(self.shape, Shape::Low) { (cos, 1.0) } else { (-cos, -1.0) };
                let root = 2.0 * a.sqrt() * alpha;
                (
                    [
                        a * ((a + 1.0) - (a - 1.0) * c + root),
                        sign * 2.0 * a * ((a - 1.0) - (a + 1.0) * c),
                        a * ((a + 1.0) - (a - 1.0) * c - root),
                    ],
                    [
                        (a + 1.0) + (a - 1.0) * c + root,
                        sign * -2.0 * ((a - 1.0) + (a + 1.0) * c),
                        (a + 1.0) + (a - 1.0) * c - root,
                    ],
                )
            }
        };
        [b[0] / a[0], b[1] / a[0], b[2] / a[0], a[1] / a[0], a[2] / a[0]].map(|c| c as f32)
    }
}

/// Runs the bands in series over both sides in one pass: six independent recursions hide each other's latency.
fn equalise(bands: &[Band; 3], rate: f64, left: &mut [f32], right: &mut [f32]) {
    let bands = bands.map(|band| band.coefficients(rate));
    // Transposed direct form II, for each band two states of (left, right).
    let mut states = [[[0.0f32; 2]; 2]; 3];
    for (l, r) in left.iter_mut().zip(right) {
        let mut x = [*l, *r];
        for ([b0, b1, b2, a1, a2], [s1, s2]) in bands.iter().zip(&mut states) {
            let y = [0, 1].map(|i| b0 * x[i] + s1[i]);
            *s1 = [0, 1].map(|i| b1 * x[i] - a1 * y[i] + s2[i]);
            *s2 = [0, 1].map(|i| b2 * x[i] - a2 * y[i]);
            x = y;
        }
        [*l, *r] = x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gain in dB of a band at a frequency, from its coefficients.
    fn gain(band: &Band, hz: f64) -> f64 {
        let rate = 16_000.0;
        let [b0, b1, b2, a1, a2] = band.coefficients(rate).map(f64::from);
        let w = std::f64::consts::TAU * hz / rate;
        let at = |c0: f64, c1: f64, c2: f64| {
            let re = c0 + c1 * w.cos() + c2 * (2.0 * w).cos();
            let im = c1 * w.sin() + c2 * (2.0 * w).sin();
            re.hypot(im)
        };
        20.0 * (at(b0, b1, b2) / at(1.0, a1, a2)).log10()
    }

    #[test]
    fn bands_have_their_gain_where_they_should() {
        let low = Band { shape: Shape::Low, hz: 300.0, db: 6.0, q: 0.7 };
        assert!((gain(&low, 5.0) - 6.0).abs() < 0.05 && gain(&low, 7900.0).abs() < 0.05);
        let high = Band { shape: Shape::High, hz: 3000.0, db: -12.0, q: 0.7 };
        assert!(gain(&high, 5.0).abs() < 0.05 && (gain(&high, 7999.0) + 12.0).abs() < 0.05);
        let peak = Band { shape: Shape::Peak, hz: 1000.0, db: 4.0, q: 1.0 };
        assert!((gain(&peak, 1000.0) - 4.0).abs() < 0.01 && gain(&peak, 5.0).abs() < 0.05);
    }

    #[test]
    fn the_limiter_stays_below_one() {
        assert!((limit(0.01) - 0.0099).abs() < 1e-5);
        assert!(limit(1e30) < 1.0 && limit(-1e30) > -1.0);
        assert!((0..600).all(|i| limit(i as f32 * 0.01) <= limit((i + 1) as f32 * 0.01)));
    }
}
