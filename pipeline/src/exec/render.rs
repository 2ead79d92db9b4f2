//! Where audio appears: each narrow draw row gets the samples, or the features, of its view; or a segment's first row
//! what its views are made from, where they are rendered on the device that trains on them.
//!
//! ```text
//! rows ─► chunks of `rows` ─► segments ──► pool: read ─ resample ─ augment ─ (log-mel)
//!                                └──────── answers in order ─► one wide batch
//! ```
//!
//! A chunk is rendered as a whole before the next one is asked for, so that a partition holds one
//! wide batch at a time; the consumer's pace is the renderer's pace. The views of one segment share
//! one read of the file. A segment that cannot be rendered becomes a reject and its rows go.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, LargeListArray, RecordBatch,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use loev_ops::chain::Chain;
use loev_ops::draw_table::draws_from_batch;
use loev_ops::features::{FrontEnd, LogMel};
use loev_ops::render::Renderer;
use loev_ops::source::Source;
use loev_ops::views::Draw;
use loev_ops::{Audio, AudioError, RejectKind};

use super::PartitionOp;
use super::columns::{CLIP_ID, URI, primitive, required, text};
use super::pool::Pool;
use crate::error::RunError;
use crate::resume::fault;
use crate::run::memory::Budget;
use crate::run::stage::StageHandle;

/// The column with the size of a clip's file, where clips come from files.
pub const BYTES: &str = "bytes";
/// Samples a second of a source, over its channels, as sources usually have them at most.
const SOURCE_RATE: f64 = 96_000.0;
/// Copies of a source that decoding, resampling and augmenting hold.
const SOURCE_COPIES: f64 = 4.0;

/// About what reading so many seconds of a source holds.
pub fn source_bytes(seconds: f64) -> usize {
    (seconds * SOURCE_RATE * 4.0 * SOURCE_COPIES) as usize
}

/// What a rendered row carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Column `audio`: samples at the chain's rate, one channel after the other.
    Audio,
    /// Column `features`: log-mel frames in dB, row major (frames, mels).
    Features(FrontEnd),
    /// Column `source`: the audio that the views of a segment are made from, as [`Self::Audio`], in the row of its
    /// first view; nothing in those of the others.
    Source,
}

impl Output {
    /// The name of the wide column.
    pub fn column(&self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Features(_) => "features",
            Self::Source => "source",
        }
    }

    /// Values in one row of the wide column that has any.
    pub fn width(&self, chain: &Chain) -> usize {
        match self {
            Self::Audio => chain.frames() * chain.channels.count(),
            Self::Features(front_end) => front_end.frames(chain.frames()) * front_end.mels,
            Self::Source => chain.read_frames() * chain.channels.count(),
        }
    }

    /// Values in `rows` rows of the wide column.
    fn values(&self, chain: &Chain, rows: usize) -> usize {
        let rows = match self {
            Self::Audio | Self::Features(_) => rows,
            Self::Source => rows.div_ceil(chain.views_per_segment()),
        };
        rows * self.width(chain)
    }

    fn field(&self, chain: &Chain) -> Field {
        match self {
            Self::Audio | Self::Features(_) => wide_field(self.column(), self.width(chain)),
            Self::Source => {
                let item = Arc::new(Field::new_list_field(DataType::Float32, false));
                Field::new(self.column(), DataType::LargeList(item), true)
            }
        }
    }

    /// The column of segments with so many rows each; the values of each follow those of the one before.
    fn array(&self, chain: &Chain, segments: &[usize], values: Vec<f32>) -> Result<ArrayRef, RunError> {
        match self {
            Self::Audio | Self::Features(_) => wide_array(self.width(chain), values),
            Self::Source => {
                let firsts = segments.iter().flat_map(|rows| (0..*rows).map(|row| row == 0));
                let lengths = firsts.clone().map(|first| if first { self.width(chain) } else { 0 });
                let item = Arc::new(Field::new_list_field(DataType::Float32, false));
                let (offsets, nulls) = (OffsetBuffer::from_lengths(lengths), NullBuffer::from_iter(firsts));
                Ok(Arc::new(LargeListArray::try_new(
                    item,
                    offsets,
                    Arc::new(Float32Array::from(values)),
                    Some(nulls),
                )?))
            }
        }
    }
}

/// Renders views, one segment at a time; keeps its plans and scratch space.
pub struct ViewRenderer {
    chain: Chain,
    renderer: Renderer,
    log_mel: Option<LogMel>,
    output: Output,
    view: Audio,
}

impl ViewRenderer {
    /// A renderer for views of `chain`.
    ///
    /// # Errors
    /// When the chain cannot be rendered.
    pub fn new(chain: &Chain, output: &Output) -> Result<Self, AudioError> {
        let log_mel = match output {
            Output::Audio | Output::Source => None,
            Output::Features(front_end) => Some(LogMel::new(front_end)),
        };
        Ok(Self {
            chain: chain.clone(),
            renderer: Renderer::new(chain)?,
            log_mel,
            output: output.clone(),
            view: Audio::mono(0, Vec::new()),
        })
    }

    /// The source audio that the views of the segment of `draw` are made from, with the channels of the chain.
    ///
    /// # Errors
    /// Whatever keeps the source from being read.
    pub fn read(&self, uri: &str, draw: &Draw) -> Result<Audio, AudioError> {
        self.renderer.read(&Source::parse(uri)?, draw)
    }

    /// The views of one segment, one after the other; or what they are made from, once.
    ///
    /// # Errors
    /// Whatever keeps the source from being read, or a view from being rendered.
    pub fn render(&mut self, uri: &str, draws: &[Draw]) -> Result<Vec<f32>, AudioError> {
        let Some(first) = draws.first() else { return Ok(Vec::new()) };
        if self.output == Output::Source {
            return Ok(self.renderer.read_sound(&Source::parse(uri)?, first)?.channels.concat());
        }
        let source = self.read(uri, first)?;
        let width = self.output.width(&self.chain);
        let mut values = vec![0.0; width * draws.len()];
        for (draw, out) in draws.iter().zip(values.chunks_exact_mut(width)) {
            self.renderer.render_into(&source, draw, &mut self.view)?;
            match &mut self.log_mel {
                Some(log_mel) => features_of(log_mel, &self.view, out),
                None => {
                    for (out, channel) in out.chunks_exact_mut(self.chain.frames()).zip(&self.view.channels) {
                        out.copy_from_slice(channel);
                    }
                }
            }
        }
        Ok(values)
    }
}

/// The features of a view, from the mean of its channels.
pub fn features_of(log_mel: &mut LogMel, view: &Audio, out: &mut [f32]) {
    match view.channels.as_slice() {
        [only] => log_mel.compute(only, out),
        _ => log_mel.compute(&view.to_mono(), out),
    }
}

/// Renderers that wait for work; a job takes one and gives it back, unless it panicked.
struct Renderers {
    chain: Chain,
    output: Output,
    idle: Mutex<Vec<ViewRenderer>>,
}

impl Renderers {
    fn render(&self, uri: &str, bytes: Option<u64>, draws: &[Draw]) -> Result<Vec<f32>, AudioError> {
        fault::point("render");
        unchanged(uri, bytes)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut renderer = match idle {
            Some(renderer) => renderer,
            None => ViewRenderer::new(&self.chain, &self.output)?,
        };
        let values = renderer.render(uri, draws);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(renderer);
        values
    }
}

/// Whether a file still has the size that it had when it was probed; with another it is another recording.
fn unchanged(uri: &str, bytes: Option<u64>) -> Result<(), AudioError> {
    let (Some(bytes), Ok(Source::File(path))) = (bytes, Source::parse(uri)) else { return Ok(()) };
    match std::fs::metadata(&path) {
        // What keeps a file from being looked at keeps it from being read, and is told then.
        Ok(found) if found.len() != bytes => Err(AudioError::new(
            RejectKind::Changed,
            format!("{uri}: {} bytes, where there were {bytes} when it was probed", found.len()),
        )),
        _ => Ok(()),
    }
}

/// The operator; see the module.
pub struct RenderOp {
    renderers: Arc<Renderers>,
    rows: usize,
    pool: Arc<Pool>,
    budget: Arc<Budget>,
    stage: StageHandle,
    schema: SchemaRef,
}

impl fmt::Debug for RenderOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenderOp").field("details", &self.details()).finish_non_exhaustive()
    }
}

impl RenderOp {
    /// Renders draws of the schema `draws`, `rows` of them at a time.
    pub fn new(
        draws: &SchemaRef,
        chain: Chain,
        output: Output,
        rows: usize,
        pool: Arc<Pool>,
        budget: Arc<Budget>,
        stage: StageHandle,
    ) -> Self {
        let mut fields: Vec<Field> = draws.fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.push(output.field(&chain));
        let schema = Arc::new(Schema::new_with_metadata(fields, draws.metadata().clone()));
        let renderers = Arc::new(Renderers { chain, output, idle: Mutex::default() });
        Self { renderers, rows, pool, budget, stage, schema }
    }

    /// About what rendering so many rows holds at the same time: each thread a source at its own rate with a few
    /// copies, and all rows their results, twice.
    fn bytes(&self, rows: usize) -> usize {
        let Renderers { chain, output, .. } = self.renderers.as_ref();
        let sources = source_bytes(chain.read_seconds()) * rows.min(self.pool.threads());
        sources + 2 * output.values(chain, rows) * size_of::<f32>()
    }

    async fn chunk(
        &self,
        partition: usize,
        rows: RecordBatch,
        memory: &mut MemoryReservation,
    ) -> Result<RecordBatch, RunError> {
        self.stage.interrupt.check()?;
        let Renderers { chain, output, .. } = self.renderers.as_ref();
        let room = output.values(chain, rows.num_rows());
        memory.try_resize(room * size_of::<f32>())?;
        let draws = draws_from_batch(&self.renderers.chain, &rows)?;
        let (ids, uris) = (text(&rows, CLIP_ID)?, text(&rows, URI)?);
        let sizes = match rows.schema_ref().index_of(BYTES) {
            Ok(_) => Some(primitive::<Int64Type>(&rows, BYTES)?),
            Err(_) => None,
        };
        let permits = self.budget.rendering(self.bytes(rows.num_rows())).await;

        let mut answers = Vec::new();
        let mut from = 0;
        while from < draws.len() {
            let id = required(&ids, CLIP_ID, from)?;
            let same = |i: usize| {
                ids.value(i) == id
                    && (draws[i].segment, draws[i].epoch) == (draws[from].segment, draws[from].epoch)
            };
            let to = (from + 1..draws.len()).find(|i| !same(*i)).unwrap_or(draws.len());
            let uri = required(&uris, URI, from)?.to_owned();
            let bytes = sizes.as_ref().filter(|s| s.is_valid(from)).map(|s| s.value(from).unsigned_abs());
            let (renderers, of_segment) = (Arc::clone(&self.renderers), draws[from..to].to_vec());
            let job = move || renderers.render(&uri, bytes, &of_segment);
            answers.push((from..to, self.pool.submit(job)));
            from = to;
        }

        let mut values = Vec::with_capacity(room);
        let mut segments = Vec::with_capacity(answers.len());
        let mut kept = vec![true; rows.num_rows()];
        for (segment, answer) in answers {
            let rendered = match answer.await {
                Ok(Ok(rendered)) => rendered,
                Ok(Err(panic)) => Err(AudioError::new(RejectKind::Panicked, panic)),
                Err(_) => return Err(RunError::Interrupted),
            };
            match rendered {
                Ok(rendered) => {
                    values.extend_from_slice(&rendered);
                    segments.push(segment.len());
                }
                Err(mut error) => {
                    // The clip's other segments may be sound: say which one this is.
                    let Draw { segment: number, epoch, .. } = draws[segment.start];
                    error.message = format!("segment {number} of epoch {epoch}: {}", error.message);
                    self.stage.reject(partition, ids.value(segment.start), uris.value(segment.start), &error);
                    kept[segment].fill(false);
                }
            }
        }
        drop(permits);
        if self.stage.counts_rows {
            self.stage.bar.add(rows.num_rows() as u64);
        }
        let rows = match kept.iter().all(|kept| *kept) {
            true => rows,
            false => filter_record_batch(&rows, &BooleanArray::from(kept))?,
        };
        let mut columns = rows.columns().to_vec();
        columns.push(output.array(chain, &segments, values)?);
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// A column of vectors of `width` f32 values.
pub fn wide_field(name: &str, width: usize) -> Field {
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    Field::new(name, DataType::FixedSizeList(item, i32::try_from(width).unwrap_or(i32::MAX)), false)
}

/// The array of a [`wide_field`]; `values` are its rows, one after the other.
///
/// # Errors
/// When the values are not whole rows.
pub fn wide_array(width: usize, values: Vec<f32>) -> Result<ArrayRef, RunError> {
    let DataType::FixedSizeList(item, width) = wide_field("", width).data_type().clone() else {
        return Err(RunError::Engine("a wide field is a fixed-size list".to_owned()));
    };
    Ok(Arc::new(FixedSizeListArray::try_new(item, width, Arc::new(Float32Array::from(values)), None)?))
}

impl PartitionOp for RenderOp {
    fn name(&self) -> &'static str {
        "RenderExec"
    }

    fn details(&self) -> String {
        let Renderers { chain, output, .. } = self.renderers.as_ref();
        format!(
            "{}[{}], rows={}, threads={}",
            output.column(),
            output.width(chain),
            self.rows,
            self.pool.threads()
        )
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn start(
        self: Arc<Self>,
        partition: usize,
        input: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let schema = self.schema();
        let rows = self.rows.max(1);
        let chunks = input.flat_map(move |batch| {
            stream::iter(match batch {
                Ok(batch) => (0..batch.num_rows())
                    .step_by(rows)
                    .map(|from| Ok(batch.slice(from, rows.min(batch.num_rows() - from))))
                    .collect(),
                Err(error) => vec![Err(error)],
            })
        });
        let memory = MemoryConsumer::new("render").register(context.memory_pool());
        let state = (self, Box::pin(chunks), memory);
        let rendered = stream::try_unfold(state, move |(op, mut chunks, mut memory)| async move {
            match chunks.next().await {
                None => Ok(None),
                Some(chunk) => {
                    let wide = op.chunk(partition, chunk?, &mut memory).await?;
                    Ok(Some((wide, (op, chunks, memory))))
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rendered)))
    }
}

#[cfg(test)]
mod tests {
    use loev_ops::wav::write_wav;

    use super::*;
    use crate::spec::stage::Features;

    #[test]
    fn a_file_that_changed_or_vanished_since_it_was_probed_is_a_reject() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        let samples: Vec<f32> = (0..64_000).map(|i| (i as f32 * 0.1).sin()).collect();
        write_wav(&path, 16_000, &[&samples]).unwrap();
        let bytes = std::fs::metadata(&path).unwrap().len();

        let chain =
            serde_json::from_str::<Features>(r#"{"from": "clips", "seconds": 1}"#).unwrap().clean_chain();
        let draws = vec![chain.draw_identity(loev_ops::rng::Key::root(1), "a", 0, 2.0)];
        let renderers = Renderers { chain, output: Output::Audio, idle: Mutex::default() };
        let uri = path.to_string_lossy().into_owned();
        let render = |bytes| renderers.render(&uri, bytes, &draws).map_err(|error| error.kind);
        assert_eq!(render(Some(bytes)).map(|samples| samples.len()), Ok(16_000));
        assert_eq!(render(None).map(|samples| samples.len()), Ok(16_000), "not every clip has a size");

        write_wav(&path, 16_000, &[&samples[..63_000]]).unwrap();
        assert_eq!(render(Some(bytes)), Err(RejectKind::Changed));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(render(Some(bytes)), Err(RejectKind::Missing));
    }
}
