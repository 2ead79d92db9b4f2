//! What one thread of a search does: blocks of items against queries.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::ArrowPrimitiveType;
use datafusion::common::Result;
use loev_ops::search::{Items, Measure, Queries, candidates, rounding, scan};

use super::index::Index;
use super::join::Join;
use super::metric::{Metric, in_range};
use super::top::{Key, Top};
use super::vectors::{Place, Slices, Vectors};
use crate::functions::kernels::Real;

/// Items whose products with all queries are taken before the next: as many as stay in a core's cache.
pub(super) const BLOCK: usize = 256;

pub(super) struct Work<'a, T: ArrowPrimitiveType> {
    join: &'a Join<'a>,
    dim: usize,
    /// Each query's row, vector and norm.
    queries: Vec<(usize, &'a [T::Native], f32)>,
    /// The queries' values one after the other; of metrics that ask for products only, those of directions.
    packed: Vec<f32>,
    items: Slices<'a, T>,
    groups: Option<&'a [Option<u32>]>,
}

impl<'a, T: ArrowPrimitiveType> Work<'a, T>
where
    T::Native: Real,
{
    pub(super) fn new(
        join: &'a Join<'a>,
        queries: &'a Vectors,
        groups: Option<&'a [Option<u32>]>,
    ) -> Result<Self> {
        let vectors = queries.slices::<T>()?;
        let queries: Vec<_> =
            queries.rows.iter().map(|(place, square)| (place.1, vectors.at(*place), square.sqrt())).collect();
        let dim = join.items.dim.unwrap_or(0);
        let mut packed = Vec::with_capacity(queries.len() * dim);
        for (_, vector, norm) in &queries {
            let scale = if matches!(join.metric, Metric::L1 | Metric::L2) { 1.0 } else { 1.0 / norm };
            packed.extend(vector.iter().map(|value| single(*value) * scale));
        }
        Ok(Self { join, dim, queries, packed, items: join.items.slices()?, groups })
    }

    /// The queries' values, row by row.
    pub(super) fn packed(&self) -> &[f32] {
        &self.packed
    }

    /// How many blocks of items there are.
    pub(super) fn blocks(&self) -> usize {
        self.join.items.rows.len().div_ceil(BLOCK)
    }

    /// Whether products tell a query's distances.
    pub(super) fn is_usable(&self, query: usize) -> bool {
        self.queries.get(query).is_some_and(|(_, _, norm)| usable(self.join.metric, norm * norm))
    }

    /// Compares all queries with blocks of items, until there are no more.
    pub(super) fn look_at_all(&self, next: &AtomicUsize, tops: &mut [Top<Place>]) {
        let by_products = self.join.metric != Metric::L1 && self.dim > 0;
        let queries = Queries::new(if by_products { &self.packed } else { &[] }, self.dim);
        let mut limits: Vec<f32> = tops.iter().map(|_| f32::NAN).collect();
        let (mut items, mut block) = (Items::default(), Block::default());
        loop {
            let start = next.fetch_add(1, Ordering::Relaxed) * BLOCK;
            let numbers = start..(start + BLOCK).min(self.join.items.rows.len());
            if numbers.is_empty() {
                return;
            }
            let mut visit = |query: usize, item: usize| -> f32 {
                self.visit(tops, query, start + item);
                self.limit(tops, query)
            };
            if by_products {
                block.fill(self.join, self.dim, &self.items, numbers, &mut items);
                candidates(&queries, &items, &mut limits, &mut visit);
            } else {
                let count = numbers.len();
                block.read(self.join, self.dim, &self.items, numbers);
                self.look_at_sums(&block.values, count, &mut limits, visit);
            }
        }
    }

    /// Compares all queries with items by sums of absolute differences.
    fn look_at_sums(
        &self,
        values: &[f32],
        count: usize,
        limits: &mut [f32],
        mut visit: impl FnMut(usize, usize) -> f32,
    ) {
        for (query, limit) in limits.iter_mut().enumerate() {
            let vector = self.packed.get(query * self.dim..(query + 1) * self.dim).unwrap_or_default();
            let rows =
                (0..count).map(|row| values.get(row * self.dim..(row + 1) * self.dim).unwrap_or_default());
            scan(Measure::AbsoluteDistance, vector, rows, |row, distance, _| {
                let (value, error) = Metric::L1.approximate(1.0, rounding(self.dim), distance, 0.0);
                // A distance or a limit that is NaN settles nothing.
                let beyond = value - error > *limit;
                if !beyond {
                    *limit = visit(query, row);
                }
            });
        }
    }

    /// Compares the queries of each cell with its items, until there are no more cells.
    pub(super) fn look_into_cells(
        &self,
        index: &Index,
        queries_of: &[Vec<usize>],
        next: &AtomicUsize,
        tops: &mut [Top<Place>],
    ) {
        let mut limits: Vec<f32> = (0..tops.len()).map(|query| self.limit(tops, query)).collect();
        let (mut packed, mut asked) = (Vec::new(), Vec::new());
        loop {
            let cell = next.fetch_add(1, Ordering::Relaxed);
            let Some(asking) = queries_of.get(cell) else { return };
            if asking.is_empty() {
                continue;
            }
            packed.clear();
            asked.clear();
            for query in asking {
                packed.extend_from_slice(
                    self.packed.get(query * self.dim..(query + 1) * self.dim).unwrap_or_default(),
                );
                asked.push(limits.get(*query).copied().unwrap_or(f32::NAN));
            }
            let queries = Queries::new(&packed, self.dim);
            for (numbers, items) in index.blocks(cell) {
                candidates(&queries, items, &mut asked, &mut |query, item| {
                    let (Some(query), Some(item)) = (asking.get(query), numbers.get(item)) else {
                        return f32::NAN;
                    };
                    self.visit(tops, *query, *item as usize);
                    self.limit(tops, *query)
                });
            }
            for (query, limit) in asking.iter().zip(&asked) {
                if let Some(target) = limits.get_mut(*query) {
                    *target = *limit;
                }
            }
        }
    }

    /// Takes the distance of a query and an item in full.
    fn visit(&self, tops: &mut [Top<Place>], query: usize, item: usize) {
        let (Some((row, vector, _)), Some((place, _))) =
            (self.queries.get(query), self.join.items.rows.get(item))
        else {
            return;
        };
        let group = self.groups.and_then(|groups| groups.get(*row).copied().flatten());
        let item_group =
            || self.join.item_groups.and_then(|groups| groups.get(place.0)?.get(place.1).copied().flatten());
        if group.is_some() && group == item_group() {
            return;
        }
        let distance = self.join.metric.distance(vector, self.items.at(*place));
        if let (Some(value), Some(top)) = (distance.filter(|value| !value.is_nan()), tops.get_mut(query)) {
            top.push(Key { class: 0, value, row: item as u64 }, *place);
        }
    }

    /// The score that an item must have to be looked at for a query; NaN lets all pass.
    fn limit(&self, tops: &[Top<Place>], query: usize) -> f32 {
        let (Some(worst), Some((_, _, norm))) =
            (tops.get(query).and_then(Top::limit), self.queries.get(query))
        else {
            return f32::NAN;
        };
        let (norm, distance, error) = (f64::from(*norm), worst.value, 2.0 * f64::from(rounding(self.dim)));
        let square = norm * norm;
        if !usable(self.join.metric, square as f32) {
            return f32::NAN;
        }
        let limit = match self.join.metric {
            Metric::Cosine => 1.0 - distance - error,
            Metric::InnerProduct => -distance / norm - error * (distance / norm).abs(),
            Metric::L2 => 0.5 * (square - distance * distance) - 2.0 * error * (square + distance * distance),
            Metric::L1 => return up(distance),
            Metric::Similarity | Metric::Product => f64::NAN,
        };
        -up(-limit)
    }
}

/// Whether products with a vector of this squared norm tell its distances.
pub(super) fn usable(metric: Metric, square: f32) -> bool {
    match metric {
        Metric::L1 => true,
        Metric::L2 => square == 0.0 || in_range(square),
        _ => in_range(square),
    }
}

/// The next `f32` that is not below.
fn up(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}

pub(super) fn single<T: Real>(value: T) -> f32 {
    let value: f64 = value.into();
    value as f32
}

/// A block of items: values, and what makes scores of products.
#[derive(Default)]
pub(super) struct Block {
    values: Vec<f32>,
    weights: Vec<f32>,
    offsets: Vec<f32>,
}

impl Block {
    /// Packs the items of these numbers.
    pub(super) fn fill<T: ArrowPrimitiveType>(
        &mut self,
        join: &Join<'_>,
        dim: usize,
        vectors: &Slices<'_, T>,
        numbers: impl Iterator<Item = usize>,
        items: &mut Items,
    ) where
        T::Native: Real,
    {
        self.read(join, dim, vectors, numbers);
        items.fill(&self.values, dim, &self.weights, &self.offsets);
    }
    fn read<T: ArrowPrimitiveType>(
        &mut self,
        join: &Join<'_>,
        dim: usize,
        vectors: &Slices<'_, T>,
        numbers: impl Iterator<Item = usize>,
    ) where
        T::Native: Real,
    {
        self.values.clear();
        self.weights.clear();
        self.offsets.clear();
        // What products may be wrong by goes on top of the score, so that nothing near is lost.
        let error = 2.0 * rounding(dim);
        for (place, square) in numbers.filter_map(|number| join.items.rows.get(number)) {
            self.values.extend(vectors.at(*place).iter().map(|value| single(*value)));
            let (weight, offset) = match join.metric {
                Metric::Cosine => (1.0 / square.sqrt(), 0.0),
                Metric::L2 => (1.0, -0.5 * square + 2.0 * error * square),
                _ => (1.0, error * square.sqrt()),
            };
            self.weights.push(if usable(join.metric, *square) { weight } else { f32::NAN });
            self.offsets.push(offset);
        }
    }
}
