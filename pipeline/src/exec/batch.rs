//! The order of training: shuffles the segments of one epoch and cuts them into batches.
//!
//! Every lane reads the same narrow rows in the same order, shuffles them with the same key, and
//! keeps the batches that are its own: batch `b` belongs to lane `b mod lanes`. So the sequence of
//! batches is a function of the data, the seed and the options alone.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use loev_ops::rng::Key;

use super::PartitionOp;
use crate::error::RunError;

/// How an epoch is cut into batches.
#[derive(Debug, Clone)]
pub struct BatchPlan {
    /// Views of a segment: this many rows in a row are one segment.
    pub views: usize,
    /// Segments of a batch.
    pub segments: usize,
    /// Segments shuffled together; bounds what a lane keeps in memory. Counts as the next multiple of
    /// [`Self::segments`], so that a window is whole batches and can be passed over.
    pub window: usize,
    /// Lanes: partitions of the plan.
    pub lanes: usize,
    /// Keys the shuffle; another one for each pass over the data.
    pub key: Key,
    /// The number of the first batch of this pass, counted from the start of training.
    pub first: u64,
    /// Batches of this pass that are not wanted: training goes on after them.
    pub skip: u64,
    /// Rows at the start of the pass that the scan leaves out already. Only rows of skipped windows may be among them:
    /// see [`Self::skipped_rows`].
    pub left_out: u64,
}

impl BatchPlan {
    /// Segments of a window.
    fn window_segments(&self) -> usize {
        self.window.max(1).next_multiple_of(self.segments.max(1))
    }

    fn window_batches(&self) -> u64 {
        (self.window_segments() / self.segments.max(1)) as u64
    }

    /// Rows at the start of a pass that need not be read when its first [`Self::skip`] batches are not wanted.
    pub fn skipped_rows(&self) -> u64 {
        self.skip / self.window_batches() * (self.window_segments() * self.views) as u64
    }
}

/// The operator; see the module. Rows that do not fill a batch at the end are left out.
#[derive(Debug)]
pub struct BatchOp {
    plan: BatchPlan,
    schema: SchemaRef,
}

impl BatchOp {
    /// Batches of the draws of `schema`.
    pub fn new(plan: BatchPlan, schema: SchemaRef) -> Self {
        Self { plan, schema }
    }
}

struct State {
    op: Arc<BatchOp>,
    lane: u64,
    input: SendableRecordBatchStream,
    ended: bool,
    /// Rows not yet shuffled.
    fresh: Vec<RecordBatch>,
    fresh_rows: usize,
    windows: u64,
    /// The shuffled window, the order of its segments, and how many of them are used up.
    window: Option<(RecordBatch, Vec<u32>, usize)>,
    next: u64,
    /// Rows still to pass over, and then segments of the first window.
    drop_rows: u64,
    skip_segments: usize,
}

impl State {
    /// The next batch of this lane.
    async fn next(&mut self) -> Result<Option<RecordBatch>, RunError> {
        loop {
            let plan = &self.op.plan;
            if let Some((rows, order, used)) = &mut self.window {
                if let Some(segments) = order.get(*used..*used + plan.segments) {
                    *used += plan.segments;
                    let number = self.next;
                    self.next += 1;
                    if number % plan.lanes as u64 == self.lane {
                        return Ok(Some(take_segments(rows, segments, plan.views)?));
                    }
                    continue;
                }
                self.window = None;
            }
            if self.ended && self.fresh_rows < self.op.plan.segments * self.op.plan.views {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    fn push(&mut self, rows: RecordBatch) {
        // Rows before the first wanted window are dropped as they come.
        let drop = self.drop_rows.min(rows.num_rows() as u64);
        self.drop_rows -= drop;
        let rows = rows.slice(drop as usize, rows.num_rows() - drop as usize);
        self.fresh_rows += rows.num_rows();
        self.fresh.push(rows);
    }

    /// Reads up to a window of rows and shuffles its segments.
    async fn fill(&mut self) -> Result<(), RunError> {
        let plan = self.op.plan.clone();
        let wanted = plan.window_segments() * plan.views;
        while self.fresh_rows < wanted && !self.ended {
            match self.input.next().await {
                Some(rows) => self.push(rows?),
                None => self.ended = true,
            }
        }
        let rows = concat_batches(&self.op.schema, &self.fresh)?;
        self.fresh.clear();
        self.fresh_rows = 0;
        // Exactly a window, however much arrived: the order must not depend on the chunks.
        let whole = rows.num_rows().min(wanted) / plan.views * plan.views;
        let segments = whole / plan.views;
        self.push(rows.slice(whole, rows.num_rows() - whole));
        let mut order: Vec<u32> = (0..segments as u32).collect();
        plan.key.with(self.windows).rng().shuffle(&mut order);
        self.windows += 1;
        self.window = Some((rows.slice(0, whole), order, std::mem::take(&mut self.skip_segments)));
        Ok(())
    }
}

fn take_segments(rows: &RecordBatch, segments: &[u32], views: usize) -> Result<RecordBatch, RunError> {
    let views = views as u32;
    let indices: Vec<u32> = segments.iter().flat_map(|s| s * views..(s + 1) * views).collect();
    Ok(take_record_batch(rows, &UInt32Array::from(indices))?)
}

impl PartitionOp for BatchOp {
    fn name(&self) -> &'static str {
        "BatchExec"
    }

    fn details(&self) -> String {
        let BatchPlan { views, segments, window, lanes, .. } = &self.plan;
        format!("batch={segments}x{views}, window={window}, lanes={lanes}")
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
        let plan = &self.plan;
        let in_window = plan.skip % plan.window_batches();
        let state = State {
            lane: partition as u64,
            input,
            ended: false,
            fresh: Vec::new(),
            fresh_rows: 0,
            windows: plan.skip / plan.window_batches(),
            window: None,
            next: plan.first + plan.skip,
            drop_rows: plan.skipped_rows() - plan.left_out,
            skip_segments: in_window as usize * plan.segments,
            op: self,
        };
        let batches = stream::try_unfold(state, |mut state| async move {
            Ok(state.next().await?.map(|batch| (batch, state)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use datafusion::datasource::memory::MemorySourceConfig;

    use super::super::PartitionExec;
    use super::*;

    const VIEWS: usize = 4;

    /// Rows 0.. as a table of `segments` x 4 views, arriving in chunks of `chunk` rows; the batches
    /// of all lanes in the order of training, as row numbers.
    fn batches(segments: usize, chunk: usize, lanes: usize, window: usize, first: u64) -> Vec<Vec<i32>> {
        seek(segments, chunk, lanes, window, first, 0)
    }

    /// The same, from batch `skip` of the pass on.
    fn seek(
        segments: usize,
        chunk: usize,
        lanes: usize,
        window: usize,
        first: u64,
        skip: u64,
    ) -> Vec<Vec<i32>> {
        let schema = Arc::new(Schema::new(vec![Field::new("row", DataType::Int32, false)]));
        let all: Vec<i32> = (0..(segments * VIEWS) as i32).collect();
        let rows: Vec<RecordBatch> = all
            .chunks(chunk)
            .map(|rows| {
                let column = Arc::new(Int32Array::from(rows.to_vec()));
                RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap()
            })
            .collect();
        let input = MemorySourceConfig::try_new_exec(&vec![rows; lanes], Arc::clone(&schema), None).unwrap();
        let key = Key::root(5);
        let plan = BatchPlan { views: VIEWS, segments: 3, window, lanes, key, first, skip, left_out: 0 };
        let plan = PartitionExec::over(BatchOp::new(plan, schema), input);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut of_lane: Vec<_> = (0..lanes)
            .map(|lane| {
                let stream = plan.execute(lane, Arc::default()).unwrap();
                let found: Vec<_> = runtime.block_on(stream.map(Result::unwrap).collect());
                found.into_iter()
            })
            .collect();
        let mut ordered = Vec::new();
        for step in first + skip.. {
            match of_lane[step as usize % lanes].next() {
                Some(batch) => ordered.push(batch.column(0).as_primitive::<Int32Type>().values().to_vec()),
                None => break,
            }
        }
        assert!(of_lane.into_iter().all(|mut lane| lane.next().is_none()));
        ordered
    }

    #[test]
    fn neither_lanes_nor_arriving_chunks_change_the_sequence() {
        let one = batches(20, 80, 1, 8, 0);
        assert_eq!(one.len(), 6, "20 segments make 6 batches of 3; two segments are left out");
        assert_eq!(one, batches(20, 7, 1, 8, 0));
        assert_eq!(one, batches(20, 16, 3, 8, 0));
        assert_eq!(one, batches(20, 16, 3, 8, 7), "a later pass begins with another lane");
    }

    #[test]
    fn a_pass_goes_on_from_any_batch() {
        let all = batches(40, 7, 2, 5, 6);
        assert_eq!(all.len(), 13);
        for skip in 0..=13 {
            assert_eq!(seek(40, 7, 2, 5, 6, skip), all[skip as usize..], "after {skip} batches");
        }
    }

    #[test]
    fn segments_stay_whole_and_each_comes_once() {
        let mut seen = Vec::new();
        for batch in batches(18, 5, 2, 100, 0) {
            for segment in batch.chunks(VIEWS) {
                let first = segment[0];
                assert_eq!(first % VIEWS as i32, 0);
                assert!(segment.iter().zip(first..).all(|(row, expected)| *row == expected));
                seen.push(first);
            }
        }
        assert_ne!(seen, (0..18).map(|s| s * 4).collect::<Vec<_>>(), "the order is shuffled");
        seen.sort_unstable();
        assert_eq!(seen, (0..18).map(|s| s * 4).collect::<Vec<_>>());
    }
}
