//! Many vectors against the rows of a table in memory, on several threads.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::thread;

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{Float32Type, Float64Type};
use datafusion::common::{DataFusionError, Result, exec_err};

use super::index::Index;
use super::metric::{Metric, unequal};
use super::top::{Entry, Top};
use super::vectors::{Place, Vectors};
use super::work::Work;
use crate::functions::kernels::Real;

/// The neighbours of a row, nearest first: where they are, and how far.
pub(crate) type Neighbours = Vec<(Place, f64)>;

/// A search for the `k` nearest of `items` to each query.
#[derive(Clone, Copy)]
pub(crate) struct Join<'a> {
    pub(crate) function: &'static str,
    pub(crate) metric: Metric,
    pub(crate) k: usize,
    pub(crate) items: &'a Vectors,
    /// For each batch of items the groups of its rows, if a query must not find what is of its group.
    pub(crate) item_groups: Option<&'a [Vec<Option<u32>>]>,
    /// Which items a query looks at; all of them if this is not there.
    pub(crate) index: Option<&'a Index>,
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
        let mut neighbours = vec![Vec::new(); count];
        let found = if self.is_single(queries)? {
            self.nearest::<Float32Type>(queries, groups)?
        } else {
            self.nearest::<Float64Type>(queries, groups)?
        };
        for (((_, row), _), entries) in queries.rows.iter().zip(found) {
            let Some(target) = neighbours.get_mut(*row) else {
                return exec_err!("{}: a query is not there", self.function);
            };
            *target = entries.into_iter().map(|entry| (entry.place, entry.key.value)).collect();
        }
        Ok(neighbours)
    }

    /// Whether numbers of both sides are `f32`.
    ///
    /// # Errors
    /// Vectors of different lengths.
    pub(super) fn is_single(&self, queries: &Vectors) -> Result<bool> {
        match (queries.dim, self.items.dim) {
            (Some(a), Some(b)) if a != b => unequal(self.function, a, b),
            _ => Ok(queries.are_single() && self.items.are_single()),
        }
    }

    /// The best items for each of the queries' rows, best first.
    pub(super) fn nearest<T: ArrowPrimitiveType>(
        &self,
        queries: &Vectors,
        groups: Option<&[Option<u32>]>,
    ) -> Result<Vec<Vec<Entry<Place>>>>
    where
        T::Native: Real,
    {
        let work = Work::<T>::new(self, queries, groups)?;
        let tops: Vec<Top<Place>> = queries.rows.iter().map(|_| Top::new(self.k)).collect();
        let tops = match self.index {
            None => self.on_threads(work.blocks(), &tops, |next, tops| work.look_at_all(next, tops))?,
            Some(index) => self.by_cells(&work, index, tops)?,
        };
        Ok(tops.into_iter().map(Top::into_sorted).collect())
    }

    /// Looks into the nearest cell of each query first, so that of the others little has to be looked at closely. A query
    /// that products tell nothing about, or that has not found `k` items, looks into all cells.
    fn by_cells<T: ArrowPrimitiveType>(
        &self,
        work: &Work<'_, T>,
        index: &Index,
        mut tops: Vec<Top<Place>>,
    ) -> Result<Vec<Top<Place>>>
    where
        T::Native: Real,
    {
        let near = index.nearest(work.packed(), self.threads);
        let near = |query: usize| {
            let all = near.get(query * index.probes()..(query + 1) * index.probes()).unwrap_or_default();
            if work.is_usable(query) { all } else { &[] }
        };
        for step in 0..3 {
            let mut queries_of = vec![Vec::new(); index.cells()];
            for (query, top) in tops.iter().enumerate() {
                let near = near(query);
                let first = near.len().min(1);
                let cells: Vec<usize> = match step {
                    // What is in no cell is looked at by all.
                    0 => near[..first].iter().map(|cell| *cell as usize).chain([index.cells() - 1]).collect(),
                    1 => near[first..].iter().map(|cell| *cell as usize).collect(),
                    _ if near.is_empty() || top.limit().is_none() => {
                        let seen: BTreeSet<usize> = near.iter().map(|cell| *cell as usize).collect();
                        (0..index.cells() - 1).filter(|cell| !seen.contains(cell)).collect()
                    }
                    _ => Vec::new(),
                };
                for cell in cells {
                    if let Some(queries) = queries_of.get_mut(cell) {
                        queries.push(query);
                    }
                }
            }
            tops = self.on_threads(index.cells(), &tops, |next, tops| {
                work.look_into_cells(index, &queries_of, next, tops);
            })?;
        }
        Ok(tops)
    }

    /// Does `tasks` tasks on threads that each go on from `tops`; the best of what they and `tops` have.
    fn on_threads(
        &self,
        tasks: usize,
        tops: &[Top<Place>],
        look: impl Fn(&AtomicUsize, &mut [Top<Place>]) + Sync,
    ) -> Result<Vec<Top<Place>>> {
        let next = AtomicUsize::new(0);
        let run = || {
            let mut tops = tops.to_vec();
            look(&next, &mut tops);
            tops
        };
        let found: Vec<Vec<Top<Place>>> = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.threads.clamp(1, tasks.max(1))).map(|_| scope.spawn(run)).collect();
            let found = workers.into_iter().map(|worker| {
                worker.join().map_err(|_| DataFusionError::Execution("a search stopped".into()))
            });
            found.collect::<Result<_>>()
        })?;
        let mut found: Vec<_> = found.into_iter().map(Vec::into_iter).collect();
        let merged = tops.iter().map(|_| Top::merged(self.k, found.iter_mut().filter_map(Iterator::next)));
        Ok(merged.collect())
    }
}
