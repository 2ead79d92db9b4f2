//! Loudness by ITU-R BS.1770-4, which EBU R 128 builds on.

use std::f64::consts::PI;

use crate::audio::Audio;

/// Below this a block does not count.
const ABSOLUTE_GATE_LUFS: f64 = -70.0;
/// A block is 400 ms long, and the next one begins 100 ms later.
const BLOCK_HOPS: usize = 4;

/// The integrated loudness, in LUFS; `None` when nothing in the audio is above -70 LUFS.
///
/// Blocks of 400 ms, three quarters overlapping, count when they are above -70 LUFS and not more than 10 LU below
/// the mean of those; what remains at the end counts no more than in the standard. Audio shorter than one block, for
/// which the standard has no rule, counts as one. Channels of four to six are taken to be in the order of WAV
/// files (with the centre from five on and the low-frequency channel in six), surround channels weigh 1.41 and
/// the low-frequency channel nothing; in any other number all channels weigh 1.
///
/// The filter of the standard is given for 48 kHz. At other rates its analogue prototype is transformed anew, so that
/// a sound has the same loudness at all of them: its gain differs by less than 0.07 dB at 16 kHz, 0.21 dB at 8 kHz,
/// and above 1 kHz by up to 1.3 dB at 4 kHz.
pub fn integrated_loudness(audio: &Audio) -> Option<f64> {
    integrated(audio, &mut Vec::new())
}

/// As [`integrated_loudness`], with a buffer to keep.
pub(crate) fn integrated(audio: &Audio, energies: &mut Vec<f64>) -> Option<f64> {
    let (hop, width, count) = hops(audio.frames(), audio.rate);
    if hop == 0 {
        return None;
    }
    energies.clear();
    energies.resize(count, 0.0);
    let weights = channel_weights(audio.channels.len());
    for (channel, weight) in audio.channels.iter().zip(weights.iter().chain(std::iter::repeat(&1.0))) {
        if *weight > 0.0 {
            let mut filter = KFilter::new(audio.rate);
            for (energy, hop) in energies.iter_mut().zip(channel.chunks_exact(hop)) {
                *energy += weight * filter.energy(hop);
            }
        }
    }
    gated(energies, width, hop)
}

/// The mean over the blocks that count: `energies` are those of hops of `hop` frames, `width` of which make a block.
fn gated(energies: &[f64], width: usize, hop: usize) -> Option<f64> {
    let power = |block: &[f64]| block.iter().sum::<f64>() / (width * hop) as f64;
    let mean_above = |gate: f64| {
        let (mut sum, mut count) = (0.0, 0u32);
        for power in energies.windows(width).map(power).filter(|power| *power > gate) {
            (sum, count) = (sum + power, count + 1);
        }
        (count > 0).then(|| sum / f64::from(count))
    };
    let gate = gate();
    let mean = mean_above(gate)?;
    let mean = mean_above(gate.max(0.1 * mean))?;
    Some(-0.691 + 10.0 * mean.log10())
}

/// The power below which a block does not count.
pub(crate) fn gate() -> f64 {
    10f64.powf((ABSOLUTE_GATE_LUFS + 0.691) / 10.0)
}

/// The hop of a view, the hops of a block, and how many hops there are.
pub(crate) fn hops(frames: usize, rate: u32) -> (usize, usize, usize) {
    let hop = hop_frames(rate);
    // Whole hops; all of a short sound is one.
    if frames < BLOCK_HOPS * hop { (frames, 1, 1) } else { (hop, BLOCK_HOPS, frames / hop) }
}

/// Numerators and denominators of the filter, one after the other.
pub(crate) fn sections(rate: u32) -> [([f64; 3], [f64; 2]); 2] {
    let KFilter { shelf, high_pass } = KFilter::new(rate);
    [shelf, high_pass].map(|filter| (filter.b, filter.a))
}

fn hop_frames(rate: u32) -> usize {
    (rate as usize + 5) / 10
}

/// The [`integrated_loudness`] of audio that comes in pieces: 8 bytes are kept of every 100 ms.
pub struct LoudnessMeter {
    rate: u32,
    filters: Vec<KFilter>,
    energies: Vec<f64>,
    /// Energy and frames of the hop that is not full yet.
    open: (f64, usize),
}

impl LoudnessMeter {
    /// A meter for audio of `rate` Hz.
    pub fn new(rate: u32) -> Self {
        Self { rate, filters: Vec::new(), energies: Vec::new(), open: (0.0, 0) }
    }

    /// Takes the next piece, of as many channels as the first.
    pub fn push(&mut self, piece: &Audio) {
        let (hop, frames) = (hop_frames(self.rate), piece.frames());
        if hop == 0 {
            return;
        }
        let weights = channel_weights(piece.channels.len());
        self.filters.resize_with(piece.channels.len(), || KFilter::new(self.rate));
        let mut from = 0;
        while from < frames {
            let to = frames.min(from + hop - self.open.1);
            let weights = weights.iter().chain(std::iter::repeat(&1.0));
            for ((channel, filter), weight) in piece.channels.iter().zip(&mut self.filters).zip(weights) {
                if *weight > 0.0 {
                    self.open.0 += weight * filter.energy(channel.get(from..to).unwrap_or_default());
                }
            }
            self.open.1 += to - from;
            if self.open.1 == hop {
                self.energies.push(self.open.0);
                self.open = (0.0, 0);
            }
            from = to;
        }
    }

    /// The loudness of what was pushed, in LUFS.
    pub fn integrated(&self) -> Option<f64> {
        let hop = hop_frames(self.rate);
        if self.energies.len() >= BLOCK_HOPS {
            return gated(&self.energies, BLOCK_HOPS, hop);
        }
        let frames = self.energies.len() * hop + self.open.1;
        let energy = self.energies.iter().sum::<f64>() + self.open.0;
        (frames > 0).then(|| gated(&[energy], 1, frames)).flatten()
    }
}

/// Table 3 of the standard.
pub(crate) fn channel_weights(channels: usize) -> &'static [f64] {
    match channels {
        4 => &[1.0, 1.0, 1.41, 1.41],
        5 => &[1.0, 1.0, 1.0, 1.41, 1.41],
        6 => &[1.0, 1.0, 1.0, 0.0, 1.41, 1.41],
        _ => &[],
    }
}

/// Two biquads, normalised so that a0 = 1: a shelf for the head and a high-pass.
struct KFilter {
    shelf: Biquad,
    high_pass: Biquad,
}

#[derive(Clone, Copy)]
struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
    state: [f64; 2],
}

impl KFilter {
    /// By the bilinear transform from the prototypes that give the coefficients of the standard at 48 kHz (frequencies,
    /// Q and gain from B. De Man, Evaluation of Implementations of the EBU R128 Loudness Measurement, AES 145, 2018).
    fn new(rate: u32) -> Self {
        let tan = |hz: f64, rate: f64| (PI * hz / rate).tan();
        let rate = f64::from(rate);
        let k = tan(1_681.974_450_955_533, rate);
        let q = 0.707_175_236_955_419_6;
        let gain = 10f64.powf(3.999_843_853_973_347 / 20.0);
        let middle = gain.powf(0.499_666_774_154_541_6);
        let a0 = 1.0 + k / q + k * k;
        let shelf = Biquad {
            b: [gain + middle * k / q + k * k, 2.0 * (k * k - gain), gain - middle * k / q + k * k]
                .map(|b| b / a0),
            a: [2.0 * (k * k - 1.0) / a0, (1.0 - k / q + k * k) / a0],
            state: [0.0; 2],
        };
        let q = 0.500_327_037_323_877_3;
        let a0 = |k: f64| 1.0 + k / q + k * k;
        let k = tan(38.135_470_876_024_44, rate);
        // The standard leaves the numerator at 1, -2, 1, which is 0.04 dB of gain at 48 kHz, and so everywhere.
        let scale = a0(tan(38.135_470_876_024_44, 48_000.0)) / a0(k);
        let high_pass = Biquad {
            b: [scale, -2.0 * scale, scale],
            a: [2.0 * (k * k - 1.0) / a0(k), (1.0 - k / q + k * k) / a0(k)],
            state: [0.0; 2],
        };
        Self { shelf, high_pass }
    }

    /// The energy of further samples, filtered.
    fn energy(&mut self, samples: &[f32]) -> f64 {
        let (mut shelf, mut high_pass) = (self.shelf, self.high_pass);
        let mut energy = 0.0;
        for sample in samples {
            let y = high_pass.next(shelf.next(f64::from(*sample)));
            energy += y * y;
        }
        // In a long silence the states would fade into subnormal numbers, which are slow.
        for state in shelf.state.iter_mut().chain(&mut high_pass.state) {
            *state = if state.abs() < 1e-100 { 0.0 } else { *state };
        }
        (self.shelf, self.high_pass) = (shelf, high_pass);
        energy
    }
}

impl Biquad {
    /// Transposed direct form II, with the output written into the states' recurrence: a sample waits for one
    /// product and one sum.
    #[inline]
    fn next(&mut self, x: f64) -> f64 {
        let ([b0, b1, b2], [a1, a2], [s1, s2]) = (self.b, self.a, self.state);
        self.state = [((b1 - a1 * b0) * x + s2) - a1 * s1, (b2 - a2 * b0) * x - a2 * s1];
        b0 * x + s1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    /// A stereo tone of 1 kHz: levels in dBFS of its peaks, and seconds.
    fn tone(rate: u32, parts: &[(f64, f64)]) -> Audio {
        let mut samples: Vec<f32> = Vec::new();
        for (db, seconds) in parts {
            let amplitude = 10f64.powf(db / 20.0);
            let start = samples.len();
            let frames = (seconds * f64::from(rate)) as usize;
            samples.extend(
                (start..start + frames)
                    .map(|i| (amplitude * (2_000.0 * PI * i as f64 / f64::from(rate)).sin()) as f32),
            );
        }
        Audio { rate, channels: vec![samples.clone(), samples] }
    }

    /// Tables 1 and 2 of the standard.
    #[test]
    fn at_48_khz_the_coefficients_are_those_of_the_standard() {
        let KFilter { shelf, high_pass } = KFilter::new(48_000);
        let got = [shelf.b.as_slice(), &shelf.a, &high_pass.b, &high_pass.a].concat();
        let want = [
            1.53512485958697,
            -2.69169618940638,
            1.19839281085285,
            -1.69065929318241,
            0.73248077421585,
            1.0,
            -2.0,
            1.0,
            -1.99004745483398,
            0.99007225036621,
        ];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-8, "{got} {want}");
        }
    }

    /// EBU Tech 3341, cases 1 to 6: all within 0.1 LU.
    #[test]
    fn the_test_signals_of_ebu_tech_3341_read_as_they_must() {
        let step = [(-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0)];
        let with_silence = [(-72.0, 10.0), (-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0), (-72.0, 10.0)];
        let cases: [(&[(f64, f64)], f64); 5] = [
            (&[(-23.0, 20.0)], -23.0),
            (&[(-33.0, 20.0)], -33.0),
            (&step, -23.0),
            (&with_silence, -23.0),
            (&[(-26.0, 20.0), (-20.0, 20.1), (-26.0, 20.0)], -23.0),
        ];
        for (parts, want) in cases {
            let got = integrated_loudness(&tone(48_000, parts)).unwrap();
            assert!((got - want).abs() < 0.1, "{parts:?}: {got}");
        }
        let mut surround = Vec::new();
        for db in [-28.0, -28.0, -24.0, -30.0, -30.0] {
            surround.push(tone(48_000, &[(db, 20.0)]).channels.swap_remove(0));
        }
        let mut audio = Audio { rate: 48_000, channels: surround };
        assert!((integrated_loudness(&audio).unwrap() + 23.0).abs() < 0.1);
        let loud = tone(48_000, &[(0.0, 20.0)]).channels.swap_remove(0);
        audio.channels.insert(3, loud);
        assert!(
            (integrated_loudness(&audio).unwrap() + 23.0).abs() < 0.1,
            "the low-frequency channel counts"
        );
    }

    /// Against an implementation of the standard by others, on noise that comes and goes.
    #[test]
    fn it_agrees_with_the_ebur128_crate() {
        for (rate, channels, tolerance) in
            [(48_000, 1, 1e-6), (48_000, 2, 1e-6), (44_100, 5, 0.01), (96_000, 1, 0.03), (16_000, 2, 0.1)]
        {
            let mut rng = Key::root(9).rng();
            let mut channel = || -> Vec<f32> {
                let swell = |i: usize| 0.3 * (f64::from(i as u32) / f64::from(rate) * 2.0).sin().powi(4);
                (0..rate as usize * 5 + 1_234).map(|i| (swell(i) * rng.normal()) as f32).collect()
            };
            let audio = Audio { rate, channels: (0..channels).map(|_| channel()).collect() };
            let mut meter = ebur128::EbuR128::new(channels, rate, ebur128::Mode::I).unwrap();
            let planes: Vec<&[f32]> = audio.channels.iter().map(Vec::as_slice).collect();
            meter.add_frames_planar_f32(&planes).unwrap();
            let (got, want) = (integrated_loudness(&audio).unwrap(), meter.loudness_global().unwrap());
            assert!((got - want).abs() < tolerance, "{rate} Hz, {channels}: {got} {want}");
        }
    }

    #[test]
    fn a_tone_is_as_loud_at_any_rate_and_length() {
        let want = integrated_loudness(&tone(48_000, &[(-20.0, 1.0)])).unwrap();
        for rate in [8_000, 11_025, 16_000, 22_050, 44_100, 96_000, 192_000] {
            let tolerance = if rate < 16_000 { 0.21 } else { 0.07 };
            for seconds in [0.35, 0.4, 1.0] {
                let got = integrated_loudness(&tone(rate, &[(-20.0, seconds)])).unwrap();
                assert!((got - want).abs() < tolerance, "{rate} Hz, {seconds} s: {got} {want}");
            }
        }
    }

    #[test]
    fn pieces_are_as_loud_as_the_whole() {
        let mut rng = Key::root(4).rng();
        for (frames, channels) in [(100, 1), (5_000, 2), (64_000, 6), (71_234, 2)] {
            let mut channel =
                || (0..frames).map(|i| 0.2 * (i as f32 / 9e3).sin() * rng.normal() as f32).collect();
            let audio = Audio { rate: 16_000, channels: (0..channels).map(|_| channel()).collect() };
            for piece in [37, 1_600, 10_000, 100_000] {
                let mut meter = LoudnessMeter::new(16_000);
                for from in (0..frames).step_by(piece) {
                    let part = |c: &Vec<f32>| c[from..frames.min(from + piece)].to_vec();
                    meter.push(&Audio { rate: 16_000, channels: audio.channels.iter().map(part).collect() });
                }
                let (got, want) = (meter.integrated().unwrap(), integrated_loudness(&audio).unwrap());
                assert!((got - want).abs() < 1e-9, "{frames} in {piece}: {got} {want}");
            }
        }
        assert_eq!(LoudnessMeter::new(16_000).integrated(), None);
    }

    #[test]
    fn silence_has_no_loudness() {
        for frames in [0, 1, 1_000, 50_000] {
            assert_eq!(integrated_loudness(&Audio::mono(16_000, vec![0.0; frames])), None);
        }
        assert_eq!(integrated_loudness(&tone(16_000, &[(-80.0, 2.0)])), None);
        assert_eq!(integrated_loudness(&Audio { rate: 16_000, channels: vec![] }), None);
        let loudest = integrated_loudness(&tone(16_000, &[(760.0, 1.0)])).unwrap();
        assert!(loudest.is_finite());
    }
}
