//! Two axes along which vectors vary most.

/// Vectors on two axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// Both coordinates of each vector; not finite where the vector is not.
    pub at: Vec<(f64, f64)>,
    /// The part of all variance along each axis.
    pub explained: [f64; 2],
}

/// Vectors iterated together: the first two of them converge fast even where variances are close.
const BLOCK: usize = 8;
/// Iterations at most, and the change below which an axis stands still.
const STEPS: usize = 200;
const STILL: f64 = 1e-10;

/// Principal components of the rows of `values`, row-major (rows, `dim`): block iteration on the covariance. The largest
/// entry of an axis is positive, so that equal data give equal maps. Rows that are not finite do not take part.
pub fn plane(values: &[f32], dim: usize) -> Plane {
    if dim == 0 {
        return Plane { at: Vec::new(), explained: [0.0; 2] };
    }
    let finite = |row: &&[f32]| row.iter().all(|v| v.is_finite());
    let rows = || values.chunks_exact(dim);
    let count = rows().filter(finite).count().max(1) as f64;
    let mut mean = vec![0.0; dim];
    for row in rows().filter(finite) {
        mean.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v) / count);
    }
    let centred =
        |row: &[f32]| -> Vec<f64> { row.iter().zip(&mean).map(|(v, m)| f64::from(*v) - m).collect() };
    let mut covariance = vec![0.0; dim * dim];
    for row in rows().filter(finite) {
        let row = centred(row);
        for (i, a) in row.iter().enumerate() {
            let a = a / count;
            let into = &mut covariance[i * dim..i * dim + dim];
            into.iter_mut().zip(&row).for_each(|(sum, b)| *sum += a * b);
        }
    }
    let total: f64 = (0..dim).map(|i| covariance[i * dim + i]).sum();
    let (axes, variances) = leading(&covariance, dim);
    let at = rows().map(|row| match finite(&row) {
        true => {
            let row = centred(row);
            let along = |axis: usize| axes.get(axis).map_or(0.0, |axis| dot(axis, &row));
            (along(0), along(1))
        }
        false => (f64::NAN, f64::NAN),
    });
    let share = |axis: usize| variances.get(axis).map_or(0.0, |v| if total > 0.0 { v / total } else { 0.0 });
    Plane { at: at.collect(), explained: [share(0), share(1)] }
}

/// The eigenvectors of the two largest eigenvalues of a symmetric matrix, and these.
fn leading(matrix: &[f64], dim: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let block = BLOCK.min(dim);
    // Any start that is not orthogonal to the answer; quadratic phases are spread well.
    let start = |b: usize, i: usize| ((((i + 1) * (b + 2)) as f64).powi(2) * 0.618).sin();
    let mut vectors: Vec<Vec<f64>> = (0..block).map(|b| (0..dim).map(|i| start(b, i)).collect()).collect();
    orthonormalise(&mut vectors);
    let mut values = vec![0.0; block];
    for _ in 0..STEPS {
        let mut next: Vec<Vec<f64>> =
            vectors.iter().map(|v| matrix.chunks_exact(dim).map(|row| dot(row, v)).collect()).collect();
        for (value, (v, w)) in values.iter_mut().zip(vectors.iter().zip(&next)) {
            *value = dot(v, w);
        }
        orthonormalise(&mut next);
        let still = vectors.iter().zip(&next).take(2).all(|(v, w)| 1.0 - dot(v, w).abs() < STILL);
        vectors = next;
        if still {
            break;
        }
    }
    for vector in &mut vectors {
        let largest =
            vector.iter().copied().fold(0.0f64, |a, b| if b.abs() > a.abs() + 1e-12 { b } else { a });
        if largest < 0.0 {
            vector.iter_mut().for_each(|v| *v = -*v);
        }
    }
    (vectors, values)
}

/// Gram and Schmidt, twice over; what depends on those before it becomes 0.
fn orthonormalise(vectors: &mut [Vec<f64>]) {
    for i in 0..vectors.len() {
        let (before, rest) = vectors.split_at_mut(i);
        let vector = &mut rest[0];
        let length = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in before.iter() {
                let part = dot(vector, other);
                vector.iter_mut().zip(other).for_each(|(v, o)| *v -= part * o);
            }
        }
        let left = dot(vector, vector).sqrt();
        let scale = if left > 1e-12 * length && left > 0.0 { 1.0 / left } else { 0.0 };
        vector.iter_mut().for_each(|v| *v *= scale);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axes_are_those_of_an_ellipsoid() {
        // Along (3, 4, 0) / 5, along (-4, 3, 0) / 5 and along z, with deviations of 10, 5 and 1.
        let mut values = Vec::new();
        for i in 0..4000 {
            let angle = |k: f64| (f64::from(i) * k).sin() * 2f64.sqrt();
            let (a, b, c) = (10.0 * angle(0.7), 5.0 * angle(1.3), angle(2.9));
            values.extend([(0.6 * a - 0.8 * b) as f32 + 7.0, (0.8 * a + 0.6 * b) as f32, c as f32 - 1.0]);
        }
        let plane = plane(&values, 3);
        let [first, second] = plane.explained;
        assert!(
            (first - 100.0 / 126.0).abs() < 0.01 && (second - 25.0 / 126.0).abs() < 0.01,
            "{first} {second}"
        );
        let at = |i: usize, k: f64| (i as f64 * k).sin() * 2f64.sqrt();
        for i in [3, 500, 3999] {
            assert!((plane.at[i].0 - 10.0 * at(i, 0.7)).abs() < 0.3, "{:?}", plane.at[i]);
            assert!((plane.at[i].1.abs() - (5.0 * at(i, 1.3)).abs()).abs() < 0.3, "{:?}", plane.at[i]);
        }
    }

    #[test]
    fn odd_vectors_do_no_harm() {
        let plane_of = |values: &[f32], dim| plane(values, dim).at;
        assert_eq!(plane_of(&[], 4), []);
        assert_eq!(plane_of(&[1.0], 0), []);
        assert_eq!(plane_of(&[2.0, 2.0], 2), [(0.0, 0.0)]);
        let mixed = plane(&[1.0, 0.0, f32::NAN, 0.0, -1.0, 0.0], 2);
        assert!(mixed.at[1].0.is_nan() && (mixed.at[0].0 - 1.0).abs() < 1e-9, "{mixed:?}");
        assert_eq!(mixed.explained, [1.0, 0.0]);
    }
}
