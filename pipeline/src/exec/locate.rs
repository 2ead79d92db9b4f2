//! Rows of clips with the addresses of their decoded samples in place of those of their files.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use super::PartitionOp;
use super::columns::{CLIP_ID, required, text};
use super::scan::Table;
use crate::error::RunError;
use crate::run::stage::StageHandle;

/// Columns of the input that stay, under other names.
const SOURCES: [(&str, &str); 2] = [("uri", "source_uri"), ("digest", "source_digest")];

/// Where a column of the result comes from.
#[derive(Debug, Clone, Copy)]
enum From {
    Clips(usize),
    Decoded(usize),
}

/// The operator; see the module. A clip that was not decoded has no row.
pub struct LocateOp {
    /// The decoded clips of each partition.
    decoded: Vec<Table>,
    columns: Vec<From>,
    stage: StageHandle,
    schema: SchemaRef,
}

impl fmt::Debug for LocateOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocateOp").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// The columns that come of `clips` and of `decoded`, and where each comes from.
fn columns(stage: &StageHandle, clips: &Schema, decoded: &Schema) -> Result<Vec<(Field, From)>, RunError> {
    let mut columns: Vec<(Field, From)> = Vec::new();
    for (i, field) in clips.fields().iter().enumerate() {
        let field = field.as_ref().clone();
        columns.push(match decoded.index_of(field.name()) {
            Ok(other) if field.name() != CLIP_ID => (decoded.field(other).clone(), From::Decoded(other)),
            _ => (field, From::Clips(i)),
        });
    }
    let mut new = Vec::new();
    for (i, field) in decoded.fields().iter().enumerate().filter(|(_, field)| field.name() != CLIP_ID) {
        if clips.index_of(field.name()).is_err() {
            new.push((field.as_ref().clone(), From::Decoded(i)));
        }
    }
    for (name, kept) in SOURCES {
        if let Ok(i) = clips.index_of(name) {
            new.push((clips.field(i).clone().with_name(kept), From::Clips(i)));
        }
    }
    for name in ["clipped"].into_iter().chain(SOURCES.map(|(_, kept)| kept)) {
        if clips.index_of(name).is_ok() {
            return Err(stage.error(format!(
                "the input has a column `{name}`, which is also the name of a column of decoded clips; give it another \
                 name in SQL (select {name} as clip_{name}, ...)"
            )));
        }
    }
    columns.extend(new);
    Ok(columns)
}

impl LocateOp {
    /// Joins clips of the schema `clips` with `decoded`, a table for each partition, of the schema `of_decoded`.
    ///
    /// # Errors
    /// When the clips have a column whose name is needed.
    pub fn new(
        clips: &Schema,
        of_decoded: &Schema,
        decoded: Vec<Table>,
        stage: StageHandle,
    ) -> Result<Self, RunError> {
        let (fields, columns): (Vec<Field>, Vec<From>) =
            columns(&stage, clips, of_decoded)?.into_iter().unzip();
        let schema = Arc::new(Schema::new_with_metadata(fields, clips.metadata().clone()));
        Ok(Self { decoded, columns, stage, schema })
    }

    fn decoded(&self, partition: usize) -> Result<(RecordBatch, HashMap<String, u32>), RunError> {
        let lost = || RunError::Engine(format!("no decoded clips for partition {partition}"));
        let table = self.decoded.get(partition).ok_or_else(lost)?;
        let names: Vec<&str> = table.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let rows = concat_batches(&table.schema, &table.read(&names)?)?;
        let ids = text(&rows, CLIP_ID)?;
        let mut places = HashMap::with_capacity(ids.len());
        for row in 0..ids.len() {
            places.insert(required(&ids, CLIP_ID, row)?.to_owned(), row as u32);
        }
        Ok((rows, places))
    }

    fn located(
        &self,
        clips: &RecordBatch,
        (decoded, places): &(RecordBatch, HashMap<String, u32>),
    ) -> Result<RecordBatch, RunError> {
        let ids = text(clips, CLIP_ID)?;
        let found: Vec<Option<u32>> =
            ids.iter().map(|id| id.and_then(|id| places.get(id).copied())).collect();
        let kept: BooleanArray = found.iter().map(|place| Some(place.is_some())).collect();
        let clips = filter_record_batch(clips, &kept)?;
        let decoded = take_record_batch(decoded, &found.into_iter().flatten().collect::<UInt32Array>())?;
        let column = |from: &From| -> ArrayRef {
            Arc::clone(match from {
                From::Clips(i) => clips.column(*i),
                From::Decoded(i) => decoded.column(*i),
            })
        };
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), self.columns.iter().map(column).collect())?)
    }
}

impl PartitionOp for LocateOp {
    fn name(&self) -> &'static str {
        "LocateExec"
    }

    fn details(&self) -> String {
        String::new()
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn start(
        self: Arc<Self>,
        partition: usize,
        input: SendableRecordBatchStream,
        _: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let schema = self.schema();
        let decoded = self.decoded(partition)?;
        let rows = input.map(move |clips| {
            self.stage.interrupt.check()?;
            Ok(self.located(&clips?, &decoded)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
