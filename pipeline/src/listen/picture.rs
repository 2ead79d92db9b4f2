//! Waveforms as SVG, mel spectrograms as PNG.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use loev_ops::features::{FrontEnd, LogMel};

use crate::error::RunError;

/// Columns of a waveform.
const COLUMNS: usize = 600;
/// What is this far below the loudest is black, in dB.
const DEPTH_DB: f32 = 80.0;

/// The range of the samples within each of [`COLUMNS`] columns, as an SVG path.
pub fn waveform(samples: &[f32]) -> String {
    let columns = COLUMNS.min(samples.len().max(1));
    let mut path = String::new();
    for column in 0..columns {
        let range = column * samples.len() / columns..(column + 1) * samples.len() / columns;
        let part = samples.get(range).unwrap_or_default().iter();
        let (low, high) = part.fold((0.0f32, 0.0f32), |(low, high), s| (low.min(*s), high.max(*s)));
        let _ = write!(path, "M{column} {:.3}V{:.3}", -high.clamp(-1.0, 1.0), -low.clamp(-1.0, 1.0));
    }
    format!(
        "<svg viewBox=\"0 -1 {columns} 2\" preserveAspectRatio=none><path d=\"{path}\" \
         vector-effect=non-scaling-stroke /></svg>"
    )
}

/// Writes the mel spectrogram, low bands at the bottom, in shades from the loudest down to [`DEPTH_DB`] below it.
pub fn spectrogram(path: &Path, samples: &[f32], rate: u32) -> Result<(), RunError> {
    let fft = (f64::from(rate) * 0.064).log2().round().exp2() as usize;
    let front_end = FrontEnd {
        sample_rate: rate,
        window: fft,
        hop: (samples.len() / COLUMNS).max(fft / 16),
        fft: 2 * fft,
        mels: 96,
        low_hz: 0.0,
        high_hz: f64::from(rate) / 2.0,
    };
    let frames = front_end.frames(samples.len());
    let mut values = vec![0.0; frames * front_end.mels];
    LogMel::new(&front_end).compute(samples, &mut values);
    let top = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut pixels = Vec::with_capacity(values.len());
    for band in (0..front_end.mels).rev() {
        for frame in 0..frames {
            let level = values[frame * front_end.mels + band] - top;
            pixels.push((255.0 * (1.0 + level / DEPTH_DB).clamp(0.0, 1.0)) as u8);
        }
    }
    let file = File::create(path).map_err(RunError::io("cannot create", path))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), frames as u32, front_end.mels as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette((0..=255u8).flat_map(shade).collect::<Vec<u8>>());
    let failed = |e: png::EncodingError| RunError::Engine(format!("{}: {e}", path.display()));
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)
}

/// From black through violet and orange to a pale yellow, rising in lightness all the way.
fn shade(level: u8) -> [u8; 3] {
    const STOPS: [[f32; 3]; 5] = [
        [0.0, 0.0, 4.0],
        [81.0, 18.0, 124.0],
        [183.0, 55.0, 121.0],
        [252.0, 137.0, 97.0],
        [252.0, 253.0, 191.0],
    ];
    let at = f32::from(level) / 255.0 * 4.0;
    let stop = (at as usize).min(3);
    let part = at - stop as f32;
    std::array::from_fn(|i| (STOPS[stop][i] + part * (STOPS[stop + 1][i] - STOPS[stop][i])) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_a_bright_line_at_its_band() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tone.png");
        let rate = 16_000;
        let hz = 1_000.0;
        let tone: Vec<f32> = (0..3 * rate)
            .map(|i| (std::f32::consts::TAU * hz * i as f32 / rate as f32).sin() * 0.5)
            .collect();
        spectrogram(&path, &tone, rate).unwrap();
        let mut reader =
            png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.height, info.color_type), (96, png::ColorType::Indexed));
        let column = info.width as usize / 2;
        let bright = (0..96).max_by_key(|row| pixels[row * info.line_size + column]).unwrap();
        // Band b is centred at (b + 1) / 97 of the mel scale.
        let mel = |hz: f32| 2595.0 * (1.0 + hz / 700.0).log10();
        let band = (mel(hz) / mel(8_000.0) * 97.0 - 1.0).round() as usize;
        assert!((95 - bright).abs_diff(band) <= 1, "row {bright}, band {band}");
        assert!(waveform(&tone).contains("M0 "));
    }
}
