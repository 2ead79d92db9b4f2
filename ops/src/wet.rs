//! The wet side of an effect: a common scale for it, its level and the blend with the dry side.

use crate::audio::{Audio, magnitude};
use crate::operator::finite_f32;

/// The power of two that brings the peak of some samples near 1, so that no sum of theirs overflows; `None` when
/// all are zero. Multiplying with it is exact.
pub(crate) fn unit<'a>(samples: impl IntoIterator<Item = &'a Vec<f32>>) -> Option<f32> {
    let bits = samples.into_iter().map(|channel| magnitude(channel)).max().unwrap_or(0);
    (bits > 0).then(|| f32::from_bits((254 - (bits >> 23)).clamp(1, 253) << 23))
}

/// The sum of the squares of samples times `scale`.
pub(crate) fn energy(samples: &[f32], scale: f32) -> f64 {
    let of_chunk = |chunk: &[f32]| {
        let mut lanes = [0.0f32; 8];
        let eights = chunk.chunks_exact(8);
        for (lane, s) in lanes.iter_mut().zip(eights.remainder()) {
            *lane = (s * scale) * (s * scale);
        }
        for eight in eights {
            for (lane, s) in lanes.iter_mut().zip(eight) {
                *lane += (s * scale) * (s * scale);
            }
        }
        lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>()
    };
    samples.chunks(1_024).map(of_chunk).sum()
}

/// Blends the wet samples, which are at the scale of [`unit`], into `audio`: `1 - mix` of the dry and `mix` of
/// the wet. `wet[0]` sounds `delay` frames in.
///
/// The wet side gets the level of the dry side, measured on this view. That correction is held within 20 dB of
/// `nominal`, the gain which would make the levels of white noise equal: an effect that leaves nothing of a sound
/// is not turned up until its rounding errors are heard.
pub(crate) fn blend(audio: &mut Audio, wet: &[Vec<f32>], unit: f32, delay: usize, mix: f64, nominal: f64) {
    let dry_energy: f64 = audio.channels.iter().map(|c| energy(c, unit)).sum();
    let wet_energy: f64 = wet.iter().map(|c| energy(c, 1.0)).sum();
    let measured = if wet_energy > 0.0 { (dry_energy / wet_energy).sqrt() } else { nominal };
    let gain = measured.clamp(0.1 * nominal, 10.0 * nominal);
    for (channel, wet) in audio.channels.iter_mut().zip(wet) {
        add(channel, wet, delay, 1.0 - mix, mix * gain / f64::from(unit));
    }
}

/// `dry[n] = keep * dry[n] + gain * wet[n - delay]`.
pub(crate) fn add(dry: &mut [f32], wet: &[f32], delay: usize, keep: f64, gain: f64) {
    let (keep, gain) = (keep as f32, finite_f32(gain));
    let (head, tail) = dry.split_at_mut(delay.min(dry.len()));
    for sample in head {
        *sample *= keep;
    }
    for (sample, wet) in tail.iter_mut().zip(wet) {
        *sample = (keep * *sample + gain * wet).clamp(f32::MIN, f32::MAX);
    }
}

/// The pole of a one-pole low-pass with gain 1 at 0 Hz whose power is `loss` times as much at `hz`.
///
/// Where `hz` nears or passes the Nyquist frequency the analogue low-pass is met at 0.4 times `rate` instead.
pub(crate) fn pole(hz: f64, loss: f64, rate: f64) -> f64 {
    let at = hz.min(0.4 * rate);
    let power = 1.0 / (1.0 + (at / hz).powi(2) * (1.0 / loss - 1.0));
    // |H|^2 = (1 - p)^2 / (1 - 2 p cos w + p^2), solved for the root within the unit circle.
    let (open, half) = (1.0 - power, 1.0 - power * (std::f64::consts::TAU * at / rate).cos());
    open / (half + (half * half - open * open).max(0.0).sqrt())
}

/// `to[n] = gain * from[n] + pole * to[n - 1]`, where `last` is `to[-1]` and is left at the end of `to`.
#[inline]
pub(crate) fn one_pole(from: &[f32], to: &mut [f32], gain: f32, pole: f32, last: &mut f32) {
    // Four samples a step, so that only the last of each four waits for the one before.
    let (two, three) = (pole * pole, pole * pole * pole);
    let powers = [pole, two, three, two * two];
    let mut state = *last;
    let (to_fours, to_rest) = to.as_chunks_mut::<4>();
    let (fours, rest) = from.as_chunks::<4>();
    for (to, x) in to_fours.iter_mut().zip(fours) {
        let a = x.map(|x| gain * x);
        let b = [a[0], a[1] + pole * a[0], a[2] + pole * a[1], a[3] + pole * a[2]];
        let c = [b[0], b[1], b[2] + two * b[0], b[3] + two * b[1]];
        for ((to, c), power) in to.iter_mut().zip(c).zip(powers) {
            *to = c + power * state;
        }
        state = to[3];
    }
    for (to, x) in to_rest.iter_mut().zip(rest) {
        state = gain * x + pole * state;
        *to = state;
    }
    *last = settle(state);
}

/// Zero for what is too small to matter: numbers below the normal range are slow.
#[inline]
pub(crate) fn settle(x: f32) -> f32 {
    if x.abs() < 1e-20 { 0.0 } else { x }
}

/// The reverberation time in seconds: Schroeder's backward integral, fitted from -5 to -25 dB (ISO 3382-1).
#[cfg(test)]
pub(crate) fn decay_time(response: &[f32], rate: f64) -> f64 {
    let mut left = 0.0;
    let mut curve: Vec<f64> = response
        .iter()
        .rev()
        .map(|s| {
            left += f64::from(*s).powi(2);
            left
        })
        .collect();
    curve.reverse();
    let points: Vec<(f64, f64)> = curve
        .iter()
        .map(|e| 10.0 * (e / left).log10())
        .enumerate()
        .filter(|(_, db)| (-25.0..=-5.0).contains(db))
        .map(|(n, db)| (n as f64 / rate, db))
        .collect();
    let count = points.len() as f64;
    let (t, db) = points.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0 / count, sum.1 + p.1 / count));
    let over: f64 = points.iter().map(|p| (p.0 - t) * (p.1 - db)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - t).powi(2)).sum();
    -60.0 * under / over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_exact_powers_of_two() {
        let unit_of = |samples: &[f32]| unit(&[samples.to_vec()]);
        assert_eq!(unit_of(&[0.1, -0.75]), Some(2.0));
        assert_eq!(unit_of(&[1.0]), Some(1.0));
        assert_eq!(unit_of(&[0.0, -0.0]), None);
        assert!(unit_of(&[f32::MIN]).is_some_and(|u| f32::MAX * u < 4.0));
        assert!(unit_of(&[f32::from_bits(1)]).is_some_and(|u| u.is_normal()));
    }

    #[test]
    fn energies_are_sums_of_squares() {
        let x: Vec<f32> = (0..2_003).map(|i| (i as f32 * 0.3).sin()).collect();
        let want: f64 = x.iter().map(|s| (2.0 * f64::from(*s)).powi(2)).sum();
        assert!((energy(&x, 2.0) / want - 1.0).abs() < 1e-6);
    }

    /// The wet level is the dry one, unless that takes more than 20 dB.
    #[test]
    fn levels_match_within_reason() {
        for (wet, want) in [(3.0, 0.5), (1e-4, 1e-3)] {
            let mut audio = Audio::mono(8_000, vec![0.5; 100]);
            let unit = unit(&audio.channels).unwrap();
            blend(&mut audio, &[vec![wet; 100]], unit, 0, 1.0, 2.0);
            assert!((audio.channels[0][7] - want).abs() < 1e-6, "{}", audio.channels[0][7]);
        }
        let mut audio = Audio::mono(8_000, vec![f32::MAX; 4]);
        add(&mut audio.channels[0], &[1e30, -1e30], 2, 1.0, 1e300);
        assert_eq!(audio.channels[0], [f32::MAX, f32::MAX, f32::MAX, f32::MIN]);
    }

    #[test]
    fn the_low_pass_loses_what_it_should() {
        let rate = 16_000.0;
        for (hz, loss) in [(500.0, 0.5), (2_000.0, 0.9), (6_000.0, 0.1)] {
            let p = pole(hz, loss, rate);
            let w = std::f64::consts::TAU * hz / rate;
            let power = (1.0 - p).powi(2) / (1.0 - 2.0 * p * w.cos() + p * p);
            assert!((0.0..1.0).contains(&p) && (power - loss).abs() < 1e-12, "{hz}: {power}");
        }
        assert!(pole(100_000.0, 0.5, rate) < 0.01);

        let x: Vec<f32> = (0..23).map(|i| (i as f32 * 1.7).sin()).collect();
        let mut y = [0.0; 23];
        let mut last = 0.5;
        one_pole(&x[..10], &mut y[..10], 0.3, 0.8, &mut last);
        one_pole(&x[10..], &mut y[10..], 0.3, 0.8, &mut last);
        let mut state = 0.5;
        for (x, y) in x.iter().zip(y) {
            state = 0.3 * f64::from(*x) + 0.8 * state;
            assert!((state - f64::from(y)).abs() < 1e-6);
        }
    }
}
