//! The mel-statistics baseline: what a probe finds without any learnt representation.

/// Mean and standard deviation over time of each mel band, to be probed like an embedding.
///
/// `features` holds `frames x mels` values, row by row (frames beyond the slice are ignored). Returns
/// `2 * mels` values in the unit of the features: the means of all bands, then the population standard
/// deviations. Without a frame all are 0.
#[must_use]
pub fn mel_statistics(features: &[f32], frames: usize, mels: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; 2 * mels];
    if mels == 0 {
        return Vec::new();
    }
    let rows = features.chunks_exact(mels).take(frames);
    let count = rows.len();
    if count == 0 {
        return vec![0.0; 2 * mels];
    }
    let (means, squares) = sums.split_at_mut(mels);
    for row in rows.clone() {
        for (mean, &value) in means.iter_mut().zip(row) {
            *mean += f64::from(value);
        }
    }
    means.iter_mut().for_each(|mean| *mean /= count as f64);
    // Two passes: decibels are large beside their spread, so a difference of squares would lose digits.
    for row in rows {
        for ((square, mean), &value) in squares.iter_mut().zip(means.iter()).zip(row) {
            *square += (f64::from(value) - mean).powi(2);
        }
    }
    let deviations = squares.iter().map(|square| (square / count as f64).sqrt() as f32);
    means.iter().map(|&mean| mean as f32).chain(deviations).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_then_deviations_per_band() {
        // numpy 2.4.6: x.mean(0), x.std(0) of [[1, -80], [2, -80], [6, -50]].
        let statistics = mel_statistics(&[1.0, -80.0, 2.0, -80.0, 6.0, -50.0], 3, 2);
        for (found, expected) in statistics.iter().zip([3.0, -70.0, 2.160_246_9, 14.142_136]) {
            assert!((found - expected).abs() < 1e-5, "{statistics:?}");
        }
        assert_eq!(statistics.len(), 4);
    }

    #[test]
    fn a_large_offset_loses_no_digits() {
        let statistics = mel_statistics(&[1e6, 1e6 + 1.0, 1e6, 1e6 + 1.0], 4, 1);
        assert_eq!(statistics, [1_000_000.5, 0.5]);
    }

    #[test]
    fn frames_are_limited_and_nothing_is_zero() {
        assert_eq!(mel_statistics(&[1.0, 3.0, 100.0], 2, 1), [2.0, 1.0]);
        assert_eq!(mel_statistics(&[], 0, 3), [0.0; 6]);
        assert!(mel_statistics(&[], 5, 0).is_empty());
    }
}
