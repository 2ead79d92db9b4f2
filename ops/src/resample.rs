//! Sample-rate conversion of whole buffers, free of delay.
//!
//! The work is done by rubato's FFT resampler: an exact rational ratio, overlap-add of blocks, and a
//! Blackman-Harris squared low-pass whose stop band begins at the lower of the two Nyquist
//! frequencies. Blocks are long enough that the pass band reaches 97% of it. A resampler is planned
//! once per thread and pair of rates; its state is cleared before every use, so that results depend
//! on the input alone.

use std::cell::RefCell;

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

use crate::audio::Audio;
use crate::error::{AudioError, RejectKind};

/// The least block, on the side of the lower rate: sets the width of the transition band.
const BLOCK: usize = 640;
/// Planned resamplers kept per thread.
const KEPT: usize = 8;

/// A resampler and its rates, (input, output).
type Planned = ((u32, u32), Fft<f32>);

thread_local! {
    static PLANNED: RefCell<Vec<Planned>> = const { RefCell::new(Vec::new()) };
}

/// Converts audio to `to_rate` Hz. The result has `round(frames * to_rate / rate)` frames, and what
/// happens at time t in the input happens at time t in the output. Outside of the input is silence.
///
/// # Errors
///
/// [`RejectKind::OverLimit`] when a rate is 0.
pub fn resample(audio: &Audio, to_rate: u32) -> Result<Audio, AudioError> {
    if audio.rate == to_rate && to_rate > 0 {
        return Ok(audio.clone());
    }
    let frames = scaled(audio.frames(), audio.rate, to_rate);
    let channels = audio
        .channels
        .iter()
        .map(|c| resample_from(c, audio.rate, to_rate, 0, frames))
        .collect::<Result<_, _>>()?;
    Ok(Audio { rate: to_rate, channels })
}

/// `round(frames * to / from)`.
fn scaled(frames: usize, from: u32, to: u32) -> usize {
    let (frames, from, to) = (frames as u128, u128::from(from.max(1)), u128::from(to));
    ((2 * frames * to + from) / (2 * from)) as usize
}

/// How far, in frames of (input, output), the filter reaches to either side. Both are the same
/// length of time exactly.
pub(crate) fn reach(from: u32, to: u32) -> (usize, usize) {
    if from == to {
        return (0, 0);
    }
    block(from, to)
}

/// Resamples one channel and returns `frames` output frames after the first `skip`; output beyond
/// the end of the input is silence.
pub(crate) fn resample_from(
    input: &[f32],
    from: u32,
    to: u32,
    skip: usize,
    frames: usize,
) -> Result<Vec<f32>, AudioError> {
    if from == 0 || to == 0 {
        return Err(AudioError::new(RejectKind::OverLimit, "a sample rate of 0 Hz"));
    }
    let mut output = if from == to { input.to_vec() } else { convert(input, from, to)? };
    output.drain(..skip.min(output.len()));
    output.resize(frames, 0.0);
    Ok(output)
}

fn convert(input: &[f32], from: u32, to: u32) -> Result<Vec<f32>, AudioError> {
    let failed = |e: &dyn std::fmt::Display| {
        AudioError::new(RejectKind::Corrupt, format!("resampling from {from} to {to} Hz: {e}"))
    };
    PLANNED.with_borrow_mut(|planned| {
        let slot = match planned.iter().position(|(rates, _)| *rates == (from, to)) {
            Some(slot) => slot,
            None => {
                let fft = Fft::new_custom(
                    from as usize,
                    to as usize,
                    block(from, to).0,
                    1,
                    1,
                    WindowFunction::BlackmanHarris2,
                    FixedSync::Both,
                )
                .map_err(|e| failed(&e))?;
                if planned.len() >= KEPT {
                    planned.remove(0);
                }
                planned.push(((from, to), fft));
                planned.len() - 1
            }
        };
        let fft = &mut planned[slot].1;
        fft.reset();
        let mut output = vec![0.0; fft.process_all_needed_output_len(input.len())];
        let room = output.len();
        let source = SequentialSlice::new(input, 1, input.len()).map_err(|e| failed(&e))?;
        let mut sink = SequentialSlice::new_mut(&mut output, 1, room).map_err(|e| failed(&e))?;
        let (_, frames) =
            fft.process_all_into_buffer(&source, &mut sink, input.len(), None).map_err(|e| failed(&e))?;
        output.truncate(frames);
        Ok(output)
    })
}

/// The block of the resampler in frames of (input, output): a common multiple of the reduced ratio.
/// It is an even multiple, because the delay of half a block must be whole on both sides.
fn block(from: u32, to: u32) -> (usize, usize) {
    let divisor = gcd(from, to).max(1);
    let (a, b) = ((from / divisor).max(1) as usize, (to / divisor).max(1) as usize);
    let times = BLOCK.div_ceil(a.min(b)).next_multiple_of(2);
    (times * a, times * b)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn tone(rate: u32, hz: f64, frames: usize) -> Vec<f32> {
        (0..frames).map(|i| (0.5 * (TAU * hz * i as f64 / f64::from(rate)).sin()) as f32).collect()
    }

    /// Signal over error in dB, without the edges that the filter reaches.
    fn snr(got: &[f32], expected: &[f32], edge: usize) -> f64 {
        let inside = edge..got.len().min(expected.len()) - edge;
        let (mut signal, mut error) = (0.0, 0.0);
        for i in inside {
            signal += f64::from(expected[i]).powi(2);
            error += f64::from(got[i] - expected[i]).powi(2);
        }
        10.0 * (signal / error).log10()
    }

    #[test]
    fn tones_survive_in_place() {
        for (from, to) in
            [(44_100, 16_000), (48_000, 16_000), (16_000, 44_100), (22_050, 16_000), (32_000, 11_025)]
        {
            for hz in [50.0, 1000.0, 0.47 * f64::from(from.min(to))] {
                let input = Audio::mono(from, tone(from, hz, from as usize));
                let output = resample(&input, to).unwrap();
                assert_eq!((output.rate, output.frames()), (to, to as usize));
                let expected = tone(to, hz, to as usize);
                let snr = snr(&output.channels[0], &expected, reach(from, to).1);
                assert!(snr > 100.0, "{from} -> {to}, {hz} Hz: {snr:.1} dB");
            }
        }
    }

    #[test]
    fn what_lies_above_the_new_nyquist_vanishes() {
        for (from, to) in [(44_100, 16_000), (48_000, 22_050)] {
            for beyond in [1.01, 1.3, 1.9] {
                let hz = beyond * f64::from(to) / 2.0;
                let output = resample(&Audio::mono(from, tone(from, hz, from as usize)), to).unwrap();
                let edge = reach(from, to).1;
                let inside = &output.channels[0][edge..to as usize - edge];
                let peak = inside.iter().fold(0.0f32, |p, x| p.max(x.abs()));
                assert!(peak < 0.5e-4, "{from} -> {to}, {hz} Hz leaks {peak:e}");
            }
        }
    }

    #[test]
    fn lengths_are_rounded_and_an_impulse_stays_where_it_is() {
        for n in [0, 1, 2, 100, 441, 44_101] {
            let output = resample(&Audio::mono(44_100, vec![0.0; n]), 16_000).unwrap();
            assert_eq!(output.frames(), (n as f64 * 16_000.0 / 44_100.0).round() as usize);
        }
        let mut input = vec![0.0; 48_000];
        input[30_000] = 1.0;
        let output = resample(&Audio::mono(48_000, input), 16_000).unwrap();
        let peak = (0..16_000).max_by(|&a, &b| output.channels[0][a].total_cmp(&output.channels[0][b]));
        assert_eq!(peak, Some(10_000));
    }

    #[test]
    fn a_used_resampler_gives_the_same_bits_as_a_new_one() {
        let input = tone(44_100, 440.0, 10_000);
        let first = resample_from(&input, 44_100, 16_000, 0, 3000).unwrap();
        resample_from(&tone(44_100, 90.0, 5000), 44_100, 16_000, 0, 100).unwrap();
        assert_eq!(resample_from(&input, 44_100, 16_000, 0, 3000).unwrap(), first);
        let elsewhere = std::thread::spawn(move || resample_from(&input, 44_100, 16_000, 0, 3000).unwrap());
        assert_eq!(elsewhere.join().unwrap(), first);
    }

    #[test]
    fn rates_without_a_common_divisor_work_and_zero_is_refused() {
        let output = resample(&Audio::mono(44_101, tone(44_101, 500.0, 44_101)), 16_000).unwrap();
        assert_eq!(output.frames(), 16_000);
        let expected = tone(16_000, 500.0, 16_000);
        assert!(snr(&output.channels[0], &expected, 6000) > 90.0);
        assert!(resample(&Audio::mono(0, vec![0.0]), 16_000).is_err());
        assert!(resample(&Audio::mono(16_000, vec![0.0]), 0).is_err());
    }
}
