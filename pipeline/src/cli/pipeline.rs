//! `loev run`, `check`, `plan` and `schema`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{Failure, print, runtime};
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::run::{self, Options, default_out, summary};
use crate::spec::{self, Graph, Pipeline, Stage};
use crate::stages::side_table;

#[derive(Debug, clap::Args)]
pub struct PipelineArguments {
    /// The pipeline: a YAML file.
    pipeline: PathBuf,
    /// Change an option, such as stages.model.train.steps=50. May be given several times.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct RunArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// The run's directory [default: runs/<name of the pipeline>].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Threads that decode and render [default: the machine's cores]. Results do not depend on it.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Where models are trained and run: cpu, cuda:0 or auto.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl PipelineArguments {
    /// The file, or whatever else the argument names.
    pub fn path(&self) -> &Path {
        &self.pipeline
    }

    /// Whether the argument names a run's directory instead.
    pub fn is_run(&self) -> bool {
        self.pipeline.is_dir()
    }

    /// Reads and checks the pipeline.
    pub fn load(&self) -> Result<(Pipeline, Graph), Failure> {
        let pipeline = spec::load(&self.pipeline, &self.sets)?;
        // A stage's side tables count as the stage.
        let owner = |table: String| {
            let owns = |(name, stage): &(&String, &Stage)| {
                stage.side_tables().iter().any(|what| side_table(name, what) == table)
            };
            pipeline.stages.iter().find(owns).map_or_else(|| table.clone(), |(name, _)| name.clone())
        };
        let tables = |query: &str| match loev_sql::referenced_tables(query) {
            Ok(tables) => Ok(tables.into_iter().map(owner).collect()),
            Err(error) => Err(error.to_string()),
        };
        let graph = Graph::new(&pipeline, &tables)?;
        Ok((pipeline, graph))
    }
}

pub fn run(arguments: &RunArguments, interrupt: Interrupt) -> Result<(), Failure> {
    let (pipeline, graph) = arguments.pipeline.load()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let out = arguments.out.clone().unwrap_or_else(|| default_out(&pipeline));
    let options = Options {
        out: out.clone(),
        threads: arguments.threads.map_or(cores, usize::from),
        device: arguments.device.clone(),
        progress: Progress::detect(),
        interrupt,
    };
    let finished = run::run(pipeline, &graph, &options)?;
    let closing = summary::closing(&out, &finished.manifest, &finished.rejects);
    print(&runtime()?.block_on(closing)?)
}

pub fn check(arguments: &PipelineArguments) -> Result<(), Failure> {
    let (pipeline, graph) = arguments.load()?;
    print(&format!("{}: {} stages, no errors\n", pipeline.name, graph.order.len()))
}

pub fn plan(arguments: &PipelineArguments) -> Result<(), Failure> {
    let (pipeline, graph) = arguments.load()?;
    let width = graph.order.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut out = format!("pipeline {}, seed {}\n\n", pipeline.name, pipeline.seed);
    for name in &graph.order {
        let Some(stage) = pipeline.stages.get(name) else { continue };
        let inputs = graph.inputs(name).join(", ");
        let reads = match stage {
            Stage::Files(files) => files.path.clone(),
            Stage::Synth(_) => "nothing".to_owned(),
            _ => inputs,
        };
        let _ = writeln!(out, "{name:<width$}  {}", stage.kind().name());
        let _ = writeln!(out, "{:<width$}  reads   {reads}", "");
        let _ = writeln!(out, "{:<width$}  does    {}", "", does(stage));
        let _ = writeln!(out, "{:<width$}  writes  {}\n", "", writes(name, stage).join(", "));
    }
    print(&out)
}

/// The physical operators of a stage, from its input to its output.
fn does(stage: &Stage) -> &'static str {
    match stage {
        Stage::Files(_) => "probe every file: rate, channels, length, codec, digest",
        Stage::Synth(_) => "compose: labels now, audio whenever it is read",
        Stage::Sql(_) => "query",
        Stage::Views(views) if views.materialize => "scan > Draw > Write, then scan > Render > Write",
        Stage::Views(_) => "scan > Draw > Write",
        Stage::Train(_) => "scan > Batch > Render > lanes > trainer",
        Stage::Embed(_) => "scan > Draw > Render > Embed > Write",
        Stage::Probe(_) => "query, then fit and score one probe per subspace and task",
    }
}

fn writes(name: &str, stage: &Stage) -> Vec<String> {
    let side = stage.side_tables().iter().map(|what| format!("tables/{}", side_table(name, what)));
    let checkpoint = matches!(stage, Stage::Train(_)).then(|| format!("checkpoints/{name}.safetensors"));
    std::iter::once(format!("tables/{name}")).chain(side).chain(checkpoint).collect()
}

pub fn schema(reference: bool) -> Result<(), Failure> {
    match reference {
        true => print(&spec::reference_markdown()),
        false => print(&format!("{:#}\n", spec::json_schema())),
    }
}
