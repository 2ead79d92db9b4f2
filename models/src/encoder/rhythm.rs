//! What repeats, and how fast: the modulation spectrum of a view's log-mel frames.
//!
//! Time slices a few tens of milliseconds long say little about tempo: a transformer has to find
//! periods in them by attention, which takes far more training than finding pitch in one slice. So a
//! view also gets tokens that hold periods in the open. Each group of neighbouring mel bands gives the
//! magnitude spectrum of its onset strength (the rise of its log energy), at modulation frequencies
//! spaced evenly in log frequency: there a change of tempo is a shift. After the fluctuation patterns of
//! E. Pampalk, A. Rauber and D. Merkl (ACM Multimedia 2002).

use std::f64::consts::TAU;
use std::sync::{Arc, OnceLock};

use candle_core::{D, Result, Tensor};

use super::tokens::Normaliser;

/// Modulation frequencies of a token.
pub const RATES: usize = 64;
/// The lowest and the highest modulation frequency, in Hz: a bar of a slow piece, the fastest notes.
const RANGE: (f64, f64) = (0.7, 16.0);

/// The modulation spectrum of views of one shape.
#[derive(Debug, Clone)]
pub struct Rhythm {
    frames: usize,
    mels: usize,
    groups: usize,
    frame_rate: f64,
    tables: Arc<OnceLock<Tables>>,
}

/// What every step needs: worked out once, and not before the first, because a configuration read from
/// a file may ask for tables of any size.
#[derive(Debug)]
struct Tables {
    /// See [`grouping`].
    grouping: Vec<f32>,
    /// See [`waves`].
    waves: Vec<f32>,
}

impl Rhythm {
    /// For views of `frames` frames of `mels` bands, `frame_rate` frames a second, with one token for
    /// each of `groups` groups of bands (at most `mels`).
    pub fn new(frames: usize, mels: usize, groups: usize, frame_rate: f64) -> Self {
        Self { frames, mels, groups: groups.min(mels), frame_rate, tables: Arc::default() }
    }

    /// Tokens of a view.
    pub fn groups(&self) -> usize {
        self.groups
    }

    fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| Tables {
            grouping: grouping(self.mels, self.groups),
            waves: waves(self.frames, self.frame_rate),
        })
    }

    /// `[views, groups, frames - 1]`: the mean rise of each group's bands from frame to frame, in deviations.
    pub(crate) fn onsets(&self, normaliser: &Normaliser, features: &Tensor) -> Result<Tensor> {
        let (views, frames, mels) = features.dims3()?;
        let (device, dtype) = (features.device(), features.dtype());
        let deviation = Tensor::from_slice(&normaliser.deviation, mels, device)?.to_dtype(dtype)?;
        let grouping = Tensor::from_slice(&self.tables().grouping, (self.mels, self.groups), device)?;
        let rise = (features.narrow(1, 1, frames - 1)? - features.narrow(1, 0, frames - 1)?)?;
        let onsets = rise.broadcast_div(&deviation)?.relu()?.reshape((views * (frames - 1), mels))?;
        let onsets = onsets.matmul(&grouping.to_dtype(dtype)?)?;
        onsets.reshape((views, frames - 1, self.groups))?.transpose(1, 2)?.contiguous()
    }

    /// The spectra of `features: [views, frames, mels]` (dB): `[views, groups, RATES]`, each of mean 0
    /// and variance 1 over its frequencies.
    ///
    /// # Errors
    /// When the device fails or the features are of another shape.
    pub fn spectra(&self, normaliser: &Normaliser, features: &Tensor) -> Result<Tensor> {
        let (views, frames, _) = features.dims3()?;
        let (device, dtype) = (features.device(), features.dtype());
        let waves = Tensor::from_slice(&self.tables().waves, (self.frames - 1, 2 * RATES), device)?;
        let waves = waves.to_dtype(dtype)?;
        #[cfg(feature = "cuda")]
        let onsets = match crate::gpu::takes(features) {
            true => crate::gpu::operations::onsets(features, &normaliser.deviation, self.groups)?,
            false => self.onsets(normaliser, features)?,
        };
        #[cfg(not(feature = "cuda"))]
        let onsets = self.onsets(normaliser, features)?;
        let onsets = onsets.broadcast_sub(&onsets.mean_keepdim(D::Minus1)?)?;
        let onsets = onsets.reshape((views * self.groups, frames - 1))?;
        let parts = onsets.matmul(&waves)?.sqr()?;
        let power = (parts.narrow(1, 0, RATES)? + parts.narrow(1, RATES, RATES)?)?;
        // A floor far below any onset keeps silence finite.
        let level = (power + 1e-6)?.log()?;
        let level = level.broadcast_sub(&level.mean_keepdim(1)?)?;
        let spread = (level.sqr()?.mean_keepdim(1)? + 1e-6)?.sqrt()?;
        level.broadcast_div(&spread)?.reshape((views, self.groups, RATES))
    }
}

/// `[mels, groups]`: the mean over the bands of each group.
fn grouping(mels: usize, groups: usize) -> Vec<f32> {
    let group = |band: usize| band * groups / mels;
    let mut sizes = vec![0.0f32; groups];
    (0..mels).for_each(|band| sizes[group(band)] += 1.0);
    let weight = |band: usize, g: usize| if group(band) == g { 1.0 / sizes[g] } else { 0.0 };
    (0..mels).flat_map(|band| (0..groups).map(move |g| (band, g))).map(|(band, g)| weight(band, g)).collect()
}

/// `[frames - 1, 2 * RATES]`: cosines, then sines, under a Hann window.
fn waves(frames: usize, frame_rate: f64) -> Vec<f32> {
    let n = frames - 1;
    let (low, high) = RANGE;
    let hertz = |i: usize| low * (high / low).powf(i as f64 / (RATES - 1) as f64);
    let mut waves = Vec::with_capacity(n * 2 * RATES);
    for t in 0..n {
        let window = 0.5 - 0.5 * (TAU * (t as f64 + 0.5) / n as f64).cos();
        let angle = |i: usize| TAU * hertz(i) * t as f64 / frame_rate;
        waves.extend((0..RATES).map(|i| (window * angle(i).cos()) as f32));
        waves.extend((0..RATES).map(|i| (window * angle(i).sin()) as f32));
    }
    waves
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const FRAMES: usize = 201;
    const MELS: usize = 6;

    /// Frames at 50 Hz whose first three bands click at `hertz`; the others are still.
    fn clicks(hertz: f64) -> Vec<f32> {
        (0..FRAMES)
            .flat_map(|t| {
                let click = (t as f64 / 50.0 * hertz).fract() < hertz / 50.0;
                (0..MELS).map(move |band| if click && band < 3 { 0.0 } else { -40.0 })
            })
            .collect()
    }

    fn spectra(hertz: f64) -> Vec<Vec<f32>> {
        let features = Tensor::from_vec(clicks(hertz), (1, FRAMES, MELS), &Device::Cpu).unwrap();
        let rhythm = Rhythm::new(FRAMES, MELS, 2, 50.0);
        let spectra = rhythm.spectra(&Normaliser::identity(MELS), &features).unwrap();
        spectra.squeeze(0).unwrap().to_vec2().unwrap()
    }

    fn peak(spectrum: &[f32]) -> usize {
        (0..RATES).max_by(|a, b| spectrum[*a].total_cmp(&spectrum[*b])).unwrap()
    }

    #[test]
    fn a_pulse_peaks_at_a_multiple_of_its_rate_and_moves_with_the_tempo() {
        let octaves = |bins: f64| bins * (RANGE.1 / RANGE.0).log2() / (RATES - 1) as f64;
        for hertz in [1.5, 2.0, 3.1] {
            let of_peak = RANGE.0 * 2f64.powf(octaves(peak(&spectra(hertz)[0]) as f64));
            let multiple = of_peak / hertz;
            assert!((multiple - multiple.round()).abs() < 0.06 * multiple, "{of_peak} Hz of {hertz} Hz");
        }
        // Faster by a factor is the same curve, moved: the best shift is that factor.
        let (slow, fast) = (&spectra(2.0)[0], &spectra(2.5)[0]);
        let alike = |shift: usize| -> f32 {
            let n = RATES - shift;
            slow[..n].iter().zip(&fast[shift..]).map(|(a, b)| a * b).sum::<f32>() / n as f32
        };
        let best = (0..16).max_by(|a, b| alike(*a).total_cmp(&alike(*b))).unwrap();
        assert!((octaves(best as f64) - 1.25f64.log2()).abs() < octaves(1.0), "shift of {best} bins");
    }

    #[test]
    fn groups_are_told_apart_and_silence_is_finite() {
        let spectra = spectra(2.0);
        assert!(spectra.iter().flatten().all(|x| x.is_finite()));
        assert!(spectra[1].iter().all(|x| x.abs() < 1e-3), "nothing moves in the upper bands");
        let variance = spectra[0].iter().map(|x| x * x).sum::<f32>() / RATES as f32;
        assert!((variance - 1.0).abs() < 1e-3);
    }
}
