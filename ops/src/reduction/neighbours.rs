//! Nearest neighbours by looking at all pairs.

use super::for_rows;

/// The `count` nearest other rows of every row, by ascending number, with the squares of their Euclidean distances. Of
/// rows as near as each other the first counts.
pub(super) fn nearest(values: &[f32], columns: usize, count: usize, threads: usize) -> Vec<(u32, f32)> {
    let rows = values.len() / columns;
    let mut found = vec![(0u32, 0.0f32); rows * count];
    for_rows(threads, &mut found, count, |row, found| {
        let distances = distances_from(values, columns, row);
        let mut order: Vec<(u32, f32)> =
            (0u32..).zip(distances).filter(|(other, _)| *other as usize != row).collect();
        let nearer = |a: &(u32, f32), b: &(u32, f32)| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0));
        if count < order.len() {
            order.select_nth_unstable_by(count, nearer);
        }
        order.truncate(count);
        order.sort_unstable_by_key(|(other, _)| *other);
        found.copy_from_slice(&order);
    });
    found
}

/// The squares of the distances from a row to all rows.
pub(super) fn distances_from(values: &[f32], columns: usize, row: usize) -> Vec<f32> {
    let from = &values[row * columns..(row + 1) * columns];
    values.chunks_exact(columns).map(|other| squared_distance(from, other)).collect()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += (a - b) * (a - b);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_on_a_line() {
        let line = [0.0f32, 1.0, 3.0, 3.5, 9.0, 1.0];
        let got = nearest(&line, 1, 2, 2);
        let row = |i: usize| [got[2 * i], got[2 * i + 1]];
        assert_eq!(row(0), [(1, 1.0), (5, 1.0)]);
        assert_eq!(row(1), [(0, 1.0), (5, 0.0)]);
        assert_eq!(row(2), [(1, 4.0), (3, 0.25)], "rows 1 and 5 are as near: the first");
        assert_eq!(row(4), [(2, 36.0), (3, 30.25)]);
        assert_eq!(nearest(&[1.0, 2.0], 1, 1, 8), [(1, 1.0), (0, 1.0)]);
    }
}
