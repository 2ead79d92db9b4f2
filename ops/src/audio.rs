//! Planar audio in memory.

/// Audio: one buffer of samples per channel, nominally within -1..1, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// Frames per second, in Hz.
    pub rate: u32,
    /// One buffer per channel, all of equal length.
    pub channels: Vec<Vec<f32>>,
}

/// The bits of the sign and of infinity in an f32.
const SIGN: u32 = 1 << 31;
const INFINITE: u32 = f32::INFINITY.to_bits();

impl Audio {
    /// One channel.
    pub fn mono(rate: u32, samples: Vec<f32>) -> Self {
        Self { rate, channels: vec![samples] }
    }

    /// Frames: samples per channel. 0 when there is no channel.
    pub fn frames(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    /// Duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.frames() as f64 / f64::from(self.rate)
    }

    /// The mean of all channels.
    pub fn to_mono(&self) -> Vec<f32> {
        match self.channels.as_slice() {
            [] => Vec::new(),
            [only] => only.clone(),
            many => {
                let scale = 1.0 / many.len() as f32;
                (0..self.frames()).map(|i| many.iter().map(|c| c[i]).sum::<f32>() * scale).collect()
            }
        }
    }

    /// The same sound with that many channels: one is the mean of all; a mono sound is repeated; of more channels than
    /// asked for the first stay, and the others go to all of these, 3 dB down, scaled so that nothing can clip.
    pub fn with_channels(self, count: usize) -> Self {
        let have = self.channels.len();
        if count == have || have == 0 {
            return self;
        }
        let rate = self.rate;
        if count == 1 {
            return Self::mono(rate, self.to_mono());
        }
        if have < count {
            // Mono is repeated; what else there is keeps its place and the new channels get the mean.
            let mean = self.to_mono();
            let mut channels = if have == 1 { Vec::new() } else { self.channels };
            channels.resize(count, mean);
            return Self { rate, channels };
        }
        let (kept, rest) = self.channels.split_at(count);
        let gain = std::f32::consts::FRAC_1_SQRT_2;
        let scale = 1.0 / (1.0 + gain * rest.len() as f32);
        let fold = |channel: &Vec<f32>| {
            let rest = |i: usize| rest.iter().filter_map(|c| c.get(i)).sum::<f32>();
            channel.iter().enumerate().map(|(i, s)| (s + gain * rest(i)) * scale).collect()
        };
        Self { rate, channels: kept.iter().map(fold).collect() }
    }

    /// The largest absolute sample of any channel; 0 when empty, not a number when any sample is none.
    pub fn peak(&self) -> f32 {
        let magnitude = self.magnitude();
        if magnitude > INFINITE { f32::NAN } else { f32::from_bits(magnitude) }
    }

    /// Whether every sample is finite.
    pub fn is_finite(&self) -> bool {
        self.magnitude() < INFINITE
    }

    fn magnitude(&self) -> u32 {
        self.channels.iter().map(|channel| magnitude(channel)).max().unwrap_or(0)
    }
}

/// The bits of the largest absolute sample: they are in the order of the magnitudes, with the infinite and then what
/// is no number at the end. One pass that vector units take, and there is one for every view.
pub(crate) fn magnitude(samples: &[f32]) -> u32 {
    let (blocks, rest) = samples.as_chunks::<16>();
    let mut most = [0i32; 16];
    for block in blocks {
        for (most, sample) in most.iter_mut().zip(block) {
            *most = (*most).max((sample.to_bits() & !SIGN) as i32);
        }
    }
    let rest = rest.iter().map(|sample| (sample.to_bits() & !SIGN) as i32);
    most.into_iter().chain(rest).fold(0, i32::max) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mono_is_the_mean_of_the_channels() {
        let audio = Audio { rate: 2, channels: vec![vec![1.0, -1.0], vec![0.0, 1.0]] };
        assert_eq!(audio.to_mono(), [0.5, 0.0]);
        assert_eq!((audio.frames(), audio.seconds(), audio.peak()), (2, 1.0, 1.0));
        assert!(audio.is_finite());
    }

    #[test]
    fn what_is_not_finite_is_found_anywhere() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 15, 16, 36] {
                let mut audio = Audio::mono(8_000, vec![-0.25; 37]);
                assert_eq!((audio.peak(), audio.is_finite()), (0.25, true));
                audio.channels[0][at] = bad;
                assert!(!audio.is_finite() && (audio.peak().is_nan() || audio.peak() == f32::INFINITY));
            }
        }
    }

    #[test]
    fn channels_are_repeated_and_folded() {
        let mono = Audio::mono(2, vec![0.5, -1.0]);
        assert_eq!(
            mono.clone().with_channels(2).channels,
            [mono.channels[0].clone(), mono.channels[0].clone()]
        );
        let five =
            Audio { rate: 2, channels: (0..5).map(|c| vec![if c == 0 { 1.0 } else { 0.0 }]).collect() };
        let scale = 1.0 / (1.0 + 3.0 * std::f32::consts::FRAC_1_SQRT_2);
        assert_eq!(five.clone().with_channels(2).channels, [[scale], [0.0]]);
        assert_eq!(five.with_channels(1).channels, [[0.2]]);
        let full = Audio { rate: 2, channels: vec![vec![1.0]; 8] };
        assert!((full.with_channels(2).peak() - 1.0).abs() < 1e-6);
    }
}
