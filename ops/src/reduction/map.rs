//! Maps of the plane: t-SNE.

use barnes_hut_tree::BarnesHutTree;

use super::neighbours::nearest;
use super::{Pca, ReductionError, for_rows, pca, rows_of};
use crate::rng::Key;

/// The most rows of a map: the neighbours of 100,000 rows take minutes.
pub const MAX_MAP_ROWS: usize = 100_000;

/// Components that neighbours are found in.
const COMPONENTS: usize = 50;
/// Up to as many rows all pairs repel each other one by one.
const EXACT_ROWS: usize = 500;
/// A cell of points acts as one when half its width over its distance is less.
const THETA: f64 = 0.25;
const EXAGGERATION: f64 = 12.0;
/// Steps with exaggeration and small momentum, and steps after them.
const EARLY_STEPS: usize = 250;
const STEPS: usize = 500;
const MOMENTUM: [f64; 2] = [0.5, 0.8];
/// The standard deviation of the first coordinate at the start, and of what the seed adds to both.
const START: f64 = 1e-4;
const JITTER: f64 = 1e-6;

/// How a map is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MapOptions {
    /// Maps of one seed are equal; another seed starts a little beside.
    pub seed: u64,
    /// About how many neighbours a point has; less where there are less than three times as many rows.
    pub perplexity: f64,
    /// Threads to work on.
    pub threads: usize,
}

impl Default for MapOptions {
    /// Seed 0, perplexity 30, one thread.
    fn default() -> Self {
        Self { seed: 0, perplexity: 30.0, threads: 1 }
    }
}

/// A map of the rows of `values`, `columns` each, by t-SNE: points that lie near each other in the map lie near each
/// other; distances between groups mean little.
///
/// van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 9, 2008, with the approximation by Barnes and Hut
/// of van der Maaten, JMLR 15, 2014, above 500 rows. Rows of more than 50 columns are reduced to their first 50
/// principal components. The start is the first two components, as advised by Kobak and Berens, "The art of using t-SNE
/// for single-cell transcriptomics", Nature Communications 10, 2019, plus a little noise by the seed; 250 steps
/// with exaggeration 12, then 500 without. Equal input and seed give equal maps on any number of threads.
///
/// # Errors
/// Less than 4 or more than [`MAX_MAP_ROWS`] rows, and values that are not finite.
pub fn map(values: &[f32], columns: usize, options: &MapOptions) -> Result<Vec<[f64; 2]>, ReductionError> {
    let rows = rows_of(values, columns, 4)?;
    if rows > MAX_MAP_ROWS {
        return Err(ReductionError::TooManyRows(rows, MAX_MAP_ROWS));
    }
    let threads = options.threads.max(1);
    let first = pca(values, columns, COMPONENTS.min(columns).min(rows), threads)?;
    let (scores, width) = (first.scores(values, threads), first.variances.len());
    let affinities = Affinities::new(&scores, width, options.perplexity, threads);
    let mut points = start(&first, &scores, options.seed);
    descend(&affinities, &mut points, threads);
    Ok(points)
}

/// The first two components, small, and a little noise.
fn start(pca: &Pca, scores: &[f32], seed: u64) -> Vec<[f64; 2]> {
    let width = pca.variances.len();
    let spread = pca.variances.first().map_or(0.0, |variance| variance.sqrt());
    let scale = if spread > 0.0 { START / spread } else { 0.0 };
    let mut rng = Key::root(seed).with_str("map").rng();
    let at = |row: &[f32], i: usize| row.get(i).map_or(0.0, |score| f64::from(*score) * scale);
    scores.chunks_exact(width).map(|row| [0, 1].map(|i| at(row, i) + JITTER * rng.normal())).collect()
}

/// How much each point is drawn to its neighbours: symmetric, with sum 1.
struct Affinities {
    /// Where the neighbours of each point begin, and the end.
    rows: Vec<usize>,
    neighbours: Vec<(u32, f64)>,
}

impl Affinities {
    fn new(values: &[f32], columns: usize, perplexity: f64, threads: usize) -> Self {
        let n = values.len() / columns;
        let perplexity = perplexity.max(1.0).min((n - 1) as f64 / 3.0).max(1.0);
        let count = ((3.0 * perplexity) as usize).clamp(1, n - 1);
        let near = nearest(values, columns, count, threads);
        let mut given = vec![0.0; n * count];
        for_rows(threads, &mut given, count, |row, out| {
            let squares = near[row * count..(row + 1) * count].iter().map(|(_, square)| f64::from(*square));
            conditional(&squares.collect::<Vec<_>>(), perplexity, out);
        });
        // Each pair both ways; then the two ways of a pair are next to each other.
        let scale = 1.0 / (2 * n) as f64;
        let mut pairs = Vec::with_capacity(2 * n * count);
        for (at, ((other, _), p)) in near.iter().zip(&given).enumerate() {
            let row = (at / count) as u32;
            pairs.push((row, *other, p * scale));
            pairs.push((*other, row, p * scale));
        }
        pairs.sort_by_key(|(a, b, _)| (*a, *b));
        let mut affinities = Self { rows: vec![0; n + 1], neighbours: Vec::with_capacity(pairs.len()) };
        let mut last = None;
        for (row, other, p) in pairs {
            match affinities.neighbours.last_mut() {
                Some((_, sum)) if last == Some((row, other)) => *sum += p,
                _ => affinities.neighbours.push((other, p)),
            }
            last = Some((row, other));
            affinities.rows[row as usize + 1] = affinities.neighbours.len();
        }
        affinities
    }

    fn of(&self, row: usize) -> &[(u32, f64)] {
        &self.neighbours[self.rows[row]..self.rows[row + 1]]
    }
}

/// Gaussian weights of neighbours at these squared distances, with sum 1, of a width such that their entropy is the
/// logarithm of `perplexity`.
fn conditional(squares: &[f64], perplexity: f64, out: &mut [f64]) {
    let nearest = squares.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = squares.iter().map(|square| square - nearest).sum::<f64>() / squares.len().max(1) as f64;
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut beta = if mean > 0.0 { 1.0 / mean } else { 1.0 };
    for _ in 0..100 {
        let (mut sum, mut moment) = (0.0, 0.0);
        for (weight, square) in out.iter_mut().zip(squares) {
            let excess = square - nearest;
            *weight = (-beta * excess).exp();
            sum += *weight;
            moment += *weight * excess;
        }
        out.iter_mut().for_each(|weight| *weight /= sum);
        let surplus = sum.ln() + beta * moment / sum - perplexity.ln();
        if surplus.abs() < 1e-5 {
            break;
        }
        if surplus > 0.0 {
            low = beta
        } else {
            high = beta
        };
        beta = if high.is_finite() { f64::midpoint(low, high) } else { 2.0 * beta };
        if !beta.is_normal() {
            break;
        }
    }
}

/// Moves the points downhill.
fn descend(affinities: &Affinities, points: &mut Vec<[f64; 2]>, threads: usize) {
    let n = points.len();
    let rate = (n as f64 / EXAGGERATION / 4.0).max(50.0);
    let (mut speed, mut gains) = (vec![[0.0; 2]; n], vec![[1.0f64; 2]; n]);
    let mut forces = vec![Force::default(); n];
    let mut repulsion = Repulsion::new(n);
    for step in 0..EARLY_STEPS + STEPS {
        let early = step < EARLY_STEPS;
        let exaggeration = if early { EXAGGERATION } else { 1.0 };
        let momentum = MOMENTUM[usize::from(!early)];
        repulsion.rebuild(points);
        for_rows(threads, &mut forces, 1, |row, force| {
            force[0] = Force::on(row, points, affinities, &repulsion);
        });
        let total: f64 = forces.iter().map(|force| force.total).sum();
        let mut centre = [0.0; 2];
        for (((point, speed), gains), force) in points.iter_mut().zip(&mut speed).zip(&mut gains).zip(&forces)
        {
            for axis in 0..2 {
                let apart = force.apart[axis] / total.max(f64::MIN_POSITIVE);
                let slope = 4.0 * (exaggeration * force.together[axis] - apart);
                let gain = if slope * speed[axis] < 0.0 { gains[axis] + 0.2 } else { gains[axis] * 0.8 };
                gains[axis] = gain.max(0.01);
                speed[axis] = momentum * speed[axis] - rate * gains[axis] * slope;
                point[axis] += speed[axis];
                centre[axis] += point[axis] / n as f64;
            }
        }
        points.iter_mut().for_each(|point| (0..2).for_each(|axis| point[axis] -= centre[axis]));
    }
}

/// What acts on one point.
#[derive(Debug, Clone, Copy, Default)]
struct Force {
    together: [f64; 2],
    apart: [f64; 2],
    /// The sum of the weights of all others.
    total: f64,
}

impl Force {
    fn on(row: usize, points: &[[f64; 2]], affinities: &Affinities, repulsion: &Repulsion) -> Self {
        let here = points[row];
        let mut force = Self::default();
        for (other, p) in affinities.of(row) {
            let delta = difference(here, points[*other as usize]);
            let weight = p / (1.0 + delta[0] * delta[0] + delta[1] * delta[1]);
            (0..2).for_each(|axis| force.together[axis] += weight * delta[axis]);
        }
        match &repulsion.tree {
            None => {
                for (other, there) in points.iter().enumerate() {
                    if other != row {
                        let delta = difference(here, *there);
                        force.push(1.0, delta);
                    }
                }
            }
            Some(tree) => {
                let mut stack = <barnes_hut_tree::Dim<2> as barnes_hut_tree::Morton<2>>::empty_stack();
                let flat = points.as_flattened();
                tree.compute_non_edge_forces(
                    row,
                    THETA * THETA,
                    flat,
                    &mut force.apart,
                    &mut force.total,
                    stack.as_mut(),
                );
            }
        }
        force
    }

    /// Pushed by `mass` points `delta` away.
    fn push(&mut self, mass: f64, delta: [f64; 2]) {
        let weight = 1.0 / (1.0 + delta[0] * delta[0] + delta[1] * delta[1]);
        self.total += mass * weight;
        (0..2).for_each(|axis| self.apart[axis] += mass * weight * weight * delta[axis]);
    }
}

fn difference(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

/// Repulsion of all points, as a tree where there are many.
struct Repulsion {
    tree: Option<BarnesHutTree<f64, u64, 2>>,
}

impl Repulsion {
    fn new(points: usize) -> Self {
        Self { tree: (points > EXACT_ROWS).then(BarnesHutTree::empty) }
    }

    fn rebuild(&mut self, points: &[[f64; 2]]) {
        if let Some(tree) = &mut self.tree {
            tree.rebuild_uniform(points.as_flattened());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduction::trustworthiness;

    /// Six clouds in twenty dimensions.
    fn clouds(rows: usize) -> Vec<f32> {
        let noise = |i: usize, j: usize| {
            ((i as f64 * 12.9898 + j as f64 * 78.233).sin() * 43_758.545_3).rem_euclid(1.0)
        };
        let value =
            |i: usize, j: usize| 3.0 * noise(i % 6 + 7_000, j) + 2.0 * (noise(i, j) + noise(j, i) - 1.0);
        (0..rows * 20).map(|at| value(at / 20, at % 20) as f32).collect()
    }

    fn flat(points: &[[f64; 2]]) -> Vec<f32> {
        points.as_flattened().iter().map(|x| *x as f32).collect()
    }

    /// Against scikit-learn 1.9.1 on the same data, `sql/tests/oracle/reduction.py`: as trustworthy but for 0.005.
    #[test]
    fn neighbours_stay_neighbours_and_groups_stay_together() {
        for (rows, sklearn) in [(300, 0.9733), (900, 0.9659)] {
            let values = clouds(rows);
            let points = map(&values, 20, &MapOptions { threads: 2, ..MapOptions::default() }).unwrap();
            let map = flat(&points);
            let trust = trustworthiness((&values, 20), (&map, 2), 10, 2).unwrap();
            assert!(trust > sklearn - 0.005, "{rows}: {trust}");
            let near = nearest(&map, 2, 1, 1);
            let same = near.iter().enumerate().filter(|(i, (j, _))| i % 6 == *j as usize % 6).count();
            assert!(same as f64 > 0.97 * rows as f64, "{same} of {rows}");
        }
    }

    #[test]
    fn a_map_depends_on_its_seed_and_on_nothing_else() {
        for rows in [60, 700] {
            let values = clouds(rows);
            let of = |seed, threads| map(&values, 20, &MapOptions { seed, threads, ..MapOptions::default() });
            let one = of(5, 1).unwrap();
            assert_eq!(one, of(5, 3).unwrap());
            assert_ne!(one, of(6, 1).unwrap());
        }
    }

    #[test]
    fn weights_have_the_entropy_that_is_asked_for() {
        let squares: Vec<f64> = (0..90).map(|i| 0.3 + f64::from(i).powi(2) / 50.0).collect();
        let mut weights = vec![0.0; 90];
        conditional(&squares, 30.0, &mut weights);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let entropy: f64 = weights.iter().map(|w| -w * w.max(1e-300).ln()).sum();
        assert!((entropy.exp() - 30.0).abs() < 1e-3, "{}", entropy.exp());
        conditional(&[2.0; 5], 3.0, &mut weights[..5]);
        assert_eq!(weights[..5], [0.2; 5], "all as near");
    }

    #[test]
    fn odd_input_gives_a_map_or_an_error() {
        let options = MapOptions::default();
        for values in [vec![1.0; 40], vec![0.0; 10], (0..12).map(|i| (i / 3) as f32).collect()] {
            let points = map(&values, 2, &options).unwrap();
            assert!(points.as_flattened().iter().all(|x| x.is_finite()), "{values:?}");
        }
        assert_eq!(map(&[1.0; 6], 2, &options).unwrap_err(), ReductionError::TooFewRows(3, 4));
        assert_eq!(map(&[f32::INFINITY; 8], 2, &options).unwrap_err(), ReductionError::NotFinite(0));
        let many = vec![0.0; MAX_MAP_ROWS + 1];
        assert!(matches!(map(&many, 1, &options), Err(ReductionError::TooManyRows(..))));
    }
}
