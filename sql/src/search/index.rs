//! A table in memory in cells, so that a query looks at a part of it: how large a part is measured.

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{Float32Type, Float64Type};
use datafusion::common::Result;
use loev_ops::rng::Key;
use loev_ops::search::{Cells, Items, Near, cells_for, least_probes};

use super::join::Join;
use super::metric::Metric;
use super::vectors::Vectors;
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
        let (rows, dim) = (&join.items.rows, join.items.dim.unwrap_or(0));
        let (told, untold): (Vec<u32>, Vec<u32>) =
            (0..u32::try_from(rows.len()).unwrap_or(0)).partition(|number| {
                rows.get(*number as usize).is_some_and(|(_, square)| usable(join.metric, *square))
            });
        let Some(count) = cells_for(queries, told.len()).filter(|_| dim > 0) else { return Ok(None) };
        let vectors = join.items.slices::<T>()?;
        let read = |row: u32, values: &mut Vec<f32>| {
            let Some((place, square)) = told.get(row as usize).and_then(|number| rows.get(*number as usize))
            else {
                return;
            };
            let scale = if join.metric == Metric::Cosine { 1.0 / square.sqrt() } else { 1.0 };
            values.extend(vectors.at(*place).iter().map(|value| single(*value) * scale));
        };
        let key = Key::root(0).with_str("knn_join").with_str("cells");
        let cells = Cells::new(told.len() as u32, dim, count, key, join.threads, read);
        let near = if join.metric == Metric::InnerProduct { Near::Product } else { Near::Distance };

        // Where the nearest items of the sample are.
        let work = Work::<T>::new(join, sample, sample_groups)?;
        let mut cell_of: Vec<Option<usize>> = vec![None; rows.len()];
        for cell in 0..cells.count() {
            for number in cells.members(cell).iter().filter_map(|row| told.get(*row as usize)) {
                if let Some(target) = cell_of.get_mut(*number as usize) {
                    *target = Some(cell);
                }
            }
        }
        let order = cells.nearest(near, work.packed(), cells.count(), join.threads);
        let orders: Vec<&[u32]> = order.chunks_exact(cells.count().max(1)).collect();
        let mut ranks = Vec::new();
        let mut rank_of = vec![0u32; cells.count()];
        let found = join.nearest::<T>(sample, sample_groups)?;
        for (query, entries) in found.iter().enumerate().filter(|(query, _)| work.is_usable(*query)) {
            let order = orders.get(query).copied().unwrap_or_default();
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
        let Some((probes, found)) = least_probes(&mut ranks, recall) else { return Ok(None) };
        let sizes = orders.iter().flat_map(|order| order.iter().take(probes));
        let looked_at: usize = sizes.map(|cell| cells.members(*cell as usize).len()).sum();
        let each = looked_at / orders.len().max(1) + cells.count() + untold.len();
        if each.saturating_mul(2) > rows.len() {
            return Ok(None);
        }
        let measured = Measured { cells: cells.count(), probes, found, nearest: ranks.len() };

        let mut block = Block::default();
        let mut packed = |numbers: &[u32]| -> Vec<(Vec<u32>, Items)> {
            let blocks = numbers.chunks(BLOCK).map(|numbers| {
                let mut items = Items::default();
                let each = numbers.iter().map(|number| *number as usize);
                block.fill(join, dim, &vectors, each, &mut items);
                (numbers.to_vec(), items)
            });
            blocks.collect()
        };
        let mut blocks = Vec::with_capacity(cells.count() + 1);
        for cell in 0..cells.count() {
            let members = cells.members(cell).iter().filter_map(|row| told.get(*row as usize).copied());
            blocks.push(packed(&members.collect::<Vec<_>>()));
        }
        blocks.push(packed(&untold));
        let memory = size_of::<f32>() * dim * (rows.len() + cells.count());
        Ok(Some(Self { near, cells, blocks, measured, memory }))
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
