//! `loev run`, `check`, `plan` and `schema`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use loev_sql::Location;

use super::{Failure, print, runtime};
use crate::run::dir::RunDir;
use crate::run::interrupt::Interrupt;
use crate::run::memory::Bytes;
use crate::run::plan::State;
use crate::run::progress::Progress;
use crate::run::{self, Again, Options, default_out, summary};
use crate::spec::{self, Graph, Pipeline, Stage};
use crate::stages::report::page_of;
use crate::stages::{graph_of, side_table};

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
    #[arg(long, value_parser = directory)]
    out: Option<PathBuf>,
    /// Threads that decode and render [default: the machine's cores]. Results do not depend on it.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Where models are trained and run: cpu, cuda:0 or auto.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Resident memory to stay below, such as 2GiB; a model that needs more ends the run with an error. Results do not
    /// depend on it.
    #[arg(long)]
    memory: Option<Bytes>,
    /// Rows that operators hand on at a time [default: chosen by each]. Results do not depend on it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_rows: Option<u32>,
    #[command(flatten)]
    again: AgainArguments,
}

#[derive(Debug, clap::Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// The run's directory [default: runs/<name of the pipeline>].
    #[arg(long, value_parser = directory)]
    out: Option<PathBuf>,
    #[command(flatten)]
    again: AgainArguments,
}

#[derive(Debug, clap::Args)]
struct AgainArguments {
    /// Make this stage again, and every stage that reads it, though nothing has changed.
    #[arg(long, value_name = "STAGE")]
    from: Option<String>,
    /// Make this stage again though nothing has changed; what reads it only if its tables change. May be given
    /// several times.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
}

const LOCAL_ONLY: &str = "a run is made in a local directory; copy it to the bucket afterwards and read it from there \
                          with loev sql";

/// A directory to make a run in, as a path or a `file://` address.
fn directory(text: &str) -> Result<PathBuf, String> {
    match Location::parse(text).map_err(|error| error.to_string())? {
        Location::Local(path) => Ok(path),
        Location::Object { .. } => Err(LOCAL_ONLY.to_owned()),
    }
}

impl AgainArguments {
    fn again(&self) -> Again {
        Again { from: self.from.clone(), force: self.force.clone() }
    }
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
        let graph = graph_of(&pipeline)?;
        Ok((pipeline, graph))
    }
}

pub fn run(arguments: &RunArguments, progress: Progress, interrupt: Interrupt) -> Result<(), Failure> {
    let (pipeline, graph) = arguments.pipeline.load()?;
    let out = arguments.out.clone().unwrap_or_else(|| default_out(&pipeline));
    let mut options = Options::new(out.clone(), progress, interrupt);
    options.threads = arguments.threads.map_or(options.threads, usize::from);
    options.device.clone_from(&arguments.device);
    options.memory = arguments.memory;
    options.batch_rows = arguments.batch_rows.map(|rows| rows as usize);
    options.again = arguments.again.again();
    let finished = run::run(pipeline, &graph, &options)?;
    if finished.made.is_empty() {
        let stages = finished.manifest.stages.len();
        return print(&format!("nothing to do: all {stages} stages are up to date in {}\n", out.display()));
    }
    let closing = summary::closing(&out, &finished.manifest, &finished.rejects);
    print(&runtime()?.block_on(closing)?)
}

pub fn check(arguments: &PipelineArguments) -> Result<(), Failure> {
    let (pipeline, graph) = arguments.load()?;
    print(&format!("{}: {} stages, no errors\n", pipeline.name, graph.order.len()))
}

pub fn plan(arguments: &PlanArguments) -> Result<(), Failure> {
    let (pipeline, graph) = arguments.pipeline.load()?;
    let again = arguments.again.again().stages(&graph)?;
    let out = arguments.out.clone().unwrap_or_else(|| default_out(&pipeline));
    let dir = out.is_dir().then(|| RunDir::open(&out));
    let states = runtime()?.block_on(run::plan::plan(&pipeline, &graph, dir.as_ref(), &again))?;
    let width = graph.order.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = format!("pipeline {}, seed {}, in {}\n\n", pipeline.name, pipeline.seed, out.display());
    for (name, state) in &states {
        let Some(stage) = pipeline.stages.get(name) else { continue };
        let inputs = graph.inputs(name).join(", ");
        let reads = match stage {
            Stage::Files(files) => files.path.clone(),
            Stage::Synth(_) => "nothing".to_owned(),
            _ => inputs,
        };
        let _ = writeln!(text, "{name:<width$}  {}", stage.kind().name());
        let _ = writeln!(text, "{:<width$}  reads   {reads}", "");
        let _ = writeln!(text, "{:<width$}  does    {}", "", does(stage));
        let _ = writeln!(text, "{:<width$}  writes  {}", "", writes(name, stage).join(", "));
        let _ = writeln!(text, "{:<width$}  state   {}\n", "", told(state));
    }
    let open = states.iter().filter(|(_, state)| !matches!(state, State::UpToDate(_))).count();
    let _ = match open {
        0 => writeln!(text, "nothing to do: all {} stages are up to date", states.len()),
        _ => writeln!(text, "to do: {open} of {} stages", states.len()),
    };
    print(&text)
}

fn told(state: &State) -> String {
    match state {
        State::UpToDate(rows) => format!("up to date, {rows} rows"),
        State::ToDo { shards: Some((todo, all)), reasons } => {
            format!("to do: {todo} of {all} shards; {}", reasons.join("; "))
        }
        State::ToDo { shards: None, reasons } => format!("to do: {}", reasons.join("; ")),
        State::After(stages) => format!("to do, as far as these change it: {}", stages.join(", ")),
        State::Unknown(error) => format!("cannot be told: {error}"),
    }
}

/// The physical operators of a stage, from its input to its output.
fn does(stage: &Stage) -> &'static str {
    match stage {
        Stage::Files(_) => "probe every file: rate, channels, length, codec, digest",
        Stage::Synth(_) => "compose: labels now, audio whenever it is read",
        Stage::Sql(_) => "query",
        Stage::Decode(_) => "read every clip, resample, store 16-bit samples; then scan > Locate > Write",
        Stage::Views(views) if views.materialize => "scan > Draw > Write, then scan > Render > Write",
        Stage::Views(_) => "scan > Draw > Write",
        Stage::Train(_) => "scan > Batch > Render > lanes > trainer",
        Stage::Features(_) => "scan > Render > Write, or scan > Featurise > Write where audio is stored",
        Stage::Statistics(_) => "scan > Render > count",
        Stage::Embed(_) => {
            "scan > Draw > Render > Embed > Write, or scan > Render > EmbedViews > Write for views"
        }
        Stage::Probe(_) => "query, then fit and score one probe per subspace and task",
        Stage::Equivariance(_) => "query, then regressions per subspace and parameter",
        Stage::Leak(_) => "scan views > render four ways > cues > linear probes",
        Stage::Finetune(_) => "read row groups of features in drawn order, train, score",
        Stage::Retrieve(_) => "query, then search the nearest clips per subspace",
        Stage::Report(_) => "query all tables, read some clips, write a page",
    }
}

fn writes(name: &str, stage: &Stage) -> Vec<String> {
    let side = stage.side_tables().iter().map(|what| format!("tables/{}", side_table(name, what)));
    let checkpoint = matches!(stage, Stage::Train(_) | Stage::Finetune(_))
        .then(|| format!("checkpoints/{name}.safetensors"));
    let samples = matches!(stage, Stage::Decode(_)).then(|| RunDir::relative_audio(name));
    let page = matches!(stage, Stage::Report(_)).then(|| page_of(name));
    std::iter::once(format!("tables/{name}"))
        .chain(side)
        .chain(checkpoint)
        .chain(samples)
        .chain(page)
        .collect()
}

pub fn schema(reference: bool) -> Result<(), Failure> {
    match reference {
        true => print(&spec::reference_markdown()),
        false => print(&format!("{:#}\n", spec::json_schema())),
    }
}
