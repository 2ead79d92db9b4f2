//! A call that runs: its inputs as streams or as rows in memory, its result as a stream.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, execute_stream_partitioned,
};
use futures::stream::Fuse;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;

use super::node::{Operation, result_of};

/// Batches of the result that may wait to be read.
const WAITING: usize = 2;

/// The physical node: one partition of rows, in the order in which the operation gives them.
#[derive(Debug)]
pub(super) struct RelationExec {
    operation: Arc<dyn Operation>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    /// The columns of the result that are wanted, as numbers and names.
    wanted: Vec<(usize, String)>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RelationExec {
    pub(super) fn try_new(
        operation: Arc<dyn Operation>,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Self> {
        let schema = full_schema(operation.as_ref(), &inputs)?;
        let wanted =
            schema.fields().iter().enumerate().map(|(index, field)| (index, field.name().clone())).collect();
        Self::with_columns(operation, inputs, wanted)
    }

    fn with_columns(
        operation: Arc<dyn Operation>,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
        wanted: Vec<(usize, String)>,
    ) -> Result<Self> {
        let full = full_schema(operation.as_ref(), &inputs)?;
        let fields = wanted.iter().map(|(index, name)| match full.fields().get(*index) {
            Some(field) => Ok(arrow::datatypes::Field::clone(field).with_name(name)),
            None => exec_err!("{} has no column {index}", operation.name()),
        });
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let properties = Arc::new(properties);
        Ok(Self { operation, inputs, wanted, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

fn full_schema(operation: &dyn Operation, inputs: &[Arc<dyn ExecutionPlan>]) -> Result<SchemaRef> {
    let schemas: Vec<SchemaRef> = inputs.iter().map(|input| input.schema()).collect();
    let schemas: Vec<&Schema> = schemas.iter().map(AsRef::as_ref).collect();
    Ok(result_of(operation, &schemas)?.1)
}

impl DisplayAs for RelationExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation.name(), self.operation.parameters())
    }
}

impl ExecutionPlan for RelationExec {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::with_columns(Arc::clone(&self.operation), children, self.wanted.clone())?))
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let wanted = projection.expr().iter().map(|expression| {
            let column = expression.expr.downcast_ref::<Column>()?;
            let (index, _) = self.wanted.get(column.index())?;
            Some((*index, expression.alias.clone()))
        });
        let Some(wanted) = wanted.collect::<Option<Vec<_>>>() else { return Ok(None) };
        Ok(Some(Arc::new(Self::with_columns(Arc::clone(&self.operation), self.inputs.clone(), wanted)?)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut stream = RecordBatchReceiverStreamBuilder::new(self.schema(), WAITING);
        let output = Output {
            sender: stream.tx(),
            schema: self.schema(),
            wanted: self.wanted.iter().map(|(index, _)| *index).collect(),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            measured: self.metrics.clone(),
        };
        let inputs = self.inputs.iter().map(|plan| {
            let reservation = MemoryConsumer::new(self.operation.name()).register(context.memory_pool());
            Input {
                plan: Arc::clone(plan),
                context: Arc::clone(&context),
                reservation: Arc::new(reservation),
            }
        });
        let (operation, inputs) = (Arc::clone(&self.operation), inputs.collect());
        stream.spawn(async move { operation.run(inputs, output).await });
        Ok(stream.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The rows of a table that an operation works on.
pub(crate) struct Input {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    reservation: Arc<MemoryReservation>,
}

impl Input {
    /// Its columns; those that nobody needs are not there.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// On how many threads the query may run.
    pub(crate) fn threads(&self) -> usize {
        self.context.session_config().target_partitions().max(1)
    }

    /// What the operation keeps in memory is taken from here; it is given back with the input.
    pub(crate) fn reservation(&self) -> &Arc<MemoryReservation> {
        &self.reservation
    }

    /// All rows, in the order of the table's partitions and of the rows in them. They count as memory of the query
    /// until the input is dropped.
    pub(crate) async fn rows(&self) -> Result<Vec<RecordBatch>> {
        let reading = self.streams()?.into_iter().map(|mut stream| {
            let reservation = Arc::clone(&self.reservation);
            SpawnedTask::spawn(async move {
                let mut batches = Vec::new();
                while let Some(batch) = stream.try_next().await? {
                    reservation.try_grow(get_record_batch_memory_size(&batch))?;
                    batches.push(batch);
                }
                Ok::<_, DataFusionError>(batches)
            })
        });
        let mut rows = Vec::new();
        for task in reading.collect::<Vec<_>>() {
            rows.extend(task.join().await.map_err(|error| DataFusionError::External(Box::new(error)))??);
        }
        Ok(rows)
    }

    /// The rows as one stream, partition after partition. All partitions run from the start: joins within the table wait
    /// for one another's.
    pub(crate) fn in_order(&self) -> Result<impl Stream<Item = Result<RecordBatch>> + Unpin + Send + use<>> {
        let running = self.streams()?.into_iter().map(|mut rows| {
            let mut stream = RecordBatchReceiverStreamBuilder::new(self.schema(), WAITING);
            let sender = stream.tx();
            stream.spawn(async move {
                while let Some(batch) = rows.next().await {
                    if sender.send(batch).await.is_err() {
                        break;
                    }
                }
                Ok(())
            });
            stream.build()
        });
        Ok(stream::iter(running.collect::<Vec<_>>()).flatten())
    }

    /// The rows for readers at the same time: at least one for each partition, and one for each thread.
    pub(crate) fn shared(&self) -> Result<(Shared, usize)> {
        let streams = self.streams()?;
        let readers = streams.len().max(self.threads());
        let part = |(number, rows): (u64, SendableRecordBatchStream)| {
            Mutex::new(Part { rows: rows.fuse(), next: number << Shared::ROWS_OF_PARTITION })
        };
        Ok((Shared((0..).zip(streams).map(part).collect()), readers))
    }

    /// The rows as streams, one for each partition. They must be read at the same time.
    fn streams(&self) -> Result<Vec<SendableRecordBatchStream>> {
        execute_stream_partitioned(Arc::clone(&self.plan), Arc::clone(&self.context))
    }
}

/// The rows of a table for several readers, so that a table in one partition keeps all threads busy.
pub(crate) struct Shared(Vec<Mutex<Part>>);

struct Part {
    rows: Fuse<SendableRecordBatchStream>,
    /// The number of the next row.
    next: u64,
}

impl Shared {
    /// A partition's rows are numbered from its own number times 2 to this.
    const ROWS_OF_PARTITION: u32 = 40;

    /// The next rows for a reader, with the number of the first. Numbers rise in the order of the partitions and of the rows
    /// in them, whoever reads them. A reader begins with a partition of its own, if there are enough, and then helps others.
    pub(crate) async fn next(&self, reader: usize) -> Option<Result<(u64, RecordBatch)>> {
        let (before, after) = self.0.split_at_checked(reader % self.0.len().max(1))?;
        for part in after.iter().chain(before) {
            let mut part = part.lock().await;
            if let Some(batch) = part.rows.next().await {
                let first = part.next;
                part.next += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
                return Some(batch.map(|batch| (first, batch)));
            }
        }
        None
    }
}

/// Where an operation puts its rows.
pub(crate) struct Output {
    sender: Sender<Result<RecordBatch>>,
    schema: SchemaRef,
    wanted: Vec<usize>,
    metrics: BaselineMetrics,
    measured: ExecutionPlanMetricsSet,
}

impl Output {
    /// Adds to a count that `explain analyze` shows.
    pub(crate) fn count(&self, name: &'static str, count: usize) {
        MetricBuilder::new(&self.measured).global_counter(name).add(count);
    }

    /// Adds to a share that `explain analyze` shows.
    pub(crate) fn share(&self, name: &'static str, part: usize, whole: usize) {
        let share = MetricBuilder::new(&self.measured).ratio_metrics(name, 0);
        share.add_part(part);
        share.add_total(whole);
    }

    /// Sends rows; `column` makes a column of the result from its number, and is asked for those that are wanted.
    /// False when nobody reads any more.
    pub(crate) async fn send(
        &self,
        rows: usize,
        mut column: impl FnMut(usize) -> Result<ArrayRef>,
    ) -> Result<bool> {
        let columns = self.wanted.iter().map(|index| column(*index)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.metrics.record_output(rows);
        Ok(self.sender.send(Ok(batch)).await.is_ok())
    }
}
