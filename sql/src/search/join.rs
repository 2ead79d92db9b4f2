//! Many vectors against the rows of a table in memory, block by block and on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, ArrowPrimitiveType};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{DataFusionError, Result, exec_err};
use loev_ops::search::{Items, Measure, Queries, candidates, rounding, scan};

use super::metric::{Metric, in_range, unequal};
use super::top::{Entry, Key, Top};
use crate::functions::column::{Argument, Rows};
use crate::functions::kernels::{Real, squared_norm};

/// Items whose products with all queries are taken before the next: as many as stay in a core's cache.
const BLOCK: usize = 256;

/// A row of a table in memory: its batch, and its row there.
pub(crate) type Place = (usize, usize);

/// The vectors of a table in memory, those that can be near anything.
pub(crate) struct Vectors {
    columns: Vec<Argument>,
    /// Where each vector is, and its squared norm as far as `f32` tells.
    rows: Vec<(Place, f32)>,
    dim: Option<usize>,
}

impl Vectors {
    /// Takes the columns of a table's batches as `element`, `Float32` or `Float64`. Vectors that are NULL or hold a NULL
    /// are left out, and so are zero vectors where the metric needs a direction.
    ///
    /// # Errors
    /// Vectors of different lengths.
    pub(crate) fn new(
        function: &str,
        metric: Metric,
        columns: impl IntoIterator<Item = ArrayRef>,
        element: &DataType,
    ) -> Result<Self> {
        let columns = columns.into_iter().map(|column| Argument::vectors(column, element));
        let mut vectors = Self { columns: columns.collect::<Result<_>>()?, rows: Vec::new(), dim: None };
        match element {
            DataType::Float32 => vectors.look::<Float32Type>(function, metric)?,
            _ => vectors.look::<Float64Type>(function, metric)?,
        }
        Ok(vectors)
    }

    fn look<T: ArrowPrimitiveType>(&mut self, function: &str, metric: Metric) -> Result<()>
    where
        T::Native: Real,
    {
        for (batch, column) in self.columns.iter().enumerate() {
            let rows = Rows::<T>::new(column)?;
            for row in 0..column.rows() {
                let Some(vector) = rows.get(row) else { continue };
                let dim = *self.dim.get_or_insert(vector.len());
                if dim != vector.len() {
                    return unequal(function, dim, vector.len());
                }
                let square = squared_norm(vector);
                if !(square == 0.0 && metric == Metric::Cosine) {
                    self.rows.push(((batch, row), square as f32));
                }
            }
        }
        Ok(())
    }

    fn slices<T: ArrowPrimitiveType>(&self) -> Result<Vec<Rows<'_, T>>> {
        self.columns.iter().map(Rows::new).collect()
    }

    /// The bytes of what is kept beside the columns.
    pub(crate) fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<(Place, f32)>()
    }
}

/// The neighbours of a row, nearest first: where they are, and how far.
pub(crate) type Neighbours = Vec<(Place, f64)>;

/// A search for the `k` nearest of `items` to each query.
pub(crate) struct Join<'a> {
    pub(crate) function: &'static str,
    pub(crate) metric: Metric,
    pub(crate) k: usize,
    pub(crate) items: &'a Vectors,
    /// For each batch of items the groups of its rows, if a query must not find what is of its group.
    pub(crate) item_groups: Option<&'a [Vec<Option<u32>>]>,
    pub(crate) threads: usize,
}

impl Join<'_> {
    /// The neighbours of each row of one batch of queries; `groups` are those of its rows. A row whose vector is left
    /// out has none.
    ///
    /// # Errors
    /// Vectors of different lengths.
    pub(crate) fn run(
        &self,
        queries: &Vectors,
        count: usize,
        groups: Option<&[Option<u32>]>,
    ) -> Result<Vec<Neighbours>> {
        if let (Some(a), Some(b)) = (queries.dim, self.items.dim)
            && a != b
        {
            return unequal(self.function, a, b);
        }
        let single = |vectors: &Vectors| {
            vectors.columns.iter().all(|column| column.element() == Some(&DataType::Float32))
        };
        if single(queries) && single(self.items) {
            self.run_as::<Float32Type>(queries, count, groups)
        } else {
            self.run_as::<Float64Type>(queries, count, groups)
        }
    }

    fn run_as<T: ArrowPrimitiveType>(
        &self,
        queries: &Vectors,
        count: usize,
        groups: Option<&[Option<u32>]>,
    ) -> Result<Vec<Neighbours>>
    where
        T::Native: Real,
    {
        let (query_rows, item_rows) = (queries.slices::<T>()?, self.items.slices::<T>()?);
        let mut vectors: Vec<(usize, &[T::Native], f32)> = Vec::with_capacity(queries.rows.len());
        for (place, square) in &queries.rows {
            if let Some(vector) = query_rows.get(place.0).and_then(|rows| rows.get(place.1)) {
                vectors.push((place.1, vector, square.sqrt()));
            }
        }
        let work = Work { join: self, queries: &vectors, items: &item_rows, groups };
        let blocks = AtomicUsize::new(0);
        let threads = self.threads.clamp(1, self.items.rows.len().div_ceil(BLOCK).max(1));
        let found: Vec<Vec<Top<Place>>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work.run(&blocks))).collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker.join().map_err(|_| DataFusionError::Execution("a search stopped".into()))
                })
                .collect::<Result<_>>()
        })?;
        let mut neighbours = vec![Vec::new(); count];
        let mut found: Vec<_> = found.into_iter().map(Vec::into_iter).collect();
        for (row, ..) in &vectors {
            let parts = found.iter_mut().filter_map(Iterator::next);
            let mut entries: Vec<Entry<Place>> = parts.flat_map(Top::into_sorted).collect();
            entries.sort_unstable();
            entries.truncate(self.k);
            let Some(target) = neighbours.get_mut(*row) else {
                return exec_err!("{}: a query is not there", self.function);
            };
            *target = entries.into_iter().map(|entry| (entry.place, entry.key.value)).collect();
        }
        Ok(neighbours)
    }
}

struct Work<'a, T: ArrowPrimitiveType> {
    join: &'a Join<'a>,
    /// Each query's row, vector and norm.
    queries: &'a [(usize, &'a [T::Native], f32)],
    items: &'a [Rows<'a, T>],
    groups: Option<&'a [Option<u32>]>,
}

impl<T: ArrowPrimitiveType> Work<'_, T>
where
    T::Native: Real,
{
    /// Looks at blocks of items until there are no more; the best of each query among them.
    fn run(&self, blocks: &AtomicUsize) -> Vec<Top<Place>> {
        let (metric, dim) = (self.join.metric, self.join.items.dim.unwrap_or(0));
        let rows = &self.join.items.rows;
        let mut tops: Vec<Top<Place>> = self.queries.iter().map(|_| Top::new(self.join.k)).collect();
        // Of what only products are asked, directions will do.
        let scaled = |norm: f32| if matches!(metric, Metric::L1 | Metric::L2) { 1.0 } else { 1.0 / norm };
        let mut packed = Vec::with_capacity(self.queries.len() * dim);
        for (_, vector, norm) in self.queries {
            packed.extend(vector.iter().map(|value| single(*value) * scaled(*norm)));
        }
        let by_products = metric != Metric::L1;
        let queries = if by_products { Queries::new(&packed, dim) } else { Queries::new(&[], dim) };
        let mut limits: Vec<f32> = tops.iter().map(|_| f32::NAN).collect();
        let (mut items, mut block) = (Items::default(), Block::default());
        loop {
            let start = blocks.fetch_add(1, Ordering::Relaxed) * BLOCK;
            let Some(part) = rows.get(start..(start + BLOCK).min(rows.len())).filter(|part| !part.is_empty())
            else {
                return tops;
            };
            block.fill(metric, dim, part, |place| self.item(place));
            let mut visit = |query: usize, item: usize| -> f32 {
                self.visit(&mut tops, query, start + item);
                self.limit(tops.get(query), query, dim)
            };
            if by_products && dim > 0 {
                items.fill(&block.values, dim, &block.weights, &block.offsets);
                candidates(&queries, &items, &mut limits, &mut visit);
                continue;
            }
            for query in 0..self.queries.len() {
                let vector = packed.get(query * dim..(query + 1) * dim).unwrap_or_default();
                let mut limit = limits.get(query).copied().unwrap_or(f32::NAN);
                let slices = (0..part.len())
                    .map(|row| block.values.get(row * dim..(row + 1) * dim).unwrap_or_default());
                scan(Measure::AbsoluteDistance, vector, slices, |row, distance, _| {
                    let (value, error) = Metric::L1.approximate(1.0, rounding(dim), distance, 0.0);
                    // A distance or a limit that is NaN settles nothing.
                    let beyond = value - error > limit;
                    if !beyond {
                        limit = visit(query, row);
                    }
                });
                if let Some(target) = limits.get_mut(query) {
                    *target = limit;
                }
            }
        }
    }

    fn item(&self, place: Place) -> &[T::Native] {
        self.items.get(place.0).and_then(|rows| rows.get(place.1)).unwrap_or_default()
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
        let distance = self.join.metric.distance(vector, self.item(*place));
        if let (Some(value), Some(top)) = (distance.filter(|value| !value.is_nan()), tops.get_mut(query)) {
            top.push(Key { class: 0, value, row: item as u64 }, *place);
        }
    }

    /// The score that an item must have to be looked at for a query; NaN lets all pass.
    fn limit(&self, top: Option<&Top<Place>>, query: usize, dim: usize) -> f32 {
        let (Some(worst), Some((_, _, norm))) = (top.and_then(Top::limit), self.queries.get(query)) else {
            return f32::NAN;
        };
        let (norm, distance, error) = (f64::from(*norm), worst.value, 2.0 * f64::from(rounding(dim)));
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
fn usable(metric: Metric, square: f32) -> bool {
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

fn single<T: Real>(value: T) -> f32 {
    let value: f64 = value.into();
    value as f32
}

/// A block of items: values, and what makes scores of products.
#[derive(Default)]
struct Block {
    values: Vec<f32>,
    weights: Vec<f32>,
    offsets: Vec<f32>,
}

impl Block {
    fn fill<'a, T: Real + 'a>(
        &mut self,
        metric: Metric,
        dim: usize,
        rows: &[(Place, f32)],
        vector: impl Fn(Place) -> &'a [T],
    ) {
        self.values.clear();
        self.weights.clear();
        self.offsets.clear();
        // What products may be wrong by goes on top of the score, so that nothing near is lost.
        let error = 2.0 * rounding(dim);
        for (place, square) in rows {
            self.values.extend(vector(*place).iter().map(|value| single(*value)));
            let (weight, offset) = match metric {
                Metric::Cosine => (1.0 / square.sqrt(), 0.0),
                Metric::L2 => (1.0, -0.5 * square + 2.0 * error * square),
                _ => (1.0, error * square.sqrt()),
            };
            self.weights.push(if usable(metric, *square) { weight } else { f32::NAN });
            self.offsets.push(offset);
        }
    }
}
