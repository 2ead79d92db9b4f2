//! One vector against the batches of a table, as they come.

use std::cell::Cell;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::datatypes::{Float32Type, Float64Type};
use datafusion::common::Result;
use loev_ops::search::{rounding, scan};

use super::metric::{Metric, Query, unequal};
use super::top::{Key, Top};
use crate::functions::column::{Argument, Rows};

/// Which values are best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// Larger values of the function come first.
    pub(crate) descending: bool,
    /// Where NULL goes; `None` leaves out NULL and NaN.
    pub(crate) nulls_first: Option<bool>,
}

impl Order {
    /// Nearest first, only what has a distance.
    pub(crate) const NEAREST: Self = Self { descending: false, nulls_first: None };

    /// The key of a row. Numbers are ordered as DataFusion sorts them, NaN by its sign.
    fn key(self, value: Option<f64>, row: u64) -> Option<Key> {
        let (class, value) = match (value, self.nulls_first) {
            (None, None) => return None,
            (Some(value), None) if value.is_nan() => return None,
            (None, Some(true)) => (0, 0.0),
            (None, Some(false)) => (2, 0.0),
            (Some(value), _) => (NUMBERS, if self.descending { -value } else { value }),
        };
        Some(Key { class, value, row })
    }

    /// Whether a row whose value is within `error` of `value` is surely not among the best.
    #[inline(always)]
    fn beaten(self, limit: Option<Key>, value: f32, error: f32) -> bool {
        let least = if self.descending { -value } else { value } - error;
        limit.is_some_and(|limit| limit.class == NUMBERS && f64::from(least) > limit.value)
    }
}

/// The class of rows that have a number.
const NUMBERS: u8 = 1;

/// Rows that are kept before those that lost are thrown away.
const SLACK: usize = 1024;

/// Where a row is kept: the batch, and the row in it.
type Place = (usize, usize);

/// The search for one vector in batches of a table, in any order.
pub(crate) struct Scan {
    function: &'static str,
    metric: Metric,
    order: Order,
    query: Query,
    norm: f32,
    k: usize,
    top: Top<Place>,
    kept: Vec<RecordBatch>,
}

impl Scan {
    pub(crate) fn new(function: &'static str, metric: Metric, order: Order, query: Query, k: usize) -> Self {
        let norm = query.norm();
        Self { function, metric, order, query, norm, k, top: Top::new(k), kept: Vec::new() }
    }

    /// Looks at the rows of a batch, whose vectors are in `column`. They are numbered from `start` on, and no two rows that
    /// are looked at anywhere have the same number.
    ///
    /// # Errors
    /// A vector of another length than the query's.
    pub(crate) fn push(&mut self, batch: &RecordBatch, column: usize, start: u64) -> Result<()> {
        let query = std::mem::replace(&mut self.query, Query::Null);
        let vectors = Argument::vectors(batch.column(column).clone(), &query.element())?;
        let looked_at = match &query {
            Query::Null => {
                Ok((0..batch.num_rows()).fold(false, |any, row| any | self.take(start, row, None)))
            }
            Query::Single(query) => self.look_first(query, &vectors, start, batch.num_rows()),
            Query::Double(query) => self.look(query, &vectors, start, batch.num_rows()),
        };
        self.query = query;
        if looked_at? {
            self.keep(batch)?;
        }
        Ok(())
    }

    /// Whether a row of the batch is among the best, by values in full.
    fn look(&mut self, query: &[f64], vectors: &Argument, start: u64, count: usize) -> Result<bool> {
        let rows = Rows::<Float64Type>::new(vectors)?;
        let mut any = false;
        for row in 0..count {
            let vector = rows.get(row);
            if let Some(vector) = vector.filter(|vector| vector.len() != query.len()) {
                return unequal(self.function, vector.len(), query.len());
            }
            any |= self.take(start, row, vector.and_then(|vector| self.metric.distance(vector, query)));
        }
        Ok(any)
    }

    /// The same, with values in full only of rows that may be among the best.
    fn look_first(&mut self, query: &[f32], vectors: &Argument, start: u64, count: usize) -> Result<bool> {
        let rows = Rows::<Float32Type>::new(vectors)?;
        let (metric, order, norm) = (self.metric, self.order, self.norm);
        let (rounding, unfit) = (rounding(query.len()), Cell::new(None));
        let slices = (0..count).map(|row| {
            let vector = rows.get(row);
            if let Some(vector) = vector.filter(|vector| vector.len() != query.len()) {
                unfit.set(Some(vector.len()));
            }
            vector.unwrap_or_default()
        });
        let (mut any, mut limit) = (false, self.top.limit());
        scan(metric.measure(), query, slices, |row, first, second| {
            let (value, error) = metric.approximate(norm, rounding, first, second);
            if !order.beaten(limit, value, error) {
                let vector = rows.get(row).filter(|vector| vector.len() == query.len());
                any |= self.take(start, row, vector.and_then(|vector| metric.distance(vector, query)));
                limit = self.top.limit();
            }
        });
        match unfit.get() {
            Some(length) => unequal(self.function, length, query.len()),
            None => Ok(any),
        }
    }

    /// Whether a row of the batch with this value is among the best so far.
    fn take(&mut self, start: u64, row: usize, value: Option<f64>) -> bool {
        let key = self.order.key(value, start + row as u64);
        key.is_some_and(|key| self.top.push(key, (self.kept.len(), row)))
    }

    /// Copies the rows of a batch that are among the best, so that the batch can go.
    fn keep(&mut self, batch: &RecordBatch) -> Result<()> {
        let (id, mut rows) = (self.kept.len(), Vec::new());
        self.top.replace(|place| {
            if place.0 == id {
                rows.push(place.1 as u32);
                place.1 = rows.len() - 1;
            }
        });
        self.kept.push(take_record_batch(batch, &UInt32Array::from(rows))?);
        let stored: usize = self.kept.iter().map(RecordBatch::num_rows).sum();
        if stored > 2 * self.k + SLACK {
            let mut places = Vec::with_capacity(self.k);
            self.top.replace(|place| {
                places.push(*place);
                *place = (0, places.len() - 1);
            });
            let batches: Vec<&RecordBatch> = self.kept.iter().collect();
            self.kept = vec![interleave_record_batch(&batches, &places)?];
        }
        Ok(())
    }

    /// The bytes of the rows that are kept.
    pub(crate) fn memory(&self) -> usize {
        self.kept.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

/// The best rows of several scans.
pub(crate) struct Nearest {
    /// The rows, best first; `None` if there are none.
    pub(crate) rows: Option<RecordBatch>,
    /// Their distances.
    pub(crate) distances: Vec<f64>,
}

impl Nearest {
    /// Brings scans together; of equal distances the earlier row comes first.
    pub(crate) fn of(scans: Vec<Scan>) -> Result<Self> {
        let k = scans.first().map_or(0, |scan| scan.k);
        let mut batches = Vec::new();
        let tops = scans.into_iter().map(|mut scan| {
            let first = batches.len();
            batches.extend(scan.kept);
            scan.top.replace(|place| place.0 += first);
            scan.top
        });
        let entries = Top::merged(k, tops).into_sorted();
        let distances = entries.iter().map(|entry| entry.key.value).collect();
        let places: Vec<Place> = entries.iter().map(|entry| entry.place).collect();
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let rows = if batches.is_empty() { None } else { Some(interleave_record_batch(&batches, &places)?) };
        Ok(Self { rows, distances })
    }
}
