//! From clips to draws: each clip row becomes the rows of its views, parameters and labels included.
//! Nothing is decoded here.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use indexmap::IndexMap;
use loev_ops::chain::Chain;
use loev_ops::draw_table::{chain_metadata, draw_fields, draws_to_arrays};
use loev_ops::labels::{LabelChange, LabelKind, label_effect, view_label, view_type};
use loev_ops::rng::Key;
use loev_ops::views::{Draw, Pools};
use loev_ops::{AudioError, RejectKind};

use super::PartitionOp;
use super::columns::{CLIP_ID, SECONDS, URI, number, required, text};
use crate::error::RunError;
use crate::run::stage::StageHandle;

/// The column that names a view: see [`view_id`].
pub const VIEW_ID: &str = "view_id";

/// The name of a view, unique in a run: `clip:segment:epoch:view`.
pub fn view_id(clip_id: &str, draw: &Draw) -> String {
    format!("{clip_id}:{}:{}:{}", draw.segment, draw.epoch, draw.view)
}

/// Which draws a clip gets.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Augmented views: `segments` random segments in the epoch of each partition.
    Views {
        /// Segments of a clip in one epoch.
        segments: u32,
        /// The epoch of each partition.
        epochs: Vec<u32>,
        /// The clips that second recordings are drawn from.
        pools: Pools,
    },
    /// One untouched view per segment, from the start of the clip on.
    Clean {
        /// Seconds from one segment to the next.
        hop: f64,
    },
}

/// Clips whose draws are held at once; a scan hands over thousands.
const CLIPS: usize = 64;

/// A batch in parts of at most [`CLIPS`] rows.
fn parts(clips: DfResult<RecordBatch>) -> Vec<DfResult<RecordBatch>> {
    match clips {
        Ok(clips) => {
            let starts = (0..clips.num_rows()).step_by(CLIPS);
            starts.map(|from| Ok(clips.slice(from, CLIPS.min(clips.num_rows() - from)))).collect()
        }
        Err(error) => vec![Err(error)],
    }
}

/// The operator; see the module.
#[derive(Debug)]
pub struct DrawOp {
    chain: Chain,
    plan: Plan,
    key: Key,
    labels: Vec<(usize, LabelKind)>,
    stage: StageHandle,
    schema: SchemaRef,
}

impl DrawOp {
    /// Draws for clips of the schema `clips`. `labels` says what the values of a column mean;
    /// columns that are not there are passed over. `key` is the stage's key.
    ///
    /// # Errors
    /// When `clips` lacks a column that draws need, or has one whose name a draw needs.
    pub fn new(
        clips: &SchemaRef,
        chain: Chain,
        plan: Plan,
        key: Key,
        labels: &IndexMap<String, LabelKind>,
        stage: StageHandle,
    ) -> Result<Self, RunError> {
        for (name, meaning) in
            [(CLIP_ID, "the clip's name"), (URI, "where its audio is"), (SECONDS, "its duration")]
        {
            if clips.index_of(name).is_err() {
                return Err(stage.error(format!(
                    "the input has no column `{name}` ({meaning}); select it in the SQL that makes the input"
                )));
            }
        }
        let labels: Vec<(usize, LabelKind)> =
            labels.iter().filter_map(|(name, kind)| Some((clips.index_of(name).ok()?, *kind))).collect();
        let mut fields = vec![Field::new(VIEW_ID, DataType::Utf8, false)];
        for (i, field) in clips.fields().iter().enumerate() {
            let field = field.as_ref().clone();
            fields.push(match labels.iter().find(|(label, _)| *label == i) {
                Some((_, kind)) => {
                    let of_view = view_type(*kind, field.data_type())
                        .map_err(|m| stage.error(format!("the label `{}`: {m}", field.name())))?;
                    field.with_data_type(of_view).with_nullable(true)
                }
                None => field,
            });
        }
        for field in draw_fields(&chain) {
            if clips.index_of(field.name()).is_ok() || field.name() == VIEW_ID {
                return Err(stage.error(format!(
                    "the input has a column `{0}`, which is also the name of a column of views; \
                     give it another name in SQL (select {0} as clip_{0}, ...)",
                    field.name()
                )));
            }
            fields.push(field);
        }
        let metadata = [chain_metadata(&chain)].into_iter().collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        Ok(Self { chain, plan, key, labels, stage, schema })
    }

    fn draws(&self, partition: usize, clip_id: &str, seconds: f64) -> Result<Vec<Draw>, AudioError> {
        match &self.plan {
            Plan::Views { segments, epochs, pools } => {
                let epoch = epochs.get(partition).copied().unwrap_or(0);
                let mut draws = Vec::new();
                for segment in 0..*segments {
                    draws.extend(self.chain.draw_segment(self.key, clip_id, seconds, segment, epoch, pools)?);
                }
                Ok(draws)
            }
            Plan::Clean { hop } => {
                let need = self.chain.read_seconds();
                if seconds < need {
                    return Err(AudioError::new(
                        RejectKind::TooShort,
                        format!("{seconds:.3} s long, where a segment needs {need:.3} s"),
                    ));
                }
                // A last segment that ends where the clip ends is moved back by what rendering reads beyond it.
                let margin = (need - self.chain.seconds).clamp(0.0, hop / 2.0);
                let segments = ((seconds - need + margin) / hop + 1e-9).floor() as u32 + 1;
                Ok((0..segments)
                    .map(|i| {
                        let centre = need / 2.0 + f64::from(i) * hop;
                        self.chain.draw_identity(self.key, clip_id, i, centre.min(seconds - need / 2.0))
                    })
                    .collect())
            }
        }
    }

    fn expand(&self, partition: usize, clips: &RecordBatch) -> Result<RecordBatch, RunError> {
        let (ids, uris) = (text(clips, CLIP_ID)?, text(clips, URI)?);
        let seconds = number(clips, SECONDS)?;
        let (mut rows, mut names, mut draws) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..clips.num_rows() {
            let (id, uri) = (required(&ids, CLIP_ID, row)?, required(&uris, URI, row)?);
            match self.draws(partition, id, seconds.value(row)) {
                Ok(drawn) => {
                    for draw in drawn {
                        rows.push(row as u32);
                        names.push(view_id(id, &draw));
                        draws.push(draw);
                    }
                }
                Err(error) => self.stage.reject(partition, id, uri, &error),
            }
        }
        let changes: Vec<LabelChange> = draws.iter().map(|draw| label_effect(&self.chain, draw)).collect();
        let sources: Vec<usize> = rows.iter().map(|row| *row as usize).collect();
        let rows = UInt32Array::from(rows);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(names))];
        for (i, column) in clips.columns().iter().enumerate() {
            columns.push(match self.labels.iter().find(|(label, _)| *label == i) {
                None => take(column, &rows, None)?,
                Some((_, kind)) => view_label(*kind, column, &sources, &changes, self.chain.seconds)?,
            });
        }
        columns.extend(draws_to_arrays(&self.chain, &draws)?);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl PartitionOp for DrawOp {
    fn name(&self) -> &'static str {
        "DrawExec"
    }

    fn details(&self) -> String {
        match &self.plan {
            Plan::Views { segments, .. } => {
                format!("segments={segments}, views={}", self.chain.views_per_segment())
            }
            Plan::Clean { hop } => format!("clean, hop={hop} s"),
        }
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
        let rows = input.flat_map(|clips| stream::iter(parts(clips))).map(move |clips| {
            self.stage.interrupt.check()?;
            let clips = clips?;
            let draws = self.expand(partition, &clips)?;
            if matches!(self.plan, Plan::Views { .. }) {
                self.stage.bar.add(clips.num_rows() as u64);
            }
            Ok(draws)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
