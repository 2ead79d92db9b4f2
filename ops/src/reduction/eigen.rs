//! Eigenvalues and eigenvectors of symmetric matrices: Householder's reduction to three diagonals, then implicit QR steps with
//! Wilkinson's shift (Golub and Van Loan, Matrix Computations, 4th edition, sections 8.3.1 and 8.3.5).

use super::ReductionError;
use crate::matrix::dot;

/// Steps that an eigenvalue may take on average; two to three are usual.
const STEPS: usize = 60;

/// The eigenvalues of a symmetric matrix, the largest first. `matrix` has `n` rows of `n` values and is overwritten.
///
/// # Errors
/// [`ReductionError::NoConvergence`], which no finite matrix is known to cause.
///
/// # Panics
/// If the matrix is smaller than its shape.
pub fn eigenvalues(matrix: &mut [f64], n: usize) -> Result<Vec<f64>, ReductionError> {
    let (mut diagonal, mut beside, _) = three_diagonals(matrix, n);
    diagonalise(&mut diagonal, &mut beside, &mut [])?;
    diagonal.sort_by(|a, b| b.total_cmp(a));
    Ok(diagonal)
}

/// The `count` largest eigenvalues of a symmetric matrix, the largest first, and their eigenvectors of length 1, one
/// after the other. `matrix` has `n` rows of `n` values and is overwritten.
pub(super) fn largest(
    matrix: &mut [f64],
    n: usize,
    count: usize,
) -> Result<(Vec<f64>, Vec<f64>), ReductionError> {
    let (mut diagonal, mut beside, reflectors) = three_diagonals(matrix, n);
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    diagonalise(&mut diagonal, &mut beside, &mut vectors)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]));
    order.truncate(count);
    let values = order.iter().map(|i| diagonal[*i]).collect();
    let mut chosen = Vec::with_capacity(count * n);
    for i in order {
        let vector = &mut vectors[i * n..(i + 1) * n];
        // Back through the reflections, the last one first.
        for (first, reflector) in reflectors.iter().enumerate().rev() {
            reflect(&mut vector[first + 1..], reflector);
        }
        chosen.extend_from_slice(vector);
    }
    Ok((values, chosen))
}

/// `x - 2 v (v x)` for a `v` of length 1; an empty `v` changes nothing.
fn reflect(x: &mut [f64], v: &[f64]) {
    let twice = 2.0 * dot(x, v);
    for (x, v) in x.iter_mut().zip(v) {
        *x -= twice * v;
    }
}

/// The diagonal, the values beside it, and the vectors of the reflections that lead there.
fn three_diagonals(matrix: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let mut beside = vec![0.0; n.saturating_sub(1)];
    let mut reflectors = Vec::with_capacity(n);
    for k in 0..n.saturating_sub(2) {
        let (head, rest) = matrix.split_at_mut((k + 1) * n);
        let mut v = head[k * n + k + 1..].to_vec();
        let largest = v.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        if largest == 0.0 {
            reflectors.push(Vec::new());
            continue;
        }
        // Scaled, so that squares neither vanish nor overflow.
        v.iter_mut().for_each(|x| *x /= largest);
        let norm = dot(&v, &v).sqrt();
        let image = if v[0] > 0.0 { -norm } else { norm };
        v[0] -= image;
        let length = dot(&v, &v).sqrt();
        v.iter_mut().for_each(|x| *x /= length);
        beside[k] = image * largest;
        // A - v w' - w v', where w = 2 A v - 2 (v' A v) v.
        let mut w: Vec<f64> = rest.chunks_exact(n).map(|row| 2.0 * dot(&row[k + 1..], &v)).collect();
        let middle = dot(&w, &v);
        w.iter_mut().zip(&v).for_each(|(w, v)| *w -= middle * v);
        for ((row, v_row), w_row) in rest.chunks_exact_mut(n).zip(&v).zip(&w) {
            for ((x, v), w) in row[k + 1..].iter_mut().zip(&v).zip(&w) {
                *x -= v_row * w + w_row * v;
            }
        }
        reflectors.push(v);
    }
    if let Some(last) = beside.last_mut() {
        *last = matrix[n * n - 2];
    }
    let diagonal = (0..n).map(|i| matrix[i * n + i]).collect();
    (diagonal, beside, reflectors)
}

/// Rotates three diagonals until only the middle one is left, and the rows of `vectors` with them, if there are any.
fn diagonalise(d: &mut [f64], e: &mut [f64], vectors: &mut [f64]) -> Result<(), ReductionError> {
    let n = d.len();
    let width = vectors.len().checked_div(n).unwrap_or(0);
    let scale = d.iter().chain(e.iter()).fold(0.0f64, |most, x| most.max(x.abs()));
    let mut steps = 0;
    let mut end = n.saturating_sub(1);
    while end > 0 {
        let small = |i: usize, d: &[f64], e: &[f64]| {
            e[i].abs() <= f64::EPSILON * (d[i].abs() + d[i + 1].abs())
                || e[i].abs() <= f64::MIN_POSITIVE * scale
        };
        if small(end - 1, d, e) {
            e[end - 1] = 0.0;
            end -= 1;
            continue;
        }
        steps += 1;
        if steps > STEPS * n {
            return Err(ReductionError::NoConvergence);
        }
        let start = (0..end - 1).rev().find(|i| small(*i, d, e)).map_or(0, |i| i + 1);
        let half = (d[end - 1] - d[end]) / 2.0;
        let beside = e[end - 1];
        let root = half.hypot(beside);
        let shift = d[end] - beside * (beside / (half + if half < 0.0 { -root } else { root }));
        let (mut x, mut z) = (d[start] - shift, e[start]);
        for k in start..end {
            let r = x.hypot(z);
            let (c, s) = if r == 0.0 { (1.0, 0.0) } else { (x / r, z / r) };
            if k > start {
                e[k - 1] = r;
            }
            let (a, b, off) = (d[k], d[k + 1], e[k]);
            d[k] = c * c * a + 2.0 * c * s * off + s * s * b;
            d[k + 1] = s * s * a - 2.0 * c * s * off + c * c * b;
            e[k] = c * s * (b - a) + (c * c - s * s) * off;
            if k + 1 < end {
                x = e[k];
                z = s * e[k + 1];
                e[k + 1] *= c;
            }
            let (upper, lower) = vectors.split_at_mut((k + 1) * width);
            for (u, l) in upper[k * width..].iter_mut().zip(&mut lower[..width]) {
                (*u, *l) = (c * *u + s * *l, c * *l - s * *u);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    fn check(matrix: &[f64], n: usize) -> Vec<f64> {
        let (values, vectors) = largest(&mut matrix.to_vec(), n, n).unwrap();
        let size = matrix.iter().fold(1e-300f64, |most, x| most.max(x.abs()));
        for (i, value) in values.iter().enumerate() {
            let v = &vectors[i * n..(i + 1) * n];
            for (row, x) in matrix.chunks_exact(n).zip(v) {
                assert!((dot(row, v) - value * x).abs() < 1e-12 * size * n as f64, "A v = l v, {n} {i}");
            }
            for j in 0..=i {
                let want = if i == j { 1.0 } else { 0.0 };
                assert!((dot(v, &vectors[j * n..(j + 1) * n]) - want).abs() < 1e-12 * n as f64);
            }
        }
        assert!(values.is_sorted_by(|a, b| a >= b));
        assert_eq!(eigenvalues(&mut matrix.to_vec(), n).unwrap(), values, "with and without vectors");
        values
    }

    #[test]
    fn eigenvectors_satisfy_their_equation() {
        let mut rng = Key::root(3).rng();
        for n in [1, 2, 3, 10, 65] {
            let mut matrix = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..=i {
                    let x = rng.normal();
                    (matrix[i * n + j], matrix[j * n + i]) = (x, x);
                }
            }
            check(&matrix, n);
            let huge: Vec<f64> = matrix.iter().map(|x| x * 1e200).collect();
            check(&huge, n);
        }
    }

    #[test]
    fn matrices_with_known_eigenvalues() {
        assert_eq!(check(&[0.0; 16], 4), [0.0; 4]);
        assert_eq!(check(&[2.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0], 3), [5.0, 2.0, -1.0]);
        // Ones everywhere: n once, 0 else.
        let values = check(&[1.0; 49], 7);
        assert!((values[0] - 7.0).abs() < 1e-12 && values[1..].iter().all(|v| v.abs() < 1e-12));
        // The second difference: 2 - 2 cos(k pi / (n + 1)).
        let n = 30;
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            matrix[i * n + i] = 2.0;
            if i > 0 {
                (matrix[i * n + i - 1], matrix[(i - 1) * n + i]) = (-1.0, -1.0);
            }
        }
        for (k, value) in check(&matrix, n).iter().rev().enumerate() {
            let want = 2.0 - 2.0 * ((k + 1) as f64 * std::f64::consts::PI / (n + 1) as f64).cos();
            assert!((value - want).abs() < 1e-12);
        }
    }
}
