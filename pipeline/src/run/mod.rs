//! Running a pipeline: one stage after the other, in the order of the graph.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;

use crate::error::RunError;
use crate::exec::pool::Pool;
use crate::spec::{Graph, Pipeline, Stage};
use crate::stages::{self, Outcome};
use context::{Context, RECEIPTS};
use dir::{Manifest, RunDir, StageRecord, Status};
use interrupt::Interrupt;
use progress::Progress;
use rejects::Rejects;

pub mod context;
pub mod dir;
pub mod interrupt;
pub mod progress;
pub mod rejects;
pub mod stage;
pub mod summary;
pub mod views;

/// Threads that only wait for the others.
const COORDINATORS: usize = 2;

/// What a run needs to know beside its pipeline. Nothing here changes results.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run's directory.
    pub out: PathBuf,
    /// Threads that decode and render.
    pub threads: usize,
    /// Where models run: `cpu`, `cuda:0` or `auto`.
    pub device: String,
    /// Where progress is shown.
    pub progress: Progress,
    /// How the run is stopped.
    pub interrupt: Interrupt,
}

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    /// What `run.json` says.
    pub manifest: Manifest,
    /// Clips that could not be used, by any stage.
    pub rejects: Arc<Rejects>,
}

/// Runs `pipeline`; `graph` is its graph.
///
/// # Errors
/// The first failure of any stage; what earlier stages wrote stays and `run.json` says how far the run
/// came.
pub fn run(pipeline: Pipeline, graph: &Graph, options: &Options) -> Result<Finished, RunError> {
    let cannot = |what: &'static str| RunError::io("cannot start", what);
    let device = loev_models::device::device(&options.device)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(COORDINATORS)
        .thread_name("plan")
        .build()
        .map_err(cannot("the runtime"))?;
    let dir = RunDir::create(&options.out)?;
    let context = Context {
        pool: Arc::new(Pool::new(options.threads).map_err(cannot("the rendering threads"))?),
        device_pool: Arc::new(Pool::new(1).map_err(cannot("the training thread"))?),
        device,
        dir,
        rejects: Arc::default(),
        progress: options.progress.clone(),
        interrupt: options.interrupt.clone(),
        pipeline,
    };
    let mut manifest = Manifest {
        loev: env!("CARGO_PKG_VERSION").to_owned(),
        name: context.pipeline.name.clone(),
        status: Status::Running,
        pipeline: serde_json::to_value(&context.pipeline).map_err(|e| RunError::Engine(e.to_string()))?,
        tables: IndexMap::new(),
        stages: IndexMap::new(),
        peak_memory_bytes: None,
    };
    context.dir.write_manifest(&manifest)?;
    let result = runtime.block_on(stages_in_order(&context, graph, &mut manifest));
    manifest.status = match &result {
        Ok(()) => Status::Complete,
        Err(RunError::Interrupted) => Status::Interrupted,
        Err(_) => Status::Failed,
    };
    context.dir.write_manifest(&manifest)?;
    result.map(|()| Finished { manifest, rejects: Arc::clone(&context.rejects) })
}

async fn stages_in_order(context: &Context, graph: &Graph, manifest: &mut Manifest) -> Result<(), RunError> {
    let rejects = context.dir.create_table(rejects::TABLE)?;
    for (name, table) in [(rejects::TABLE, rejects::TABLE), (RECEIPTS, RECEIPTS)] {
        manifest.tables.insert(name.to_owned(), RunDir::relative_table(table));
    }
    let mut clips = 0;
    for name in &graph.order {
        let Some(stage) = context.pipeline.stages.get(name) else { continue };
        context.interrupt.check()?;
        let started = Instant::now();
        let outcome = run_stage(context, name, stage, graph.inputs(name)).await;
        // Also after a failure: the rejects may be its reason.
        context.rejects.write(name, &rejects)?;
        let outcome = outcome?;
        if matches!(stage, Stage::Files(_) | Stage::Synth(_)) {
            clips += outcome.rows + context.rejects.clips(Some(name));
        }
        for table in std::iter::once(name).chain(&outcome.side_tables) {
            manifest.tables.insert(table.clone(), RunDir::relative_table(table));
        }
        let record = StageRecord {
            kind: stage.kind().name().to_owned(),
            rows: outcome.rows,
            rejects: context.rejects.clips(Some(name)),
            seconds: started.elapsed().as_secs_f64(),
            note: outcome.note,
        };
        context.progress.say(&summary::stage_line(name, &record));
        manifest.stages.insert(name.clone(), record);
        manifest.peak_memory_bytes = peak_memory();
        context.dir.write_manifest(manifest)?;
        check_rejects(context, name, clips)?;
    }
    Ok(())
}

async fn run_stage(
    context: &Context,
    name: &str,
    stage: &Stage,
    inputs: &[String],
) -> Result<Outcome, RunError> {
    match stage {
        Stage::Files(options) => stages::files::run(context, name, options).await,
        Stage::Synth(options) => stages::synth::run(context, name, options).await,
        Stage::Sql(options) => stages::sql::run(context, name, &options.query, inputs).await,
        Stage::Views(options) => stages::views::run(context, name, options).await,
        Stage::Train(options) => stages::train::run(context, name, options).await,
        Stage::Embed(options) => stages::embed::run(context, name, options).await,
        Stage::Probe(options) => stages::probe::run(context, name, options).await,
    }
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

/// The largest resident memory of this process so far, in bytes; known on Linux.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The directory of a run when the user names none: `runs/<name>`.
pub fn default_out(pipeline: &Pipeline) -> PathBuf {
    Path::new("runs").join(&pipeline.name)
}
