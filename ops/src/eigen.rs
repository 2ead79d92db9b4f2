//! Eigenvalues of symmetric matrices, in f64.
//!
//! Householder's reflections make the matrix tridiagonal, then each eigenvalue is found by bisection: the signs of the
//! pivots of `T - x` tell how many eigenvalues lie below `x` (Barth, Martin and Wilkinson, Numerische Mathematik 9, 1967).
//! Bisection always ends, and its error is that of rounding beside the largest eigenvalue.

/// The eigenvalues of the symmetric matrix `matrix`, row-major (`n`, `n`), in rising order. Of a matrix that is not finite
/// they are NaN.
///
/// # Panics
/// If the matrix is smaller than its shape.
#[must_use]
pub fn eigenvalues(mut matrix: Vec<f64>, n: usize) -> Vec<f64> {
    assert!(matrix.len() >= n * n, "the matrix is smaller than its shape");
    if n == 0 || matrix.iter().any(|value| !value.is_finite()) {
        return vec![f64::NAN; n];
    }
    let (diagonal, beside) = tridiagonal(&mut matrix, n);
    // Gershgorin: all eigenvalues lie within.
    let at = |i: usize| beside.get(i).map_or(0.0, |value| value.abs());
    let reach = |i: usize| at(i) + if i > 0 { at(i - 1) } else { 0.0 };
    let low = (0..n).map(|i| diagonal[i] - reach(i)).fold(f64::INFINITY, f64::min);
    let high = (0..n).map(|i| diagonal[i] + reach(i)).fold(f64::NEG_INFINITY, f64::max);
    let smallest = low.abs().max(high.abs()) * f64::EPSILON * 0.25;
    let mut from = low;
    let found = (0..n).map(|place| {
        let (mut below, mut above) = (from, high);
        loop {
            let middle = 0.5 * (below + above);
            if above - below <= smallest || middle <= below || middle >= above {
                from = below;
                return middle;
            }
            if count_below(&diagonal, &beside, middle, smallest) > place {
                above = middle;
            } else {
                below = middle;
            }
        }
    });
    found.collect()
}

/// How many eigenvalues of a tridiagonal matrix lie below `x`.
fn count_below(diagonal: &[f64], beside: &[f64], x: f64, smallest: f64) -> usize {
    let mut count = 0;
    let mut pivot = 1.0f64;
    let before = std::iter::once(&0.0).chain(beside);
    for (value, before) in diagonal.iter().zip(before) {
        pivot = value - x - before * before / pivot;
        if pivot == 0.0 {
            pivot = smallest.max(f64::MIN_POSITIVE);
        }
        count += usize::from(pivot < 0.0);
    }
    count
}

/// The diagonal of the tridiagonal matrix that reflections make of a symmetric one, and what stands beside it.
fn tridiagonal(matrix: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut beside = Vec::with_capacity(n.saturating_sub(1));
    let mut normal = vec![0.0; n];
    let mut image = vec![0.0; n];
    for k in 0..n.saturating_sub(1) {
        // The part of column k below the diagonal is reflected onto its first place.
        let normal = &mut normal[k + 1..];
        let image = &mut image[k + 1..];
        for (i, value) in (k + 1..n).zip(normal.iter_mut()) {
            *value = matrix[i * n + k];
        }
        let largest = normal.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        if normal[1..].iter().all(|value| *value == 0.0) {
            beside.push(normal[0]);
            continue;
        }
        normal.iter_mut().for_each(|value| *value /= largest);
        let length = normal.iter().map(|value| value * value).sum::<f64>().sqrt();
        let onto = if normal[0] > 0.0 { -length } else { length };
        beside.push(onto * largest);
        normal[0] -= onto;
        let scale = 2.0 / normal.iter().map(|value| value * value).sum::<f64>();
        // A - v w' - w v' with w = s A v - (s^2 / 2) (v' A v) v.
        let rows = matrix.chunks_exact_mut(n).skip(k + 1);
        for (row, image) in rows.zip(image.iter_mut()) {
            *image = scale * row[k + 1..n].iter().zip(&*normal).map(|(a, v)| a * v).sum::<f64>();
        }
        let share = 0.5 * scale * normal.iter().zip(&*image).map(|(v, p)| v * p).sum::<f64>();
        image.iter_mut().zip(&*normal).for_each(|(p, v)| *p -= share * v);
        let rows = matrix.chunks_exact_mut(n).skip(k + 1);
        for ((row, v), w) in rows.zip(&*normal).zip(&*image) {
            let places = row[k + 1..n].iter_mut().zip(&*normal).zip(&*image);
            places.for_each(|((a, vj), wj)| *a -= v * wj + w * vj);
        }
    }
    ((0..n).map(|i| matrix[i * n + i]).collect(), beside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn values_by_hand() {
        // [[2, 1], [1, 2]] has 1 and 3; the path of four nodes has 2 cos(pi k / 5).
        let found = eigenvalues(vec![2.0, 1.0, 1.0, 2.0], 2);
        assert!((found[0] - 1.0).abs() < 1e-15 && (found[1] - 3.0).abs() < 1e-15, "{found:?}");
        let mut path = vec![0.0; 16];
        (0..3).for_each(|i| (path[i * 4 + i + 1], path[(i + 1) * 4 + i]) = (1.0, 1.0));
        let want = [4.0, 3.0, 2.0, 1.0].map(|k: f64| 2.0 * (std::f64::consts::PI * k / 5.0).cos());
        for (found, want) in eigenvalues(path, 4).iter().zip(want) {
            assert!((found - want).abs() < 1e-14, "{found} {want}");
        }
        assert!(eigenvalues(Vec::new(), 0).is_empty());
        assert_eq!(eigenvalues(vec![0.0; 9], 3), [0.0; 3]);
        assert!(eigenvalues(vec![f64::NAN], 1)[0].is_nan());
    }

    #[test]
    fn a_turned_diagonal_keeps_its_values() {
        // Reflections turn diag(1, 2, ..., n), of which one is 0 and two are equal.
        for n in [1, 2, 3, 17, 40] {
            let mut rng = Key::root(n as u64).rng();
            let mut want: Vec<f64> = (0..n).map(|i| i as f64).collect();
            want[n / 2] = want[n - 1];
            let mut matrix = vec![0.0; n * n];
            (0..n).for_each(|i| matrix[i * n + i] = want[i]);
            for _ in 0..3 {
                let normal: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
                let square: f64 = normal.iter().map(|v| v * v).sum();
                let reflect = |matrix: &[f64]| -> Vec<f64> {
                    let image: Vec<f64> =
                        (0..n).map(|j| (0..n).map(|i| normal[i] * matrix[i * n + j]).sum()).collect();
                    // The transpose of the reflected matrix; twice gives both sides.
                    let at = |i: usize, j: usize| matrix[i * n + j] - 2.0 / square * normal[i] * image[j];
                    (0..n * n).map(|p| at(p % n, p / n)).collect()
                };
                matrix = reflect(&reflect(&matrix));
            }
            want.sort_by(f64::total_cmp);
            for (found, want) in eigenvalues(matrix, n).iter().zip(want) {
                assert!((found - want).abs() < 1e-12 * n as f64, "{n}: {found} {want}");
            }
        }
    }
}
