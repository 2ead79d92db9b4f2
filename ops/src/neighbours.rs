//! Nearest neighbours by cosine: exact, block by block, ties by the order of the items.

use std::cmp::Ordering;

use crate::matrix::{View, product};

/// Queries and items whose similarities are computed together: 256 KB of them.
const QUERIES: usize = 64;
const ITEMS: usize = 1024;

/// Why there is no search.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NeighboursError {
    /// Slices disagree in length.
    #[error("{what}: {found} values where {expected} are needed")]
    Shape {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
    /// A vector holds NaN or infinity.
    #[error("the embedding of row {row} is not finite")]
    NotFinite {
        /// The row.
        row: usize,
    },
    /// Nothing to search, or nothing to search for.
    #[error("there are no {what}")]
    Empty {
        /// Queries or neighbours.
        what: &'static str,
    },
    /// More neighbours are asked for than there are.
    #[error(
        "{k} neighbours are asked for, and a query has {candidates} candidates (its own clip is left out)"
    )]
    TooFew {
        /// How many are asked for.
        k: usize,
        /// How many there are.
        candidates: usize,
    },
}

/// Vectors of length 1; those of length 0 stay 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    values: Vec<f32>,
    dim: usize,
}

impl Vectors {
    /// The rows of `values`, row-major (rows, `dim`), each divided by its length.
    ///
    /// # Errors
    /// [`NeighboursError::Shape`] when the values are no whole rows, [`NeighboursError::NotFinite`].
    pub fn normalised(mut values: Vec<f32>, dim: usize) -> Result<Self, NeighboursError> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(NeighboursError::Shape { what: "embeddings", found: values.len(), expected: dim });
        }
        for (row, vector) in values.chunks_exact_mut(dim).enumerate() {
            let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
            if !square.is_finite() {
                return Err(NeighboursError::NotFinite { row });
            }
            let scale = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
            vector.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        }
        Ok(Self { values, dim })
    }

    /// Spaces side by side, of equally many rows: a similarity is the mean of those in the spaces.
    ///
    /// # Errors
    /// [`NeighboursError::Shape`] when the numbers of rows differ.
    pub fn together(spaces: &[&Self]) -> Result<Self, NeighboursError> {
        let rows = spaces.first().map_or(0, |space| space.rows());
        let dim = spaces.iter().map(|space| space.dim).sum();
        let mut values = Vec::with_capacity(rows * dim);
        if let Some(other) = spaces.iter().find(|space| space.rows() != rows) {
            return Err(NeighboursError::Shape {
                what: "rows of a space",
                found: other.rows(),
                expected: rows,
            });
        }
        for row in 0..rows {
            spaces.iter().for_each(|space| values.extend_from_slice(space.row(row)));
        }
        Self::normalised(values, dim)
    }

    /// Number of vectors.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Values of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The vectors of a range of rows.
    ///
    /// # Panics
    /// If there are no such rows.
    #[must_use]
    pub fn part(&self, rows: std::ops::Range<usize>) -> Self {
        Self { values: self.values[rows.start * self.dim..rows.end * self.dim].to_vec(), dim: self.dim }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }
}

/// An item near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its row.
    pub item: usize,
    /// The cosine, -1 to 1.
    pub similarity: f32,
}

impl Neighbour {
    /// Nearer ones first, and of equally near ones the first item.
    fn order(&self, other: &Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.item.cmp(&other.item))
    }
}

/// The `k` nearest of `items` to each of `queries`, one query after the other, nearest first. `own` names the item that a
/// query must not find, if there is one. Memory grows with the answer alone.
///
/// # Errors
/// [`NeighboursError::Empty`] without queries or items, [`NeighboursError::TooFew`] when there are fewer than `k` candidates,
/// [`NeighboursError::Shape`] when dimensions or lengths differ.
pub fn nearest(
    queries: &Vectors,
    items: &Vectors,
    own: &[Option<usize>],
    k: usize,
) -> Result<Vec<Neighbour>, NeighboursError> {
    let (dim, count) = (items.dim, items.rows());
    if queries.dim != dim {
        let what = "values of a query's embedding";
        return Err(NeighboursError::Shape { what, found: queries.dim, expected: dim });
    }
    if own.len() != queries.rows() {
        let (found, expected) = (own.len(), queries.rows());
        return Err(NeighboursError::Shape { what: "own clips of queries", found, expected });
    }
    if queries.rows() == 0 {
        return Err(NeighboursError::Empty { what: "queries" });
    }
    if count == 0 {
        return Err(NeighboursError::Empty { what: "neighbours" });
    }
    let candidates = count - usize::from(own.iter().any(Option::is_some));
    if k > candidates || k == 0 {
        return Err(NeighboursError::TooFew { k, candidates });
    }
    let mut found = Vec::with_capacity(queries.rows() * k);
    let mut similarities = vec![0.0; QUERIES * ITEMS];
    for (block, own) in own.chunks(QUERIES).enumerate() {
        let first = block * QUERIES;
        let mut best: Vec<Vec<Neighbour>> = vec![Vec::with_capacity(k + 1); own.len()];
        for start in (0..count).step_by(ITEMS) {
            let width = ITEMS.min(count - start);
            let left = View::rows(&queries.values[first * dim..], dim);
            let right = View::transposed(&items.values[start * dim..], dim);
            product([own.len(), width, dim], &mut similarities, ITEMS, false, left, right);
            for (query, best) in best.iter_mut().enumerate() {
                let row = &similarities[query * ITEMS..query * ITEMS + width];
                for (i, similarity) in row.iter().enumerate() {
                    let candidate = Neighbour { item: start + i, similarity: *similarity };
                    let beaten = best.len() == k && best[k - 1].order(&candidate) == Ordering::Less;
                    if beaten || own[query] == Some(candidate.item) {
                        continue;
                    }
                    let at = best.partition_point(|other| other.order(&candidate) == Ordering::Less);
                    best.insert(at, candidate);
                    best.truncate(k);
                }
            }
        }
        found.extend(best.into_iter().flatten());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::rng::Key;

    use super::*;

    #[test]
    fn neighbours_are_those_of_a_plain_search() {
        let mut rng = Key::root(4).rng();
        let mut random = |rows: usize| -> Vec<f32> { (0..rows * 7).map(|_| rng.normal() as f32).collect() };
        let (queries, items) = (random(70), random(2500));
        let own: Vec<Option<usize>> = (0..70).map(|query| (query % 3 > 0).then_some(query * 30)).collect();
        let vectors = |values: &[f32]| Vectors::normalised(values.to_vec(), 7).unwrap();
        let found = nearest(&vectors(&queries), &vectors(&items), &own, 10).unwrap();
        assert_eq!(found.len(), 700);
        let part = nearest(&vectors(&queries).part(20..30), &vectors(&items), &own[20..30], 10).unwrap();
        assert_eq!(part, found[200..300]);
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        for (query, found) in found.chunks(10).enumerate() {
            let mut plain: Vec<(f64, usize)> = (0..2500)
                .filter(|item| own[query] != Some(*item))
                .map(|item| (cosine(&queries[query * 7..][..7], &items[item * 7..][..7]), item))
                .collect();
            plain.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            for (found, (similarity, item)) in found.iter().zip(&plain) {
                assert_eq!(found.item, *item);
                assert!((f64::from(found.similarity) - similarity).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn ties_go_to_the_first_item_wherever_blocks_end() {
        // The same vector 3000 times, over three blocks.
        let items = Vectors::normalised([0.6f32, 0.8].repeat(3000), 2).unwrap();
        let query = Vectors::normalised(vec![1.0, 0.5], 2).unwrap();
        let found = nearest(&query, &items, &[Some(1)], 1500).unwrap();
        let items: Vec<usize> = found.iter().map(|neighbour| neighbour.item).collect();
        assert_eq!(items, (0..1501).filter(|item| *item != 1).collect::<Vec<_>>());
    }

    #[test]
    fn a_space_of_spaces_has_their_mean_similarity() {
        let a = Vectors::normalised(vec![1.0, 0.0, 0.0, 5.0], 2).unwrap();
        let b = Vectors::normalised(vec![2.0, 2.0, 3.0, 0.0], 2).unwrap();
        let both = Vectors::together(&[&a, &b]).unwrap();
        let found = nearest(&both, &both, &[Some(0), Some(1)], 1).unwrap();
        assert!((found[0].similarity - 0.5 * 0.5f32.sqrt()).abs() < 1e-6, "{found:?}");
        assert_eq!(found[1].item, 0);
    }

    #[test]
    fn what_cannot_be_searched_is_told() {
        let two = Vectors::normalised(vec![1.0, 0.0, 0.0, 0.0], 2).unwrap();
        let none = Vectors::normalised(Vec::new(), 2).unwrap();
        let other = Vectors::normalised(vec![1.0; 3], 3).unwrap();
        assert_eq!(
            nearest(&two, &two, &[None, Some(0)], 2),
            Err(NeighboursError::TooFew { k: 2, candidates: 1 })
        );
        assert_eq!(nearest(&none, &two, &[], 1), Err(NeighboursError::Empty { what: "queries" }));
        assert_eq!(nearest(&two, &none, &[None; 2], 1), Err(NeighboursError::Empty { what: "neighbours" }));
        assert!(matches!(nearest(&other, &two, &[None], 1), Err(NeighboursError::Shape { .. })));
        assert_eq!(Vectors::normalised(vec![1.0, f32::NAN], 1), Err(NeighboursError::NotFinite { row: 1 }));
    }
}
