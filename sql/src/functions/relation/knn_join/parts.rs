//! The second table in memory, in the parts among which rows of the first one look, and the searches there.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{interleave, take};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use loev_ops::rng::Key;

use super::super::groups::Groups;
use crate::search::{Index, Join, Metric, Neighbours, Vectors};

/// Rows of the first table that are also searched for exactly, to measure an approximate search.
const SAMPLE: usize = 256;

/// What is searched for.
#[derive(Debug, Clone)]
pub(super) struct Search {
    pub(super) k: usize,
    pub(super) metric: Metric,
    pub(super) element: DataType,
    pub(super) threads: usize,
}

/// The second table in memory.
pub(super) struct Found {
    pub(super) neighbours: Vec<RecordBatch>,
    pub(super) parts: Vec<Part>,
}

/// Rows of the second table among which a row of the first one looks.
pub(super) struct Part {
    /// The number of its first batch.
    pub(super) first: usize,
    pub(super) items: Vectors,
    pub(super) item_groups: Option<Vec<Vec<Option<u32>>>>,
    pub(super) index: Option<Index>,
}

impl Part {
    fn join(&self, search: &Search) -> Join<'_> {
        Join {
            function: "knn_join",
            metric: search.metric,
            k: search.k,
            items: &self.items,
            item_groups: self.item_groups.as_deref(),
            index: self.index.as_ref(),
            threads: search.threads,
        }
    }

    fn search(
        &self,
        search: &Search,
        column: ArrayRef,
        groups: Option<&[Option<u32>]>,
    ) -> Result<Vec<Neighbours>> {
        let count = column.len();
        let queries = Vectors::new("knn_join", search.metric, [column], &search.element)?;
        let mut found = self.join(search).run(&queries, count, groups)?;
        for (place, _) in found.iter_mut().flatten() {
            place.0 += self.first;
        }
        Ok(found)
    }
}

/// Some rows of the first table that look in one part of the second.
pub(super) struct Sample {
    /// How many rows look there.
    rows: usize,
    column: ArrayRef,
    groups: Option<Vec<Option<u32>>>,
}

impl Sample {
    /// The sample for each of so many parts, if any row looks there, in the order of the parts.
    pub(super) fn of_parts(
        batches: &[RecordBatch],
        vector: usize,
        excluded: &mut Option<Groups>,
        within: &mut Option<Groups>,
        parts: usize,
    ) -> Result<Vec<Option<Self>>> {
        let of = |groups: &mut Option<Groups>| -> Result<Option<Vec<Vec<Option<u32>>>>> {
            let Some(groups) = groups else { return Ok(None) };
            batches.iter().map(|batch| groups.of(batch, false)).collect::<Result<_>>().map(Some)
        };
        let (groups, part_of) = (of(excluded)?, of(within)?);
        let mut places = vec![Vec::new(); parts];
        for (batch, rows) in batches.iter().map(RecordBatch::num_rows).enumerate() {
            for row in 0..rows {
                let part = match &part_of {
                    None => Some(0),
                    Some(part_of) => part_of.get(batch).and_then(|rows| rows.get(row).copied().flatten()),
                };
                if let Some(places) = part.and_then(|part| places.get_mut(part as usize)) {
                    places.push((batch, row));
                }
            }
        }
        let columns: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(vector).as_ref()).collect();
        let key = Key::root(0).with_str("knn_join").with_str("sample");
        let samples = places.into_iter().enumerate().map(|(part, places)| {
            if places.is_empty() {
                return Ok(None);
            }
            let rows = places.len();
            let chosen = key.with(part as u64).rng().subset(rows, SAMPLE);
            let places: Vec<(usize, usize)> =
                chosen.into_iter().filter_map(|place| places.get(place).copied()).collect();
            let groups = groups.as_ref().map(|groups| {
                let of = |(batch, row): &(usize, usize)| groups.get(*batch)?.get(*row).copied().flatten();
                places.iter().map(of).collect()
            });
            Ok(Some(Self { rows, column: interleave(&columns, &places)?, groups }))
        });
        samples.collect()
    }

    /// The part in cells, if a search there takes no longer.
    pub(super) fn index(self, part: &Part, search: &Search, recall: f64) -> Result<Option<Index>> {
        let queries = Vectors::new("knn_join", search.metric, [self.column], &search.element)?;
        Index::new(&part.join(search), &queries, self.groups.as_deref(), self.rows, recall)
    }
}

/// The search for some rows of the first table.
pub(super) struct ChunkSearch {
    pub(super) search: Search,
    pub(super) column: ArrayRef,
    pub(super) groups: Option<Vec<Option<u32>>>,
    /// The part of the second table for each row, if there are several.
    pub(super) parts: Option<Vec<Option<u32>>>,
    pub(super) found: Arc<Found>,
}

impl ChunkSearch {
    pub(super) fn run(self) -> Result<Vec<Neighbours>> {
        let mut found = vec![Vec::new(); self.column.len()];
        let Some(parts) = &self.parts else {
            return match self.found.parts.first() {
                Some(part) => part.search(&self.search, Arc::clone(&self.column), self.groups.as_deref()),
                None => Ok(found),
            };
        };
        let mut rows_of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, part) in (0..).zip(parts) {
            if let Some(part) = part {
                rows_of.entry(*part).or_default().push(row);
            }
        }
        for (part, rows) in rows_of {
            let Some(part) = self.found.parts.get(part as usize) else { continue };
            let column = take(&self.column, &UInt32Array::from(rows.clone()), None)?;
            let groups = self.groups.as_ref().map(|groups| -> Vec<Option<u32>> {
                rows.iter().map(|row| groups.get(*row as usize).copied().flatten()).collect()
            });
            for (row, nearest) in rows.iter().zip(part.search(&self.search, column, groups.as_deref())?) {
                if let Some(found) = found.get_mut(*row as usize) {
                    *found = nearest;
                }
            }
        }
        Ok(found)
    }
}
