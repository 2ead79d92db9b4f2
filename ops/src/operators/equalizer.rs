//! Equaliser: a low shelf, two peaks and a high shelf in a row.
//!
//! A band whose gain is 0 dB is left out, so that one can be used alone. Shelves have the steepest slope that does
//! not overshoot.

use crate::audio::Audio;
use crate::biquad::Section;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

const fn decibels(name: &'static str, help: &'static str) -> ParamDef {
    let kind = ParamKind::Number {
        min: -24.0,
        max: 24.0,
        identity: Some(0.0),
        default: (-6.0, 6.0),
        scale: Scale::Linear,
    };
    ParamDef { name, unit: "dB", help, kind }
}

const fn hertz(name: &'static str, help: &'static str, default: (f64, f64)) -> ParamDef {
    let kind = ParamKind::Number { min: 10.0, max: 20_000.0, identity: None, default, scale: Scale::Log };
    ParamDef { name, unit: "Hz", help, kind }
}

const fn octaves(name: &'static str, help: &'static str) -> ParamDef {
    let kind =
        ParamKind::Number { min: 0.1, max: 6.0, identity: None, default: (0.7, 2.0), scale: Scale::Log };
    ParamDef { name, unit: "octaves", help, kind }
}

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "equalizer",
    version: 1,
    summary: "Raises and lowers four bands: a low shelf, two peaks, a high shelf.",
    source: "R. Bristow-Johnson, Audio EQ Cookbook (W3C note, 2021).",
    params: &[
        decibels("low_db", "Gain far below the corner of the low shelf."),
        hertz("low_hz", "The corner of the low shelf, where half its gain in dB is reached.", (60.0, 300.0)),
        decibels("peak1_db", "Gain at the centre of the first peak."),
        hertz("peak1_hz", "The centre of the first peak.", (200.0, 1_200.0)),
        octaves("peak1_octaves", "Its width between the points of half its gain in dB."),
        decibels("peak2_db", "Gain at the centre of the second peak."),
        hertz("peak2_hz", "The centre of the second peak.", (1_000.0, 5_000.0)),
        octaves("peak2_octaves", "Its width between the points of half its gain in dB."),
        decibels("high_db", "Gain far above the corner of the high shelf."),
        hertz(
            "high_hz",
            "The corner of the high shelf, where half its gain in dB is reached.",
            (2_500.0, 7_000.0),
        ),
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[
        (Peer::Audiomentations, "SevenBandParametricEQ, PeakingFilter, LowShelfFilter, HighShelfFilter"),
        (Peer::Pedalboard, "PeakFilter, LowShelfFilter, HighShelfFilter"),
        (Peer::Torchaudio, "functional.equalizer_biquad, bass_biquad, treble_biquad"),
    ],
};

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, _: &mut Scratch) {
    let sections = sections(params, audio.rate);
    for channel in &mut audio.channels {
        for section in sections.iter().flatten() {
            section.run(channel);
        }
    }
}

/// The bands, those without a gain left out.
pub(crate) fn sections(params: &[f64], rate: u32) -> [Option<Section>; 4] {
    let &[low_db, low_hz, db1, hz1, octaves1, db2, hz2, octaves2, high_db, high_hz] = params else {
        return [None; 4];
    };
    let rate = f64::from(rate);
    [
        (low_db != 0.0).then(|| Section::low_shelf(low_hz / rate, low_db)),
        (db1 != 0.0).then(|| Section::peak(hz1 / rate, db1, octaves1)),
        (db2 != 0.0).then(|| Section::peak(hz2 / rate, db2, octaves2)),
        (high_db != 0.0).then(|| Section::high_shelf(high_hz / rate, high_db)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;
    use std::f64::consts::{PI, TAU};

    const FLAT: [f64; 10] = [0.0, 100.0, 0.0, 500.0, 1.0, 0.0, 2_000.0, 1.0, 0.0, 5_000.0];

    /// The gain in dB at `hz`, from the spectrum of the impulse response.
    fn measured(params: &[f64], rate: u32, hz: f64) -> f64 {
        let mut audio = Audio::mono(rate, vec![0.0; 1 << 16]);
        audio.channels[0][0] = 1.0;
        run(&mut audio, params, &mut Key::root(0).rng(), &mut Scratch::default());
        let (mut re, mut im) = (0.0, 0.0);
        for (i, h) in audio.channels[0].iter().enumerate() {
            let (sin, cos) = (TAU * hz / f64::from(rate) * i as f64).sin_cos();
            re += f64::from(*h) * cos;
            im += f64::from(*h) * sin;
        }
        20.0 * re.hypot(im).log10()
    }

    /// Decibels add up: each band by the analogue prototype of the cookbook, at the frequency that the bilinear
    /// transform maps there.
    #[test]
    fn the_response_is_the_sum_of_the_closed_forms() {
        let rate = 44_100;
        let params = [6.0, 120.0, -9.0, 400.0, 1.5, 4.5, 2_500.0, 0.8, -12.0, 6_000.0];
        let decibels = |n: [f64; 3], d: [f64; 3], s: f64| {
            20.0 * ((n[0] - n[2] * s * s).hypot(n[1] * s) / (d[0] - d[2] * s * s).hypot(d[1] * s)).log10()
        };
        for hz in [20.0, 60.0, 120.0, 300.0, 400.0, 1_000.0, 2_500.0, 6_000.0, 15_000.0] {
            let ratio = |of: f64| (PI * hz / f64::from(rate)).tan() / (PI * of / f64::from(rate)).tan();
            let shelf = |db: f64, s: f64| {
                let a = 10f64.powf(db / 40.0);
                let root = (2.0 * a).sqrt();
                decibels([a * a, a * root, a], [1.0, root, a], s)
            };
            let peak = |db: f64, of: f64, octaves: f64| {
                let a = 10f64.powf(db / 40.0);
                let w = TAU * of / f64::from(rate);
                let one_by_q = 2.0 * (2f64.ln() / 2.0 * octaves * w / w.sin()).sinh();
                decibels([1.0, a * one_by_q, 1.0], [1.0, one_by_q / a, 1.0], ratio(of))
            };
            // A high shelf is a low shelf of the inverse frequency.
            let want = shelf(6.0, ratio(120.0))
                + peak(-9.0, 400.0, 1.5)
                + peak(4.5, 2_500.0, 0.8)
                + shelf(-12.0, 1.0 / ratio(6_000.0));
            let got = measured(&params, rate, hz);
            assert!((got - want).abs() < 1e-3, "{hz} Hz: {got} {want}");
        }
    }

    #[test]
    fn flat_changes_nothing_and_bands_beyond_nyquist_are_harmless() {
        let noise = (0..5_000).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let audio = Audio::mono(16_000, noise);
        let mut equalised = audio.clone();
        run(&mut equalised, &FLAT, &mut Key::root(0).rng(), &mut Scratch::default());
        assert_eq!(equalised, audio);
        let mut high = FLAT;
        (high[8], high[9]) = (24.0, 20_000.0);
        assert!(measured(&high, 4_000, 400.0).abs() < 0.01);
    }
}
