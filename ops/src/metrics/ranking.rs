//! Threshold-free figures of a score that should rank positive rows above negative ones.
//!
//! A [`Ranking`] sorts once and can then be evaluated under any row weights, which is what a bootstrap needs:
//! a row drawn twice weighs 2, one left out 0.

use super::MetricError;

/// Rows in falling order of score, tied rows marked as one step.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// (row, is positive), best score first.
    order: Vec<(usize, bool)>,
    /// End of each run of equal scores in `order`.
    steps: Vec<usize>,
}

impl Ranking {
    /// Sorts `scores`, of which `truths` says whether the row is positive.
    ///
    /// # Errors
    /// [`MetricError::Length`], [`MetricError::Empty`], [`MetricError::NotFinite`].
    pub fn new(scores: &[f64], truths: &[bool]) -> Result<Self, MetricError> {
        super::same_length(scores.len(), truths.len())?;
        if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
            return Err(MetricError::NotFinite { index });
        }
        let mut ranked: Vec<(f64, usize, bool)> = scores
            .iter()
            .zip(truths)
            .enumerate()
            .map(|(row, (&score, &truth))| (score, row, truth))
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        // -0.0 and 0.0 sort apart under total_cmp but are one score, hence `!=` here.
        let mut steps: Vec<usize> = ranked
            .windows(2)
            .enumerate()
            .filter_map(|(i, pair)| (pair[0].0 != pair[1].0).then_some(i + 1))
            .collect();
        steps.push(ranked.len());
        Ok(Self { order: ranked.into_iter().map(|(_, row, truth)| (row, truth)).collect(), steps })
    }

    /// Calls `visit` with the weight of positives and of negatives of each step, best first.
    fn walk(&self, weight: impl Fn(usize) -> f64, mut visit: impl FnMut(f64, f64)) {
        let mut start = 0;
        for &end in &self.steps {
            let (mut positive, mut negative) = (0.0, 0.0);
            for &(row, truth) in &self.order[start..end] {
                *(if truth { &mut positive } else { &mut negative }) += weight(row);
            }
            visit(positive, negative);
            start = end;
        }
    }

    fn roc_auc_by(&self, weight: impl Fn(usize) -> f64) -> Option<f64> {
        let (mut positives, mut negatives, mut won) = (0.0, 0.0, 0.0);
        self.walk(weight, |positive, negative| {
            // Each negative of this step loses to the positives above it and draws with those beside it.
            won += negative * (positives + 0.5 * positive);
            positives += positive;
            negatives += negative;
        });
        let pairs = positives * negatives;
        (pairs > 0.0).then(|| won / pairs)
    }

    fn average_precision_by(&self, weight: impl Fn(usize) -> f64) -> Option<f64> {
        let (mut positives, mut rows, mut area) = (0.0, 0.0, 0.0);
        self.walk(weight, |positive, negative| {
            positives += positive;
            rows += positive + negative;
            if positive > 0.0 {
                area += positive * positives / rows;
            }
        });
        (positives > 0.0).then(|| area / positives)
    }

    /// Probability that a positive row ranks above a negative one, ties counting half; `None` with one class.
    #[must_use]
    pub fn roc_auc(&self) -> Option<f64> {
        self.roc_auc_by(|_| 1.0)
    }

    /// [`Ranking::roc_auc`] with a weight >= 0 per row (a row without one weighs 0).
    #[must_use]
    pub fn weighted_roc_auc(&self, weights: &[f64]) -> Option<f64> {
        self.roc_auc_by(|row| weights.get(row).copied().unwrap_or(0.0))
    }

    /// Sum over score thresholds of the gain in recall times the precision there; `None` without positives.
    #[must_use]
    pub fn average_precision(&self) -> Option<f64> {
        self.average_precision_by(|_| 1.0)
    }

    /// [`Ranking::average_precision`] with a weight >= 0 per row (a row without one weighs 0).
    #[must_use]
    pub fn weighted_average_precision(&self, weights: &[f64]) -> Option<f64> {
        self.average_precision_by(|row| weights.get(row).copied().unwrap_or(0.0))
    }
}

/// Area under the ROC curve: the probability that a positive row scores above a negative one, ties counting
/// half. 0.5 is chance.
///
/// # Errors
/// [`MetricError::OneClass`] where it is undefined, and those of [`Ranking::new`].
pub fn roc_auc(scores: &[f64], truths: &[bool]) -> Result<f64, MetricError> {
    Ranking::new(scores, truths)?.roc_auc().ok_or(MetricError::OneClass)
}

/// Average precision without interpolation (scikit-learn `average_precision_score`): tied rows enter
/// together. Chance is the share of positives.
///
/// # Errors
/// [`MetricError::OneClass`] without positives, and those of [`Ranking::new`].
pub fn average_precision(scores: &[f64], truths: &[bool]) -> Result<f64, MetricError> {
    Ranking::new(scores, truths)?.average_precision().ok_or(MetricError::OneClass)
}

/// A mean over the columns of which the figure is defined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MacroMean {
    /// Mean of the figure over the `scored` columns.
    pub value: f64,
    /// Columns that enter the mean.
    pub scored: usize,
    /// Columns left out because the figure is undefined on them.
    pub skipped: usize,
}

/// Mean of what is defined; `None` if nothing is.
pub fn macro_mean(values: impl Iterator<Item = Option<f64>>) -> Option<MacroMean> {
    let (mut total, mut scored, mut skipped) = (0.0, 0, 0);
    for value in values {
        match value {
            Some(value) => {
                total += value;
                scored += 1;
            }
            None => skipped += 1,
        }
    }
    (scored > 0).then(|| MacroMean { value: total / scored as f64, scored, skipped })
}

/// One ranking per column of row-major `scores` and `truths` (`rows x columns`).
fn rankings(scores: &[f64], truths: &[bool], columns: usize) -> Result<Vec<Ranking>, MetricError> {
    super::same_length(scores.len(), truths.len())?;
    if columns == 0 || !scores.len().is_multiple_of(columns) {
        return Err(MetricError::Length { estimates: scores.len(), truths: columns });
    }
    (0..columns)
        .map(|column| {
            let scores: Vec<f64> = scores.iter().copied().skip(column).step_by(columns).collect();
            let truths: Vec<bool> = truths.iter().copied().skip(column).step_by(columns).collect();
            Ranking::new(&scores, &truths)
        })
        .collect()
}

/// Mean [`roc_auc`] over the columns of row-major `rows x columns` scores; columns with one class are skipped
/// and counted.
///
/// # Errors
/// [`MetricError::OneClass`] if no column has both classes, and those of [`Ranking::new`].
pub fn macro_roc_auc(scores: &[f64], truths: &[bool], columns: usize) -> Result<MacroMean, MetricError> {
    macro_mean(rankings(scores, truths, columns)?.iter().map(Ranking::roc_auc)).ok_or(MetricError::OneClass)
}

/// Mean [`average_precision`] over the columns of row-major `rows x columns` scores; columns without
/// positives are skipped and counted.
///
/// # Errors
/// [`MetricError::OneClass`] if no column has a positive row, and those of [`Ranking::new`].
pub fn mean_ap(scores: &[f64], truths: &[bool], columns: usize) -> Result<MacroMean, MetricError> {
    macro_mean(rankings(scores, truths, columns)?.iter().map(Ranking::average_precision))
        .ok_or(MetricError::OneClass)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTHS: [bool; 10] = [false, true, true, false, true, false, false, true, false, true];
    const SCORES: [f64; 10] = [0.1, 0.4, 0.35, 0.4, 0.8, 0.05, 0.35, 0.4, 0.7, 0.9];

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn ranking_figures_match_scikit_learn_with_ties() {
        // scikit-learn 1.9.1: roc_auc_score 0.78, average_precision_score 0.7916666666666665.
        assert!(close(roc_auc(&SCORES, &TRUTHS).unwrap(), 0.78));
        assert!(close(average_precision(&SCORES, &TRUTHS).unwrap(), 0.791_666_666_666_666_5));
    }

    #[test]
    fn weights_act_as_repeated_rows() {
        // scikit-learn 1.9.1 on the repeated rows, and with sample_weight:
        // roc_auc_score 0.6607142857142858, average_precision_score 0.5753968253968254.
        let weights = [2.0, 0.0, 1.0, 3.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0];
        let ranking = Ranking::new(&SCORES, &TRUTHS).unwrap();
        assert!(close(ranking.weighted_roc_auc(&weights).unwrap(), 0.660_714_285_714_285_8));
        assert!(close(ranking.weighted_average_precision(&weights).unwrap(), 0.575_396_825_396_825_4));
        assert_eq!(ranking.weighted_roc_auc(&[1.0]), None);
    }

    #[test]
    fn macro_means_match_scikit_learn() {
        // scikit-learn 1.9.1, average="macro": 0.7523148148148149 and 0.6962962962962962.
        let truths = [1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0].map(|truth: u8| truth == 1);
        let scores =
            [0.9, 0.2, 0.3, 0.4, 0.6, 0.1, 0.35, 0.8, 0.2, 0.5, 0.3, 0.4, 0.7, 0.9, 0.6, 0.2, 0.7, 0.6];
        let auc = macro_roc_auc(&scores, &truths, 3).unwrap();
        assert!(close(auc.value, 0.752_314_814_814_814_9), "{auc:?}");
        assert_eq!((auc.scored, auc.skipped), (3, 0));
        assert!(close(mean_ap(&scores, &truths, 3).unwrap().value, 0.696_296_296_296_296_2));
    }

    #[test]
    fn one_class_columns_are_skipped_and_counted() {
        // Column 0 is all positive, column 1 all negative, column 2 separates.
        let truths = [true, false, true, true, false, false];
        let scores = [0.3, 0.5, 0.9, 0.6, 0.1, 0.2];
        assert_eq!(macro_roc_auc(&scores, &truths, 3), Ok(MacroMean { value: 1.0, scored: 1, skipped: 2 }));
        assert_eq!(mean_ap(&scores, &truths, 3), Ok(MacroMean { value: 1.0, scored: 2, skipped: 1 }));
        assert_eq!(macro_roc_auc(&[0.1, 0.2], &[true, true], 1), Err(MetricError::OneClass));
        assert!(macro_roc_auc(&[0.1, 0.2, 0.3], &[true, true, false], 2).is_err());
    }

    #[test]
    fn constant_scores_are_chance() {
        let truths = [true, false, false, false];
        assert_eq!(roc_auc(&[0.5; 4], &truths), Ok(0.5));
        assert_eq!(average_precision(&[0.5; 4], &truths), Ok(0.25));
        // The two zeros are one score.
        assert_eq!(roc_auc(&[-0.0, 0.0, -0.0, 0.0], &truths), Ok(0.5));
    }

    #[test]
    fn not_finite_scores_are_named() {
        let error = roc_auc(&[0.1, f64::NAN], &[true, false]);
        assert_eq!(error, Err(MetricError::NotFinite { index: 1 }));
    }
}
