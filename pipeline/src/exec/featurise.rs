//! Features of views whose audio is stored: the same values as rendering them again would give.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Field, Float32Type, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use loev_ops::Audio;
use loev_ops::chain::Chain;
use loev_ops::features::{FrontEnd, LogMel};

use super::PartitionOp;
use super::pool::Pool;
use super::render::{Output, features_of, wide_array, wide_field};
use crate::error::RunError;
use crate::run::stage::StageHandle;

/// The operator; see the module. The column `audio` becomes the column `features`.
pub struct FeaturiseOp {
    front_end: FrontEnd,
    /// Samples of one channel, and the rate.
    frames: usize,
    rate: u32,
    width: usize,
    pool: Arc<Pool>,
    stage: StageHandle,
    schema: SchemaRef,
}

impl fmt::Debug for FeaturiseOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeaturiseOp").field("details", &self.details()).finish_non_exhaustive()
    }
}

impl FeaturiseOp {
    /// Features of the audio of views of `chain`, in a table of the schema `views`.
    pub fn new(
        views: &SchemaRef,
        chain: &Chain,
        front_end: FrontEnd,
        pool: Arc<Pool>,
        stage: StageHandle,
    ) -> Self {
        let audio = Output::Audio.column();
        let output = Output::Features(front_end.clone());
        let width = output.width(chain);
        let mut fields: Vec<Field> =
            views.fields().iter().filter(|f| f.name() != audio).map(|f| f.as_ref().clone()).collect();
        fields.push(wide_field(output.column(), width));
        let schema = Arc::new(Schema::new_with_metadata(fields, views.metadata().clone()));
        Self { front_end, frames: chain.frames(), rate: chain.sample_rate, width, pool, stage, schema }
    }

    /// On a thread of the pool.
    fn features(&self, rows: &RecordBatch) -> Result<RecordBatch, RunError> {
        let audio = Output::Audio.column();
        let index = rows.schema_ref().index_of(audio)?;
        let stored = rows
            .column(index)
            .as_fixed_size_list_opt()
            .ok_or_else(|| self.stage.error("the stored audio is no list of samples"))?;
        let length = stored.value_length() as usize;
        let samples = stored.values().as_primitive::<Float32Type>().values();
        let mut log_mel = LogMel::new(&self.front_end);
        let mut values = vec![0.0; self.width * rows.num_rows()];
        let views = samples.chunks_exact(length.max(1));
        for (view, out) in views.zip(values.chunks_exact_mut(self.width.max(1))) {
            let channels = view.chunks_exact(self.frames.max(1)).map(<[f32]>::to_vec).collect();
            features_of(&mut log_mel, &Audio { rate: self.rate, channels }, out);
        }
        let mut columns = rows.columns().to_vec();
        columns.remove(index);
        columns.push(wide_array(self.width, values)?);
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

impl PartitionOp for FeaturiseOp {
    fn name(&self) -> &'static str {
        "FeaturiseExec"
    }

    fn details(&self) -> String {
        format!("features[{}]", self.width)
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
        let rows = input.then(move |rows| {
            let op = Arc::clone(&self);
            async move {
                op.stage.interrupt.check()?;
                let rows = rows?;
                let count = rows.num_rows() as u64;
                let (worker, pool) = (Arc::clone(&op), Arc::clone(&op.pool));
                let answer = pool.submit(move || worker.features(&rows)).await;
                let features = answer
                    .map_err(|_| RunError::Interrupted)?
                    .map_err(|panic| op.stage.error(format!("the front end panicked: {panic}")))??;
                op.stage.bar.add(count);
                Ok(features)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
