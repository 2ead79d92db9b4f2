//! Rows in cells: an inverted file over the means of k-means (Jegou, Douze and Schmid, "Product quantization for nearest
//! neighbor search", IEEE TPAMI 33(1), 2011, section IV, without the codes: rows are compared as they are).

use std::sync::Mutex;
use std::thread;

use crate::matrix::{View, product};
use crate::rng::Key;

/// Rows whose products with all means are taken together. Fixed, so that a product does not depend on the threads.
const BLOCK: usize = 128;
/// Rows of the sample for each mean.
const TRAINING: usize = 32;
/// Steps of Lloyd's algorithm.
const STEPS: usize = 10;
/// Cells that a query is expected to look into, before it is measured.
const PROBES: usize = 16;

/// Which cells are near a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// Those whose mean has the least Euclidean distance.
    Distance,
    /// Those whose mean has the largest inner product.
    Product,
}

/// Rows apart by the mean that is nearest to them.
#[derive(Clone, Debug)]
pub struct Cells {
    dim: usize,
    means: Vec<f32>,
    /// Half the squared norm of each mean.
    halves: Vec<f32>,
    members: Vec<Vec<u32>>,
}

impl Cells {
    /// Parts rows into at most `count` cells, none of them empty. `read` appends the `dim` values of a row, which must be
    /// finite, with squares in the range of `f32`. The means are those of Lloyd's algorithm (IEEE Transactions on
    /// Information Theory 28(2), 1982) on a sample of the rows, from rows drawn by `key`. The threads change nothing.
    ///
    /// # Panics
    /// When `read` gives another number of values: a fault of the caller, never of its data.
    pub fn new(
        rows: u32,
        dim: usize,
        count: usize,
        key: Key,
        threads: usize,
        read: impl Fn(u32, &mut Vec<f32>) + Sync,
    ) -> Self {
        let mut rng = key.rng();
        let mut sample = Vec::new();
        rng.subset(rows as usize, count.saturating_mul(TRAINING))
            .into_iter()
            .for_each(|row| read(row as u32, &mut sample));
        let sampled = sample.len().checked_div(dim).unwrap_or(0);
        let mut cells = Self { dim, means: Vec::new(), halves: Vec::new(), members: Vec::new() };
        for row in rng.subset(sampled, count) {
            cells.means.extend_from_slice(&sample[row * dim..(row + 1) * dim]);
        }
        cells.measure();
        let mut before = Vec::new();
        for _ in 0..STEPS {
            let nearest = cells.nearest_means(sampled, threads, |row, values| {
                values.extend_from_slice(&sample[row * dim..(row + 1) * dim]);
            });
            if nearest == before {
                break;
            }
            cells.move_means(&sample, &nearest);
            before = nearest;
        }
        let nearest = cells.nearest_means(rows as usize, threads, |row, values| read(row as u32, values));
        cells.take_members(&nearest);
        cells
    }

    /// Number of cells.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The rows of a cell, ascending; none of a cell that is not there.
    pub fn members(&self, cell: usize) -> &[u32] {
        self.members.get(cell).map(Vec::as_slice).unwrap_or_default()
    }

    /// The `count` nearest cells of each query, nearest first: as many numbers for each as there are cells, at most
    /// `count`. Of cells as near as each other the first counts. Queries are rows of `dim` values, row-major.
    pub fn nearest(&self, near: Near, queries: &[f32], count: usize, threads: usize) -> Vec<u32> {
        let width = count.min(self.count());
        let rows = queries.len().checked_div(self.dim).unwrap_or(0);
        let mut found = vec![0; rows * width];
        for_blocks(&mut found, width, threads, |first, found| {
            let count = found.len() / width;
            let mut scores = Vec::new();
            self.scores(near, &queries[first * self.dim..(first + count) * self.dim], &mut scores);
            let mut order: Vec<u64> = Vec::with_capacity(self.count());
            for (found, scores) in found.chunks_exact_mut(width).zip(scores.chunks_exact(self.count())) {
                order.clear();
                order.extend((0..).zip(scores).map(|(cell, score)| descending(*score) << 32 | cell));
                if width < order.len() {
                    order.select_nth_unstable(width - 1);
                    order.truncate(width);
                }
                order.sort_unstable();
                found.iter_mut().zip(&order).for_each(|(found, key)| *found = *key as u32);
            }
        });
        found
    }

    /// Scores of rows with every mean, of which more is nearer.
    fn scores(&self, near: Near, rows: &[f32], scores: &mut Vec<f32>) {
        let (count, means) = (rows.len() / self.dim, self.halves.len());
        scores.resize(count * means, 0.0);
        let (rows, columns) = (View::rows(rows, self.dim), View::transposed(&self.means, self.dim));
        product([count, means, self.dim], scores, means, false, rows, columns);
        if near == Near::Distance {
            for scores in scores.chunks_exact_mut(means) {
                scores.iter_mut().zip(&self.halves).for_each(|(score, half)| *score -= half);
            }
        }
    }

    /// The nearest mean of each row; the first of those as near as each other.
    fn nearest_means(
        &self,
        rows: usize,
        threads: usize,
        read: impl Fn(usize, &mut Vec<f32>) + Sync,
    ) -> Vec<u32> {
        let mut found = vec![0; if self.halves.is_empty() { 0 } else { rows }];
        for_blocks(&mut found, 1, threads, |first, found| {
            let (mut values, mut scores) = (Vec::new(), Vec::new());
            (first..first + found.len()).for_each(|row| read(row, &mut values));
            assert!(values.len() == found.len() * self.dim, "a row has another length");
            self.scores(Near::Distance, &values, &mut scores);
            for (found, scores) in found.iter_mut().zip(scores.chunks_exact(self.halves.len())) {
                *found = first_largest(scores);
            }
        });
        found
    }

    /// Moves each mean to the middle of its rows; one without rows stays.
    fn move_means(&mut self, rows: &[f32], nearest: &[u32]) {
        let mut sums = vec![0.0f64; self.means.len()];
        let mut counts = vec![0u32; self.halves.len()];
        for (row, mean) in rows.chunks_exact(self.dim).zip(nearest) {
            let mean = *mean as usize;
            counts[mean] += 1;
            let sums = &mut sums[mean * self.dim..(mean + 1) * self.dim];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let means = self.means.chunks_exact_mut(self.dim).zip(sums.chunks_exact(self.dim)).zip(counts);
        for ((mean, sums), count) in means.filter(|(_, count)| *count > 0) {
            mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean = (sum / f64::from(count)) as f32);
        }
        self.measure();
    }

    fn measure(&mut self) {
        let means = self.means.chunks_exact(self.dim.max(1));
        self.halves = means.map(|mean| 0.5 * mean.iter().map(|value| value * value).sum::<f32>()).collect();
    }

    /// Gives the rows to their means, and drops those that get none.
    fn take_members(&mut self, nearest: &[u32]) {
        let mut members = vec![Vec::new(); self.halves.len()];
        (0..).zip(nearest).for_each(|(row, mean)| members[*mean as usize].push(row));
        let means = self.means.chunks_exact(self.dim.max(1)).zip(&members);
        self.means =
            means.filter(|(_, members)| !members.is_empty()).flat_map(|(mean, _)| mean).copied().collect();
        members.retain(|members| !members.is_empty());
        self.members = members;
        self.measure();
    }
}

/// The number of cells, a power of two, with which a search for `queries` among `rows` takes the fewest inner products:
/// those of the training, of the rows with the means, of the queries with the means, and of the queries with the rows of
/// 16 cells. `None` where looking at all rows takes less than twice as many.
pub fn cells_for(queries: usize, rows: usize) -> Option<usize> {
    let (queries, rows) = (queries as f64, rows as f64);
    let cost = |cells: f64| {
        let training = (STEPS * TRAINING) as f64 * cells * cells;
        training + (queries + rows) * cells + queries * PROBES as f64 * rows / cells
    };
    let (cells, least) = (5..20)
        .map(|power| (1usize << power, cost(f64::from(1 << power))))
        .min_by(|a, b| a.1.total_cmp(&b.1))?;
    (2.0 * least < queries * rows).then_some(cells)
}

/// The least number of cells to look into so that at least the share `recall` of what is to be found is found, and how
/// much of it that is. `ranks` says of each thing to be found how many cells are nearer than its own, and is reordered.
/// `None` when there is nothing to be found.
pub fn least_probes(ranks: &mut [u32], recall: f64) -> Option<(usize, usize)> {
    let wanted = (recall * ranks.len() as f64).ceil() as usize;
    ranks.sort_unstable();
    let last = *ranks.get(wanted.clamp(1, ranks.len().max(1)) - 1)?;
    Some((last as usize + 1, ranks.partition_point(|rank| *rank <= last)))
}

/// A number that is less for a larger score.
fn descending(score: f32) -> u64 {
    let bits = score.to_bits();
    // The order of the bits is that of positive numbers and the reverse of that of negative ones.
    u64::from(if bits >> 31 == 0 { !bits & 0x7fff_ffff } else { bits })
}

/// The place of the first of the largest values.
fn first_largest(values: &[f32]) -> u32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let larger = |lane: &mut f32, value: f32| *lane = if value > *lane { value } else { *lane };
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| larger(lane, *value));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, value)| larger(lane, *value));
    let largest = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    values.iter().position(|value| *value == largest).unwrap_or(0) as u32
}

/// Calls `each` with the first row and the part of `out` (`width` values a row) of every block of rows, on so many threads.
fn for_blocks(out: &mut [u32], width: usize, threads: usize, each: impl Fn(usize, &mut [u32]) + Sync) {
    if out.is_empty() {
        return;
    }
    let threads = threads.clamp(1, out.len().div_ceil(BLOCK * width));
    let blocks = Mutex::new(out.chunks_mut(BLOCK * width).enumerate());
    let run = || {
        while let Some((index, block)) = blocks.lock().ok().and_then(|mut blocks| blocks.next()) {
            each(index * BLOCK, block);
        }
    };
    if threads == 1 {
        return run();
    }
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows about `centres` random centres.
    fn clustered(rows: usize, dim: usize, centres: usize, seed: u64) -> Vec<f32> {
        let mut rng = Key::root(seed).rng();
        let means: Vec<f32> = (0..centres * dim).map(|_| 4.0 * rng.normal() as f32).collect();
        let mut values = Vec::with_capacity(rows * dim);
        for _ in 0..rows {
            let centre = rng.below(centres);
            values.extend(means[centre * dim..][..dim].iter().map(|mean| mean + rng.normal() as f32));
        }
        values
    }

    fn cells(values: &[f32], dim: usize, count: usize, threads: usize) -> Cells {
        let rows = (values.len() / dim) as u32;
        Cells::new(rows, dim, count, Key::root(1), threads, |row, out| {
            out.extend_from_slice(&values[row as usize * dim..][..dim]);
        })
    }

    fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }

    #[test]
    fn rows_are_in_the_cell_of_their_nearest_mean_whatever_the_threads() {
        let (dim, values) = (7, clustered(1500, 7, 12, 1));
        let apart = cells(&values, dim, 32, 1);
        let mut seen = vec![0; 1500];
        for cell in 0..apart.count() {
            assert!(!apart.members(cell).is_empty() && apart.members(cell).is_sorted());
            for row in apart.members(cell) {
                seen[*row as usize] += 1;
                let row = &values[*row as usize * dim..][..dim];
                let to = |cell: usize| squared_distance(row, &apart.means[cell * dim..][..dim]);
                assert!((0..apart.count()).all(|other| to(cell) <= to(other) + 1e-3));
            }
        }
        assert_eq!(seen, vec![1; 1500]);
        let spread: f64 = (0..apart.count())
            .flat_map(|cell| apart.members(cell).iter().map(move |row| (cell, *row as usize)))
            .map(|(cell, row)| {
                squared_distance(&values[row * dim..][..dim], &apart.means[cell * dim..][..dim])
            })
            .sum();
        // With the true centres a row is 7 from its own, on average; with more means it is nearer.
        assert!(spread < 7.0 * 1500.0, "{spread}");
        for threads in [2, 5] {
            let other = cells(&values, dim, 32, threads);
            assert_eq!((&other.means, &other.members), (&apart.means, &apart.members));
            for near in [Near::Distance, Near::Product] {
                let queries = &values[..300 * dim];
                assert_eq!(other.nearest(near, queries, 5, threads), apart.nearest(near, queries, 5, 1));
            }
        }
    }

    #[test]
    fn the_nearest_cells_come_in_their_order() {
        let (dim, values) = (5, clustered(900, 5, 20, 2));
        let apart = cells(&values, dim, 32, 2);
        for (near, score) in [
            (Near::Distance, (|a, b| -squared_distance(a, b)) as fn(&[f32], &[f32]) -> f64),
            (Near::Product, |a, b| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()),
        ] {
            let found = apart.nearest(near, &values, 6, 2);
            let all = apart.nearest(near, &values, usize::MAX, 2);
            let rows =
                values.chunks_exact(dim).zip(found.chunks_exact(6)).zip(all.chunks_exact(apart.count()));
            for ((row, found), all) in rows {
                assert_eq!(found, &all[..6]);
                let score = |cell: &u32| score(row, &apart.means[*cell as usize * dim..][..dim]);
                assert!(all.windows(2).all(|pair| score(&pair[0]) > score(&pair[1]) - 1e-3));
            }
        }
    }

    #[test]
    fn degenerate_rows_make_few_cells() {
        let equal = cells(&[0.5; 3 * 400], 3, 16, 2);
        assert_eq!((equal.count(), equal.members(0).len()), (1, 400));
        let few = cells(&[1.0, 2.0, 3.0], 1, 64, 2);
        assert_eq!((few.count(), few.members(1)), (3, [1].as_slice()));
        let none = cells(&[], 4, 8, 2);
        assert_eq!((none.count(), none.members(0)), (0, [].as_slice()));
        assert!(none.nearest(Near::Distance, &[1.0; 8], 3, 2).is_empty());
        let two: Vec<f32> = (0..600).map(|row| if row % 3 == 0 { -1.0 } else { 1.0 }).collect();
        assert_eq!(cells(&two, 1, 8, 2).count(), 2);
    }

    #[test]
    fn scores_sort_from_the_largest() {
        let scores = [f32::INFINITY, 3.0, 1e-40, 0.0, -0.0, -1e-40, -2.0, f32::NEG_INFINITY];
        assert!(scores.map(descending).is_sorted());
        assert_eq!(first_largest(&[1.0, 4.0, -2.0, 4.0]), 1);
        let long: Vec<f32> = (0..100).map(|value| -((value - 61) as f32).powi(2)).collect();
        assert_eq!(first_largest(&long), 61);
    }

    #[test]
    fn probes_are_the_least_that_find_enough() {
        let ranks = [0, 0, 0, 0, 1, 1, 2, 5, 5, 9];
        for (recall, probes, found) in [
            (1e-9, 1, 4),
            (0.4, 1, 4),
            (0.41, 2, 6),
            (0.7, 3, 7),
            (0.75, 6, 9),
            (0.95, 10, 10),
            (1.0, 10, 10),
        ] {
            assert_eq!(least_probes(&mut ranks.clone(), recall), Some((probes, found)), "{recall}");
        }
        assert_eq!(least_probes(&mut [], 0.5), None);
    }

    #[test]
    fn cells_are_worth_it_for_large_joins_only() {
        assert_eq!(cells_for(100_000, 100_000), Some(512));
        for (queries, rows) in [(0, 0), (1, 1_000_000), (100, 100_000), (1000, 1000), (100_000, 20)] {
            assert_eq!(cells_for(queries, rows), None, "{queries} {rows}");
        }
    }
}
