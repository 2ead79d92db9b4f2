//! Short recordings as Ogg Opus (RFC 6716, RFC 7845), for pages that play them.

use opus_pure::{Application, MAX_PACKET_BYTES, OggOpusWriter, OpusEncoder, OpusHead};

use crate::error::{AudioError, RejectKind};

/// The sample rate that [`encode`] takes, in Hz: 12 kHz of band are what a low bit rate carries well.
pub const RATE: u32 = 24_000;
/// Samples of a packet: 20 ms.
const FRAME: usize = RATE as usize / 50;
/// Effort, 0 to 10: about half of the time that the highest takes.
const COMPLEXITY: i32 = 5;

/// A recording of one channel at [`RATE`] Hz as an Ogg Opus file of about `bits_per_second`. The same samples give the same
/// bytes on machines of one CPU class.
///
/// # Errors
/// [`RejectKind::Empty`] without samples, [`RejectKind::NotFinite`], and [`RejectKind::Unsupported`] when the encoder
/// refuses.
pub fn encode(samples: &[f32], bits_per_second: u32) -> Result<Vec<u8>, AudioError> {
    if samples.is_empty() {
        return Err(AudioError::new(RejectKind::Empty, "no audio to encode"));
    }
    if samples.iter().any(|sample| !sample.is_finite()) {
        return Err(AudioError::new(RejectKind::NotFinite, "samples that are not finite"));
    }
    encoded(samples, bits_per_second)
        .map_err(|e| AudioError::new(RejectKind::Unsupported, format!("the Opus encoder: {e}")))
}

fn encoded(samples: &[f32], bits_per_second: u32) -> opus_pure::Result<Vec<u8>> {
    let mut encoder = OpusEncoder::new(RATE as i32, 1, Application::Audio)?;
    encoder.bitrate_bps = bits_per_second as i32;
    encoder.complexity = COMPLEXITY;
    let mut writer = OggOpusWriter::new(Vec::new(), OpusHead::for_encoder(&encoder, RATE))?;
    let mut packet = vec![0; MAX_PACKET_BYTES];
    let mut frame = [0.0; FRAME];
    for block in samples.chunks(FRAME) {
        // Beyond full scale the encoder would fold over.
        for (to, sample) in frame.iter_mut().zip(block) {
            *to = sample.clamp(-1.0, 1.0);
        }
        frame[block.len()..].fill(0.0);
        let bytes = encoder.encode(&frame, FRAME, &mut packet)?;
        writer.write_packet(&packet[..bytes])?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    #[test]
    fn what_is_encoded_sounds_as_it_did() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tone.opus");
        let tone: Vec<f32> = (0..2 * RATE)
            .map(|i| 0.5 * (std::f32::consts::TAU * 440.0 * i as f32 / RATE as f32).sin())
            .collect();
        let file = encode(&tone, 32_000).unwrap();
        assert!((4_000..12_000).contains(&file.len()), "{} bytes for 2 s", file.len());
        assert_eq!(encode(&tone, 32_000).unwrap(), file);
        std::fs::write(&path, file).unwrap();
        let heard = Source::parse(&path.to_string_lossy()).unwrap().read_mono(0.5, 1.0, RATE).unwrap();
        let heard = heard.to_mono();
        let crossings = heard.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
        assert!(crossings.abs_diff(440) <= 1, "{crossings} periods a second");
        let level = (heard.iter().map(|s| s * s).sum::<f32>() / heard.len() as f32).sqrt();
        assert!((level - 0.5 / 2.0f32.sqrt()).abs() < 0.03, "{level}");
    }

    #[test]
    fn what_is_no_sound_is_refused() {
        assert_eq!(encode(&[], 32_000).unwrap_err().kind, RejectKind::Empty);
        assert_eq!(encode(&[0.0, f32::NAN], 32_000).unwrap_err().kind, RejectKind::NotFinite);
        assert!(encode(&[2.0; 100], 32_000).is_ok(), "too loud is no error");
    }
}
