//! Statistics of samples: levels, crossings, silence, clipping.

use crate::audio::Audio;

/// Blocks whose level lies below this are silent: -60 dBFS.
const SILENT_RMS: f64 = 1e-3;
/// Length of those blocks.
const BLOCK_SECONDS: f64 = 0.02;
/// The largest value of 16-bit audio: samples that reach it are clipped.
const FULL_SCALE: f32 = 32_767.0 / 32_768.0;

/// Statistics of samples, over all channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waveform {
    /// The largest absolute sample.
    pub peak: f64,
    /// Root of the mean square.
    pub rms: f64,
    /// The mean.
    pub dc: f64,
    /// Peak over root mean square: 1 for a square wave, 1.414 for a sine. `None` where there is only silence.
    pub crest: Option<f64>,
    /// Of the pairs of neighbouring samples, the share whose signs differ; 0 counts as positive. Times the sample rate it
    /// is a count a second, and half of that is the frequency of a sine.
    pub zero_crossing_rate: f64,
    /// The share of time in blocks of 20 ms whose root mean square over all channels is below -60 dBFS.
    pub silence_share: f64,
    /// The share of samples at 32767/32768 or beyond, the full scale of 16 bits.
    pub clipped_share: f64,
}

/// Measures a [`Waveform`] of audio that comes in pieces.
#[derive(Debug, Clone)]
pub struct WaveformMeter {
    block: usize,
    peak: f32,
    sum: f64,
    squares: f64,
    samples: u64,
    crossings: u64,
    pairs: u64,
    clipped: u64,
    frames: u64,
    silent: u64,
    /// Whether the last sample of each channel was negative.
    negative: Vec<bool>,
    /// Square sum and frames of the block that is not full yet.
    open: (f64, usize),
}

impl WaveformMeter {
    /// A meter for audio of `rate` Hz.
    pub fn new(rate: u32) -> Self {
        let block = ((f64::from(rate) * BLOCK_SECONDS).round() as usize).max(1);
        Self {
            block,
            peak: 0.0,
            sum: 0.0,
            squares: 0.0,
            samples: 0,
            crossings: 0,
            pairs: 0,
            clipped: 0,
            frames: 0,
            silent: 0,
            negative: Vec::new(),
            open: (0.0, 0),
        }
    }

    /// Takes the next piece, of as many channels as the first.
    pub fn push(&mut self, piece: &Audio) {
        let frames = piece.frames();
        let mut from = 0;
        while from < frames {
            let to = frames.min(from + self.block - self.open.1);
            for (index, channel) in piece.channels.iter().enumerate() {
                self.take(index, channel.get(from..to).unwrap_or_default());
            }
            self.open.1 += to - from;
            self.frames += (to - from) as u64;
            if self.open.1 == self.block {
                self.silent += silent(self.open, piece.channels.len());
                self.open = (0.0, 0);
            }
            from = to;
        }
    }

    fn take(&mut self, channel: usize, samples: &[f32]) {
        let Some(&first) = samples.first() else { return };
        let mut last = match self.negative.get(channel) {
            Some(last) => *last,
            None => {
                self.negative.push(first < 0.0);
                self.pairs = self.pairs.wrapping_sub(1);
                first < 0.0
            }
        };
        let (mut sum, mut squares) = (0.0, 0.0);
        for &sample in samples {
            let value = f64::from(sample);
            sum += value;
            squares += value * value;
            self.peak = self.peak.max(sample.abs());
            self.clipped += u64::from(sample.abs() >= FULL_SCALE);
            self.crossings += u64::from((sample < 0.0) != last);
            last = sample < 0.0;
        }
        if let Some(negative) = self.negative.get_mut(channel) {
            *negative = last;
        }
        self.pairs = self.pairs.wrapping_add(samples.len() as u64);
        self.samples += samples.len() as u64;
        self.sum += sum;
        self.squares += squares;
        self.open.0 += squares;
    }

    /// The statistics of what was pushed; `None` if that was nothing.
    pub fn finish(&self) -> Option<Waveform> {
        if self.samples == 0 {
            return None;
        }
        let samples = self.samples as f64;
        let rms = (self.squares / samples).sqrt();
        let peak = f64::from(self.peak);
        let silent = self.silent + silent(self.open, self.negative.len());
        Some(Waveform {
            peak,
            rms,
            dc: self.sum / samples,
            crest: (rms > 0.0).then(|| peak / rms),
            zero_crossing_rate: if self.pairs > 0 { self.crossings as f64 / self.pairs as f64 } else { 0.0 },
            silence_share: silent as f64 / self.frames as f64,
            clipped_share: self.clipped as f64 / samples,
        })
    }
}

/// The frames of a block if it is silent, else 0.
fn silent((squares, frames): (f64, usize), channels: usize) -> u64 {
    let quiet = squares < SILENT_RMS * SILENT_RMS * (frames * channels) as f64;
    if quiet { frames as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rate: u32, channels: &[Vec<f32>]) -> Waveform {
        let mut meter = WaveformMeter::new(rate);
        meter.push(&Audio { rate, channels: channels.to_vec() });
        meter.finish().unwrap()
    }

    #[test]
    fn a_square_wave_with_an_offset_is_worked_out_by_hand() {
        // 0.6 and -0.2 in turns of one sample: 99 crossings of 99 pairs.
        let square: Vec<f32> = (0..100).map(|i| if i % 2 == 0 { 0.6 } else { -0.2 }).collect();
        let got = measured(1_000, &[square]);
        assert!((got.peak - 0.6).abs() < 1e-7 && (got.dc - 0.2).abs() < 1e-7);
        assert!((got.rms - 0.2f64.sqrt()).abs() < 1e-7, "the mean of 0.36 and 0.04");
        assert!((got.crest.unwrap() - 0.6 / 0.2f64.sqrt()).abs() < 1e-6);
        assert_eq!((got.zero_crossing_rate, got.silence_share, got.clipped_share), (1.0, 0.0, 0.0));
    }

    #[test]
    fn silence_and_clipping_are_shares_of_the_whole() {
        // 2 s at 1 kHz: 1 s of silence, then 1 s of which a quarter is clipped; beside it a silent channel.
        let mut loud = vec![0.0f32; 1_000];
        loud.extend((0..1_000).map(|i| if i % 4 == 0 { -1.0 } else { 0.5 }));
        let got = measured(1_000, &[loud, vec![0.0; 2_000]]);
        assert_eq!((got.silence_share, got.clipped_share), (0.5, 250.0 / 4_000.0));
        assert_eq!(got.peak, 1.0);
        let quiet = measured(1_000, &[vec![9.9e-4; 30]]);
        assert_eq!((quiet.silence_share, quiet.zero_crossing_rate), (1.0, 0.0), "a last block of 10 frames");
        assert_eq!(measured(1_000, &[vec![0.0]]).crest, None);
        assert_eq!(WaveformMeter::new(8_000).finish(), None);
    }

    #[test]
    fn pieces_make_the_same_figures() {
        let wave: Vec<f32> = (0..5_003).map(|i| (i as f32 * 0.37).sin() * (i as f32 / 5_003.0)).collect();
        let whole = measured(16_000, &[wave.clone(), wave.iter().map(|x| -x).collect()]);
        let mut meter = WaveformMeter::new(16_000);
        for piece in wave.chunks(317) {
            let channels = vec![piece.to_vec(), piece.iter().map(|x| -x).collect()];
            meter.push(&Audio { rate: 16_000, channels });
        }
        let got = meter.finish().unwrap();
        assert!((got.rms - whole.rms).abs() < 1e-12);
        assert_eq!(
            (got.zero_crossing_rate, got.silence_share, got.peak),
            (whole.zero_crossing_rate, whole.silence_share, whole.peak)
        );
    }
}
