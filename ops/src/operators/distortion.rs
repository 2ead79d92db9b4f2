//! Distortion: a saturating curve without memory, with little aliasing.
//!
//! ```text
//! x -> to drive dB over the knee -> mean of the curve between samples half a step apart -> to the power of x
//! ```
//! A curve makes harmonics, and those above the Nyquist frequency fold down. So the curve is not evaluated at
//! samples: it is averaged exactly over the lines between neighbouring samples, as the difference of its
//! antiderivative divided by that of the samples (Parker, Zavalishin and Le Bivic, "Reducing the aliasing of
//! nonlinear waveshaping using continuous-time convolution", DAFx 2016). Where neighbours are all but equal, that
//! quotient is ill-conditioned, and the curve at their middle takes its place. We average over the lines from the
//! middle of two samples to the next sample and on to the next middle: twice the sample rate, and symmetrical, so
//! that nothing is delayed and the clean signal can be mixed in. A short low-pass then takes every other mean.

use std::f64::consts::{LN_2, PI};

use super::background::energy;
use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

/// Neighbours closer than this count as equal: rounding costs 1e-9 of the quotient here, the middle 1e-6 at a kink
/// and 1e-11 elsewhere.
const EQUAL: f64 = 1e-5;
/// Half the taps of the interpolator halfway between samples, and of the decimator.
const UP: usize = 8;
const DOWN: usize = 12;
/// A mean over half a step droops as cos(w / 4), to second order by this share of the second difference.
const SHARPEN: f64 = 1.0 / 32.0;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "distortion",
    version: 1,
    summary: "Overdrives a saturating curve, with little aliasing; the power stays.",
    source: "Antiderivative anti-aliasing: Parker, Zavalishin and Le Bivic, DAFx 2016.",
    params: &[
        ParamDef {
            name: "drive_db",
            unit: "dB",
            help: "Peak of the view over the level at which the curve saturates.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 40.0,
                identity: None,
                default: (3.0, 24.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "mix",
            unit: "",
            help: "Share of the distorted signal; the clean one has the rest.",
            kind: ParamKind::Number {
                min: 0.0,
                max: 1.0,
                identity: Some(0.0),
                default: (0.5, 1.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "shape",
            unit: "",
            help: "The curve: tanh(x), x / sqrt(1 + x^2), a cubic, or a hard limit; from soft to hard.",
            kind: ParamKind::Choice {
                options: &["tanh", "algebraic", "cubic", "hard"],
                default: &["tanh", "algebraic", "cubic", "hard"],
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::Level { param: 0, apart: 6.0, tolerance: 0.5, scale: Scale::Linear },
    kernel: Kernel::Samples(run),
    peers: &[
        (Peer::Audiomentations, "TanhDistortion"),
        (Peer::Pedalboard, "Distortion"),
        (Peer::Torchaudio, "functional.overdrive"),
    ],
};

#[derive(Default)]
struct Buffers {
    tanh: Tanh,
    /// The driven signal with silence on either side, and the points halfway between its samples.
    driven: Vec<f32>,
    halfway: Vec<f32>,
    /// The antiderivative at each sample and halfway before it.
    integral: Vec<[f64; 2]>,
    /// Means before and after each sample, with silence on either side.
    before: Vec<f32>,
    after: Vec<f32>,
    /// The distorted signal of each channel.
    wet: Vec<Vec<f32>>,
}

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, scratch: &mut Scratch) {
    let &[drive_db, mix, shape] = params else { return };
    let peak = f64::from(audio.peak());
    if mix <= 0.0 || peak <= 0.0 {
        return;
    }
    let buffers: &mut Buffers = scratch.slot();
    let drive = drive(drive_db) / peak;
    buffers.tanh.prepare();
    let taps = Taps::new();
    let mut wet = std::mem::take(&mut buffers.wet);
    wet.resize_with(audio.channels.len(), Vec::new);
    for (channel, wet) in audio.channels.iter().zip(&mut wet) {
        buffers.driven.clear();
        buffers.driven.resize(UP, 0.0);
        buffers.driven.extend(channel.iter().map(|x| (f64::from(*x) * drive) as f32));
        buffers.driven.resize(channel.len() + 2 * UP, 0.0);
        taps.halfway(&buffers.driven, &mut buffers.halfway);
        match shape as usize {
            0 => {
                let tanh = std::mem::take(&mut buffers.tanh);
                means(&tanh, buffers);
                buffers.tanh = tanh;
            }
            1 => means(&Algebraic, buffers),
            2 => means(&Cubic, buffers),
            _ => means(&Hard, buffers),
        }
        taps.decimate(&buffers.before, &buffers.after, wet);
    }
    let power = energy(&wet);
    if power > 0.0 {
        let gain = mix * (energy(&audio.channels) / power).sqrt();
        for (channel, wet) in audio.channels.iter_mut().zip(&wet) {
            for (sample, wet) in channel.iter_mut().zip(wet) {
                *sample = finite_f32(f64::from(*sample) * (1.0 - mix) + f64::from(*wet) * gain);
            }
        }
    }
    buffers.wet = wet;
}

/// What the peak is brought to.
pub(crate) fn drive(drive_db: f64) -> f64 {
    10f64.powf(drive_db / 20.0)
}

/// The interpolator and the decimator: halves of symmetrical windowed sincs.
struct Taps {
    /// At distances of 0.5, 1.5, ... from the point wanted.
    up: [f32; UP],
    /// At distances of 0.25, 0.75, ... from the sample wanted.
    down: [f32; DOWN],
}

/// Outputs that are summed up at once.
const BLOCK: usize = 64;

impl Taps {
    fn new() -> Self {
        let sinc = |t: f64| (PI * t).sin() / (PI * t);
        let hann = |t: f64, reach: f64| (PI / 2.0 * t / reach).cos().powi(2);
        let up: [f64; UP] = std::array::from_fn(|j| {
            let t = j as f64 + 0.5;
            sinc(t) * hann(t, UP as f64)
        });
        let down: [f64; DOWN] = std::array::from_fn(|j| {
            let t = (j as f64 + 0.5) / 2.0;
            let sharp = (1.0 + 2.0 * SHARPEN) * sinc(t) - SHARPEN * (sinc(t - 1.0) + sinc(t + 1.0));
            sharp * hann(t, DOWN as f64 / 2.0)
        });
        let (all_up, all_down) = (2.0 * up.iter().sum::<f64>(), 2.0 * down.iter().sum::<f64>());
        Self { up: up.map(|t| (t / all_up) as f32), down: down.map(|t| (t / all_down) as f32) }
    }

    /// The values half a sample before each sample and after the last; `padded` has UP more samples at both ends.
    fn halfway(&self, padded: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.resize(padded.len() + 1 - 2 * UP, 0.0);
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let x = &padded[block * BLOCK..];
            for (j, tap) in self.up.iter().enumerate() {
                add(out, *tap, &x[UP - 1 - j..], &x[UP + j..]);
            }
        }
    }

    /// Samples from the means a quarter of a step before and after each; both have DOWN / 2 more at both ends.
    fn decimate(&self, before: &[f32], after: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.resize(before.len() - DOWN, 0.0);
        let (pairs, _) = self.down.as_chunks::<2>();
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let at = block * BLOCK + DOWN / 2;
            for (j, [near, far]) in pairs.iter().enumerate() {
                add(out, *near, &after[at + j..], &before[at - j..]);
                add(out, *far, &before[at + j + 1..], &after[at - j - 1..]);
            }
        }
    }
}

/// out += tap * (a + b)
#[inline]
fn add(out: &mut [f32], tap: f32, a: &[f32], b: &[f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out += tap * (a + b);
    }
}

/// Means of the curve along the lines that lead to each sample and away from it.
fn means(curve: &impl Curve, buffers: &mut Buffers) {
    let Buffers { driven, halfway, integral, before, after, .. } = buffers;
    let x = &driven[UP..driven.len() - UP];
    let mean = |a: f32, at_a: f64, b: f32, at_b: f64| {
        let (a, b) = (f64::from(a), f64::from(b));
        if (a - b).abs() > EQUAL {
            ((at_a - at_b) / (a - b)) as f32
        } else {
            curve.value((a + b) / 2.0) as f32
        }
    };
    integral.clear();
    // The last point has no sample to go with it.
    let both = x.iter().chain(&[0.0]).zip(&*halfway);
    integral.extend(both.map(|(x, h)| [*h, *x].map(|v| curve.integral(f64::from(v)))));
    for side in [&mut *before, &mut *after] {
        side.clear();
        side.resize(x.len() + DOWN, 0.0);
    }
    let sides = before[DOWN / 2..].iter_mut().zip(&mut after[DOWN / 2..]);
    for ((((before, after), x), h), f) in sides.zip(x).zip(halfway.windows(2)).zip(integral.windows(2)) {
        *before = mean(h[0], f[0][0], *x, f[0][1]);
        *after = mean(*x, f[0][1], h[1], f[1][0]);
    }
}

/// A curve with slope 1 at zero that tends to 1, and its antiderivative.
trait Curve {
    fn value(&self, x: f64) -> f64;
    fn integral(&self, x: f64) -> f64;
}

/// x / sqrt(1 + x^2).
struct Algebraic;

impl Curve for Algebraic {
    #[inline]
    fn value(&self, x: f64) -> f64 {
        x / (1.0 + x * x).sqrt()
    }
    #[inline]
    fn integral(&self, x: f64) -> f64 {
        (1.0 + x * x).sqrt()
    }
}

/// x - 4/27 x^3 up to 1.5, where it reaches 1 with slope 0.
struct Cubic;

impl Curve for Cubic {
    #[inline]
    fn value(&self, x: f64) -> f64 {
        let x = x.clamp(-1.5, 1.5);
        x - x * x * x * (4.0 / 27.0)
    }
    #[inline]
    fn integral(&self, x: f64) -> f64 {
        let inside = x.abs().min(1.5);
        let square = inside * inside;
        square / 2.0 - square * square / 27.0 + (x.abs() - inside)
    }
}

/// x up to 1.
struct Hard;

impl Curve for Hard {
    #[inline]
    fn value(&self, x: f64) -> f64 {
        x.clamp(-1.0, 1.0)
    }
    #[inline]
    fn integral(&self, x: f64) -> f64 {
        let inside = x.abs().min(1.0);
        inside * inside / 2.0 + (x.abs() - inside)
    }
}

/// tanh(x). Its antiderivative ln cosh x is tabulated as cubics that meet value and slope at their ends: 5e-9 off,
/// and 1e-6 in the slope, which is the curve.
#[derive(Default)]
struct Tanh {
    cubics: Vec<[f64; 4]>,
}

impl Tanh {
    /// Cubics per unit, and where the antiderivative has become a line to 1e-11.
    const PER_UNIT: f64 = 32.0;
    const END: f64 = 12.0;

    fn prepare(&mut self) {
        if !self.cubics.is_empty() {
            return;
        }
        let step = 1.0 / Self::PER_UNIT;
        self.cubics.extend((0..(Self::END * Self::PER_UNIT) as usize).map(|i| {
            let (x, next) = (i as f64 * step, (i + 1) as f64 * step);
            let (f0, f1) = (x.cosh().ln(), next.cosh().ln());
            let (d0, d1) = (x.tanh() * step, next.tanh() * step);
            [f0, d0, 3.0 * (f1 - f0) - 2.0 * d0 - d1, d0 + d1 - 2.0 * (f1 - f0)]
        }));
    }
}

impl Curve for Tanh {
    #[inline]
    fn value(&self, x: f64) -> f64 {
        x.tanh()
    }
    #[inline]
    fn integral(&self, x: f64) -> f64 {
        let scaled = x.abs() * Self::PER_UNIT;
        let piece = scaled as usize;
        let t = scaled - piece as f64;
        match self.cubics.get(piece) {
            Some([a, b, c, d]) => a + t * (b + t * (c + t * d)),
            None => x.abs() - LN_2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;
    use realfft::RealFftPlanner;
    use std::f64::consts::TAU;

    const CURVES: [fn(f64) -> f64; 4] = [
        f64::tanh,
        |x| x / (1.0 + x * x).sqrt(),
        |x| {
            let m = x.clamp(-1.5, 1.5);
            m - 4.0 / 27.0 * m.powi(3)
        },
        |x| x.clamp(-1.0, 1.0),
    ];

    fn distorted(samples: &[f32], rate: u32, params: [f64; 3]) -> Vec<f32> {
        let mut audio = Audio::mono(rate, samples.to_vec());
        run(&mut audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
        audio.channels.remove(0)
    }

    /// `periods` of a sine in `frames` frames.
    fn sine(periods: usize, frames: usize) -> Vec<f32> {
        (0..frames).map(|i| (0.7 * (TAU * periods as f64 * i as f64 / frames as f64).sin()) as f32).collect()
    }

    fn powers(x: &[f32]) -> Vec<f64> {
        let fft = RealFftPlanner::<f64>::new().plan_fft_forward(x.len());
        let mut spectrum = fft.make_output_vec();
        fft.process(&mut x.iter().map(|s| f64::from(*s)).collect::<Vec<_>>(), &mut spectrum).unwrap();
        spectrum.iter().map(|c| c.norm_sqr()).collect()
    }

    /// Harmonic k over the first, against the Fourier series of curve(drive * sin), by quadrature in f64.
    #[test]
    fn harmonics_match_the_fourier_series() {
        for (shape, curve) in CURVES.iter().enumerate() {
            for drive_db in [0.0, 12.0, 30.0] {
                let drive = 10f64.powf(drive_db / 20.0);
                let series = |k: usize| {
                    let at = |i: usize| PI * (i as f64 + 0.5) / 20_000.0;
                    (0..20_000).map(|i| curve(drive * at(i).sin()) * (k as f64 * at(i)).sin()).sum::<f64>()
                };
                // Away from the ends, where the interpolator sees silence: the middle of three stretches.
                let out = distorted(&sine(240, 72_000), 48_000, [drive_db, 1.0, shape as f64]);
                let powers = powers(&out[24_000..48_000]);
                for k in [3, 5, 7, 9] {
                    let got = (powers[80 * k] / powers[80]).sqrt();
                    let want = (series(k) / series(1)).abs();
                    assert!(
                        (got - want).abs() < 1e-3,
                        "{shape} at {drive_db} dB, harmonic {k}: {got} {want}"
                    );
                }
                let even: f64 = (1..10).map(|k| powers[160 * k]).sum();
                assert!(even < 1e-9 * powers[80]);
            }
        }
    }

    /// A high tone driven hard: what is no harmonic below the Nyquist frequency has folded. Against the curve at
    /// samples, there is at least 10 dB less of it.
    #[test]
    fn aliasing_is_far_below_that_of_the_naive_curve() {
        let frames = 48_000;
        let x = sine(3 * 2_777, 3 * frames);
        let aliases = |out: &[f32]| {
            let powers = powers(&out[frames..2 * frames]);
            let harmonics = (1..).map(|k| 2_777 * k).take_while(|bin| *bin <= frames / 2);
            let kept: f64 = harmonics.map(|bin| powers[bin]).sum();
            10.0 * ((powers.iter().sum::<f64>() - kept) / kept).log10()
        };
        for (shape, curve) in CURVES.iter().enumerate() {
            let naive: Vec<f32> = x.iter().map(|s| curve(f64::from(*s) / 0.7 * 10.0) as f32).collect();
            let ours = aliases(&distorted(&x, 48_000, [20.0, 1.0, shape as f64]));
            let naive = aliases(&naive);
            println!("shape {shape}: aliases at {ours:.1} dB, of the naive curve at {naive:.1} dB");
            assert!(ours < naive - 10.0, "{shape}: {ours} {naive}");
        }
    }

    /// Where neighbours are equal or all but, the result is the curve: steady and slow signals.
    #[test]
    fn slow_signals_follow_the_curve() {
        for (shape, curve) in CURVES.iter().enumerate() {
            for slope in [0.0, 1e-9, 1e-6, 3e-6, 1e-5, 1e-4] {
                let x: Vec<f32> = (0..2_000).map(|i| (0.5 + slope * f64::from(i)) as f32).collect();
                let peak = f64::from(x[1_999]);
                let out = distorted(&x, 8_000, [12.0, 1.0, shape as f64]);
                let want = |i: usize| curve(f64::from(x[i]) / peak * 10f64.powf(0.6));
                let gain = f64::from(out[1_000]) / want(1_000);
                for (i, y) in out.iter().enumerate().take(1_900).skip(100) {
                    let error = f64::from(*y) / gain - want(i);
                    assert!(error.abs() < 2e-6, "{shape} {slope} {i}: {error}");
                }
            }
        }
    }

    /// A small signal under a small drive passes flat and in phase.
    #[test]
    fn the_power_stays_and_nothing_is_delayed() {
        for shape in 0..4 {
            let x = sine(300, 16_000);
            let out = distorted(&x, 16_000, [18.0, 1.0, f64::from(shape)]);
            let power = |x: &[f32]| x.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
            assert!((power(&out) / power(&x) - 1.0).abs() < 1e-5);
            // Symmetrical in time: a sine stays odd about its zeros.
            let shift: f64 = (1_000..15_000).map(|i| f64::from(out[i] * (x[i + 1] - x[i - 1]))).sum();
            let level: f64 = (1_000..15_000).map(|i| f64::from(out[i] * x[i])).sum();
            assert!((shift / level).abs() < 1e-3, "{shape}: {}", shift / level);
        }
    }

    #[test]
    fn the_clean_signal_is_mixed_in_and_limits_hold() {
        let x = sine(30, 1_600);
        assert_eq!(distorted(&x, 16_000, [40.0, 0.0, 0.0]), x);
        let [half, full] = [0.5, 1.0].map(|mix| distorted(&x, 16_000, [20.0, mix, 3.0]));
        for i in 0..x.len() {
            assert!((half[i] - 0.5 * (x[i] + full[i])).abs() < 1e-6);
        }
        for shape in 0..4 {
            for frames in 0..4 {
                let loud = distorted(&vec![f32::MAX; frames], 4_000, [40.0, 1.0, f64::from(shape)]);
                assert!(loud.len() == frames && loud.iter().all(|s| s.is_finite()));
            }
            assert_eq!(distorted(&[0.0; 9], 4_000, [40.0, 1.0, f64::from(shape)]), [0.0; 9]);
        }
        let table = {
            let mut t = Tanh::default();
            t.prepare();
            t
        };
        for i in 0..4_000 {
            let x = f64::from(i) * 0.0051;
            assert!((table.integral(-x) - x.cosh().ln()).abs() < 1e-8);
        }
    }
}
