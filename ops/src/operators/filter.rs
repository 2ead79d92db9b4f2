//! Filter: a low-, high-, band-pass or notch of second order.
//!
//! Each kind draws from its own range of frequencies, since what is a mild high-pass would be a low-pass that
//! leaves nothing. Slopes are gentle (12 dB per octave, 6 on each side of a band), and the default ranges keep
//! the fundamentals of most music.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, TAU};

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

const LOW: usize = 0;
const HIGH: usize = 1;
const BAND: usize = 2;

const fn hertz(default: (f64, f64)) -> ParamKind {
    ParamKind::Number { min: 10.0, max: 20_000.0, identity: None, default, scale: Scale::Log }
}

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "filter",
    version: 1,
    summary: "Filters with a low-pass, high-pass, band-pass or notch of second order.",
    source: "R. Bristow-Johnson, Audio EQ Cookbook (W3C note, 2021).",
    params: &[
        ParamDef {
            name: "kind",
            unit: "",
            help: "Which filter; with several, one is drawn per view.",
            kind: ParamKind::Choice {
                options: &["low", "high", "band", "notch"],
                default: &["low", "high", "band", "notch"],
            },
        },
        ParamDef {
            name: "low_pass_hz",
            unit: "Hz",
            help: "Where the low-pass is 3 dB down.",
            kind: hertz((1_000.0, 7_000.0)),
        },
        ParamDef {
            name: "high_pass_hz",
            unit: "Hz",
            help: "Where the high-pass is 3 dB down.",
            kind: hertz((40.0, 500.0)),
        },
        ParamDef {
            name: "centre_hz",
            unit: "Hz",
            help: "The centre of the band or notch.",
            kind: hertz((300.0, 3_000.0)),
        },
        ParamDef {
            name: "octaves",
            unit: "octaves",
            help: "The width of the band or notch between its -3 dB points.",
            kind: ParamKind::Number {
                min: 0.1,
                max: 6.0,
                identity: None,
                default: (0.7, 3.0),
                scale: Scale::Log,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[
        (Peer::Audiomentations, "LowPassFilter, HighPassFilter, BandPassFilter, BandStopFilter"),
        (Peer::TorchAudiomentations, "LowPassFilter, HighPassFilter, BandPassFilter, BandStopFilter"),
        (Peer::Pedalboard, "LowpassFilter, HighpassFilter"),
        (Peer::Torchaudio, "functional.lowpass_biquad, highpass_biquad, bandpass_biquad, bandreject_biquad"),
    ],
};

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let &[kind, low_hz, high_hz, centre_hz, octaves] = params else { return };
    let rate = f64::from(audio.rate);
    let section = match kind as usize {
        LOW => Section::low_pass(low_hz / rate),
        HIGH => Section::high_pass(high_hz / rate),
        BAND => Section::band_pass(centre_hz / rate, octaves),
        _ => Section::notch(centre_hz / rate, octaves),
    };
    for channel in &mut audio.channels {
        section.run(channel);
    }
}

/// One biquad, normalised so that a0 = 1.
#[derive(Clone, Copy, Debug)]
struct Section {
    b: [f64; 3],
    a: [f64; 2],
}

impl Section {
    /// From cookbook coefficients; `cutoff` in cycles per sample, kept below 0.49 where the formulas end.
    fn new(cutoff: f64, alpha: impl Fn(f64) -> f64, b: impl Fn(f64, f64) -> [f64; 3]) -> Self {
        let w = TAU * cutoff.clamp(1e-6, 0.49);
        let alpha = alpha(w);
        let a0 = 1.0 + alpha;
        Self { b: b(w.cos(), alpha).map(|v| v / a0), a: [-2.0 * w.cos() / a0, (1.0 - alpha) / a0] }
    }

    fn low_pass(cutoff: f64) -> Self {
        Self::new(cutoff, butterworth, |cos, _| [(1.0 - cos) / 2.0, 1.0 - cos, (1.0 - cos) / 2.0])
    }

    fn high_pass(cutoff: f64) -> Self {
        Self::new(cutoff, butterworth, |cos, _| [(1.0 + cos) / 2.0, -1.0 - cos, (1.0 + cos) / 2.0])
    }

    fn band_pass(centre: f64, octaves: f64) -> Self {
        Self::new(centre, bandwidth(octaves), |_, alpha| [alpha, 0.0, -alpha])
    }

    fn notch(centre: f64, octaves: f64) -> Self {
        Self::new(centre, bandwidth(octaves), |cos, _| [1.0, -2.0 * cos, 1.0])
    }

    /// Transposed direct form II in double precision, from rest.
    fn run(&self, samples: &mut [f32]) {
        let ([b0, b1, b2], [a1, a2]) = (self.b, self.a);
        let (mut s1, mut s2) = (0.0, 0.0);
        for sample in samples {
            let x = f64::from(*sample);
            let y = b0 * x + s1;
            s1 = b1 * x - a1 * y + s2;
            s2 = b2 * x - a2 * y;
            *sample = finite_f32(y);
        }
    }
}

/// alpha for Q = 1 / sqrt 2: maximally flat.
fn butterworth(w: f64) -> f64 {
    w.sin() / (2.0 * FRAC_1_SQRT_2)
}

/// alpha for a width in octaves between the -3 dB points, corrected for the bilinear transform.
fn bandwidth(octaves: f64) -> impl Fn(f64) -> f64 {
    move |w| w.sin() * (LN_2 / 2.0 * octaves * w / w.sin()).sinh()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    /// The gain at `hz`, measured on the settled response to a sine.
    fn measured(section: Section, hz: f64, rate: f64) -> f64 {
        let x: Vec<f32> = (0..32_000).map(|i| (TAU * hz * i as f64 / rate).sin() as f32).collect();
        let mut y = x.clone();
        section.run(&mut y);
        let power = |v: &[f32]| v[16_000..].iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        (power(&y) / power(&x)).sqrt()
    }

    /// The analogue prototypes at the frequency that the bilinear transform maps there.
    #[test]
    fn magnitudes_match_the_closed_forms() {
        let rate = 16_000.0;
        let warped = |hz: f64, cutoff: f64| {
            (std::f64::consts::PI * hz / rate).tan() / (std::f64::consts::PI * cutoff / rate).tan()
        };
        for hz in [100.0, 440.0, 1_000.0, 1_500.0, 3_000.0, 6_000.0] {
            let s = warped(hz, 1_000.0);
            let low = 1.0 / (1.0 + s.powi(4)).sqrt();
            let high = s * s / (1.0 + s.powi(4)).sqrt();
            assert!((measured(Section::low_pass(1_000.0 / rate), hz, rate) - low).abs() < 2e-3, "{hz}");
            assert!((measured(Section::high_pass(1_000.0 / rate), hz, rate) - high).abs() < 2e-3, "{hz}");
            let w = TAU * 1_000.0 / rate;
            let q = w.sin() / (2.0 * bandwidth(1.0)(w));
            let band = (s / q) / ((1.0 - s * s).powi(2) + (s / q).powi(2)).sqrt();
            assert!(
                (measured(Section::band_pass(1_000.0 / rate, 1.0), hz, rate) - band).abs() < 2e-3,
                "{hz}"
            );
            let notch = (1.0 - band * band).max(0.0).sqrt();
            assert!((measured(Section::notch(1_000.0 / rate, 1.0), hz, rate) - notch).abs() < 2e-3, "{hz}");
        }
    }

    /// At a low centre the -3 dB points of a band lie as many octaves apart as asked.
    #[test]
    fn widths_are_in_octaves() {
        let section = Section::band_pass(500.0 / 48_000.0, 2.0);
        for hz in [250.0, 1_000.0] {
            assert!((measured(section, hz, 48_000.0) - FRAC_1_SQRT_2).abs() < 5e-3);
        }
    }

    #[test]
    fn the_kind_chooses_and_cutoffs_beyond_nyquist_are_harmless() {
        let tone: Vec<f32> = (0..8_000).map(|i| (i as f32 * 0.05).sin()).collect();
        let peaks: Vec<f32> = [0.0, 1.0]
            .map(|kind| {
                let mut audio = Audio::mono(16_000, tone.clone());
                let params = [kind, 20_000.0, 2_000.0, 1_000.0, 1.0];
                run(&mut audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
                audio.channels[0][4_000..].iter().fold(0.0f32, |p, s| p.max(s.abs()))
            })
            .to_vec();
        assert!(peaks[0] > 0.99 && peaks[1] < 0.1, "{peaks:?}");
    }
}
