//! Figures of merit: pure functions from estimates and truths to one number.
//!
//! Every function takes the **estimate first and the truth second**, in equally long slices, and returns a
//! typed error where the figure is undefined (no rows, one class only, constant truth) in place of a
//! convention such as 0 or NaN. Definitions follow scikit-learn and mir_eval where they have one; the tests
//! hold values computed with those tools.
//!
//! [`ranking`] has the threshold-free figures (ROC-AUC, average precision), [`bootstrap`] the confidence
//! intervals.

pub mod bootstrap;
pub mod ranking;

use std::collections::BTreeMap;

use crate::mir::{FifthRule, MusicalKey, mirex_weighted, tempo_acc1, tempo_acc2};

pub use bootstrap::{Bootstrap, Interval};
pub use ranking::{MacroMean, Ranking, average_precision, macro_roc_auc, mean_ap, roc_auc};

/// Why a figure could not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Estimates and truths differ in number.
    #[error("{estimates} estimates for {truths} truths")]
    Length {
        /// Number of estimates given.
        estimates: usize,
        /// Number of truths given.
        truths: usize,
    },
    /// There is nothing to average over.
    #[error("no rows to score")]
    Empty,
    /// A ranking figure needs both positive and negative rows.
    #[error("undefined: the truth has one class only")]
    OneClass,
    /// R² needs a truth that varies.
    #[error("undefined: the truth is constant")]
    ConstantTruth,
    /// A score is NaN or infinite.
    #[error("score {index} is not finite")]
    NotFinite {
        /// Position of the first such score.
        index: usize,
    },
}

/// Errors unless both slices have the same length, at least one.
fn same_length(estimates: usize, truths: usize) -> Result<(), MetricError> {
    if estimates != truths {
        return Err(MetricError::Length { estimates, truths });
    }
    if truths == 0 { Err(MetricError::Empty) } else { Ok(()) }
}

/// Mean of a score over paired rows.
fn mean_of<T: Copy>(estimates: &[T], truths: &[T], score: impl Fn(T, T) -> f64) -> Result<f64, MetricError> {
    same_length(estimates.len(), truths.len())?;
    let total: f64 = estimates.iter().zip(truths).map(|(&estimate, &truth)| score(estimate, truth)).sum();
    Ok(total / truths.len() as f64)
}

/// Share of rows whose estimate equals the truth, 0 to 1.
///
/// # Errors
/// [`MetricError::Length`], [`MetricError::Empty`].
pub fn accuracy<T: PartialEq>(estimates: &[T], truths: &[T]) -> Result<f64, MetricError> {
    same_length(estimates.len(), truths.len())?;
    let hits = estimates.iter().zip(truths).filter(|(estimate, truth)| estimate == truth).count();
    Ok(hits as f64 / truths.len() as f64)
}

/// Mean over the classes present in the truth of the share of their rows that was recognised, 0 to 1.
///
/// Unlike [`accuracy`] it does not reward naming the largest class: any constant estimate scores
/// 1 / (number of classes in the truth) at most. Definition: scikit-learn `balanced_accuracy_score`.
///
/// # Errors
/// [`MetricError::Length`], [`MetricError::Empty`].
pub fn balanced_accuracy<T: Ord>(estimates: &[T], truths: &[T]) -> Result<f64, MetricError> {
    same_length(estimates.len(), truths.len())?;
    let mut per_class: BTreeMap<&T, (usize, usize)> = BTreeMap::new();
    for (estimate, truth) in estimates.iter().zip(truths) {
        let (hits, rows) = per_class.entry(truth).or_default();
        *hits += usize::from(estimate == truth);
        *rows += 1;
    }
    let recalls: f64 = per_class.values().map(|&(hits, rows)| hits as f64 / rows as f64).sum();
    Ok(recalls / per_class.len() as f64)
}

/// Mean MIREX weighted key score, 0 to 1, under the named rule for fifths.
///
/// The score is asymmetric under [`FifthRule::OneSided`], so the order of the arguments matters.
///
/// # Errors
/// [`MetricError::Length`], [`MetricError::Empty`].
pub fn mirex_mean(
    estimates: &[MusicalKey],
    truths: &[MusicalKey],
    fifth: FifthRule,
) -> Result<f64, MetricError> {
    mean_of(estimates, truths, |estimate, truth| mirex_weighted(estimate, truth, fifth))
}

/// Share of tempi within a relative `tolerance` (0.04 is usual) of the true BPM: Acc1.
///
/// # Errors
/// [`MetricError::Length`], [`MetricError::Empty`].
pub fn acc1(estimates: &[f64], truths: &[f64], tolerance: f64) -> Result<f64, MetricError> {
    mean_of(estimates, truths, |estimate, truth| f64::from(tempo_acc1(estimate, truth, tolerance)))
}

/// As [`acc1`], forgiving a third, half, twice or three times the true BPM, the tolerance being relative to
/// the scaled tempo: Acc2.
///
/// # Errors
/// [`MetricError::Length`], [`MetricError::Empty`].
pub fn acc2(estimates: &[f64], truths: &[f64], tolerance: f64) -> Result<f64, MetricError> {
    mean_of(estimates, truths, |estimate, truth| f64::from(tempo_acc2(estimate, truth, tolerance)))
}

/// Coefficient of determination: 1 minus the squared error over the variance of the **truth**. At most 1;
/// 0 for the mean of the truth; negative for anything worse.
///
/// # Errors
/// [`MetricError::Length`], [`MetricError::Empty`], [`MetricError::NotFinite`], and
/// [`MetricError::ConstantTruth`] where scikit-learn would return 0 or 1 by convention.
pub fn r2(estimates: &[f64], truths: &[f64]) -> Result<f64, MetricError> {
    same_length(estimates.len(), truths.len())?;
    let finite = |(estimate, truth): (&f64, &f64)| estimate.is_finite() && truth.is_finite();
    if let Some(index) = estimates.iter().zip(truths).position(|pair| !finite(pair)) {
        return Err(MetricError::NotFinite { index });
    }
    let mean = truths.iter().sum::<f64>() / truths.len() as f64;
    let spread: f64 = truths.iter().map(|truth| (truth - mean).powi(2)).sum();
    if spread <= 0.0 {
        return Err(MetricError::ConstantTruth);
    }
    let error: f64 = estimates.iter().zip(truths).map(|(estimate, truth)| (truth - estimate).powi(2)).sum();
    Ok(1.0 - error / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Vec<MusicalKey> {
        names.iter().map(|name| MusicalKey::parse(name).unwrap()).collect()
    }

    #[test]
    fn accuracies_match_scikit_learn() {
        // scikit-learn 1.9.1: accuracy_score 0.625, balanced_accuracy_score 0.5833333333333334.
        let truths = ["a", "a", "a", "b", "b", "c", "a", "c"];
        let estimates = ["a", "b", "a", "b", "c", "c", "a", "a"];
        assert_eq!(accuracy(&estimates, &truths), Ok(0.625));
        let balanced = balanced_accuracy(&estimates, &truths).unwrap();
        assert!((balanced - 0.583_333_333_333_333_4).abs() < 1e-12);
    }

    #[test]
    fn key_scores_match_mir_eval() {
        // mir_eval 0.8.2 key.weighted_score(reference, estimate), row by row:
        // 1, 0.5, 0, 0.3, 0.2, 0.5, 0, 0; mean 0.3125. mir_eval grants the fifth above only.
        let truths =
            keys(&["C major", "C major", "G major", "C major", "C major", "D minor", "E minor", "A minor"]);
        let estimates =
            keys(&["C major", "G major", "C major", "A minor", "C minor", "A minor", "F major", "D minor"]);
        let one_sided = mirex_mean(&estimates, &truths, FifthRule::OneSided).unwrap();
        assert!((one_sided - 0.3125).abs() < 1e-12);
        // The symmetric rule also grants 0.5 to rows 3 and 8, a fifth below.
        let symmetric = mirex_mean(&estimates, &truths, FifthRule::Symmetric).unwrap();
        assert!((symmetric - 0.4375).abs() < 1e-12);
    }

    #[test]
    fn tempo_tolerance_is_relative_to_the_scaled_tempo() {
        let truths = [100.0, 100.0, 100.0, 100.0, 100.0, 100.0];
        // 4% off is in, 4.5% off is out; 207 is within 4% of 200, 48.5 within 4% of 50, 47 is not.
        let estimates = [104.0, 104.5, 207.0, 48.5, 47.0, 300.0];
        assert_eq!(acc1(&estimates, &truths, 0.04), Ok(1.0 / 6.0));
        assert_eq!(acc2(&estimates, &truths, 0.04), Ok(4.0 / 6.0));
    }

    #[test]
    fn r2_matches_scikit_learn_and_knows_truth_from_estimate() {
        // scikit-learn 1.9.1: r2_score(truth, estimate) 0.9328175895765473, swapped 0.94157223796034.
        let truths = [3.0, -0.5, 2.0, 7.0, 4.25];
        let estimates = [2.5, 0.0, 2.0, 8.0, 3.5];
        assert!((r2(&estimates, &truths).unwrap() - 0.932_817_589_576_547_3).abs() < 1e-12);
        assert!((r2(&truths, &estimates).unwrap() - 0.941_572_237_960_34).abs() < 1e-12);
        assert_eq!(r2(&[1.0, 2.0], &[3.0, 3.0]), Err(MetricError::ConstantTruth));
        assert_eq!(r2(&[1.0, f64::NAN], &[3.0, 4.0]), Err(MetricError::NotFinite { index: 1 }));
    }

    #[test]
    fn undefined_inputs_are_errors() {
        assert_eq!(accuracy::<u8>(&[], &[]), Err(MetricError::Empty));
        assert_eq!(accuracy(&[1], &[1, 2]), Err(MetricError::Length { estimates: 1, truths: 2 }));
        assert_eq!(acc1(&[], &[], 0.04), Err(MetricError::Empty));
        assert_eq!(balanced_accuracy::<u8>(&[], &[]), Err(MetricError::Empty));
    }
}
