//! What the stages of one run share, and how their plans are carried out.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{Field, Schema, SchemaRef};
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
use super::memory::Budget;
use super::progress::{Bar, Progress};
use super::rejects::{Collected, Reject, Rejects};
use super::stage::StageHandle;
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::pool::Pool;
use crate::exec::scan::Table;
use crate::exec::write::{TableWriter, WriteOp};
use crate::resume::journal::Receipt;
use crate::resume::ledger::{Inputs, Ledger};
use crate::resume::work::{Job, Shard};
use crate::spec::{Graph, Pipeline, Stage};
use crate::stages::side_table;

/// The table of what was written: one row per file.
pub const RECEIPTS: &str = "receipts";

/// A run at work.
#[derive(Debug)]
pub struct Context {
    /// The pipeline, with defaults filled in.
    pub pipeline: Pipeline,
    /// Its graph.
    pub graph: Graph,
    /// The stages that are finished.
    pub ledger: RwLock<Ledger>,
    /// Where results go.
    pub dir: RunDir,
    /// Threads that decode and render.
    pub pool: Arc<Pool>,
    /// The thread that owns the device.
    pub device_pool: Arc<Pool>,
    /// Where models run.
    pub device: Device,
    /// Clips that could not be used, by finished stages.
    pub rejects: Arc<Rejects>,
    /// ... and by the stage at work.
    pub collected: Mutex<Vec<Arc<Collected>>>,
    /// What may be held in memory.
    pub budget: Arc<Budget>,
    /// Rows rendered at a time, where that is not for the stage to say.
    pub rows: usize,
    /// Where progress is shown.
    pub progress: Progress,
    /// Ctrl-C.
    pub interrupt: Interrupt,
}

impl Context {
    /// The handle of a stage about to work on `total` things called `unit`.
    pub fn stage(&self, name: &str, total: u64, unit: &'static str) -> StageHandle {
        let rejects = Arc::<Collected>::default();
        let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        collected.push(Arc::clone(&rejects));
        StageHandle {
            name: name.into(),
            bar: self.progress.bar(name, total, unit),
            rejects,
            interrupt: self.interrupt.clone(),
            counts_rows: false,
        }
    }

    /// The rejects of the stage at work that stand in no receipt, and begins anew.
    pub fn take_collected(&self) -> Vec<Reject> {
        let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *collected).iter().flat_map(|rejects| rejects.all()).collect()
    }

    /// The finished stages.
    pub fn ledger(&self) -> Ledger {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What recipes are made from, with the finished stages `ledger`.
    pub fn inputs<'a>(&'a self, ledger: &'a Ledger) -> Inputs<'a> {
        Inputs { pipeline: &self.pipeline, graph: &self.graph, ledger }
    }

    /// What plans are carried out with.
    pub fn task(&self) -> Arc<TaskContext> {
        self.budget.task()
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
        let session = loev_sql::new_session(1, self.budget.queries())?;
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

    /// Carries out `plan` and stores partition `i` as `shards[i]`, all of one table, with receipts. Several partitions
    /// are under way at once.
    ///
    /// # Errors
    /// The first error of any partition.
    pub async fn store(
        &self,
        job: &Job,
        stage: &StageHandle,
        shards: Vec<Shard>,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<(), RunError> {
        let Some(first) = shards.first() else { return Ok(()) };
        let dir = self.dir.create_table(&first.table)?;
        let schema = plan.schema();
        let write = WriteOp::new(dir, shards, schema, stage.clone(), Arc::clone(&job.journal));
        let plan = PartitionExec::over(write, plan);
        collect_all(plan, self.budget.partitions(self.pool.threads() + 1), self.task()).await?;
        Ok(())
    }

    /// Stores one batch of rows as a table of one file, with its receipt.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store_batch(&self, job: &Job, table: &str, batch: RecordBatch) -> Result<(), RunError> {
        let dir = self.dir.create_table(table)?;
        let mut writer = TableWriter::create(&dir.join(shard_file(0)), &batch.schema())?;
        writer.write(batch)?;
        job.enter(writer.finish()?.receipt(table, &job.recipe, Vec::new()))
    }

    /// Writes the part of the table `receipts` that tells of one stage.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_receipts<'a>(
        &self,
        stage: &str,
        receipts: impl Iterator<Item = &'a Receipt>,
    ) -> Result<(), RunError> {
        let rows: Vec<&Receipt> = receipts.collect();
        let text = |f: fn(&Receipt) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| f(r))))
        };
        let count = |f: &dyn Fn(&Receipt) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| f(r))))
        };
        let number = |f: &dyn Fn(&Receipt) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| f(r))))
        };
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("stage", Arc::new(StringArray::from(vec![stage; rows.len()]))),
            ("table", text(|r| &r.table)),
            ("file", text(|r| &r.file)),
            ("rows", count(&|r| r.rows)),
            ("bytes", count(&|r| r.bytes)),
            ("rejects", count(&|r| r.rejects.len() as u64)),
            ("seconds", number(&|r| r.seconds)),
            ("finished_s", number(&|r| r.finished)),
            ("digest", text(|r| &r.digest)),
            ("recipe", text(|r| &r.recipe)),
        ];
        let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), false);
        let schema: SchemaRef = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let path = self.dir.create_table(RECEIPTS)?.join(format!("{stage}.parquet"));
        let mut writer = TableWriter::create(&path, &schema)?;
        writer.write(RecordBatch::try_new(schema, columns.into_iter().map(|(_, c)| c).collect())?)?;
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
    context: Arc<TaskContext>,
) -> Result<Vec<RecordBatch>, RunError> {
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
