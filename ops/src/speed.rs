//! Resampling by any ratio, for tape speed: band-limited interpolation (Smith and Gossett, "A flexible sampling-rate
//! conversion method", ICASSP 1984).
//!
//! A row of taps per 1/256 of a sample, linear in between: exact at whole positions, so that speed 1 gives the
//! samples back. Faster than 1, the pass band ends where the new Nyquist frequency lies, and rows are longer by as
//! much; they are worked out again when the speed changes.

use std::f64::consts::PI;

use crate::audio::magnitude;
use crate::kaiser::kaiser;

/// Rows within a sample.
pub(crate) const PHASES: usize = 256;
/// Zero crossings of the sinc on either side.
const CROSSINGS: usize = 16;
/// Shape of the Kaiser window: about 75 dB.
const KAISER_BETA: f64 = 7.5;
/// Entries of the table of the window, from its middle to its end.
pub(crate) const WINDOW: usize = 4_096;
/// Beyond this, products might overflow: samples are scaled down and up again.
pub(crate) const LOUD: f32 = 1e30;

/// Frames read for `frames` of output at `speed`, centred alike; the excess over `frames` is even.
pub(crate) fn input_frames(frames: usize, speed: f64) -> usize {
    let stretch = (frames as f64 * (speed - 1.0) / 2.0).ceil() as i64;
    (frames as i64 + 2 * (stretch + taps(speed) as i64 / 2 + 1)).max(1) as usize
}

/// Taps of a row, a multiple of 8.
pub(crate) fn taps(speed: f64) -> usize {
    ((2 * CROSSINGS) as f64 * speed.max(1.0)).ceil() as usize / 8 * 8 + 8 * usize::from(speed > 1.0)
}

/// Where the pass band ends, as a part of the Nyquist frequency.
pub(crate) fn cutoff(speed: f64) -> f64 {
    1.0 / speed.max(1.0)
}

/// The interpolator of one speed at a time, with its tables.
pub(crate) struct Resampler {
    pub(crate) window: Vec<f64>,
    rows: Vec<f32>,
    /// Of the speed that the rows are for: how long they are, and the end of their pass band.
    taps: usize,
    cutoff: f64,
}

impl Resampler {
    pub(crate) fn new() -> Self {
        let at = |i: usize| kaiser(i as f64 / WINDOW as f64, KAISER_BETA);
        let window = (0..=WINDOW).map(at).collect();
        Self { window, rows: Vec::new(), taps: 0, cutoff: 0.0 }
    }

    /// Plays `input` at `speed` into `output`: the middle of one sounds at the middle of the other. What lies outside
    /// of `input` is silence. `input` is spoilt.
    pub(crate) fn process(&mut self, input: &mut [Vec<f32>], speed: f64, output: &mut [Vec<f32>]) {
        self.plan(speed);
        let peak = input.iter().map(|channel| magnitude(channel)).max().unwrap_or(0);
        let scale = if f32::from_bits(peak) > LOUD { 2f32.powi(-64) } else { 1.0 };
        for (input, output) in input.iter_mut().zip(output) {
            if scale < 1.0 {
                input.iter_mut().for_each(|x| *x *= scale);
            }
            let start = (input.len() as f64 - output.len() as f64 * speed) / 2.0;
            for (n, y) in output.iter_mut().enumerate() {
                *y = (self.at(input, start + n as f64 * speed) / scale).clamp(f32::MIN, f32::MAX);
            }
        }
    }

    /// Works out the rows of a speed, unless they are those at hand.
    fn plan(&mut self, speed: f64) {
        let (taps, cutoff) = (taps(speed), cutoff(speed));
        if (self.taps, self.cutoff) == (taps, cutoff) {
            return;
        }
        (self.taps, self.cutoff) = (taps, cutoff);
        self.rows.resize((PHASES + 1) * taps, 0.0);
        let half = taps as f64 / 2.0;
        let (turn_sin, turn_cos) = (PI * cutoff).sin_cos();
        for (phase, row) in self.rows.chunks_exact_mut(taps).enumerate() {
            let first = 1.0 - half - phase as f64 / PHASES as f64;
            // sin(pi cutoff x) for x one apart, by rotation.
            let (mut sin, mut cos) = (PI * cutoff * first).sin_cos();
            let mut sum = 0.0;
            for (j, tap) in row.iter_mut().enumerate() {
                let x = first + j as f64;
                let sinc = if x.abs() < 1e-9 { cutoff } else { sin / (PI * x) };
                let place = (x.abs() / half).min(1.0) * WINDOW as f64;
                let (whole, part) = (place as usize, place.fract());
                let next = self.window[(whole + 1).min(WINDOW)];
                let value = sinc * (self.window[whole] + part * (next - self.window[whole]));
                // At full band a whole position is the sample itself.
                *tap = if cutoff == 1.0 && x.fract() == 0.0 && x != 0.0 { 0.0 } else { value as f32 };
                sum += f64::from(*tap);
                (sin, cos) = (sin * turn_cos + cos * turn_sin, cos * turn_cos - sin * turn_sin);
            }
            let gain = (1.0 / sum) as f32;
            row.iter_mut().for_each(|tap| *tap *= gain);
        }
    }

    /// The value at a position.
    #[inline]
    fn at(&self, samples: &[f32], position: f64) -> f32 {
        let whole = position.floor();
        let phase = (position - whole) * PHASES as f64;
        let row = (phase as usize).min(PHASES - 1);
        let blend = (phase - row as f64) as f32;
        let first = whole as i64 + 1 - self.taps as i64 / 2;
        let rows = &self.rows[row * self.taps..(row + 2) * self.taps];
        let (a, b) = rows.split_at(self.taps);
        let inside = usize::try_from(first).ok().and_then(|first| samples.get(first..first + self.taps));
        let Some(x) = inside else {
            let value = |(j, (a, b)): (usize, (&f32, &f32))| {
                let sample = usize::try_from(first + j as i64).ok().and_then(|at| samples.get(at));
                sample.map_or(0.0, |x| x * (a + blend * (b - a)))
            };
            return a.iter().zip(b).enumerate().map(value).sum();
        };
        // Eight independent sums, so that the loop becomes vector code.
        let mut sums = [0.0f32; 8];
        let (x, a, b) = (x.as_chunks::<8>().0, a.as_chunks::<8>().0, b.as_chunks::<8>().0);
        for ((x, a), b) in x.iter().zip(a).zip(b) {
            for (sum, ((x, a), b)) in sums.iter_mut().zip(x.iter().zip(a).zip(b)) {
                *sum += x * (a + blend * (b - a));
            }
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    /// A sine of `hz` through `speed`, and the sine it should become.
    fn played(hz: f64, speed: f64) -> (Vec<f32>, impl Fn(usize) -> f64) {
        let (rate, frames) = (16_000.0, 16_000);
        let length = input_frames(frames, speed);
        let at = move |i: usize, speed: f64, length: usize| {
            0.5 * (TAU * hz * speed * (i as f64 - length as f64 / 2.0) / rate).sin()
        };
        let mut input = vec![(0..length).map(|i| at(i, 1.0, length) as f32).collect()];
        let mut output = vec![vec![0.0; frames]];
        Resampler::new().process(&mut input, speed, &mut output);
        (output.remove(0), move |i| at(i, speed, frames))
    }

    fn decibels(signal: impl Iterator<Item = f64>, error: impl Iterator<Item = f64>) -> f64 {
        let power = |x: f64| x * x;
        10.0 * (signal.map(power).sum::<f64>() / error.map(power).sum::<f64>()).log10()
    }

    #[test]
    fn tones_come_out_clean_at_their_new_pitch() {
        for speed in [0.5, 0.8, 0.93, 1.07, 1.25, 2.0] {
            for hz in [110.0, 440.0, 1_500.0, 3_000.0] {
                let (got, want) = played(hz, speed);
                let signal = (0..got.len()).map(&want);
                let db = decibels(signal, got.iter().enumerate().map(|(i, y)| f64::from(*y) - want(i)));
                assert!(db > 72.0, "{hz} Hz at {speed}: {db:.1} dB");
            }
        }
    }

    #[test]
    fn what_would_alias_is_gone() {
        for (hz, speed) in [(7_000.0, 1.5), (6_000.0, 1.9), (7_800.0, 1.25)] {
            let (got, want) = played(hz, speed);
            let db = decibels((0..got.len()).map(want), got.iter().map(|y| f64::from(*y)));
            assert!(db > 60.0, "{hz} Hz at {speed}: {db:.1} dB");
        }
    }

    #[test]
    fn speed_one_gives_the_samples_back() {
        let input: Vec<f32> = (0..input_frames(500, 1.0)).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let first = (input.len() - 500) / 2;
        let mut output = vec![vec![0.0; 500]];
        Resampler::new().process(&mut [input.clone()], 1.0, &mut output);
        assert_eq!(output[0], input[first..first + 500]);
    }

    #[test]
    fn the_loudest_stays_finite_and_enough_is_read() {
        for speed in [0.5, 0.77, 1.0, 1.3, 2.0] {
            let length = input_frames(1_000, speed);
            assert_eq!(length % 2, 0);
            let mut output = vec![vec![f32::NAN; 1_000]];
            let mut input =
                vec![(0..length).map(|i| if i / 3 % 2 == 0 { f32::MAX } else { f32::MIN }).collect()];
            Resampler::new().process(&mut input, speed, &mut output);
            assert!(output[0].iter().all(|y| y.is_finite()));
            // A constant stays one to the ends: nothing outside was read.
            let mut output = vec![vec![0.0; 1_000]];
            Resampler::new().process(&mut [vec![1.0; length]], speed, &mut output);
            assert!(output[0].iter().all(|y| (y - 1.0).abs() < 1e-5), "{speed}");
        }
    }
}
