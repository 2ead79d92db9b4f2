//! Filter: a low-, high-, band-pass or notch of second order.
//!
//! Each kind draws from its own range of frequencies, since what is a mild high-pass would be a low-pass that
//! leaves nothing. Slopes are gentle (12 dB per octave, 6 on each side of a band), and the default ranges keep
//! the fundamentals of most music.

use crate::audio::Audio;
use crate::biquad::Section;
use crate::dist::Scale;
use crate::operator::{FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch};
use crate::rng::Rng;

const LOW: usize = 0;
const HIGH: usize = 1;
const BAND: usize = 2;

const fn hertz(default: (f64, f64)) -> ParamKind {
    ParamKind::Number { min: 10.0, max: 20_000.0, identity: None, default, scale: Scale::Log }
}

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "filter",
    version: 2,
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
    let Some(section) = section(params, audio.rate) else { return };
    for channel in &mut audio.channels {
        section.run(channel);
    }
}

/// The filter of some parameters.
pub(crate) fn section(params: &[f64], rate: u32) -> Option<Section> {
    let &[kind, low_hz, high_hz, centre_hz, octaves] = params else { return None };
    let rate = f64::from(rate);
    Some(match kind as usize {
        LOW => Section::low_pass(low_hz / rate),
        HIGH => Section::high_pass(high_hz / rate),
        BAND => Section::band_pass(centre_hz / rate, octaves),
        _ => Section::notch(centre_hz / rate, octaves),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

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
