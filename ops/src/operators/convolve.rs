//! Convolution with recorded impulse responses: rooms, loudspeakers, telephones.
//!
//! The direct sound of the response counts as time zero, so onsets stay where they are; what the response holds
//! before it, such as the ringing of its converter, sounds that much earlier.

use crate::audio::Audio;
use crate::convolution::convolve;
use crate::dist::Scale;
use crate::operator::{
    Extent, FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch,
};
use crate::rng::Rng;
use crate::wet;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "convolve",
    version: 1,
    summary: "Convolves with an impulse response drawn from another stage.",
    source: "Definition: y[n] = sum of h[k] x[n - k]. Time zero: the direct sound, after ISO 3382-1:2009.",
    params: &[ParamDef {
        name: "mix",
        unit: "",
        help: "The share of the convolved sound; the rest is the dry sound.",
        kind: ParamKind::Number {
            min: 0.0,
            max: 1.0,
            identity: Some(0.0),
            default: (0.3, 1.0),
            scale: Scale::Linear,
        },
    }],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Partner(Extent::Whole { max_seconds: 10.0 }, run),
    peers: &[
        (Peer::Audiomentations, "ApplyImpulseResponse"),
        (Peer::TorchAudiomentations, "ApplyImpulseResponse"),
        (Peer::Pedalboard, "Convolution"),
        (Peer::Torchaudio, "functional.fftconvolve"),
    ],
};

/// A peak that reaches this share of the highest is taken for the direct sound: -6 dB. The highest itself may be
/// a reflection, or several at once.
const DIRECT: f32 = 0.5;

/// The wet channels and the response at unit scale.
#[derive(Default)]
struct Buffers {
    wet: Vec<Vec<f32>>,
    response: Vec<f32>,
}

fn run(audio: &mut Audio, partner: &Audio, params: &[f64], _: &mut Rng, scratch: &mut Scratch) {
    let &[mix] = params else { return };
    let Some(unit) = wet::unit(&audio.channels).filter(|_| mix > 0.0) else { return };
    let Some(response_unit) = wet::unit(&partner.channels) else { return };
    let lead = direct_sound(partner);
    let mut buffers = std::mem::take(scratch.slot::<Buffers>());
    buffers.wet.resize_with(audio.channels.len(), Vec::new);
    let mut energy = 0.0;
    for ((channel, response), wet) in audio.channels.iter().zip(&partner.channels).zip(&mut buffers.wet) {
        buffers.response.clear();
        buffers.response.extend(response.iter().map(|sample| sample * response_unit));
        energy += wet::energy(&buffers.response, 1.0) / audio.channels.len() as f64;
        convolve(channel, unit, &buffers.response, lead, wet, scratch);
    }
    wet::blend(audio, &buffers.wet, unit, 0, mix, energy.sqrt().recip());
    *scratch.slot() = buffers;
}

/// The frame of the first peak, in any channel, that is high enough to be the direct sound.
pub(crate) fn direct_sound(response: &Audio) -> usize {
    let level = DIRECT * response.peak();
    let first = |channel: &Vec<f32>| {
        let reached = channel.iter().position(|s| s.abs() >= level)?;
        let rising = channel[reached..].windows(2).take_while(|pair| pair[1].abs() > pair[0].abs());
        Some(reached + rising.count())
    };
    response.channels.iter().filter_map(first).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn noise(seed: u64, n: usize) -> Vec<f32> {
        let mut rng = Key::root(seed).rng();
        (0..n).map(|_| rng.normal() as f32 * 0.2).collect()
    }

    fn convolved(audio: &Audio, response: &Audio, mix: f64) -> Audio {
        let mut audio = audio.clone();
        run(&mut audio, response, &[mix], &mut Key::root(0).rng(), &mut Scratch::default());
        audio
    }

    /// A decaying response whose direct sound is at 40.
    fn room(seed: u64, frames: usize) -> Vec<f32> {
        let mut h = noise(seed, frames);
        for (n, s) in h.iter_mut().enumerate() {
            *s *= if n < 40 { 0.01 } else { (-(n as f32) / 300.0).exp() };
        }
        h[40] = 1.0;
        h
    }

    /// The sum in double precision, from the direct sound on, at the level of the dry sound.
    #[test]
    fn equals_the_definition() {
        let audio = Audio { rate: 8_000, channels: vec![noise(1, 3_000), noise(2, 3_000)] };
        let response = Audio { rate: 8_000, channels: vec![room(3, 900), room(4, 900)] };
        let wet: Vec<Vec<f64>> = audio
            .channels
            .iter()
            .zip(&response.channels)
            .map(|(x, h)| {
                let sum = |n: usize| {
                    let taps = (0..900).filter(|k| (0..3_000).contains(&(n + 40).wrapping_sub(*k)));
                    taps.map(|k| f64::from(h[k]) * f64::from(x[n + 40 - k])).sum()
                };
                (0..3_000).map(sum).collect()
            })
            .collect();
        let dry_energy: f64 = audio.channels.iter().flatten().map(|s| f64::from(*s).powi(2)).sum();
        let wet_energy: f64 = wet.iter().flatten().map(|s| s * s).sum();
        let gain = (dry_energy / wet_energy).sqrt();
        for mix in [0.25, 1.0] {
            let got = convolved(&audio, &response, mix);
            for ((got, dry), wet) in got.channels.iter().zip(&audio.channels).zip(&wet) {
                for ((got, dry), wet) in got.iter().zip(dry).zip(wet) {
                    let want = (1.0 - mix) * f64::from(*dry) + mix * gain * wet;
                    assert!((f64::from(*got) - want).abs() < 2e-6, "{mix}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn onsets_stay_and_a_delayed_impulse_is_the_identity() {
        let audio = Audio::mono(16_000, noise(1, 5_000));
        let mut late = vec![0.0; 700];
        late[650] = -3e5;
        let got = convolved(&audio, &Audio::mono(16_000, late), 1.0);
        for (y, x) in got.channels[0].iter().zip(&audio.channels[0]) {
            assert!((y + x).abs() < 1e-6);
        }
        assert_eq!(convolved(&audio, &Audio::mono(16_000, room(3, 900)), 0.0), audio);
    }

    /// A strong reflection after a weaker direct sound does not move time zero.
    #[test]
    fn the_direct_sound_is_the_first_high_peak() {
        let mut h = vec![0.001; 500];
        h[98..103].copy_from_slice(&[0.1, 0.55, 0.7, -0.6, 0.2]);
        h[300] = -1.0;
        assert_eq!(direct_sound(&Audio::mono(8_000, h)), 100);
    }

    #[test]
    fn extremes_stay_finite_and_silence_is_no_response() {
        let loud = Audio::mono(16_000, vec![f32::MAX; 2_000]);
        for level in [f32::MAX, f32::MIN_POSITIVE] {
            let got = convolved(&loud, &Audio::mono(16_000, vec![level; 3_000]), 0.7);
            assert!(got.is_finite() && got.peak() > 1e37);
        }
        assert_eq!(convolved(&loud, &Audio::mono(16_000, vec![0.0; 10]), 1.0), loud);
    }
}
