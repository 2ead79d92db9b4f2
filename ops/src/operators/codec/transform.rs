//! A transform coder with a masking model: the loss of MP3 and AAC, without their bit streams.
//!
//! ```text
//! samples -> MDCT -> quantise, a step per critical band and frame -> MDCT back
//!               `-> mask -> steps, scaled until the bits fit ---^
//! ```
//! A band may be as noisy as the mask allows: 13 dB below its power spread over the neighbouring bands (Schroeder,
//! Atal and Hall, J. Acoust. Soc. Am. 66, 1979), and no quieter than what can be heard. All steps of the view are then
//! scaled by one number such that the bits, counted as perceptual entropy, are those of the bit rate on average.
//! What follows is what one hears in coded music: bands and partials that vanish and come back, a bandwidth that
//! falls with the bit rate, and noise ahead of attacks, as long as a frame. There is no block switching, no stereo
//! coding and no noise filling.

use crate::audio::Audio;
use crate::operator::{Scratch, finite_f32};

use super::mdct::Mdct;

/// Length of a hop in seconds, before rounding to a power of two: 512 at 16 kHz, 1024 at 44.1 and 48 kHz.
const HOP_SECONDS: f64 = 0.03;
/// The mask lies this far below the spread power: between the 6 dB of noise and the 20 of tones.
const SIGNAL_TO_MASK_DB: f64 = 13.0;
/// How masking falls per critical band, upwards and downwards: 10 and 25 dB.
const UPWARDS: f32 = 0.1;
const DOWNWARDS: f32 = 0.003_162_3;
/// The level that the peak of the view is taken to have, in dB SPL.
const PEAK_SPL: f64 = 96.0;
/// No step is finer, so that quantised values stay below 2^22, where floats round to whole numbers.
const FINEST: f32 = 1.0 / 65_536.0;
/// Limits of the scale of steps, in octaves.
const SCALES: (f64, f64) = (-16.0, 16.0);

/// What is kept from view to view.
#[derive(Default)]
struct Buffers {
    mdct: Mdct,
    layout: Layout,
    padded: Vec<f32>,
    coefficients: Vec<f32>,
    /// Steps per frame and band at scale 1.
    steps: Vec<f32>,
}

/// Critical bands at a hop and a sample rate.
#[derive(Default, PartialEq)]
struct Layout {
    hop: usize,
    rate: u32,
    /// The first bin of each band, and the end of the last.
    edges: Vec<usize>,
    /// The power per band that is just heard.
    quiet: Vec<f32>,
}

impl Layout {
    fn new(hop: usize, rate: u32) -> Self {
        let hertz = |bin: f64| bin * f64::from(rate) / (2.0 * hop as f64);
        let mut edges = vec![0];
        let mut band = bark(hertz(0.5)) as usize;
        for bin in 1..hop {
            let here = bark(hertz(bin as f64 + 0.5)) as usize;
            if here > band {
                edges.push(bin);
                band = here;
            }
        }
        edges.push(hop);
        // A sine at full scale has half the power of its peak, in each of the `hop` samples of a frame.
        let full = hop as f64 / 2.0;
        let quiet = |w: &[usize]| {
            let db = threshold_in_quiet(hertz((w[0] + w[1]) as f64 / 2.0)) - PEAK_SPL;
            (full * 10f64.powf(db / 10.0)) as f32
        };
        let quiet = edges.windows(2).map(quiet).collect();
        Self { hop, rate, edges, quiet }
    }

    fn bands(&self) -> usize {
        self.quiet.len()
    }

    /// Steps of a frame at which the noise is that of the mask.
    fn mask(&self, coefficients: &[f32], steps: &mut [f32]) {
        let mut powers = [0.0f32; 32];
        let powers = &mut powers[..self.bands()];
        for (power, w) in powers.iter_mut().zip(self.edges.windows(2)) {
            *power = coefficients[w[0]..w[1]].iter().map(|c| c * c).sum();
        }
        let mut spread = 0.0;
        for (step, power) in steps.iter_mut().zip(&*powers) {
            spread = spread * UPWARDS + power;
            *step = spread;
        }
        spread = 0.0;
        for (step, power) in steps.iter_mut().zip(&*powers).rev() {
            *step += spread * DOWNWARDS;
            spread = spread * DOWNWARDS + power;
        }
        let below = 10f64.powf(-SIGNAL_TO_MASK_DB / 10.0) as f32;
        for ((step, quiet), w) in steps.iter_mut().zip(&self.quiet).zip(self.edges.windows(2)) {
            // A step s makes noise of power s^2 / 12 per coefficient.
            *step = (12.0 * (*step * below).max(*quiet) / (w[1] - w[0]) as f32).sqrt();
        }
    }
}

/// Critical-band rate: Zwicker and Terhardt, J. Acoust. Soc. Am. 68, 1980.
fn bark(hertz: f64) -> f64 {
    13.0 * (0.000_76 * hertz).atan() + 3.5 * (hertz / 7_500.0).powi(2).atan()
}

/// The threshold in quiet, in dB SPL: Terhardt, Hearing Research 1, 1979.
fn threshold_in_quiet(hertz: f64) -> f64 {
    let khz = hertz.max(20.0) / 1_000.0;
    let db = 3.64 * khz.powf(-0.8) - 6.5 * (-0.6 * (khz - 3.3).powi(2)).exp() + 1e-3 * khz.powi(4);
    db.min(PEAK_SPL)
}

/// What is coded at all: 6.5 kHz at 16 kbit/s, 10.6 at 32, 17 at 64, much as encoders choose.
fn bandwidth(kbps: f64) -> f64 {
    4_000.0 * (kbps / 8.0).powf(0.7)
}

/// Coded and decoded at `kbps` per channel; `peak` is that of the audio.
pub(super) fn code(audio: &mut Audio, kbps: f64, peak: f64, scratch: &mut Scratch) {
    let (rate, frames) = (audio.rate, audio.frames());
    let hop = 1usize << (HOP_SECONDS * f64::from(rate)).log2().round() as u32;
    let mut buffers = std::mem::take(scratch.slot::<Buffers>());
    buffers.mdct.prepare(hop, scratch);
    if (buffers.layout.hop, buffers.layout.rate) != (hop, rate) {
        buffers.layout = Layout::new(hop, rate);
    }
    let blocks = frames.div_ceil(hop) + 1;
    analyse(&mut buffers, &audio.channels, blocks, peak);
    let coded = (bandwidth(kbps) / f64::from(rate) * 2.0 * hop as f64).ceil().min(hop as f64) as usize;
    let budget = kbps * 1_000.0 * frames as f64 / f64::from(rate) * audio.channels.len() as f64;
    let scale = fitting_scale(&buffers, coded, budget);
    quantise(&mut buffers, coded, scale);
    for (i, channel) in audio.channels.iter_mut().enumerate() {
        let Buffers { mdct, padded, coefficients, .. } = &mut buffers;
        padded.fill(0.0);
        let of_channel = &coefficients[i * blocks * hop..(i + 1) * blocks * hop];
        for (block, coefficients) in of_channel.chunks_exact(hop).enumerate() {
            mdct.inverse(coefficients, &mut padded[block * hop..(block + 2) * hop]);
        }
        for (sample, out) in channel.iter_mut().zip(&padded[hop..]) {
            *sample = finite_f32(f64::from(*out) * peak);
        }
    }
    *scratch.slot() = buffers;
}

/// Coefficients of all channels at a peak of one, and the steps of their masks. The first block begins a hop ahead.
fn analyse(buffers: &mut Buffers, channels: &[Vec<f32>], blocks: usize, peak: f64) {
    let Buffers { mdct, layout, padded, coefficients, steps } = buffers;
    let (hop, bands) = (layout.hop, layout.bands());
    coefficients.resize(channels.len() * blocks * hop, 0.0);
    steps.resize(channels.len() * blocks * bands, 0.0);
    let mut outputs = coefficients.chunks_exact_mut(hop).zip(steps.chunks_exact_mut(bands));
    for channel in channels {
        padded.clear();
        padded.resize(hop, 0.0);
        padded.extend(channel.iter().map(|s| (f64::from(*s) / peak) as f32));
        padded.resize((blocks + 1) * hop, 0.0);
        for (block, (coefficients, steps)) in outputs.by_ref().take(blocks).enumerate() {
            mdct.forward(&padded[block * hop..(block + 2) * hop], coefficients);
            layout.mask(coefficients, steps);
        }
    }
}

/// Adding and taking away 1.5 * 2^23 rounds what is below 2^22.
#[inline]
fn nearest(x: f32) -> f32 {
    const ROOM: f32 = 12_582_912.0;
    (x + ROOM) - ROOM
}

/// Bits at a scale of the steps (in octaves), and how many more there are an octave below: log2(2 |q| + 1) for each
/// quantised value q (perceptual entropy), the logarithm by chords between powers of two.
fn bits(buffers: &Buffers, coded: usize, scale: f64) -> (f64, f64) {
    const ONE: i32 = 127 << 23;
    let Layout { hop, edges, .. } = &buffers.layout;
    let scale = scale.exp2() as f32;
    let blocks = buffers.coefficients.chunks_exact(*hop).zip(buffers.steps.chunks_exact(edges.len() - 1));
    let (mut bits, mut slope) = (0.0, 0.0);
    for (block, steps) in blocks {
        for (w, step) in edges.windows(2).zip(steps) {
            let inverse = 1.0 / (step * scale).max(FINEST);
            let (mut sums, mut nonzero) = ([0.0f32; 4], [0.0f32; 4]);
            for coefficients in block[w[0].min(coded)..w[1].min(coded)].chunks(4) {
                for ((c, sum), nonzero) in coefficients.iter().zip(&mut sums).zip(&mut nonzero) {
                    let q = nearest(c.abs() * inverse);
                    *sum += ((2.0 * q + 1.0).to_bits() as i32 - ONE) as f32;
                    *nonzero += q.min(1.0);
                }
            }
            bits += f64::from(sums.iter().sum::<f32>()) / f64::from(1 << 23);
            slope += f64::from(nonzero.iter().sum::<f32>());
        }
    }
    (bits, slope)
}

/// The scale, in octaves, at which the bits are those of the budget to a percent; the finest where all fits.
fn fitting_scale(buffers: &Buffers, coded: usize, budget: f64) -> f64 {
    let (mut fine, mut coarse) = SCALES;
    let mut scale = 2.0;
    for _ in 0..16 {
        let (bits, slope) = bits(buffers, coded, scale);
        if (bits - budget).abs() < 0.01 * budget || coarse - fine < 0.01 {
            break;
        }
        if bits > budget {
            fine = scale;
        } else {
            coarse = scale;
        }
        // Newton's step, or the middle where that leads out.
        let next = scale + (bits - budget) / slope.max(1.0);
        scale = if next > fine && next < coarse { next } else { (fine + coarse) / 2.0 };
    }
    scale
}

/// Rounds coefficients to multiples of their steps, and drops those that are not coded.
fn quantise(buffers: &mut Buffers, coded: usize, scale: f64) {
    let Layout { hop, edges, .. } = &buffers.layout;
    let scale = scale.exp2() as f32;
    let blocks = buffers.coefficients.chunks_exact_mut(*hop).zip(buffers.steps.chunks_exact(edges.len() - 1));
    for (block, steps) in blocks {
        for (w, step) in edges.windows(2).zip(steps) {
            let step = (step * scale).max(FINEST);
            let inverse = 1.0 / step;
            for c in &mut block[w[0]..w[1]] {
                *c = nearest(*c * inverse) * step;
            }
        }
        block[coded..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    const RATE: u32 = 16_000;
    const FRAMES: usize = 48_000;

    /// A chord with a little noise, louder and softer.
    fn music() -> Vec<f32> {
        let at = |i: usize| {
            let t = i as f64 / f64::from(RATE);
            let tones: f64 = [220.0, 277.2, 329.6, 1_318.5, 2_637.0]
                .iter()
                .map(|hz| (TAU * hz * t).sin() * 100.0 / hz)
                .sum();
            let noise = ((i * i) as f64 * 0.37).sin() * 0.02;
            ((tones + noise) * (0.6 + 0.4 * (TAU * 1.5 * t).sin())) as f32
        };
        (0..FRAMES).map(at).collect()
    }

    fn coded(samples: &[f32], kbps: f64) -> Vec<f32> {
        let mut audio = Audio::mono(RATE, samples.to_vec());
        let peak = f64::from(audio.peak());
        code(&mut audio, kbps, peak, &mut Scratch::default());
        audio.channels.remove(0)
    }

    fn analysed(samples: &[f32]) -> Buffers {
        let mut buffers = Buffers::default();
        buffers.mdct.prepare(512, &mut Scratch::default());
        buffers.layout = Layout::new(512, RATE);
        let peak = samples.iter().fold(0.0f32, |p, s| p.max(s.abs()));
        analyse(&mut buffers, &[samples.to_vec()], samples.len().div_ceil(512) + 1, f64::from(peak));
        buffers
    }

    fn power(x: impl Iterator<Item = f32>) -> f64 {
        x.map(|s| f64::from(s).powi(2)).sum()
    }

    /// The transform is orthogonal, so the error can be read band by band from what comes out.
    #[test]
    fn the_error_follows_the_mask() {
        let clean = music();
        let peak = clean.iter().fold(0.0f32, |p, s| p.max(s.abs()));
        let out = coded(&clean, 64.0);
        let error: Vec<f32> = out.iter().zip(&clean).map(|(a, b)| (a - b) / peak).collect();
        let before = analysed(&clean);
        let bands = before.layout.bands();
        let budget = 64_000.0 * FRAMES as f64 / f64::from(RATE);
        let scale = fitting_scale(&before, 512, budget);
        let (used, _) = bits(&before, 512, scale);
        assert!((used / budget - 1.0).abs() < 0.01);
        let mut errors = Buffers { layout: Layout::new(512, RATE), ..Buffers::default() };
        errors.mdct.prepare(512, &mut Scratch::default());
        analyse(&mut errors, &[error], 95, 1.0);
        let mut checked = 0;
        for band in 0..bands {
            let (from, to) = (before.layout.edges[band], before.layout.edges[band + 1]);
            let (mut wanted, mut found) = (0.0, 0.0);
            // The first and the last block are not whole.
            for block in 1..93 {
                let step = f64::from(before.steps[block * bands + band]) * scale.exp2();
                let range = block * 512 + from..block * 512 + to;
                let level = power(before.coefficients[range.clone()].iter().copied());
                // Where coefficients are well above their steps, rounding is uniform.
                if level > 4.0 * step * step * (to - from) as f64 {
                    wanted += step * step / 12.0 * (to - from) as f64;
                    found += power(errors.coefficients[range].iter().copied());
                    checked += 1;
                }
            }
            if wanted > 0.0 {
                let db = 10.0 * (found / wanted).log10();
                println!("band {band}: error {db:+.2} dB from the mask");
                assert!(db.abs() < 1.5, "band {band}: {db:+.2} dB");
            }
        }
        assert!(checked > 500, "{checked}");
    }

    #[test]
    fn the_error_falls_with_the_bit_rate() {
        let clean = music();
        let mut last = 0.0;
        // At the least rates a wider band costs as much as finer steps gain; at the greatest, nothing is left to gain.
        for kbps in [12.0, 24.0, 48.0, 96.0, 192.0] {
            let out = coded(&clean, kbps);
            let error = power(out.iter().zip(&clean).map(|(a, b)| a - b));
            let db = 10.0 * (power(clean.iter().copied()) / error).log10();
            println!("{kbps} kbit/s: {db:.1} dB");
            assert!(db > last + 0.5, "{kbps}: {db}");
            last = db;
        }
        assert!(last > 85.0, "{last}");
    }

    #[test]
    fn the_bandwidth_falls_with_the_bit_rate() {
        let noise: Vec<f32> = (0..FRAMES).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let out = coded(&noise, 8.0);
        // The first and the last block are not whole.
        let coefficients = &analysed(&out).coefficients[512..93 * 512];
        let above =
            coefficients.chunks_exact(512).map(|block| power(block[256..].iter().copied())).sum::<f64>();
        assert!(above < 1e-9 * power(coefficients.iter().copied()), "{above}");
    }

    /// Noise ahead of an attack, for as long as its frame and no longer.
    #[test]
    fn attacks_have_a_pre_echo() {
        let burst = |i: usize| ((i * i) as f32 * 0.37).sin() * (-((i % 2_000) as f32) / 100.0).exp();
        let clean: Vec<f32> = (0..FRAMES).map(burst).collect();
        let out = coded(&clean, 12.0);
        let error = |from: usize, to: usize| power((from..to).map(|i| out[i] - clean[i]));
        // The attack at 20000 lies in the frame from 19456.
        let (ahead, earlier) = (error(19_456, 20_000), error(18_912, 19_456));
        let attack = power(clean[20_000..22_000].iter().copied());
        println!(
            "error ahead of the attack {:.1} dB, earlier {:.1} dB",
            10.0 * (ahead / attack).log10(),
            10.0 * (earlier / attack).log10()
        );
        assert!(ahead > 0.01 * attack && earlier < 0.05 * ahead, "{attack} {ahead} {earlier}");
    }
}
