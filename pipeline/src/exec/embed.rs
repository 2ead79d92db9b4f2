//! From rendered segments to embeddings: one row per segment and subspace, and one row with the
//! clip's mean per subspace. The encoder runs on one thread of its own, which owns its device.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use loev_models::ModelError;

use super::PartitionOp;
use super::columns::{CLIP_ID, column, primitive, text};
use super::pool::Pool;
use super::render::{wide_array, wide_field};
use crate::error::RunError;
use crate::run::stage::StageHandle;

/// Turns features into vectors. What [`EmbedOp`] runs: a trained model, or a baseline.
pub trait Encoder: Send + Sync + 'static {
    /// The names of the subspaces, in the order of [`Self::embed`]'s answer.
    fn subspaces(&self) -> Vec<String>;

    /// Values of an embedding, the same in every subspace.
    fn dim(&self) -> usize;

    /// Embeds `views` views; `features` is row major (views, frames, mels). The answer holds, for
    /// each subspace, the vectors of all views one after the other.
    ///
    /// # Errors
    /// When the device fails.
    fn embed(&self, features: &[f32], views: usize) -> Result<Vec<Vec<f32>>, ModelError>;
}

/// What `encoder` makes of the features of a batch, on the thread of `device`: per subspace, vectors one after the other.
///
/// # Errors
/// When there are no features, or the encoder fails or returns another number of vectors.
pub(super) async fn vectors(
    encoder: &Arc<dyn Encoder>,
    device: &Pool,
    stage: &StageHandle,
    batch: &RecordBatch,
) -> Result<Vec<Vec<f32>>, RunError> {
    stage.interrupt.check()?;
    let wide = batch.column_by_name("features").ok_or_else(|| stage.error("no features to embed"))?;
    let features = wide.as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec();
    let (job, views) = (Arc::clone(encoder), batch.num_rows());
    let answer = device.submit(move || job.embed(&features, views));
    let embedded = match answer.await {
        Ok(Ok(embedded)) => embedded?,
        Ok(Err(panic)) => return Err(stage.error(format!("the encoder panicked: {panic}"))),
        Err(_) => return Err(RunError::Interrupted),
    };
    let whole = |vectors: &Vec<f32>| vectors.len() == views * encoder.dim();
    match embedded.len() == encoder.subspaces().len() && embedded.iter().all(whole) {
        true => Ok(embedded),
        false => Err(stage.error("the encoder returned another number of vectors than it was asked for")),
    }
}

/// The operator; see the module. Its input must hold the segments of a clip together.
pub struct EmbedOp {
    encoder: Arc<dyn Encoder>,
    /// A pool of one thread: the device's.
    device: Arc<Pool>,
    stage: StageHandle,
    view_seconds: f64,
    schema: SchemaRef,
}

impl fmt::Debug for EmbedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbedOp").field("details", &self.details()).finish_non_exhaustive()
    }
}

impl EmbedOp {
    /// Embeds segments of `view_seconds` with `encoder` on the thread of `device`.
    pub fn new(encoder: Arc<dyn Encoder>, device: Arc<Pool>, view_seconds: f64, stage: StageHandle) -> Self {
        let schema = Arc::new(Schema::new(vec![
            Field::new(CLIP_ID, DataType::Utf8, false),
            Field::new("segment", DataType::Int32, true),
            Field::new("start_s", DataType::Float64, true),
            Field::new("subspace", DataType::Utf8, false),
            wide_field("embedding", encoder.dim()),
        ]));
        Self { encoder, device, stage, view_seconds, schema }
    }
}

/// Rows on their way out.
#[derive(Default)]
struct Rows {
    clips: Vec<String>,
    segments: Vec<Option<i32>>,
    starts: Vec<Option<f64>>,
    subspaces: Vec<String>,
    values: Vec<f32>,
}

impl Rows {
    fn push(
        &mut self,
        clip: &str,
        at: Option<(i32, f64)>,
        subspace: &str,
        values: impl Iterator<Item = f32>,
    ) {
        self.clips.push(clip.to_owned());
        self.segments.push(at.map(|(segment, _)| segment));
        self.starts.push(at.map(|(_, start)| start));
        self.subspaces.push(subspace.to_owned());
        self.values.extend(values);
    }

    fn batch(self, schema: &SchemaRef, dim: usize) -> Result<RecordBatch, RunError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(self.clips)),
            Arc::new(Int32Array::from(self.segments)),
            Arc::new(Float64Array::from(self.starts)),
            Arc::new(StringArray::from(self.subspaces)),
            wide_array(dim, self.values)?,
        ];
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// The clip whose segments are arriving: sums for its mean.
struct Open {
    clip: String,
    count: u32,
    sums: Vec<Vec<f64>>,
}

impl Open {
    fn close(self, subspaces: &[String], rows: &mut Rows) {
        let scale = 1.0 / f64::from(self.count);
        for (subspace, sums) in subspaces.iter().zip(&self.sums) {
            rows.push(&self.clip, None, subspace, sums.iter().map(|sum| (sum * scale) as f32));
        }
    }
}

impl EmbedOp {
    async fn chunk(&self, batch: &RecordBatch, open: &mut Option<Open>) -> Result<RecordBatch, RunError> {
        let views = batch.num_rows();
        let embedded = vectors(&self.encoder, &self.device, &self.stage, batch).await?;
        let clips = text(batch, CLIP_ID)?;
        let segments = primitive::<Int32Type>(batch, "segment")?;
        let centres = column(batch, "centre_s", &DataType::Float64)?;
        let centres = centres.as_primitive::<Float64Type>();
        let (subspaces, dim) = (self.encoder.subspaces(), self.encoder.dim());
        let mut rows = Rows::default();
        for row in 0..views {
            let clip = clips.value(row);
            if open.as_ref().is_some_and(|open| open.clip != clip)
                && let Some(done) = open.take()
            {
                done.close(&subspaces, &mut rows);
            }
            let open = open.get_or_insert_with(|| {
                self.stage.bar.add(1);
                Open { clip: clip.to_owned(), count: 0, sums: vec![vec![0.0; dim]; subspaces.len()] }
            });
            open.count += 1;
            let at = (segments.value(row), (centres.value(row) - self.view_seconds / 2.0).max(0.0));
            for ((subspace, vectors), sums) in subspaces.iter().zip(&embedded).zip(&mut open.sums) {
                let vector = &vectors[row * dim..(row + 1) * dim];
                sums.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
                rows.push(clip, Some(at), subspace, vector.iter().copied());
            }
        }
        rows.batch(&self.schema, dim)
    }
}

impl PartitionOp for EmbedOp {
    fn name(&self) -> &'static str {
        "EmbedExec"
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
        let state = (self, input, None::<Open>);
        let rows = stream::try_unfold(state, |(op, mut input, mut open)| async move {
            loop {
                match input.next().await {
                    Some(batch) => {
                        let batch = batch?;
                        if batch.num_rows() > 0 {
                            let rows = op.chunk(&batch, &mut open).await?;
                            return Ok(Some((rows, (op, input, open))));
                        }
                    }
                    None => {
                        let Some(last) = open.take() else { return Ok(None) };
                        let mut rows = Rows::default();
                        last.close(&op.encoder.subspaces(), &mut rows);
                        let rows = rows.batch(&op.schema, op.encoder.dim())?;
                        return Ok(Some((rows, (op, input, open))));
                    }
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
