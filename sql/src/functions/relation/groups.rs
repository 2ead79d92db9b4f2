//! Rows of two tables that agree in a column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{cast, interleave_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::Result;

use super::knn::index_of;

/// Numbers for the values of a column in two tables; equal values have equal numbers, NULL has none.
pub(super) struct Groups {
    column: String,
    data_type: DataType,
    converter: RowConverter,
    numbers: HashMap<OwnedRow, u32>,
}

impl Groups {
    pub(super) fn new(schema: &Schema, column: &str) -> Result<Self> {
        let data_type = schema.field_with_name(column)?.data_type().clone();
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        Ok(Self { column: column.to_owned(), data_type, converter, numbers: HashMap::new() })
    }

    /// The rows of a table as one batch for each group, in the order of the groups' numbers; rows without one are left out.
    pub(super) fn apart(&mut self, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let mut places: Vec<Vec<(usize, usize)>> = Vec::new();
        for (number, groups) in self.each(batches)?.into_iter().enumerate() {
            for (row, group) in groups.into_iter().enumerate() {
                let Some(group) = group.map(|group| group as usize) else { continue };
                places.resize_with(places.len().max(group + 1), Vec::new);
                if let Some(places) = places.get_mut(group) {
                    places.push((number, row));
                }
            }
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let apart = places.iter().map(|places| match places.is_empty() {
            true => Ok(RecordBatch::new_empty(Arc::clone(schema))),
            false => Ok(interleave_record_batch(&batches, places)?),
        });
        apart.collect()
    }

    /// The groups of the rows of each batch, learnt.
    pub(super) fn each(&mut self, batches: &[RecordBatch]) -> Result<Vec<Vec<Option<u32>>>> {
        batches.iter().map(|batch| self.of(batch, true)).collect()
    }

    /// The groups of a batch's rows; values that are new have a group only if they are to be `learnt`.
    pub(super) fn of(&mut self, batch: &RecordBatch, learnt: bool) -> Result<Vec<Option<u32>>> {
        let index = index_of(&batch.schema(), &self.column, "knn_join")?;
        let values = cast(batch.column(index), &self.data_type)?;
        let rows = self.converter.convert_columns(&[Arc::clone(&values)])?;
        let mut groups = Vec::with_capacity(values.len());
        for (row, value) in rows.iter().enumerate() {
            if values.is_null(row) {
                groups.push(None);
                continue;
            }
            let next = self.numbers.len() as u32;
            groups.push(if learnt {
                Some(*self.numbers.entry(value.owned()).or_insert(next))
            } else {
                self.numbers.get(&value.owned()).copied()
            });
        }
        Ok(groups)
    }
}
