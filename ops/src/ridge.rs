//! Ridge regression by its normal equations (Hoerl & Kennard, Technometrics 12, 1970), in f64.
//!
//! Inputs are standardised over the training rows and the intercept is free, so a penalty means the same for every
//! regression: it is added to the correlation matrix of the inputs. Rows are made block by block and never all kept:
//! memory is the square of the number of inputs.

use crate::matrix::{View, dot, product};

/// Why there is no regression.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RidgeError {
    /// There are no rows to fit on, or none to choose the penalty on.
    #[error("there are no rows to fit a regression on")]
    Empty,
    /// The normal equations cannot be solved.
    #[error("the regression cannot be solved with the penalty {penalty}; use larger ones")]
    Singular {
        /// The largest penalty.
        penalty: f64,
    },
}

/// Rows made at a time.
const BLOCK: usize = 256;
/// An input whose variance is smaller than this share of its mean square does not vary: sums have rounded it away.
const CONSTANT: f64 = 1e-12;

/// Writes the inputs and the targets of the row of an index.
pub type MakeRow<'a> = dyn Fn(usize, &mut [f64], &mut [f64]) + 'a;

/// A regression: how the row of an index is made.
pub struct Regression<'a> {
    /// Inputs of a row.
    pub inputs: usize,
    /// Targets of a row.
    pub targets: usize,
    /// Writes the inputs and the targets of a row.
    pub row: &'a MakeRow<'a>,
}

/// A fitted regression.
#[derive(Clone, Debug, PartialEq)]
pub struct Ridge {
    /// Row-major (inputs, targets).
    weights: Vec<f64>,
    intercept: Vec<f64>,
    /// The penalty that was chosen.
    pub penalty: f64,
}

/// Means, and products about the origin, of the rows of a regression.
struct Moments {
    rows: f64,
    input_sums: Vec<f64>,
    target_sums: Vec<f64>,
    /// (inputs, inputs).
    input_products: Vec<f64>,
    /// (inputs, targets).
    cross_products: Vec<f64>,
}

impl Regression<'_> {
    /// Calls `visit` with blocks of rows: inputs, targets, and the indices they belong to.
    fn blocks(&self, rows: &[usize], mut visit: impl FnMut(&[f64], &[f64], &[usize])) {
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for block in rows.chunks(BLOCK) {
            inputs.resize(block.len() * self.inputs, 0.0);
            targets.resize(block.len() * self.targets, 0.0);
            for (i, row) in block.iter().enumerate() {
                let input = &mut inputs[i * self.inputs..(i + 1) * self.inputs];
                (self.row)(*row, input, &mut targets[i * self.targets..(i + 1) * self.targets]);
            }
            visit(&inputs, &targets, block);
        }
    }

    fn moments(&self, rows: &[usize]) -> Moments {
        let (p, t) = (self.inputs, self.targets);
        let mut moments = Moments {
            rows: rows.len() as f64,
            input_sums: vec![0.0; p],
            target_sums: vec![0.0; t],
            input_products: vec![0.0; p * p],
            cross_products: vec![0.0; p * t],
        };
        self.blocks(rows, |inputs, targets, block| {
            let turned = View::transposed(inputs, p);
            let n = block.len();
            product([p, p, n], &mut moments.input_products, p, true, turned, View::rows(inputs, p));
            product([p, t, n], &mut moments.cross_products, t, true, turned, View::rows(targets, t));
            add_rows(&mut moments.input_sums, inputs);
            add_rows(&mut moments.target_sums, targets);
        });
        moments
    }
}

fn add_rows(sums: &mut [f64], rows: &[f64]) {
    for row in rows.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}

impl Ridge {
    /// Fits on the rows `train` with each of `penalties` and keeps the one of least squared error on the rows `valid`;
    /// of equal ones the first.
    ///
    /// # Errors
    /// [`RidgeError::Empty`] without rows, [`RidgeError::Singular`] when no penalty makes the equations solvable.
    pub fn fit(
        regression: &Regression<'_>,
        train: &[usize],
        valid: &[usize],
        penalties: &[f64],
    ) -> Result<Self, RidgeError> {
        if train.is_empty() || valid.is_empty() {
            return Err(RidgeError::Empty);
        }
        let moments = regression.moments(train);
        let mut best: Option<(f64, Self)> = None;
        for &penalty in penalties {
            let Some(ridge) = Self::solve(regression, &moments, penalty) else { continue };
            let mut error = 0.0;
            ridge.each(regression, valid, |_, targets, predictions| {
                error += square_distance(targets, predictions)
            });
            if error.is_finite() && best.as_ref().is_none_or(|(least, _)| error < *least) {
                best = Some((error, ridge));
            }
        }
        let penalty = penalties.iter().copied().fold(0.0, f64::max);
        best.map(|(_, ridge)| ridge).ok_or(RidgeError::Singular { penalty })
    }

    fn solve(regression: &Regression<'_>, moments: &Moments, penalty: f64) -> Option<Self> {
        let (p, t) = (regression.inputs, regression.targets);
        let n = moments.rows;
        let means: Vec<f64> = moments.input_sums.iter().map(|sum| sum / n).collect();
        let target_means: Vec<f64> = moments.target_sums.iter().map(|sum| sum / n).collect();
        // One over the deviation; 0 leaves an input out that does not vary.
        let scales: Vec<f64> = (0..p)
            .map(|i| {
                let square = moments.input_products[i * p + i] / n;
                let variance = square - means[i] * means[i];
                let varies = variance > CONSTANT * square;
                if varies { 1.0 / variance.sqrt() } else { 0.0 }
            })
            .collect();
        let mut matrix = vec![0.0; p * p];
        let mut right = vec![0.0; p * t];
        for i in 0..p {
            for j in 0..=i {
                let covariance = moments.input_products[i * p + j] / n - means[i] * means[j];
                matrix[i * p + j] = covariance * scales[i] * scales[j];
            }
            matrix[i * p + i] = if scales[i] > 0.0 { 1.0 + penalty } else { 1.0 };
            for j in 0..t {
                let covariance = moments.cross_products[i * t + j] / n - means[i] * target_means[j];
                right[i * t + j] = covariance * scales[i];
            }
        }
        factorise(&mut matrix, p)?;
        solve(&matrix, p, &mut right, t);
        let mut intercept = target_means;
        for i in 0..p {
            for j in 0..t {
                right[i * t + j] *= scales[i];
                intercept[j] -= means[i] * right[i * t + j];
            }
        }
        Some(Self { weights: right, intercept, penalty })
    }

    /// Calls `visit` with the index, the targets and the predictions of each of `rows`.
    pub fn each(
        &self,
        regression: &Regression<'_>,
        rows: &[usize],
        mut visit: impl FnMut(usize, &[f64], &[f64]),
    ) {
        let (p, t) = (regression.inputs, regression.targets);
        let mut predictions = Vec::new();
        regression.blocks(rows, |inputs, targets, block| {
            predictions.clear();
            block.iter().for_each(|_| predictions.extend_from_slice(&self.intercept));
            let size = [block.len(), t, p];
            product(size, &mut predictions, t, true, View::rows(inputs, p), View::rows(&self.weights, t));
            for (i, row) in block.iter().enumerate() {
                visit(*row, &targets[i * t..(i + 1) * t], &predictions[i * t..(i + 1) * t]);
            }
        });
    }
}

/// The squared Euclidean distance.
pub fn square_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// Cholesky factor of the symmetric matrix whose lower triangle `matrix` (row-major, `p` by `p`) holds, in place.
/// `None` when it is not positive definite.
fn factorise(matrix: &mut [f64], p: usize) -> Option<()> {
    for i in 0..p {
        let (above, row) = matrix.split_at_mut(i * p);
        for j in 0..i {
            let other = &above[j * p..j * p + j + 1];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        if !pivot.is_finite() || pivot <= 0.0 {
            return None;
        }
        row[i] = pivot.sqrt();
    }
    Some(())
}

/// Solves with the factor of [`factorise`], in place; `right` is row-major (p, t).
fn solve(factor: &[f64], p: usize, right: &mut [f64], t: usize) {
    for i in 0..p {
        let (before, row) = right.split_at_mut(i * t);
        for j in 0..i {
            subtract(&mut row[..t], &before[j * t..(j + 1) * t], factor[i * p + j]);
        }
        row[..t].iter_mut().for_each(|value| *value /= factor[i * p + i]);
    }
    for i in (0..p).rev() {
        let (before, after) = right.split_at_mut((i + 1) * t);
        let row = &mut before[i * t..];
        for j in i + 1..p {
            subtract(row, &after[(j - i - 1) * t..(j - i) * t], factor[j * p + i]);
        }
        row.iter_mut().for_each(|value| *value /= factor[i * p + i]);
    }
}

fn subtract(row: &mut [f64], other: &[f64], factor: f64) {
    row.iter_mut().zip(other).for_each(|(value, other)| *value -= factor * other);
}

#[cfg(test)]
mod tests {
    use crate::rng::Key;

    use super::*;

    #[test]
    fn weights_match_scikit_learn() {
        // scikit-learn 1.9.1: StandardScaler, then Ridge(alpha=rows * 0.1), on the rows below, predicts for
        // (1, 2), (0.5, -1), (3, 0) as in `want`.
        let inputs = [[1.0, 2.0], [0.5, -1.0], [3.0, 0.0], [-2.0, 1.0], [0.0, 4.0], [1.5, 1.5]];
        let targets = [3.0, -1.0, 2.5, 0.5, 4.0, 2.0];
        let row = |i: usize, x: &mut [f64], y: &mut [f64]| {
            x.copy_from_slice(&inputs[i]);
            y[0] = targets[i];
        };
        let regression = Regression { inputs: 2, targets: 1, row: &row };
        let rows: Vec<usize> = (0..6).collect();
        let ridge = Ridge::fit(&regression, &rows, &rows, &[0.1]).unwrap();
        let mut found = Vec::new();
        ridge.each(&regression, &rows[..3], |_, _, prediction| found.push(prediction[0]));
        let want = [2.6560389846241943, -0.22306015493769604, 1.889465261933951];
        for (found, want) in found.iter().zip(want) {
            assert!((found - want).abs() < 1e-9, "{found} {want}");
        }
    }

    #[test]
    fn a_linear_truth_is_found_and_constant_inputs_are_left_out() {
        let mut rng = Key::root(3).rng();
        let inputs: Vec<[f64; 4]> =
            (0..300).map(|_| [rng.normal(), 7.0, 1e3 + 1e-2 * rng.normal(), rng.normal()]).collect();
        let row = |i: usize, x: &mut [f64], y: &mut [f64]| {
            x.copy_from_slice(&inputs[i]);
            y[0] = 2.0 * x[0] - 50.0 * (x[2] - 1e3) + 4.0;
            y[1] = -x[3];
        };
        let regression = Regression { inputs: 4, targets: 2, row: &row };
        let rows: Vec<usize> = (0..300).collect();
        let ridge = Ridge::fit(&regression, &rows[..200], &rows[200..250], &[10.0, 1e-9, 1.0]).unwrap();
        assert_eq!(ridge.penalty, 1e-9, "the best on validation rows");
        ridge.each(&regression, &rows[250..], |_, targets, predictions| {
            assert!(square_distance(targets, predictions) < 1e-8, "{targets:?} {predictions:?}");
        });
    }

    #[test]
    fn without_rows_there_is_an_error() {
        let row = |_: usize, _: &mut [f64], _: &mut [f64]| {};
        let regression = Regression { inputs: 1, targets: 1, row: &row };
        assert!(matches!(Ridge::fit(&regression, &[], &[0], &[1.0]), Err(RidgeError::Empty)));
    }
}
