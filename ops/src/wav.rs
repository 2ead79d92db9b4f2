//! Writing audio to disk, for listening (`loev replay`) and for tests.

use std::path::Path;

use crate::error::{AudioError, RejectKind};

/// Writes planar audio as a WAV file of 32-bit floats, so that what is rendered is what is stored.
///
/// `channels` holds one slice per channel; `rate` is in Hz. An existing file is replaced.
///
/// # Errors
///
/// [`RejectKind::Empty`] without channels, [`RejectKind::Corrupt`] when the channels differ in
/// length, [`RejectKind::OverLimit`] beyond 65,535 channels or what a WAV header can count, and
/// [`RejectKind::Io`] when the file cannot be written.
pub fn write_wav(path: &Path, rate: u32, channels: &[&[f32]]) -> Result<(), AudioError> {
    let Some(first) = channels.first() else {
        return Err(AudioError::new(RejectKind::Empty, "no channel to write"));
    };
    if channels.iter().any(|c| c.len() != first.len()) {
        return Err(AudioError::new(RejectKind::Corrupt, "channels of different lengths"));
    }
    let count = u16::try_from(channels.len())
        .map_err(|_| AudioError::new(RejectKind::OverLimit, "a WAV file holds at most 65,535 channels"))?;
    // The RIFF chunk counts its bytes in 32 bits; the header takes less than 1 kB.
    let bytes = first.len() as u64 * u64::from(count) * 4;
    if bytes > u64::from(u32::MAX) - 1024 {
        return Err(AudioError::new(RejectKind::OverLimit, "too long for a WAV file (4 GiB)"));
    }
    let spec = hound::WavSpec {
        channels: count,
        sample_rate: rate,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    let failed =
        |e: hound::Error| AudioError::new(RejectKind::Io, format!("cannot write {}: {e}", path.display()));
    let mut writer = hound::WavWriter::create(path, spec).map_err(failed)?;
    for i in 0..first.len() {
        for channel in channels {
            writer.write_sample(channel[i]).map_err(failed)?;
        }
    }
    writer.finalize().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        let (left, right) = (vec![0.0, 0.5, -1.25, f32::MIN_POSITIVE], vec![1.0, -0.25, 0.1, 3.0e-9]);
        write_wav(&path, 16_000, &[&left, &right]).unwrap();
        let mut reader = hound::WavReader::open(&path).unwrap();
        assert_eq!((reader.spec().sample_rate, reader.spec().channels), (16_000, 2));
        let read: Vec<f32> = reader.samples::<f32>().map(Result::unwrap).collect();
        let expected: Vec<f32> = left.iter().zip(&right).flat_map(|(l, r)| [*l, *r]).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn refuses_what_it_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        assert_eq!(write_wav(&path, 16_000, &[]).unwrap_err().kind, RejectKind::Empty);
        let uneven: [&[f32]; 2] = [&[0.0], &[0.0, 0.0]];
        assert_eq!(write_wav(&path, 16_000, &uneven).unwrap_err().kind, RejectKind::Corrupt);
        let nowhere = dir.path().join("no/such/folder/a.wav");
        assert_eq!(write_wav(&nowhere, 16_000, &[&[0.0]]).unwrap_err().kind, RejectKind::Io);
    }
}
