//! A table in memory in cells, so that a query looks at a part of it: how large a part is measured.

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{Float32Type, Float64Type};
use datafusion::common::Result;
use loev_ops::rng::Key;
use loev_ops::search::{Cells, Items, Near, cells_for, least_probes};

use super::join::Join;
use super::metric::Metric;
use super::top::Entry;
use super::vectors::{Place, Slices, Vectors};
use super::work::{BLOCK, Block, Work, single, usable};
use crate::functions::kernels::Real;

/// Items in cells, and into how many cells a query looks. What products tell nothing about is in a last cell of its own,
/// which every query looks into.
pub(crate) struct Index {
    near: Near,
    cells: Cells,
    /// For each cell blocks of items: their numbers, ascending, and their values.
    blocks: Vec<Vec<(Vec<u32>, Items)>>,
    measured: Measured,
    memory: usize,
}

/// What was measured on a sample of the queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured {
    /// How many cells there are.
    pub(crate) cells: usize,
    /// Into how many of them a query looks.
    pub(crate) probes: usize,
    /// How many of the nearest items of the sample are found so.
    pub(crate) found: usize,
    /// How many there are.
    pub(crate) nearest: usize,
}

impl Index {
    /// The least part of the items of `join`, which is exact, in which a `sample` of all `queries` finds at least the share
    /// `recall` of its nearest items. `None` where to look at all items takes no longer, as far as inner products tell.
    ///
    /// # Errors
    /// Vectors of different lengths.
    pub(crate) fn new(
        join: &Join<'_>,
        sample: &Vectors,
        sample_groups: Option<&[Option<u32>]>,
        queries: usize,
        recall: f64,
    ) -> Result<Option<Self>> {
        if join.is_single(sample)? {
            Self::measure::<Float32Type>(join, sample, sample_groups, queries, recall)
        } else {
            Self::measure::<Float64Type>(join, sample, sample_groups, queries, recall)
        }
    }

    fn measure<T: ArrowPrimitiveType>(
        join: &Join<'_>,
        sample: &Vectors,
        sample_groups: Option<&[Option<u32>]>,
        queries: usize,
        recall: f64,
    ) -> Result<Option<Self>>
    where
        T::Native: Real,
    {
        let vectors = join.items.slices::<T>()?;
        let Some(cut) = Cut::new(join, &vectors, queries) else { return Ok(None) };
        let (rows, count) = (join.items.rows.len(), cut.cells.count());
        let work = Work::<T>::new(join, sample, sample_groups)?;
        let order = cut.cells.nearest(cut.near, work.packed(), count, join.threads);
        let orders: Vec<&[u32]> = order.chunks_exact(count.max(1)).collect();
        let found = join.nearest::<T>(sample, sample_groups)?;
        let usable = orders.iter().zip(&found).enumerate().filter(|(query, _)| work.is_usable(*query));
        let mut ranks = cut.ranks(rows, usable.map(|(_, (order, entries))| (*order, entries.as_slice())));
        let Some((probes, found)) = least_probes(&mut ranks, recall) else { return Ok(None) };

        let sizes = orders.iter().flat_map(|order| order.iter().take(probes));
        let looked_at: usize = sizes.map(|cell| cut.cells.members(*cell as usize).len()).sum();
        let each = looked_at / orders.len().max(1) + count + cut.untold.len();
        if each.saturating_mul(2) > rows {
            return Ok(None);
        }
        let measured = Measured { cells: count, probes, found, nearest: ranks.len() };
        let memory = size_of::<f32>() * join.items.dim.unwrap_or(0) * (rows + count);
        let blocks = cut.blocks(join, &vectors);
        Ok(Some(Self { near: cut.near, cells: cut.cells, blocks, measured, memory }))
    }

    /// What was measured.
    pub(crate) fn measured(&self) -> Measured {
        self.measured
    }

    /// The bytes of the items' values, about.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Into how many cells a query looks, the last one left out.
    pub(super) fn probes(&self) -> usize {
        self.measured.probes
    }

    /// How many cells there are, with the last one.
    pub(super) fn cells(&self) -> usize {
        self.blocks.len()
    }

    /// The cells that each query looks into, nearest first.
    pub(super) fn nearest(&self, queries: &[f32], threads: usize) -> Vec<u32> {
        self.cells.nearest(self.near, queries, self.measured.probes, threads)
    }

    /// The items of a cell.
    pub(super) fn blocks(&self, cell: usize) -> &[(Vec<u32>, Items)] {
        self.blocks.get(cell).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Items in cells.
struct Cut {
    /// The numbers of the items that products tell something about, which the cells count, and of the others.
    told: Vec<u32>,
    untold: Vec<u32>,
    near: Near,
    cells: Cells,
}

impl Cut {
    /// The items of `join` for so many `queries`; `None` where cells do not pay.
    fn new<T: ArrowPrimitiveType>(join: &Join<'_>, vectors: &Slices<'_, T>, queries: usize) -> Option<Self>
    where
        T::Native: Real,
    {
        let (rows, dim) = (&join.items.rows, join.items.dim.filter(|dim| *dim > 0)?);
        let is_told =
            |number: &u32| rows.get(*number as usize).is_some_and(|(_, square)| usable(join.metric, *square));
        let (told, untold): (Vec<u32>, Vec<u32>) =
            (0..u32::try_from(rows.len()).unwrap_or(0)).partition(is_told);
        let count = cells_for(queries, told.len())?;
        let read = |row: u32, values: &mut Vec<f32>| {
            let number = told.get(row as usize);
            let Some((place, square)) = number.and_then(|number| rows.get(*number as usize)) else { return };
            let scale = if join.metric == Metric::Cosine { 1.0 / square.sqrt() } else { 1.0 };
            values.extend(vectors.at(*place).iter().map(|value| single(*value) * scale));
        };
        let key = Key::root(0).with_str("knn_join").with_str("cells");
        let cells = Cells::new(told.len() as u32, dim, count, key, join.threads, read);
        let near = if join.metric == Metric::InnerProduct { Near::Product } else { Near::Distance };
        Some(Self { told, untold, near, cells })
    }

    /// The numbers of a cell's items, ascending.
    fn members(&self, cell: usize) -> impl Iterator<Item = u32> {
        self.cells.members(cell).iter().filter_map(|row| self.told.get(*row as usize).copied())
    }

    /// For each entry of each query how many cells are nearer than its own, of an order of all cells for each query. 0 for
    /// what is in no cell: every query looks at that.
    fn ranks<'a>(
        &self,
        rows: usize,
        found: impl Iterator<Item = (&'a [u32], &'a [Entry<Place>])>,
    ) -> Vec<u32> {
        let mut cell_of: Vec<Option<usize>> = vec![None; rows];
        for cell in 0..self.cells.count() {
            for number in self.members(cell) {
                if let Some(target) = cell_of.get_mut(number as usize) {
                    *target = Some(cell);
                }
            }
        }
        let (mut ranks, mut rank_of) = (Vec::new(), vec![0u32; self.cells.count()]);
        for (order, entries) in found {
            for (rank, cell) in (0..).zip(order) {
                if let Some(target) = rank_of.get_mut(*cell as usize) {
                    *target = rank;
                }
            }
            ranks.extend(entries.iter().map(|entry| {
                let cell = cell_of.get(entry.key.row as usize).copied().flatten();
                cell.and_then(|cell| rank_of.get(cell).copied()).unwrap_or(0)
            }));
        }
        ranks
    }

    /// For each cell its items, block by block; those in no cell come last.
    fn blocks<T: ArrowPrimitiveType>(
        &self,
        join: &Join<'_>,
        vectors: &Slices<'_, T>,
    ) -> Vec<Vec<(Vec<u32>, Items)>>
    where
        T::Native: Real,
    {
        let (dim, mut block) = (join.items.dim.unwrap_or(0), Block::default());
        let mut packed = |numbers: &[u32]| -> Vec<(Vec<u32>, Items)> {
            let blocks = numbers.chunks(BLOCK).map(|numbers| {
                let mut items = Items::default();
                block.fill(join, dim, vectors, numbers.iter().map(|number| *number as usize), &mut items);
                (numbers.to_vec(), items)
            });
            blocks.collect()
        };
        let members = (0..self.cells.count()).map(|cell| self.members(cell).collect::<Vec<_>>());
        members.chain([self.untold.clone()]).map(|numbers| packed(&numbers)).collect()
    }
}
