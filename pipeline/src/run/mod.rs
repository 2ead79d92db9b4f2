//! Running a pipeline: one stage after the other, in the order of the graph; each makes what is not there yet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use indexmap::IndexMap;

use crate::error::RunError;
use crate::exec::pool::Pool;
use crate::resume::journal::{Done, Receipt};
use crate::resume::ledger::Stored;
use crate::resume::work::{Job, Status as Progressed};
use crate::spec::{Graph, Pipeline, Stage};
use crate::stages::{self, Outcome};
use context::{Context, RECEIPTS};
use dir::{Machine, Manifest, RunDir, StageRecord, Status, TableDigest};
use interrupt::Interrupt;
use memory::{Budget, Bytes};
use progress::Progress;
use rejects::Rejects;

pub mod context;
pub mod dir;
pub mod interrupt;
pub mod machine;
pub mod memory;
pub mod plan;
pub mod progress;
pub mod rejects;
pub mod stage;
pub mod summary;
pub mod views;

/// Threads that only wait for the others.
const COORDINATORS: usize = 2;
/// Rows rendered at a time where the stage does not say how many.
const ROWS: usize = 16;

/// What a run needs to know beside its pipeline. Nothing here changes results.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run's directory.
    pub out: PathBuf,
    /// Threads that decode and render.
    pub threads: usize,
    /// Where models run: `cpu`, `cuda:0` or `auto`.
    pub device: String,
    /// Resident memory to stay below.
    pub memory: Option<Bytes>,
    /// Rows handed on at a time.
    pub batch_rows: Option<usize>,
    /// What to make again though it is there.
    pub again: Again,
    /// Where progress is shown.
    pub progress: Progress,
    /// How the run is stopped.
    pub interrupt: Interrupt,
}

impl Options {
    /// All cores, the CPU as device, no limit, nothing made again.
    pub fn new(out: PathBuf, progress: Progress, interrupt: Interrupt) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let device = "cpu".to_owned();
        Self {
            out,
            threads,
            device,
            memory: None,
            batch_rows: None,
            again: Again::default(),
            progress,
            interrupt,
        }
    }
}

/// Stages to make again though nothing they depend on has changed.
#[derive(Debug, Clone, Default)]
pub struct Again {
    /// This stage and all that read it, directly or not.
    pub from: Option<String>,
    /// These stages; what reads them only if it changes.
    pub force: Vec<String>,
}

impl Again {
    /// The stages to make again.
    ///
    /// # Errors
    /// When the pipeline has no stage of such a name.
    pub fn stages(&self, graph: &Graph) -> Result<BTreeSet<String>, RunError> {
        let mut again: BTreeSet<String> = self.force.iter().cloned().collect();
        let mut queue: Vec<&str> = self.from.as_deref().into_iter().collect();
        while let Some(stage) = queue.pop() {
            if again.insert(stage.to_owned()) || Some(stage) == self.from.as_deref() {
                queue.extend(graph.readers(stage).filter(|reader| !again.contains(*reader)));
            }
        }
        match again.iter().find(|name| !graph.order.contains(name)) {
            Some(name) => Err(RunError::Engine(format!(
                "there is no stage `{name}`; the stages are {}",
                graph.order.join(", ")
            ))),
            None => Ok(again),
        }
    }
}

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    /// What `run.json` says.
    pub manifest: Manifest,
    /// Clips that could not be used, by any stage.
    pub rejects: Arc<Rejects>,
    /// Stages that had something to do.
    pub made: Vec<String>,
}

/// Runs `pipeline`; `graph` is its graph. What the directory holds already, made by an equal recipe, is not made again.
///
/// # Errors
/// The first failure of any stage; what was finished before it stays and `run.json` says how far the run
/// came.
pub fn run(pipeline: Pipeline, graph: &Graph, options: &Options) -> Result<Finished, RunError> {
    let cannot = |what: &'static str| RunError::io("cannot start", what);
    let again = options.again.stages(graph)?;
    let device = loev_models::device::device(&options.device)?;
    let budget = Budget::new(options.memory, options.batch_rows)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(COORDINATORS)
        .thread_name("plan")
        .enable_time()
        .build()
        .map_err(cannot("the runtime"))?;
    let (dir, _lock) = RunDir::claim(&options.out)?;
    let machine = Machine { device: format!("{:?}", device.location()), ..machine::this() };
    let context = Context {
        pool: Arc::new(Pool::new(options.threads).map_err(cannot("the rendering threads"))?),
        device_pool: Arc::new(Pool::new(1).map_err(cannot("the training thread"))?),
        device,
        dir,
        graph: graph.clone(),
        ledger: RwLock::default(),
        rejects: Arc::default(),
        collected: Mutex::default(),
        budget: Arc::new(budget),
        rows: options.batch_rows.unwrap_or(ROWS),
        progress: options.progress.clone(),
        interrupt: options.interrupt.with_limit(options.memory),
        pipeline,
    };
    let mut manifest = Manifest {
        loev: env!("CARGO_PKG_VERSION").to_owned(),
        name: context.pipeline.name.clone(),
        status: Status::Running,
        machine,
        pipeline: serde_json::to_value(&context.pipeline).map_err(|e| RunError::Engine(e.to_string()))?,
        operators: machine::operators(&context.pipeline),
        tables: IndexMap::new(),
        data: IndexMap::new(),
        stages: IndexMap::new(),
        results: IndexMap::new(),
        peak_memory_bytes: None,
    };
    let mut made = Vec::new();
    let result = runtime.block_on(stages_in_order(&context, &again, &mut manifest, &mut made));
    manifest.status = match &result {
        Ok(()) => Status::Complete,
        Err(RunError::Interrupted) => Status::Interrupted,
        Err(_) => Status::Failed,
    };
    // A run that made nothing leaves the directory as it was; what its manifest says of it stays true.
    let unchanged = made.is_empty()
        && RunDir::read_manifest(context.dir.root()).is_ok_and(|old| match &result {
            Ok(()) => old.status == Status::Complete && old.stages == manifest.stages,
            Err(_) => true,
        });
    if !unchanged {
        manifest.peak_memory_bytes = memory::peak();
        context.dir.write_manifest(&manifest)?;
    }
    result.map(|()| Finished { manifest, rejects: Arc::clone(&context.rejects), made })
}

async fn stages_in_order(
    context: &Context,
    again: &BTreeSet<String>,
    manifest: &mut Manifest,
    made: &mut Vec<String>,
) -> Result<(), RunError> {
    for table in [rejects::TABLE, RECEIPTS] {
        manifest.tables.insert(table.to_owned(), RunDir::relative_table(table));
    }
    let mut clips = 0;
    for name in &context.graph.order {
        let Some(stage) = context.pipeline.stages.get(name) else { continue };
        context.interrupt.check()?;
        let ledger = context.ledger();
        let work = stages::work(&context.inputs(&ledger), name, stage).await?;
        let mut status = Progressed::new(Some(&context.dir), name, work)?;
        if again.contains(name) {
            status.stored = Stored::default();
            stages::forget(context, name, stage)?;
        }
        let stored = match status.up_to_date() {
            true => {
                tracing::info!(stage = &**name, "up to date");
                stages::tidy(context, name, stage)?;
                status.stored
            }
            false => {
                if made.is_empty() {
                    // From here on the directory is not what its manifest says, until it says so again.
                    context.dir.write_manifest(manifest)?;
                }
                made.push(name.clone());
                make(context, name, stage, &status).await?
            }
        };
        enter(context, name, &stored, manifest)?;
        if made.last() == Some(name) {
            if let Some(record) = manifest.stages.get(name) {
                context.progress.say(&summary::stage_line(name, record));
            }
            manifest.peak_memory_bytes = memory::peak();
            context.dir.write_manifest(manifest)?;
        }
        if matches!(stage, Stage::Files(_) | Stage::Synth(_)) {
            clips += manifest.stages.get(name).map_or(0, |record| record.rows + record.rejects);
        }
        check_rejects(context, name, clips)?;
    }
    Ok(())
}

/// Makes what is left to do of a stage.
async fn make(context: &Context, name: &str, stage: &Stage, status: &Progressed) -> Result<Stored, RunError> {
    let (started, reasons) = (Instant::now(), status.reasons().join("; "));
    let (todo, shards) = status.shards().unwrap_or((1, 1));
    tracing::info!(stage = name, kind = stage.kind().name(), todo, shards, reasons, "started");
    if todo < shards {
        context.progress.say(&format!("{name:>14}  {} of {shards} shards are there already", shards - todo));
    }
    let job = Job::start(&context.dir, name, status)?;
    drop(context.take_collected());
    let outcome = stages::run(context, &job, name, stage).await;
    let mut collected = context.take_collected();
    if matches!(stage, Stage::Train(_)) {
        // Other segments of the clip were trained on, in this epoch or another.
        collected.iter_mut().for_each(|reject| reject.whole = false);
    }
    // Also after a failure: the rejects may be its reason.
    let written = Stored::read(&context.dir, name)?;
    context.rejects.enter(name, written.receipts.values().flat_map(|r| &r.rejects).chain(&collected));
    context.rejects.write(name, &context.dir.create_table(rejects::TABLE)?)?;
    let Outcome { side_tables, note, artifacts } = outcome?;
    let tables: Vec<String> = std::iter::once(name.to_owned()).chain(side_tables).collect();
    let rows = written.receipts.values().filter(|r| r.table == name).map(|r| r.rows).sum();
    context.write_receipts(name, written.receipts.values())?;
    let record = StageRecord {
        kind: stage.kind().name().to_owned(),
        rows,
        rejects: context.rejects.clips(Some(name)),
        seconds: started.elapsed().as_secs_f64(),
        note,
        recipe: job.recipe.clone(),
    };
    tracing::info!(stage = name, rows, rejects = record.rejects, seconds = record.seconds, "finished");
    let recipe = status.work.recipe.clone();
    let done = Done { recipe, record, tables, files: 0, artifacts, rejects: collected };
    let stored = job.finish(&context.dir, name, written, done)?;
    stages::tidy(context, name, stage)?;
    Ok(stored)
}

/// Takes a finished stage into the ledger, the rejects and the manifest.
fn enter(context: &Context, name: &str, stored: &Stored, manifest: &mut Manifest) -> Result<(), RunError> {
    let Some(done) = &stored.done else { return Ok(()) };
    let of_shards = stored.receipts.values().flat_map(|receipt| &receipt.rejects);
    context.rejects.enter(name, of_shards.chain(&done.rejects));
    for table in &done.tables {
        manifest.tables.insert(table.clone(), RunDir::relative_table(table));
        let files: Vec<&Receipt> = stored.receipts.values().filter(|r| r.table == *table).collect();
        manifest.data.insert(table.clone(), TableDigest::of(&files));
    }
    manifest.stages.insert(name.to_owned(), done.record.clone());
    if let Some(figures) = stages::tables::results(&done.record.kind, || context.table(name))? {
        manifest.results.insert(name.to_owned(), figures);
    }
    let mut ledger = context.ledger.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    ledger.enter(name, stored);
    Ok(())
}

fn check_rejects(context: &Context, stage: &str, clips: u64) -> Result<(), RunError> {
    let rejected = context.rejects.clips(None);
    match context.pipeline.max_rejects {
        Some(limit) if limit.exceeded(rejected, clips) => Err(RunError::TooManyRejects {
            stage: stage.to_owned(),
            rejected,
            clips,
            limit: limit.to_string(),
        }),
        _ => Ok(()),
    }
}

/// The directory of a run when the user names none: `runs/<name>`.
pub fn default_out(pipeline: &Pipeline) -> PathBuf {
    Path::new("runs").join(&pipeline.name)
}
