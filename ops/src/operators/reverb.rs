//! Reverberation by a feedback delay network.
//!
//! Sixteen delay lines feed each other through a Hadamard matrix, which loses nothing; a gain and a low-pass at
//! the end of each line lose exactly what makes every path decay at one rate. Lines are longer for longer decays,
//! as rooms are.
//!
//! Samples are worked on in blocks shorter than the shortest line, so that the mixing of the lines is plain
//! arithmetic on arrays.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;
use crate::wet;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "reverb",
    version: 1,
    summary: "Adds the reverberation of an artificial hall.",
    source: "Feedback delay networks: Jot and Chaigne, 90th AES Convention, preprint 3030, 1991.",
    params: &[
        ParamDef {
            name: "rt60_s",
            unit: "s",
            help: "How long low frequencies take to decay by 60 dB.",
            kind: ParamKind::Number {
                min: 0.1,
                max: 20.0,
                identity: None,
                default: (0.3, 2.5),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "damping_hz",
            unit: "Hz",
            help: "Where the decay is twice as fast.",
            kind: ParamKind::Number {
                min: 200.0,
                max: 100_000.0,
                identity: None,
                default: (2_000.0, 10_000.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "pre_delay_s",
            unit: "s",
            help: "How long the reverberation waits.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 0.5,
                identity: None,
                default: (0.0, 0.04),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "mix",
            unit: "",
            help: "The share of the reverberation, at the level of the dry sound; the rest is the dry sound.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 1.0,
                identity: Some(0.0),
                default: (0.1, 0.5),
                scale: Scale::Linear,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 0.5, tolerance: 0.05, scale: Scale::Log },
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Pedalboard, "Reverb")],
};

pub(crate) const LINES: usize = 16;
const BLOCK: usize = 64;

/// The signs with which even and odd channels enter the lines (a set bit is a minus), and those with which the
/// lines are summed for them. All four are eigenvectors of the Hadamard matrix, the first two of its positive and
/// the others of its negative eigenvalue. So inputs and outputs are orthogonal after any number of passes, and
/// frequencies at which all lines agree, 0 Hz first of all, do not pile up. The first pass to both outputs is
/// orthogonal too, from either input and from their sum.
pub(crate) const INPUTS: [u16; 2] = [0x0356, 0x2BBD];
pub(crate) const OUTPUTS: [u16; 2] = [0x1781, 0x244D];

/// The shortest and the longest line for a decay of 1 s.
const LENGTHS_S: (f64, f64) = (0.012, 0.060);

/// The memory of the lines and the wet channels.
#[derive(Default)]
struct Buffers {
    rings: Vec<Vec<f32>>,
    wet: Vec<Vec<f32>>,
}

/// The end of a delay line: where it is read, and its low-pass.
#[derive(Clone, Copy, Default)]
struct Line {
    at: usize,
    gain: f32,
    pole: f32,
    last: f32,
}

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, scratch: &mut Scratch) {
    let &[rt60_s, damping_hz, pre_delay_s, mix] = params else { return };
    let Some(unit) = wet::unit(&audio.channels).filter(|_| mix > 0.0) else { return };
    let pre_delay = pre_delay(pre_delay_s, audio.rate, audio.frames());
    let frames = audio.frames() - pre_delay;
    let network = Network::new(rt60_s, damping_hz, audio.rate);
    let Buffers { rings, wet } = scratch.slot();
    rings.resize_with(LINES, Vec::new);
    let mut lines = [Line::default(); LINES];
    for (l, ((line, ring), length)) in lines.iter_mut().zip(rings.iter_mut()).zip(network.lengths).enumerate()
    {
        (line.gain, line.pole) = (network.gains[l], network.poles[l]);
        ring.clear();
        ring.resize(length, 0.0);
    }
    wet.resize_with(audio.channels.len(), Vec::new);
    for wet in wet.iter_mut() {
        wet.clear();
        wet.resize(frames, 0.0);
    }
    run_network(&audio.channels, unit, &mut lines, rings, wet);
    let (own, shared) = wet.split_at_mut(audio.channels.len().min(2));
    for (c, wet) in shared.iter_mut().enumerate() {
        wet.copy_from_slice(&own[c % 2]);
    }
    wet::blend(audio, wet, unit, pre_delay, mix, network.nominal);
}

/// Frames before the first echo.
pub(crate) fn pre_delay(seconds: f64, rate: u32, frames: usize) -> usize {
    ((seconds * f64::from(rate)).round() as usize).min(frames)
}

/// The lines of a reverberation time: how long they are, and their low-passes.
pub(crate) struct Network {
    pub lengths: [usize; LINES],
    pub gains: [f32; LINES],
    pub poles: [f32; LINES],
    /// The gain that brings white noise back to its level.
    pub nominal: f64,
}

impl Network {
    pub(crate) fn new(rt60_s: f64, damping_hz: f64, rate: u32) -> Self {
        let rate = f64::from(rate);
        let lengths = lengths(rt60_s, rate);
        let (mut gains, mut poles, mut kept) = ([0.0; LINES], [0.0; LINES], 0.0);
        for ((gain_to, pole_to), length) in gains.iter_mut().zip(&mut poles).zip(lengths) {
            let gain = 10f64.powf(-3.0 * length as f64 / (rt60_s * rate));
            let pole = wet::pole(damping_hz, gain * gain, rate);
            kept += gain * gain / LINES as f64;
            // The Hadamard matrix of order 16 over 4 is orthogonal.
            (*gain_to, *pole_to) = ((0.25 * gain * (1.0 - pole)) as f32, pole as f32);
        }
        // Every pass through the network keeps `kept` of the energy.
        Self { lengths, gains, poles, nominal: ((1.0 - kept) / kept).sqrt() }
    }
}

/// Lengths of the lines in frames: different primes on a logarithmic scale.
fn lengths(rt60_s: f64, rate: f64) -> [usize; LINES] {
    let (shortest, longest) = LENGTHS_S;
    let scale = rt60_s.sqrt().clamp(0.3, 1.6) * rate;
    let mut before = 2;
    std::array::from_fn(|l| {
        let wanted = scale * shortest * (longest / shortest).powf(l as f64 / (LINES - 1) as f64);
        let mut n = (wanted.round() as usize).max(before + 1);
        while (2..).take_while(|d| d * d <= n).any(|d| n.is_multiple_of(d)) {
            n += 1;
        }
        before = n;
        n
    })
}

/// +1 or -1 for each line.
fn signs(minus: u16) -> [f32; LINES] {
    std::array::from_fn(|l| if minus >> l & 1 == 1 { -1.0 } else { 1.0 })
}

/// What the network makes of the first frames of `dry`, into the first two channels of `wet`.
fn run_network(
    dry: &[Vec<f32>],
    unit: f32,
    lines: &mut [Line; LINES],
    rings: &mut [Vec<f32>],
    wet: &mut [Vec<f32>],
) {
    let outputs = OUTPUTS.map(signs);
    let frames = wet.first().map_or(0, Vec::len);
    let longest = rings.iter().map(Vec::len).min().unwrap_or(1).min(BLOCK);
    let mut blocks = [[0.0f32; BLOCK]; LINES];
    for from in (0..frames).step_by(longest) {
        let n = longest.min(frames - from);
        for ((line, ring), block) in lines.iter().zip(rings.iter()).zip(&mut blocks) {
            let first = n.min(ring.len() - line.at);
            block[..first].copy_from_slice(&ring[line.at..line.at + first]);
            block[first..n].copy_from_slice(&ring[..n - first]);
        }
        for (lines, blocks) in lines.as_chunks_mut().0.iter_mut().zip(blocks.as_chunks_mut().0) {
            low_passes(lines, blocks, n);
        }
        for (wet, signs) in wet.iter_mut().zip(&outputs) {
            let wet = &mut wet[from..from + n];
            for ([a, b, c, d], signs) in blocks.as_chunks().0.iter().zip(signs.as_chunks::<4>().0) {
                for ((((wet, a), b), c), d) in wet.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *wet += (signs[0] * a + signs[1] * b) + (signs[2] * c + signs[3] * d);
                }
            }
        }
        for l in 0..4 {
            hadamard(&mut blocks, [l, l + 4, l + 8, l + 12], n);
        }
        for l in 0..4 {
            hadamard(&mut blocks, [4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3], n);
        }
        let mut sides = [[0.0f32; BLOCK]; 2];
        for (c, dry) in dry.iter().enumerate() {
            for (side, s) in sides[c % 2].iter_mut().zip(&dry[from..from + n]) {
                *side += s * unit;
            }
        }
        let [even, odd] = sides;
        let inputs: [[f32; BLOCK]; 4] = std::array::from_fn(|minus| {
            let signs = signs(minus as u16);
            std::array::from_fn(|i| signs[0] * even[i] + signs[1] * odd[i])
        });
        for (l, ((line, ring), block)) in lines.iter_mut().zip(rings.iter_mut()).zip(&blocks).enumerate() {
            let input = &inputs[usize::from(INPUTS[0] >> l & 1 | (INPUTS[1] >> l & 1) << 1)];
            let write = |to: &mut [f32], at: usize| {
                for ((to, s), input) in to.iter_mut().zip(&block[at..]).zip(&input[at..]) {
                    *to = wet::settle(s + input);
                }
            };
            let first = n.min(ring.len() - line.at);
            write(&mut ring[line.at..line.at + first], 0);
            write(&mut ring[..n - first], first);
            line.at = (line.at + n) % ring.len();
        }
    }
}

/// The low-passes of four lines, side by side: a line waits for its last sample, but not for the other lines.
fn low_passes(lines: &mut [Line; 4], blocks: &mut [[f32; BLOCK]; 4], n: usize) {
    let (gain, pole) = (lines.map(|line| line.gain), lines.map(|line| line.pole));
    let mut last = lines.map(|line| line.last);
    let mut step = |x: [f32; 4]| {
        last = std::array::from_fn(|l| gain[l] * x[l] + pole[l] * last[l]);
        last
    };
    let [a, b, c, d] = blocks;
    let fours = n / 4 * 4;
    let rows = a[..fours].as_chunks_mut::<4>().0.iter_mut().zip(b.as_chunks_mut::<4>().0);
    let rows = rows.zip(c.as_chunks_mut::<4>().0).zip(d.as_chunks_mut::<4>().0);
    for (((a, b), c), d) in rows {
        let frames: [[f32; 4]; 4] = std::array::from_fn(|i| [a[i], b[i], c[i], d[i]]);
        let frames = frames.map(&mut step);
        *a = frames.map(|frame| frame[0]);
        *b = frames.map(|frame| frame[1]);
        *c = frames.map(|frame| frame[2]);
        *d = frames.map(|frame| frame[3]);
    }
    for i in fours..n {
        [a[i], b[i], c[i], d[i]] = step([a[i], b[i], c[i], d[i]]);
    }
    for (line, last) in lines.iter_mut().zip(last) {
        line.last = wet::settle(last);
    }
}

/// The Hadamard matrix of order 4 on four of the blocks.
fn hadamard(blocks: &mut [[f32; BLOCK]; LINES], at: [usize; 4], n: usize) {
    let Ok([a, b, c, d]) = blocks.get_disjoint_mut(at) else { return };
    for (((a, b), c), d) in a[..n].iter_mut().zip(&mut b[..n]).zip(&mut c[..n]).zip(&mut d[..n]) {
        let (sum, sum2, difference, difference2) = (*a + *b, *c + *d, *a - *b, *c - *d);
        (*a, *b) = (sum + sum2, difference + difference2);
        (*c, *d) = (sum - sum2, difference - difference2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;
    use crate::wet::decay_time;

    const OPEN: f64 = 100_000.0;

    fn reverberated(mut audio: Audio, params: [f64; 4]) -> Audio {
        run(&mut audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
        audio
    }

    fn impulse_response(rate: u32, seconds: f64, params: [f64; 4]) -> Vec<f32> {
        let mut samples = vec![0.0; (seconds * f64::from(rate)) as usize];
        samples[0] = 1.0;
        reverberated(Audio::mono(rate, samples), params).channels.remove(0)
    }

    /// A band-pass of second order around `hz`, twice.
    fn band(x: &[f32], hz: f64, rate: f64) -> Vec<f32> {
        let w = std::f64::consts::TAU * hz / rate;
        let alpha = w.sin() / 4.0;
        let mut y = x.to_vec();
        for _ in 0..2 {
            let mut past = [0.0f64; 4];
            for s in &mut y {
                let x = f64::from(*s);
                let out = (alpha * (x - past[1]) + 2.0 * w.cos() * past[2] - (1.0 - alpha) * past[3])
                    / (1.0 + alpha);
                past = [x, past[0], out, past[2]];
                *s = out as f32;
            }
        }
        y
    }

    #[test]
    fn patterns_are_eigenvectors() {
        let value = |v: u16| {
            let v = signs(v);
            let mut blocks = [[0.0; BLOCK]; LINES];
            for (block, v) in blocks.iter_mut().zip(v) {
                block[0] = v;
            }
            for l in 0..4 {
                hadamard(&mut blocks, [l, l + 4, l + 8, l + 12], 1);
            }
            for l in 0..4 {
                hadamard(&mut blocks, [4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3], 1);
            }
            let ratio = blocks[0][0] / v[0];
            assert!(blocks.iter().zip(v).all(|(block, v)| block[0] == ratio * v));
            ratio
        };
        assert_eq!(INPUTS.map(value), [4.0, 4.0]);
        assert_eq!(OUTPUTS.map(value), [-4.0, -4.0]);
        for differ in
            [INPUTS[0] ^ INPUTS[1], OUTPUTS[0] ^ OUTPUTS[1], INPUTS[0] ^ INPUTS[1] ^ OUTPUTS[0] ^ OUTPUTS[1]]
        {
            assert_eq!(differ.count_ones(), 8);
        }
    }

    #[test]
    fn the_decay_time_is_as_asked() {
        for rate in [8_000, 16_000, 44_100, 96_000] {
            for rt60 in [0.3, 0.8, 2.0, 6.0] {
                let h = impulse_response(rate, 1.5 * rt60, [rt60, OPEN, 0.0, 1.0]);
                let measured = decay_time(&h, f64::from(rate));
                assert!((measured / rt60 - 1.0).abs() < 0.1, "{rate} Hz, {rt60} s: {measured}");
            }
        }
    }

    /// At `damping_hz` the decay takes half as long, at low frequencies as long as asked.
    #[test]
    fn high_frequencies_decay_faster() {
        for rate in [16_000, 48_000] {
            let h = impulse_response(rate, 3.0, [1.5, 3_000.0, 0.0, 1.0]);
            let time = |hz: f64| decay_time(&band(&h, hz, f64::from(rate)), f64::from(rate));
            assert!((time(250.0) / 1.5 - 1.0).abs() < 0.15, "{rate}: {}", time(250.0));
            assert!((time(3_000.0) / 0.75 - 1.0).abs() < 0.15, "{rate}: {}", time(3_000.0));
            assert!(time(6_000.0) < 0.6, "{rate}: {}", time(6_000.0));
        }
    }

    /// The gain at 0 Hz stays near or below the gain for noise, which is 1.
    #[test]
    fn a_constant_does_not_pile_up() {
        for (rate, rt60) in [(16_000, 0.5), (16_000, 4.0), (48_000, 2.0)] {
            let h = impulse_response(rate, 2.0 * rt60, [rt60, OPEN, 0.0, 1.0]);
            let sum: f64 = h.iter().map(|s| f64::from(*s)).sum();
            assert!(sum.abs() < 2.0, "{rate} {rt60}: {sum}");
        }
    }

    #[test]
    fn both_sides_differ_and_any_number_of_channels_works() {
        let mut rng = Key::root(1).rng();
        let noise: Vec<f32> = (0..48_000).map(|_| rng.normal() as f32 * 0.1).collect();
        let audio = Audio { rate: 16_000, channels: vec![noise.clone(), noise.clone()] };
        let got = reverberated(audio, [1.0, 5_000.0, 0.0, 1.0]);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let [left, right] = [&got.channels[0], &got.channels[1]];
        let correlation = dot(left, right) / (dot(left, left) * dot(right, right)).sqrt();
        assert!(correlation.abs() < 0.1, "{correlation}");
        assert!((dot(left, left) / dot(right, right)).log10().abs() < 0.1);
        let power = (dot(left, left) + dot(right, right)) / 2.0 / dot(&noise, &noise);
        assert!((power - 1.0).abs() < 1e-3, "{power}");
        let five = reverberated(Audio { rate: 16_000, channels: vec![noise; 5] }, [1.0, 5_000.0, 0.0, 0.5]);
        assert_eq!(five.channels[0], five.channels[4]);
    }

    #[test]
    fn the_wet_sound_waits_and_the_dry_one_does_not() {
        let h = impulse_response(16_000, 1.0, [1.0, OPEN, 0.1, 0.5]);
        assert_eq!(h[0], 0.5);
        let wet = h.iter().skip(1).position(|s| *s != 0.0).unwrap() + 1;
        assert_eq!(wet, 1_600 + lengths(1.0, 16_000.0)[0]);
        let h = impulse_response(16_000, 0.3, [1.0, OPEN, 0.5, 0.25]);
        assert!(h[0] == 0.75 && h[1..].iter().all(|s| *s == 0.0));
    }

    #[test]
    fn extremes() {
        for samples in [vec![], vec![0.5], vec![f32::MAX; 3_000], vec![f32::MIN_POSITIVE; 3_000]] {
            for rate in [4_000, 192_000] {
                let audio = Audio { rate, channels: vec![samples.clone(); 2] };
                assert!(reverberated(audio.clone(), [20.0, 200.0, 0.0, 0.7]).is_finite());
                assert_eq!(reverberated(audio.clone(), [0.1, 200.0, 0.1, 0.0]), audio);
            }
        }
    }
}
