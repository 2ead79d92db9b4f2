//! Log-mel features: what encoders read.
//!
//! The definition is that of torchaudio's `MelSpectrogram` defaults followed by decibels: frames
//! centred on multiples of the hop with reflected edges, a periodic Hann window centred in the FFT,
//! the power spectrum, triangular bands equally spaced on the HTK mel scale without area
//! normalisation, and `10 log10(max(p, 1e-10))`.
//!
//! ```text
//! audio --window--> FFT --|.|^2--> power --sparse bands--> mel power --log--> out[frame][band]
//! ```
//!
//! A band touches a few neighbouring bins only, so the mel matrix is kept as one run of weights per
//! band. Power does not depend on where in the FFT the window sits; it is placed at the start.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Power below which a band is silent: -100 dB.
pub(crate) const FLOOR: f32 = 1e-10;

/// How audio becomes log-mel frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FrontEnd {
    /// Sample rate in Hz.
    #[schemars(range(min = 1000, max = 384_000))]
    pub sample_rate: u32,
    /// Length of the Hann window in samples.
    #[schemars(range(min = 2))]
    pub window: usize,
    /// Samples from one frame to the next.
    #[schemars(range(min = 1))]
    pub hop: usize,
    /// FFT size in samples, even, at least the window.
    #[schemars(range(min = 2, max = 65_536))]
    pub fft: usize,
    /// Mel bands.
    #[schemars(range(min = 1, max = 1024))]
    pub mels: usize,
    /// Lower edge of the lowest band in Hz.
    #[schemars(range(min = 0))]
    pub low_hz: f64,
    /// Upper edge of the highest band in Hz, at most half the sample rate.
    pub high_hz: f64,
}

impl Default for FrontEnd {
    fn default() -> Self {
        Self { sample_rate: 16_000, window: 400, hop: 160, fft: 2048, mels: 96, low_hz: 0.0, high_hz: 8000.0 }
    }
}

impl FrontEnd {
    /// Frames of `samples` samples: the centres 0, hop, 2 hop, ... up to the length.
    pub fn frames(&self, samples: usize) -> usize {
        1 + samples / self.hop.max(1)
    }

    /// Checks every field, and that each band holds at least one FFT bin.
    ///
    /// # Errors
    ///
    /// A sentence that names the field and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let Self { sample_rate, window, hop, fft, mels, low_hz, high_hz } = self;
        if !(1000..=384_000).contains(sample_rate) {
            return Err(format!("sample_rate is {sample_rate} Hz; it must be within 1000..=384000"));
        }
        if !(2..=65_536).contains(fft) || fft % 2 != 0 {
            return Err(format!("fft is {fft}; it must be even and within 2..=65536"));
        }
        if *window < 2 || window > fft {
            return Err(format!("window is {window} samples; it must be within 2..=fft ({fft})"));
        }
        if *hop == 0 {
            return Err("hop is 0 samples; it must be at least 1".to_owned());
        }
        if !(1..=1024).contains(mels) {
            return Err(format!("mels is {mels}; it must be within 1..=1024"));
        }
        let nyquist = f64::from(*sample_rate) / 2.0;
        if !(0.0 <= *low_hz && low_hz < high_hz && *high_hz <= nyquist) {
            return Err(format!(
                "low_hz is {low_hz} and high_hz {high_hz}; 0 <= low_hz < high_hz <= {nyquist} must hold"
            ));
        }
        match self.bands().iter().position(|b| b.weights.is_empty()) {
            Some(empty) => Err(format!(
                "mel band {empty} lies between two FFT bins and would always be empty; use fewer mels than {mels} \
                 or an fft larger than {fft}"
            )),
            None => Ok(()),
        }
    }

    /// The window, periodic.
    pub(crate) fn hann(&self) -> Vec<f32> {
        let n = self.window as f64;
        (0..self.window).map(|i| (0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / n).cos()) as f32).collect()
    }

    /// The mel filter bank: triangles in Hz whose corners are equally spaced in HTK mel.
    pub(crate) fn bands(&self) -> Vec<Band> {
        let bins = self.fft / 2 + 1;
        let bin_hz = f64::from(self.sample_rate) / self.fft.max(1) as f64;
        let (low, high) = (hz_to_mel(self.low_hz), hz_to_mel(self.high_hz));
        let corner = |i: usize| mel_to_hz(low + (high - low) * i as f64 / (self.mels + 1) as f64);
        (0..self.mels)
            .map(|m| {
                let (left, centre, right) = (corner(m), corner(m + 1), corner(m + 2));
                let weight = |bin: usize| {
                    let hz = bin as f64 * bin_hz;
                    ((hz - left) / (centre - left)).min((right - hz) / (right - centre))
                };
                let first = (0..bins).find(|&b| weight(b) > 0.0).unwrap_or(bins);
                let weights = (first..bins).map(weight).take_while(|&w| w > 0.0).map(|w| w as f32).collect();
                Band { first, weights }
            })
            .collect()
    }
}

/// HTK's mel scale (Young et al., The HTK Book, section 5.4).
fn hz_to_mel(hz: f64) -> f64 {
    2595.0 * (1.0 + hz / 700.0).log10()
}

fn mel_to_hz(mel: f64) -> f64 {
    700.0 * (10f64.powf(mel / 2595.0) - 1.0)
}

/// One mel band: weights of consecutive FFT bins.
pub(crate) struct Band {
    pub first: usize,
    pub weights: Vec<f32>,
}

/// Computes log-mel frames: a planned FFT with its scratch, to be kept by one thread.
pub struct LogMel {
    front_end: FrontEnd,
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    bands: Vec<Band>,
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    power: Vec<f32>,
}

impl LogMel {
    /// Plans for a front end that [`FrontEnd::validate`] accepts.
    ///
    /// Lengths outside the valid range are raised to the nearest usable ones, so that an unchecked
    /// front end gives meaningless features and not a panic.
    pub fn new(front_end: &FrontEnd) -> Self {
        let mut front_end = front_end.clone();
        front_end.hop = front_end.hop.max(1);
        front_end.window = front_end.window.max(2);
        front_end.fft = front_end.fft.max(front_end.window).next_multiple_of(2);
        front_end.mels = front_end.mels.max(1);
        let fft = RealFftPlanner::<f32>::new().plan_fft_forward(front_end.fft);
        Self {
            window: front_end.hann(),
            bands: front_end.bands(),
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: vec![0.0; front_end.fft / 2 + 1],
            fft,
            front_end,
        }
    }

    /// Log-mel frames of `audio` (mono, at the front end's rate) in dB, row major: frame by band.
    ///
    /// `out` must hold `frames(audio.len()) * mels` values; a shorter one receives the whole frames
    /// that fit. Audio shorter than the window is reflected as often as needed; empty audio is silence.
    pub fn compute(&mut self, audio: &[f32], out: &mut [f32]) {
        let FrontEnd { window, hop, fft, mels, .. } = self.front_end;
        debug_assert_eq!(out.len(), self.front_end.frames(audio.len()) * mels);
        // Where a window starts relative to the centre of its frame: the window is centred in the FFT.
        let lead = (fft / 2 - (fft - window) / 2) as isize;
        let rows = out.chunks_exact_mut(mels).take(self.front_end.frames(audio.len()));
        for (t, row) in rows.enumerate() {
            let start = (t * hop) as isize - lead;
            let (head, tail) = self.frame.split_at_mut(window);
            tail.fill(0.0);
            match usize::try_from(start).ok().and_then(|s| audio.get(s..s + window)) {
                Some(inside) => {
                    for ((x, &a), &w) in head.iter_mut().zip(inside).zip(&self.window) {
                        *x = a * w;
                    }
                }
                None => {
                    for (i, (x, &w)) in head.iter_mut().zip(&self.window).enumerate() {
                        *x = reflected(audio, start + i as isize) * w;
                    }
                }
            }
            // The buffers come from this plan, so their lengths agree and the transform cannot fail.
            let done = self.fft.process_with_scratch(&mut self.frame, &mut self.spectrum, &mut self.scratch);
            debug_assert!(done.is_ok());
            for (p, x) in self.power.iter_mut().zip(&self.spectrum) {
                *p = x.re * x.re + x.im * x.im;
            }
            for (y, band) in row.iter_mut().zip(&self.bands) {
                let bins = &self.power[band.first.min(self.power.len())..];
                *y = dot(bins, &band.weights);
            }
        }
        for y in out {
            *y = decibels(*y);
        }
    }
}

/// The sample at `i` of a signal mirrored about its first and last samples, without end.
fn reflected(audio: &[f32], i: isize) -> f32 {
    let last = audio.len() as isize - 1;
    if last <= 0 {
        return audio.first().copied().unwrap_or(0.0);
    }
    let folded = i.rem_euclid(2 * last);
    audio[folded.min(2 * last - folded) as usize]
}

/// A dot product in eight independent sums, which the compiler keeps in vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut sums = [0.0f32; 8];
    let (mut xs, mut ys) = (a.chunks_exact(8), b.chunks_exact(8));
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        for k in 0..8 {
            sums[k] += x[k] * y[k];
        }
    }
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

/// `10 log10(max(p, 1e-10))`.
fn decibels(power: f32) -> f32 {
    10.0 * power.max(FLOOR).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    /// The definition, in f64 and by the plain DFT: mel powers, frame by band.
    fn reference(fe: &FrontEnd, audio: &[f32]) -> Vec<f64> {
        let (n, half) = (fe.fft, fe.fft / 2);
        let mut padded = Vec::new();
        for i in 0..audio.len() + 2 * half {
            let mut j = i as i64 - half as i64;
            let last = audio.len() as i64 - 1;
            while j < 0 || j > last {
                j = if j < 0 { -j } else { 2 * last - j };
            }
            padded.push(f64::from(audio[j as usize]));
        }
        let mut window = vec![0.0; n];
        for i in 0..fe.window {
            window[(n - fe.window) / 2 + i] = 0.5 - 0.5 * (TAU * i as f64 / fe.window as f64).cos();
        }
        let twiddle: Vec<(f64, f64)> = (0..n).map(|k| (TAU * k as f64 / n as f64).sin_cos()).collect();
        let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
        let corners: Vec<f64> = (0..fe.mels + 2)
            .map(|i| {
                let m = mel(fe.low_hz) + (mel(fe.high_hz) - mel(fe.low_hz)) * i as f64 / (fe.mels + 1) as f64;
                700.0 * (10f64.powf(m / 2595.0) - 1.0)
            })
            .collect();
        let mut out = Vec::new();
        for t in 0..=audio.len() / fe.hop {
            let frame: Vec<f64> = (0..n).map(|i| padded[t * fe.hop + i] * window[i]).collect();
            let power: Vec<f64> = (0..=half)
                .map(|k| {
                    let (mut re, mut im) = (0.0, 0.0);
                    for (i, x) in frame.iter().enumerate() {
                        let (s, c) = twiddle[i * k % n];
                        re += x * c;
                        im -= x * s;
                    }
                    re * re + im * im
                })
                .collect();
            for m in 0..fe.mels {
                out.push(
                    power
                        .iter()
                        .enumerate()
                        .map(|(k, p)| {
                            let hz = k as f64 * f64::from(fe.sample_rate) / n as f64;
                            let up = (hz - corners[m]) / (corners[m + 1] - corners[m]);
                            let down = (corners[m + 2] - hz) / (corners[m + 2] - corners[m + 1]);
                            p * up.min(down).max(0.0)
                        })
                        .sum(),
                );
            }
        }
        out
    }

    /// Noise with a tone: every band has power, over a range of some 60 dB.
    fn signal(n: usize) -> Vec<f32> {
        let mut state = 1u64;
        (0..n)
            .map(|i| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let noise = (state >> 40) as f64 / f64::from(1u32 << 24) - 0.5;
                (0.05 * noise + 0.5 * (TAU * 440.0 * i as f64 / 16_000.0).sin()) as f32
            })
            .collect()
    }

    fn check(fe: &FrontEnd, audio: &[f32]) {
        fe.validate().unwrap();
        let mut out = vec![0.0; fe.frames(audio.len()) * fe.mels];
        LogMel::new(fe).compute(audio, &mut out);
        for (i, (got, power)) in out.iter().zip(reference(fe, audio)).enumerate() {
            let got = f64::from(*got);
            let relative = (10f64.powf(got / 10.0) / power - 1.0).abs();
            assert!(relative < 1e-4, "value {i}: {got} dB, expected power {power}: {relative:.1e}");
            assert!((got - 10.0 * power.log10()).abs() < 1e-3);
        }
    }

    #[test]
    fn agrees_with_the_plain_dft() {
        check(&FrontEnd::default(), &signal(2000));
        check(&FrontEnd { window: 1024, hop: 320, fft: 1024, ..FrontEnd::default() }, &signal(1600));
        let odd = FrontEnd {
            window: 401,
            hop: 97,
            fft: 1000,
            mels: 40,
            low_hz: 30.0,
            high_hz: 7600.0,
            ..FrontEnd::default()
        };
        check(&odd, &signal(1200));
    }

    /// Frames that librosa made; `fixtures/log_mel.py` made the file.
    #[test]
    fn agrees_with_librosa() {
        let stored = include_bytes!("../fixtures/log_mel.f32").chunks_exact(4);
        let mut stored = stored.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let mut state = 1u64;
        let noise: Vec<f64> = (0..3200)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f64 / f64::from(1u32 << 24) - 0.5
            })
            .collect();
        let chirp = noise.iter().enumerate().map(|(i, noise)| {
            let t = i as f64 / 16_000.0;
            0.5 * (TAU * (100.0 * t + 15_000.0 * t * t)).sin() + 0.02 * noise
        });
        let signals =
            [noise.clone(), chirp.collect()].map(|s| s.iter().map(|&x| x as f32).collect::<Vec<_>>());
        let slow = FrontEnd { window: 2048, hop: 320, mels: 128, ..FrontEnd::default() };
        for fe in [FrontEnd::default(), slow] {
            for audio in &signals {
                let mut out = vec![0.0; fe.frames(audio.len()) * fe.mels];
                LogMel::new(&fe).compute(audio, &mut out);
                for (i, (got, want)) in out.iter().zip(stored.by_ref().take(out.len())).enumerate() {
                    let relative = (10f64.powf(f64::from(got - want) / 10.0) - 1.0).abs();
                    assert!(relative < 1e-4, "{fe:?}, value {i}: {got} dB, librosa {want} dB");
                }
            }
        }
        assert!(stored.next().is_none());
    }

    #[test]
    fn a_clip_shorter_than_the_window_is_reflected_again_and_again() {
        check(&FrontEnd::default(), &signal(90));
        for n in [0, 1] {
            let fe = FrontEnd::default();
            let mut out = vec![f32::NAN; fe.frames(n) * fe.mels];
            LogMel::new(&fe).compute(&vec![0.0; n], &mut out);
            assert!(out.iter().all(|y| *y == -100.0));
        }
    }

    #[test]
    fn frames_are_counted_as_centres() {
        let fe = FrontEnd::default();
        assert_eq!([0, 159, 160, 48_000].map(|n| fe.frames(n)), [1, 1, 2, 301]);
    }

    #[test]
    fn the_filter_bank_has_the_published_corners() {
        // Interior bins between the first and last centres belong to two bands whose weights sum to 1.
        let bands = FrontEnd::default().bands();
        assert_eq!(bands.len(), 96);
        let mut sums = vec![0.0f32; 1025];
        for band in &bands {
            for (i, w) in band.weights.iter().enumerate() {
                sums[band.first + i] += w;
            }
        }
        assert!(sums[3..985].iter().all(|s| (s - 1.0).abs() < 1e-5));
        // 1000 Hz is 999.99 mel in HTK's formula.
        assert!((hz_to_mel(1000.0) - 999.9855).abs() < 1e-3);
        assert!((mel_to_hz(hz_to_mel(4321.0)) - 4321.0).abs() < 1e-9);
    }

    #[test]
    fn decibels_follow_the_logarithm_everywhere() {
        let mut p = 1e-12f32;
        while p < 1e7 {
            let exact = 10.0 * f64::from(p.max(1e-10)).log10();
            assert!((f64::from(decibels(p)) - exact).abs() < 1e-4, "{p}");
            p *= 1.0173;
        }
        assert_eq!(decibels(0.0), -100.0);
    }

    #[test]
    fn validation_names_the_field() {
        let fault = |change: fn(&mut FrontEnd)| {
            let mut fe = FrontEnd::default();
            change(&mut fe);
            // An unchecked front end may be useless; it may not panic.
            let mut out = vec![0.0; fe.frames(100) * fe.mels.max(1)];
            LogMel::new(&fe).compute(&[0.1; 100], &mut out);
            fe.validate().unwrap_err()
        };
        assert!(fault(|f| f.sample_rate = 0).contains("sample_rate"));
        assert!(fault(|f| f.fft = 2047).contains("fft"));
        assert!(fault(|f| f.window = 4096).contains("window"));
        assert!(fault(|f| f.hop = 0).contains("hop"));
        assert!(fault(|f| f.mels = 0).contains("mels"));
        assert!(fault(|f| f.high_hz = 8001.0).contains("high_hz"));
        assert!(fault(|f| f.low_hz = f64::NAN).contains("low_hz"));
        assert!(fault(|f| f.mels = 512).contains("mel band"));
        FrontEnd::default().validate().unwrap();
    }

    #[test]
    fn a_front_end_reads_partial_yaml_and_rejects_unknown_fields() {
        let fe: FrontEnd = serde_json::from_str(r#"{"mels": 64}"#).unwrap();
        assert_eq!(fe, FrontEnd { mels: 64, ..FrontEnd::default() });
        assert!(serde_json::from_str::<FrontEnd>(r#"{"mel": 64}"#).is_err());
    }
}
