//! Planar audio in memory.

/// Audio: one buffer of samples per channel, nominally within -1..1, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// Frames per second, in Hz.
    pub rate: u32,
    /// One buffer per channel, all of equal length.
    pub channels: Vec<Vec<f32>>,
}

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

    /// The largest absolute sample of any channel; 0 when empty.
    pub fn peak(&self) -> f32 {
        self.channels.iter().flatten().fold(0.0, |peak, s| peak.max(s.abs()))
    }

    /// Whether every sample is finite.
    pub fn is_finite(&self) -> bool {
        self.channels.iter().flatten().all(|s| s.is_finite())
    }
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
}
