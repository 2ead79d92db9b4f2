//! What the stages of one run share, and how their plans are carried out.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::common::collect;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, stream};
use loev_models::Device;
use loev_ops::rng::Key;

use super::dir::RunDir;
use super::interrupt::Interrupt;
use super::progress::{Bar, Progress};
use super::rejects::Rejects;
use super::stage::StageHandle;
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::columns::primitive;
use crate::exec::pool::Pool;
use crate::exec::scan::Table;
use crate::exec::write::{TableWriter, WriteOp, receipt_schema};
use crate::spec::{Pipeline, Stage};
use crate::stages::side_table;

/// The table of what was written: one row per file.
pub const RECEIPTS: &str = "receipts";

/// A run at work.
#[derive(Debug)]
pub struct Context {
    /// The pipeline, with defaults filled in.
    pub pipeline: Pipeline,
    /// Where results go.
    pub dir: RunDir,
    /// Threads that decode and render.
    pub pool: Arc<Pool>,
    /// The thread that owns the device.
    pub device_pool: Arc<Pool>,
    /// Where models run.
    pub device: Device,
    /// Clips that could not be used.
    pub rejects: Arc<Rejects>,
    /// Where progress is shown.
    pub progress: Progress,
    /// Ctrl-C.
    pub interrupt: Interrupt,
}

impl Context {
    /// The handle of a stage about to work on `total` things called `unit`.
    pub fn stage(&self, name: &str, total: u64, unit: &'static str) -> StageHandle {
        StageHandle {
            name: name.into(),
            bar: self.progress.bar(name, total, unit),
            rejects: Arc::clone(&self.rejects),
            interrupt: self.interrupt.clone(),
        }
    }

    /// A handle for a side job of a stage, which shows no progress of its own.
    pub fn quiet_stage(&self, name: &str) -> StageHandle {
        StageHandle { bar: Bar::hidden(), ..self.stage(name, 0, "") }
    }

    /// The key of everything random in a stage: the pipeline's seed and the stage's name.
    pub fn key(&self, stage: &str) -> Key {
        Key::root(self.pipeline.seed).with_str(stage)
    }

    /// The stored table of an earlier stage.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn table(&self, name: &str) -> Result<Table, RunError> {
        Table::open(&self.dir.table(name))
    }

    /// A session with the tables of the stages `names`, for narrow queries. One partition: so rows come
    /// in an order that depends on the query and the data alone.
    ///
    /// # Errors
    /// When a table cannot be opened.
    pub async fn session(&self, names: &[String]) -> Result<SessionContext, RunError> {
        let session = loev_sql::new_session(1, None)?;
        for name in names {
            let stage = self.pipeline.stages.get(name);
            let side =
                stage.map(Stage::side_tables).unwrap_or_default().iter().map(|what| side_table(name, what));
            for table in std::iter::once(name.clone()).chain(side) {
                loev_sql::register_table(&session, &table, &self.dir.table(&table)).await?;
            }
        }
        Ok(session)
    }

    /// Carries out `plan` and stores each of its partitions as the file `files[partition]` of
    /// `table`. Several partitions are under way at once. Returns the number of rows.
    ///
    /// # Errors
    /// The first error of any partition.
    pub async fn store(
        &self,
        stage: &str,
        table: &str,
        files: Vec<String>,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<u64, RunError> {
        let dir = self.dir.create_table(table)?;
        let schema = plan.schema();
        let plan = PartitionExec::over(WriteOp::new(dir, files, schema), plan);
        let receipts = collect_all(plan, self.pool.threads() + 1).await?;
        self.write_receipts(stage, table, &receipts)?;
        let mut rows = 0;
        for receipt in &receipts {
            rows += primitive::<arrow::datatypes::UInt64Type>(receipt, "rows")?.values().iter().sum::<u64>();
        }
        Ok(rows)
    }

    /// Stores one batch of rows as a table of one file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store_batch(&self, stage: &str, table: &str, batch: RecordBatch) -> Result<u64, RunError> {
        let dir = self.dir.create_table(table)?;
        let mut writer = TableWriter::create(&dir.join(shard_file(0)), &batch.schema())?;
        writer.write(batch)?;
        let written = writer.finish()?;
        self.write_receipts(stage, table, &[written.receipt()?])?;
        Ok(written.rows)
    }

    /// Appends to the table `receipts` what was written for `table`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_receipts(&self, stage: &str, table: &str, rows: &[RecordBatch]) -> Result<(), RunError> {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let mut fields = vec![text("stage"), text("table")];
        fields.extend(receipt_schema().fields().iter().map(|f| f.as_ref().clone()));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let path = self.dir.create_table(RECEIPTS)?.join(format!("{table}.parquet"));
        let mut writer = TableWriter::create(&path, &schema)?;
        for batch in rows {
            let name = |name: &str| -> ArrayRef { Arc::new(StringArray::from(vec![name; batch.num_rows()])) };
            let mut columns = vec![name(stage), name(table)];
            columns.extend(batch.columns().iter().cloned());
            writer.write(RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
        writer.finish()?;
        Ok(())
    }
}

/// The name of a shard's file.
pub fn shard_file(shard: usize) -> String {
    format!("shard-{shard:05}.parquet")
}

/// All rows of `plan`, partition by partition, with at most `concurrency` partitions under way.
///
/// # Errors
/// The first error of any partition.
pub async fn collect_all(
    plan: Arc<dyn ExecutionPlan>,
    concurrency: usize,
) -> Result<Vec<RecordBatch>, RunError> {
    let context = Arc::new(TaskContext::default());
    let partitions = plan.properties().output_partitioning().partition_count();
    let batches: Vec<Vec<RecordBatch>> = stream::iter(0..partitions)
        .map(|partition| {
            let (plan, context) = (Arc::clone(&plan), Arc::clone(&context));
            async move {
                let work =
                    SpawnedTask::spawn(async move { collect(plan.execute(partition, context)?).await });
                work.await.map_err(|e| DataFusionError::External(Box::new(e)))?
            }
        })
        .buffered(concurrency.max(1))
        .try_collect()
        .await?;
    Ok(batches.into_iter().flatten().collect())
}
