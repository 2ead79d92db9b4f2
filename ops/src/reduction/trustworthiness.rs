//! How well a map keeps neighbourhoods.

use super::neighbours::distances_from;
use super::{ReductionError, for_rows, rows_of};

/// Trustworthiness of a map, up to 1: how few of the `k` nearest neighbours in the map are far apart in the vectors it
/// was made from (Venna and Kaski, "Local multidimensional scaling", Neural Networks 19, 2006). 0.5 or so for a map at random.
///
/// Both matrices have the same rows. Takes time with the square of their number.
///
/// # Errors
/// Less than `2 k + 1` rows, and values that are not finite.
pub fn trustworthiness(
    (vectors, columns): (&[f32], usize),
    (map, map_columns): (&[f32], usize),
    k: usize,
    threads: usize,
) -> Result<f64, ReductionError> {
    let rows = rows_of(vectors, columns, 2 * k.max(1) + 1)?;
    let map_rows = rows_of(map, map_columns, 2 * k.max(1) + 1)?;
    if rows != map_rows {
        return Err(ReductionError::TooFewRows(rows.min(map_rows), rows.max(map_rows)));
    }
    let mut excess = vec![0u64; rows];
    for_rows(threads, &mut excess, 1, |row, excess| {
        let order = |distances: Vec<f32>| -> Vec<usize> {
            let mut order: Vec<usize> = (0..rows).filter(|other| *other != row).collect();
            order.sort_by(|a, b| distances[*a].total_cmp(&distances[*b]));
            order
        };
        let mut rank = vec![0usize; rows];
        for (at, other) in order(distances_from(vectors, columns, row)).into_iter().enumerate() {
            rank[other] = at + 1;
        }
        let near = order(distances_from(map, map_columns, row));
        excess[0] = near.iter().take(k).map(|other| rank[*other].saturating_sub(k) as u64).sum();
    });
    let (n, k) = (rows as f64, k as f64);
    let worst = n * k * (2.0 * n - 3.0 * k - 1.0) / 2.0;
    Ok(1.0 - excess.iter().sum::<u64>() as f64 / worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_trusted_and_a_torn_line_is_not() {
        let line: Vec<f32> = (0..20).map(|i| i as f32 + 0.01 * (i * i) as f32).collect();
        assert_eq!(trustworthiness((&line, 1), (&line, 1), 3, 2).unwrap(), 1.0);
        // Values of scikit-learn 1.9.1, `sklearn.manifold.trustworthiness(line, torn, n_neighbors=3)`.
        let torn: Vec<f32> = (0..20).map(|i| ((i * 7) % 20) as f32 + 0.01 * i as f32).collect();
        let got = trustworthiness((&line, 1), (&torn, 1), 3, 1).unwrap();
        assert!((got - 0.614_444_444_444_444_5).abs() < 1e-12, "{got}");
        assert!(trustworthiness((&line, 1), (&torn, 1), 10, 1).is_err());
        assert!(trustworthiness((&line, 1), (&torn, 2), 3, 1).is_err());
    }
}
