//! Codec: what is lost by coding and decoding.
//!
//! Three codecs of telephony and early computing, exactly, and one of our own that loses what MP3 and AAC lose: a
//! transform coder with a masking model ([`transform`]). The encoders of MP3, AAC and Opus in wide use are C
//! libraries, some under licences of their own (LAME: LGPL; FDK AAC: a patent clause); linking one would burden every
//! build for what is, to a model that learns from music, the same kind of loss.
//!
//! Nothing is delayed. Samples beyond full scale are coded at a lower level and raised again: clipping is an operator
//! of its own.

mod adpcm;
mod g711;
mod mdct;
mod transform;

use crate::audio::Audio;
use crate::dist::Scale;
use crate::operator::{
    FactorDef, Kernel, LabelEffect, OperatorDef, ParamDef, ParamKind, Peer, Scratch, finite_f32,
};
use crate::rng::Rng;

const MU_LAW: usize = 0;
const A_LAW: usize = 1;
const ADPCM: usize = 2;

pub(super) static DEF: OperatorDef = OperatorDef {
    name: "codec",
    version: 1,
    summary: "Codes and decodes with loss: mu-law, A-law, ADPCM, or a transform coder like MP3 and AAC.",
    source: "ITU-T G.711 (1988); IMA, Recommended practices for digital audio, 1992; MDCT: Princen, Johnson and \
             Bradley, ICASSP 1987; perceptual coding: J. D. Johnston, IEEE J. Sel. Areas Commun. 6(2), 1988.",
    params: &[
        ParamDef {
            name: "kind",
            unit: "",
            help: "8-bit mu-law or A-law of G.711, 4-bit ADPCM, or the transform coder.",
            kind: ParamKind::Choice {
                options: &["mu_law", "a_law", "ima_adpcm", "transform"],
                default: &["mu_law", "a_law", "ima_adpcm", "transform"],
            },
        },
        ParamDef {
            name: "kbps",
            unit: "kbit/s",
            help: "Bit rate of the transform coder per channel; the other kinds have none to choose.",
            kind: ParamKind::Number {
                min: 4.0,
                max: 320.0,
                identity: None,
                default: (12.0, 64.0),
                scale: Scale::Log,
            },
        },
    ],
    default_p: 0.5,
    labels: &[LabelEffect::LoseLoudness],
    factor: FactorDef::OnOff,
    kernel: Kernel::Samples(run),
    peers: &[
        (Peer::Audiomentations, "Mp3Compression"),
        (Peer::Pedalboard, "MP3Compressor, GSMFullRateCompressor"),
        (Peer::Torchaudio, "functional.mu_law_encoding"),
    ],
};

fn run(audio: &mut Audio, params: &[f64], _: &mut Rng, scratch: &mut Scratch) {
    let &[kind, kbps] = params else { return };
    let peak = f64::from(audio.peak());
    if peak <= 0.0 {
        return;
    }
    let full_scale = peak.max(1.0);
    let code: fn(&mut [f32]) = match kind as usize {
        MU_LAW => g711::mu_law,
        A_LAW => g711::a_law,
        ADPCM => adpcm::code,
        _ => return transform::code(audio, kbps, peak, scratch),
    };
    for channel in &mut audio.channels {
        if full_scale > 1.0 {
            channel.iter_mut().for_each(|s| *s = (f64::from(*s) / full_scale) as f32);
        }
        code(channel);
        if full_scale > 1.0 {
            channel.iter_mut().for_each(|s| *s = finite_f32(f64::from(*s) * full_scale));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn every_kind_keeps_length_level_and_time() {
        for rate in [4_000, 16_000, 192_000] {
            for kind in 0..4 {
                for frames in [0, 1, 2, 700, 30_000] {
                    let tone = |i: usize| (i as f32 * 0.05).sin() * 3.0;
                    let clean: Vec<f32> = (0..frames).map(tone).collect();
                    let mut audio = Audio { rate, channels: vec![clean.clone(), vec![0.0; frames]] };
                    let params = [f64::from(kind), 128.0];
                    run(&mut audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
                    assert!(audio.channels.iter().all(|c| c.len() == frames) && audio.is_finite());
                    if frames < 30_000 {
                        continue;
                    }
                    let error = |lag: usize| {
                        let pairs = audio.channels[0].iter().zip(&clean[lag..]);
                        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
                    };
                    assert!(error(0) < 0.02 * error(5), "{rate} {kind}: {} {}", error(0), error(5));
                }
            }
        }
    }

    #[test]
    fn extremes_stay_finite_and_silence_stays() {
        for kind in 0..4 {
            let mut audio =
                Audio::mono(8_000, (0..3_000).map(|i| if i % 7 < 3 { f32::MAX } else { f32::MIN }).collect());
            let params = [f64::from(kind), 16.0];
            run(&mut audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
            assert!(audio.is_finite());
            let mut audio = Audio::mono(8_000, vec![0.0; 3_000]);
            run(&mut audio, &params, &mut Key::root(0).rng(), &mut Scratch::default());
            assert_eq!(audio.channels[0], vec![0.0; 3_000]);
        }
    }
}
