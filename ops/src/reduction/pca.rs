//! Principal components.

use super::eigen;
use super::{ReductionError, for_rows, rows_of};

/// Rows that are multiplied at a time.
const BLOCK: usize = 8;

/// The principal components of a matrix.
///
/// Each component points to where its largest loading is positive, as in scikit-learn from 1.5 on.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    /// The mean of each column.
    pub mean: Vec<f64>,
    /// Unit vectors, one after the other, the one with most variance first.
    pub components: Vec<f64>,
    /// The variance along each component, over `rows - 1`.
    pub variances: Vec<f64>,
    /// The share of each in the variance of all columns; 0 where nothing varies.
    pub shares: Vec<f64>,
}

/// The `count` first principal components of `values`, rows of `columns` each.
///
/// The covariance matrix is summed in `f64` of products in `f32`; of fewer rows than columns, the matrix of inner
/// products of rows is taken instead. Takes time with the cube of the smaller side.
///
/// # Errors
/// Less than two rows, a value that is not finite, or more components than the smaller side has.
pub fn pca(values: &[f32], columns: usize, count: usize, threads: usize) -> Result<Pca, ReductionError> {
    let rows = rows_of(values, columns, 2)?;
    if count == 0 || count > rows.min(columns) {
        return Err(ReductionError::Components { asked: count, rows, columns });
    }
    let mut mean = vec![0.0; columns];
    for row in values.chunks_exact(columns) {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x));
    }
    mean.iter_mut().for_each(|mean| *mean /= rows as f64);
    let centred: Vec<f32> =
        values.iter().zip(mean.iter().cycle()).map(|(x, mean)| (f64::from(*x) - mean) as f32).collect();
    let degrees = (rows - 1) as f64;

    let (mut variances, mut components) = if rows < columns {
        let turned = transposed(&centred, columns);
        let mut inner = products(&turned, rows, threads);
        let (squares, sides) = eigen::largest(&mut inner, rows, count)?;
        let mut components = vec![0.0; count * columns];
        for (side, component) in sides.chunks_exact(rows).zip(components.chunks_exact_mut(columns)) {
            for (row, weight) in centred.chunks_exact(columns).zip(side) {
                component.iter_mut().zip(row).for_each(|(c, x)| *c += weight * f64::from(*x));
            }
        }
        (squares, orthonormal(components, columns))
    } else {
        let mut inner = products(&centred, columns, threads);
        eigen::largest(&mut inner, columns, count)?
    };
    let total: f64 = centred.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / degrees;
    variances.iter_mut().for_each(|variance| *variance = (*variance / degrees).max(0.0));
    let shares = variances.iter().map(|v| if total > 0.0 { v / total } else { 0.0 }).collect();
    for component in components.chunks_exact_mut(columns) {
        let largest = component.iter().fold(0.0f64, |most, x| if x.abs() > most.abs() { *x } else { most });
        if largest < 0.0 {
            component.iter_mut().for_each(|x| *x = -*x);
        }
    }
    Ok(Pca { mean, components, variances, shares })
}

impl Pca {
    /// The scores of rows: how far each lies along each component. As many values per row as there are components.
    pub fn scores(&self, values: &[f32], threads: usize) -> Vec<f32> {
        let (columns, count) = (self.mean.len(), self.variances.len());
        let rows = values.len().checked_div(columns).unwrap_or(0);
        let mut scores = vec![0.0; rows * count];
        for_rows(threads, &mut scores, count, |row, scores| {
            let row = &values[row * columns..(row + 1) * columns];
            let centred: Vec<f64> =
                row.iter().zip(&self.mean).map(|(x, mean)| f64::from(*x) - mean).collect();
            for (score, component) in scores.iter_mut().zip(self.components.chunks_exact(columns)) {
                *score = centred.iter().zip(component).map(|(x, c)| x * c).sum::<f64>() as f32;
            }
        });
        scores
    }
}

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    (0..values.len()).map(|i| values[(i % rows) * columns + i / rows]).collect()
}

/// The inner products of all pairs of columns.
fn products(values: &[f32], columns: usize, threads: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; columns * columns];
    // Rows of the triangle are dealt out in turns, since they grow shorter.
    let threads = threads.clamp(1, columns);
    let mut hands: Vec<Vec<(usize, &mut [f64])>> = (0..threads).map(|_| Vec::new()).collect();
    for (i, row) in sums.chunks_exact_mut(columns).enumerate() {
        hands[i % threads].push((i, row));
    }
    std::thread::scope(|scope| {
        for mut hand in hands {
            scope.spawn(move || {
                for block in values.chunks(BLOCK * columns) {
                    let rows: Vec<&[f32]> = block.chunks_exact(columns).collect();
                    for (i, sums) in &mut hand {
                        match rows.as_slice() {
                            [a, b, c, d, e, f, g, h] => {
                                let rows = [a, b, c, d, e, f, g, h].map(|row| &row[*i..]);
                                add_block(&mut sums[*i..], rows);
                            }
                            rows => {
                                for row in rows {
                                    let weight = row[*i];
                                    let pairs = sums[*i..].iter_mut().zip(&row[*i..]);
                                    pairs.for_each(|(sum, x)| *sum += f64::from(weight * x));
                                }
                            }
                        }
                    }
                }
            });
        }
    });
    for i in 0..columns {
        for j in 0..i {
            sums[i * columns + j] = sums[j * columns + i];
        }
    }
    sums
}

/// Adds to each sum the products of a column with the first one, over a block of rows.
fn add_block(sums: &mut [f64], rows: [&[f32]; BLOCK]) {
    let n = sums.len();
    let [a, b, c, d, e, f, g, h] = rows.map(|row| &row[..n]);
    let [wa, wb, wc, wd, we, wf, wg, wh] = [a[0], b[0], c[0], d[0], e[0], f[0], g[0], h[0]];
    for j in 0..n {
        let low = (wa * a[j] + wb * b[j]) + (wc * c[j] + wd * d[j]);
        let high = (we * e[j] + wf * f[j]) + (wg * g[j] + wh * h[j]);
        sums[j] += f64::from(low + high);
    }
}

/// Makes vectors of length 1 that stand at right angles: those of no length, of directions without variance, become any.
fn orthonormal(mut vectors: Vec<f64>, columns: usize) -> Vec<f64> {
    let longest = vectors.chunks_exact(columns).map(norm).fold(0.0, f64::max);
    let count = vectors.len() / columns;
    for i in 0..count {
        let (before, rest) = vectors.split_at_mut(i * columns);
        let vector = &mut rest[..columns];
        let mut axis = 0;
        let mut fresh = norm(vector) <= 1e-7 * longest;
        loop {
            if fresh {
                vector.fill(0.0);
                vector[axis % columns] = 1.0;
                axis += 1;
            }
            // Twice is enough (Parlett).
            for _ in 0..2 {
                for other in before.chunks_exact(columns) {
                    let along: f64 = vector.iter().zip(other).map(|(x, y)| x * y).sum();
                    vector.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
                }
            }
            let length = norm(vector);
            if !fresh || length > 0.1 || axis > columns {
                vector.iter_mut().for_each(|x| *x /= length.max(f64::MIN_POSITIVE));
                break;
            }
            fresh = true;
        }
    }
    vectors
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn noise(rows: usize, columns: usize) -> Vec<f32> {
        let mut rng = Key::root(8).rng();
        let column = |i: usize| 1.0 + (i % columns) as f64;
        (0..rows * columns).map(|i| (5.0 + rng.normal() / column(i)) as f32).collect()
    }

    #[test]
    fn an_ellipse_has_its_axes() {
        // (3, 4)/5 times -2, 0, 2 and, at right angles, 1, -2, 1 over 10: variances 4 and 0.03.
        let values = [-1.2f32 - 0.08, -1.6 + 0.06, 0.16, -0.12, 1.2 - 0.08, 1.6 + 0.06];
        let got = pca(&values, 2, 2, 1).unwrap();
        for (got, want) in got.components.iter().zip([0.6, 0.8, 0.8, -0.6]) {
            assert!((got - want).abs() < 1e-6, "{:?}", got);
        }
        assert!((got.variances[0] - 4.0).abs() < 1e-6 && (got.variances[1] - 0.03).abs() < 1e-6);
        assert!((got.shares[0] - 4.0 / 4.03).abs() < 1e-6);
        let scores = got.scores(&values, 1);
        for (got, want) in scores.iter().zip([-2.0, -0.1, 0.0, 0.2, 2.0, -0.1]) {
            assert!((got - want).abs() < 1e-6, "{scores:?}");
        }
    }

    #[test]
    fn both_ways_and_any_number_of_threads_agree() {
        for (rows, columns) in [(40, 7), (7, 40), (12, 12), (203, 33)] {
            let values = noise(rows, columns);
            let count = rows.min(columns).min(4);
            let one = pca(&values, columns, count, 1).unwrap();
            assert_eq!(one, pca(&values, columns, count, 5).unwrap());
            assert_eq!(one.scores(&values, 1), one.scores(&values, 3));
            // Scores have the variances, and no correlation.
            let scores = one.scores(&values, 1);
            for i in 0..count {
                for j in 0..=i {
                    let product = |row: &[f32]| f64::from(row[i]) * f64::from(row[j]);
                    let got = scores.chunks_exact(count).map(product).sum::<f64>() / (rows - 1) as f64;
                    let want = if i == j { one.variances[i] } else { 0.0 };
                    assert!((got - want).abs() < 1e-5, "{rows} x {columns}: {i} {j} {got} {want}");
                }
            }
        }
    }

    #[test]
    fn directions_without_variance_are_still_at_right_angles() {
        let flat = [1.0f32, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
        let got = pca(&flat, 4, 3, 2).unwrap();
        assert_eq!((got.variances, got.shares), (vec![0.0; 3], vec![0.0; 3]));
        for i in 0..3 {
            for j in 0..3 {
                let (a, b) = (&got.components[i * 4..i * 4 + 4], &got.components[j * 4..j * 4 + 4]);
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn what_cannot_be_reduced_is_refused() {
        assert_eq!(pca(&[1.0, 2.0], 2, 1, 1).unwrap_err(), ReductionError::TooFewRows(1, 2));
        assert_eq!(pca(&[], 0, 1, 1).unwrap_err(), ReductionError::TooFewRows(0, 2));
        assert_eq!(pca(&[1.0, 2.0, f32::NAN, 4.0], 2, 1, 1).unwrap_err(), ReductionError::NotFinite(1));
        let error = pca(&noise(3, 2), 2, 3, 1).unwrap_err();
        assert!(error.to_string().contains("there are 1 to 2"), "{error}");
    }
}
