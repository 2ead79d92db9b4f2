//! Limiter: no sample above a ceiling.
//!
//! The gain that each sample needs is spread over the time before it by a running minimum, let go slowly after it,
//! and averaged over that same time. Every gain in the average is low enough for the sample in whose look-ahead it
//! lies, so the average is; and as the whole view is at hand, looking ahead costs no delay.

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "limiter",
    version: 1,
    summary: "Turns peaks down so that no sample is above a ceiling; one gain for all channels.",
    source: "Look-ahead limiting by running extremum and average: Giannoulis et al., JAES 60(6), 2012; \
             Zoelzer (ed.), DAFX, Wiley, 2011.",
    params: &[
        ParamDef {
            name: "ceiling_db",
            unit: "dB",
            help: "The greatest level that remains, relative to full scale.",
            kind: ParamKind::Number {
                min: -60.0,
                max: 0.0,
                identity: None,
                default: (-18.0, -3.0),
                scale: Scale::Linear,
            },
        },
        ParamDef {
            name: "attack_ms",
            unit: "ms",
            help: "How long before a peak the gain begins to fall.",
            kind: ParamKind::Number {
                min: 0.1,
                max: 50.0,
                identity: None,
                default: (1.0, 5.0),
                scale: Scale::Log,
            },
        },
        ParamDef {
            name: "release_ms",
            unit: "ms",
            help: "When 63% of a reduction are gone again.",
            kind: ParamKind::Number {
                min: 1.0,
                max: 5_000.0,
                identity: None,
                default: (30.0, 300.0),
                scale: Scale::Log,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[(Peer::Audiomentations, "Limiter"), (Peer::Pedalboard, "Limiter")],
};

/// Reductions (1 less the gain) by frame, as far ahead of the first frame as the limiter looks.
#[derive(Default)]
struct Buffers {
    reduction: Vec<f32>,
    other: Vec<f32>,
    fixed: Vec<u32>,
}

/// Reductions are averaged as integers of this scale, so that their running sum is exact and returns to zero.
const ONE: f32 = (1u32 << 30) as f32;

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, scratch: &mut Scratch) {
    let &[ceiling_db, attack_ms, release_ms] = params else { return };
    let ceiling = round_down(10f64.powf(ceiling_db / 20.0));
    let above = |channel: &Vec<f32>| channel.iter().fold(false, |above, s| above | (s.abs() > ceiling));
    if !audio.channels.iter().any(above) {
        return;
    }
    let rate = f64::from(audio.rate);
    let ahead = (attack_ms / 1_000.0 * rate).round().max(1.0) as usize;
    let release = (-1_000.0 / (release_ms * rate)).exp() as f32;
    let Buffers { reduction, other, fixed } = scratch.slot();

    reduction.clear();
    reduction.resize(ahead + audio.frames(), ceiling);
    for channel in &audio.channels {
        for (level, sample) in reduction[ahead..].iter_mut().zip(channel) {
            let sample = sample.abs();
            *level = if sample > *level { sample } else { *level };
        }
    }
    for level in reduction.iter_mut() {
        *level = 1.0 - ceiling / *level;
    }
    running_max(reduction, other, ahead + 1);

    fixed.clear();
    let mut held = 0.0f32;
    fixed.extend(reduction.iter().map(|&reduction| {
        let released = held * release;
        held = if released > reduction { released } else { reduction };
        (held * ONE) as i32 as u32
    }));

    let mut sum: i64 = fixed[..ahead].iter().map(|&r| i64::from(r)).sum();
    let scale = 1.0 / (f64::from(ONE) * (ahead + 1) as f64);
    for ((gain, &leaves), &enters) in other.iter_mut().zip(fixed.iter()).zip(&fixed[ahead..]) {
        sum += i64::from(enters);
        *gain = (1.0 - sum as f64 * scale) as f32;
        sum -= i64::from(leaves);
    }
    for channel in &mut audio.channels {
        for (sample, gain) in channel.iter_mut().zip(other.iter()) {
            // What the clamp still takes is rounding.
            *sample = (*sample * gain).clamp(-ceiling, ceiling);
        }
    }
}

/// The greatest `f32` that is not above `x`, for a positive `x`.
fn round_down(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) > x { nearest.next_down() } else { nearest }
}

/// Puts the greatest of `width` values from each on in its place, or of as many as there are. Spans of twice the width
/// are the greater of two spans, so that few passes suffice, each of which is vectorised.
fn running_max(values: &mut Vec<f32>, other: &mut Vec<f32>, width: usize) {
    other.resize(values.len(), 0.0);
    let mut covered = 1;
    while covered < width {
        let step = covered.min(width - covered).min(values.len());
        let ends = values.len() - step;
        for ((out, &a), &b) in other.iter_mut().zip(values.iter()).zip(&values[step..]) {
            *out = if a > b { a } else { b };
        }
        other[ends..].copy_from_slice(&values[ends..]);
        std::mem::swap(values, other);
        covered += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn apply(audio: &mut Audio, params: [f64; 3]) {
        run(audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
    }

    fn noise(frames: usize, seed: u64) -> Vec<f32> {
        let mut rng = Key::root(seed).rng();
        (0..frames).map(|_| (rng.normal() * 0.5) as f32).collect()
    }

    #[test]
    fn nothing_is_ever_above_the_ceiling() {
        for (rate, ceiling_db, attack, release) in
            [(16_000, -6.0, 2.0, 50.0), (4_000, -60.0, 0.1, 1.0), (48_000, -0.3, 50.0, 5_000.0)]
        {
            let mut clips: Vec<_> = (0..8).map(|seed| noise(3_000, seed)).collect();
            clips.extend([vec![f32::MAX, 0.0, f32::MIN], vec![-1.5; 999], vec![2.0]]);
            for clip in clips {
                let mut audio =
                    Audio { rate, channels: vec![clip.clone(), clip.iter().map(|s| s * 0.3).collect()] };
                apply(&mut audio, [ceiling_db, attack, release]);
                let ceiling = 10f64.powf(ceiling_db / 20.0);
                assert!(f64::from(audio.peak()) <= ceiling, "{} {ceiling}", audio.peak());
            }
        }
    }

    /// Untouched outside the look-ahead and the release, one gain for all channels, and no jump in it.
    #[test]
    fn the_gain_is_smooth_around_a_peak_and_one_elsewhere() {
        let (rate, ahead) = (16_000, 80);
        let mut loud = vec![0.25; 32_000];
        loud[4_000] = 1.0;
        let mut audio = Audio { rate, channels: vec![loud.clone(), vec![0.125; 32_000]] };
        apply(&mut audio, [-6.0, 5.0, 20.0]);
        let gain: Vec<f32> = audio.channels[0].iter().zip(&loud).map(|(y, x)| y / x).collect();
        assert!(gain[..4_000 - ahead].iter().chain(&gain[31_000..]).all(|g| *g == 1.0));
        assert!((gain[4_000] - 10f32.powf(-6.0 / 20.0)).abs() < 1e-6);
        let step = gain.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
        assert!(step < 0.5 / ahead as f32 * 1.01, "{step}");
        assert!(audio.channels[1].iter().zip(&gain).all(|(y, g)| (y / 0.125 - g).abs() < 1e-6));
        // The average delays the release by half the attack, or a little less.
        let (peak, later) = (1.0 - gain[4_000 + ahead], 1.0 - gain[4_000 + ahead + 320]);
        assert!((later / peak - (-1f32).exp()).abs() < 1e-3, "{}", later / peak);
    }

    #[test]
    fn what_stays_below_is_untouched() {
        let quiet = noise(2_000, 1).iter().map(|s| s.clamp(-0.5, 0.5)).collect::<Vec<_>>();
        let mut audio = Audio::mono(8_000, quiet.clone());
        apply(&mut audio, [-6.0, 5.0, 20.0]);
        assert_eq!(audio.channels[0], quiet);
        let mut empty = Audio::mono(8_000, Vec::new());
        apply(&mut empty, [-6.0, 5.0, 20.0]);
        assert_eq!(empty.frames(), 0);
    }

    #[test]
    fn running_maxima_match_the_definition() {
        let values = noise(300, 2);
        for width in [1, 2, 3, 17, 64, 299, 300, 1_000] {
            let (mut got, mut other) = (values.clone(), Vec::new());
            running_max(&mut got, &mut other, width);
            for (i, got) in got.iter().enumerate() {
                let want = values[i..].iter().take(width).copied().fold(f32::MIN, f32::max);
                assert_eq!(*got, want, "{width} {i}");
            }
        }
    }
}
