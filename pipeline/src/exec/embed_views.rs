//! From rendered views to embeddings: one row per view and subspace, beside what was drawn for the factors.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use loev_ops::chain::Chain;

use super::PartitionOp;
use super::columns::CLIP_ID;
use super::draw::VIEW_ID;
use super::embed::{Encoder, vectors};
use super::pool::Pool;
use super::render::{wide_array, wide_field};
use crate::error::RunError;
use crate::run::stage::StageHandle;

/// The columns that a view keeps, beside those of its factors.
pub const KEPT: [&str; 6] = [VIEW_ID, CLIP_ID, "segment", "epoch", "view", "centre_s"];

/// The operator; see the module.
pub struct EmbedViewsOp {
    encoder: Arc<dyn Encoder>,
    /// A pool of one thread: the device's.
    device: Arc<Pool>,
    stage: StageHandle,
    /// The columns of the input that the output keeps.
    kept: Vec<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for EmbedViewsOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbedViewsOp").field("details", &self.details()).finish_non_exhaustive()
    }
}

impl EmbedViewsOp {
    /// Embeds views of `chain`, in rows of the schema `views`, with `encoder` on the thread of `device`.
    ///
    /// # Errors
    /// When a column is missing.
    pub fn new(
        views: &SchemaRef,
        chain: &Chain,
        encoder: Arc<dyn Encoder>,
        device: Arc<Pool>,
        stage: StageHandle,
    ) -> Result<Self, RunError> {
        let factors = chain.factors();
        let names = KEPT.into_iter().chain(factors.iter().map(String::as_str));
        let kept = names.map(|name| Ok(views.index_of(name)?)).collect::<Result<Vec<_>, RunError>>()?;
        let mut fields: Vec<Field> = kept.iter().map(|index| views.field(*index).clone()).collect();
        fields.push(Field::new("subspace", DataType::Utf8, false));
        fields.push(wide_field("embedding", encoder.dim()));
        let schema = Arc::new(Schema::new_with_metadata(fields, views.metadata().clone()));
        Ok(Self { encoder, device, stage, kept, schema })
    }

    async fn chunk(&self, batch: &RecordBatch) -> Result<RecordBatch, RunError> {
        let embedded = vectors(&self.encoder, &self.device, &self.stage, batch).await?;
        let (subspaces, dim) = (self.encoder.subspaces(), self.encoder.dim());
        let views = batch.num_rows();
        let rows = UInt32Array::from_iter_values(
            (0..views as u32).flat_map(|row| subspaces.iter().map(move |_| row)),
        );
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.kept.len() + 2);
        for index in &self.kept {
            columns.push(take(batch.column(*index), &rows, None)?);
        }
        let names: Vec<&str> = (0..views).flat_map(|_| subspaces.iter().map(String::as_str)).collect();
        columns.push(Arc::new(StringArray::from(names)));
        let mut values = Vec::with_capacity(rows.len() * dim);
        for row in 0..views {
            embedded
                .iter()
                .for_each(|vectors| values.extend_from_slice(&vectors[row * dim..(row + 1) * dim]));
        }
        columns.push(wide_array(dim, values)?);
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

impl PartitionOp for EmbedViewsOp {
    fn name(&self) -> &'static str {
        "EmbedViewsExec"
    }

    fn details(&self) -> String {
        format!("subspaces=[{}], dim={}", self.encoder.subspaces().join(", "), self.encoder.dim())
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn start(
        self: Arc<Self>,
        _: usize,
        input: SendableRecordBatchStream,
        _: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let schema = self.schema();
        let rows = input.then(move |batch| {
            let op = Arc::clone(&self);
            async move { Ok(op.chunk(&batch?).await?) }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
