//! Percentile bootstrap over rows (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13).
//!
//! Replicate `r` draws its rows from the stream `key / r`, so intervals depend on the key, the number of rows
//! and nothing else: not on threads, and not on what is measured. Two figures over the same rows and key are
//! therefore resampled alike, which keeps their comparison paired.

use crate::rng::Key;

/// A confidence interval, of 95% unless another level was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower quantile; 2.5% for 95%.
    pub lo: f64,
    /// The upper quantile; 97.5% for 95%.
    pub hi: f64,
}

/// A plan of resamples of `rows` rows.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap {
    rows: usize,
    replicates: usize,
    key: Key,
}

impl Bootstrap {
    /// `replicates` resamples with replacement of `rows` rows.
    #[must_use]
    pub fn new(rows: usize, replicates: usize, key: Key) -> Self {
        Self { rows, replicates, key }
    }

    /// The 95% interval of a figure that can be computed from how often each row was drawn.
    ///
    /// `figure` gets one weight (a count) per row and says `None` where it is undefined on that resample, for
    /// example a ranking figure without positives; such resamples are left out. `None` if none remain.
    pub fn interval(&self, figure: impl FnMut(&[f64]) -> Option<f64>) -> Option<Interval> {
        self.between([0.025, 0.975], figure)
    }

    /// The quantiles of a figure over the resamples.
    fn between(&self, [lo, hi]: [f64; 2], mut figure: impl FnMut(&[f64]) -> Option<f64>) -> Option<Interval> {
        if self.rows == 0 {
            return None;
        }
        let mut weights = vec![0.0; self.rows];
        let mut values = Vec::with_capacity(self.replicates);
        for replicate in 0..self.replicates {
            weights.fill(0.0);
            let mut rng = self.key.with(replicate as u64).rng();
            for _ in 0..self.rows {
                weights[rng.below(self.rows)] += 1.0;
            }
            values.extend(figure(&weights).filter(|value| value.is_finite()));
        }
        values.sort_by(f64::total_cmp);
        Some(Interval { lo: quantile(&values, lo)?, hi: quantile(&values, hi)? })
    }

    /// The 95% interval of the mean of one value per row.
    #[must_use]
    pub fn interval_of_mean(&self, values: &[f64]) -> Option<Interval> {
        self.interval(|weights| Some(weighted_mean(values, weights)))
    }

    /// The interval of the mean of one value per row that holds a share `level` of the resamples, 0 to 1.
    #[must_use]
    pub fn interval_of_mean_at(&self, values: &[f64], level: f64) -> Option<Interval> {
        let outside = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
        self.between([outside, 1.0 - outside], |weights| Some(weighted_mean(values, weights)))
    }
}

/// Mean of `values` under `weights`; NaN if these sum to 0.
pub fn weighted_mean(values: &[f64], weights: &[f64]) -> f64 {
    let total: f64 = values.iter().zip(weights).map(|(value, weight)| value * weight).sum();
    total / weights.iter().sum::<f64>()
}

/// Quantile of sorted values with linear interpolation between them (Hyndman & Fan's definition 7).
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? as f64 * q;
    let below = *sorted.get(place.floor() as usize)?;
    let above = *sorted.get(place.ceil() as usize)?;
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        // numpy 2.4.6: quantile([1, 2, 4, 8], [0.025, 0.5, 0.975]) = 1.075, 3.0, 7.7.
        let values = [1.0, 2.0, 4.0, 8.0];
        assert!((quantile(&values, 0.025).unwrap() - 1.075).abs() < 1e-12);
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        assert!((quantile(&values, 0.975).unwrap() - 7.7).abs() < 1e-12);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.975), Some(3.0));
    }

    #[test]
    fn interval_of_a_share_is_about_the_binomial_one() {
        // 400 rows, share 0.3: standard error 0.0229, so +-1.96 of them is 0.255 to 0.345.
        let values: Vec<f64> = (0..400).map(|row| f64::from(row % 10 < 3)).collect();
        let interval = Bootstrap::new(400, 2000, Key::root(1)).interval_of_mean(&values).unwrap();
        assert!((interval.lo - 0.255).abs() < 0.008, "{interval:?}");
        assert!((interval.hi - 0.345).abs() < 0.008, "{interval:?}");
    }

    #[test]
    fn intervals_are_a_function_of_the_key() {
        let values: Vec<f64> = (0..50).map(|row| f64::from(row).sqrt()).collect();
        let interval = |seed| Bootstrap::new(50, 200, Key::root(seed)).interval_of_mean(&values);
        assert_eq!(interval(1), interval(1));
        assert_ne!(interval(1), interval(2));
        let at = |level| Bootstrap::new(50, 200, Key::root(1)).interval_of_mean_at(&values, level).unwrap();
        assert!(at(0.99).lo < at(0.5).lo && at(0.5).hi < at(0.99).hi);
        assert!((at(0.95).lo - interval(1).unwrap().lo).abs() < 1e-12);
    }

    #[test]
    fn undefined_resamples_are_left_out() {
        let bootstrap = Bootstrap::new(2, 100, Key::root(3));
        // Defined only where both rows were drawn once: always the same value.
        let interval = bootstrap.interval(|weights| (weights[0] == weights[1]).then_some(0.5));
        assert_eq!(interval, Some(Interval { lo: 0.5, hi: 0.5 }));
        assert_eq!(bootstrap.interval(|_| None), None);
        assert_eq!(Bootstrap::new(0, 100, Key::root(3)).interval_of_mean(&[]), None);
    }
}
