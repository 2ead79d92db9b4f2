//! `loev listen`: some views to hear and look at, before any training.

use std::path::PathBuf;

use super::pipeline::PipelineArguments;
use super::{Failure, print, runtime};
use crate::error::RunError;
use crate::listen;
use crate::run::interrupt::Interrupt;
use crate::run::progress::Progress;
use crate::run::views::sample;
use crate::run::{self, Options};
use crate::spec::Stage;
use crate::spec::stage::Epochs;

#[derive(Debug, clap::Args)]
pub struct ListenArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// How many views.
    #[arg(short = 'n', long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    views: u16,
    /// The folder to write: WAV files, their parameters, and a page with all of them.
    #[arg(short, long)]
    output: PathBuf,
    /// The stage of views [default: the first].
    #[arg(long)]
    stage: Option<String>,
}

pub fn listen(arguments: &ListenArguments, interrupt: Interrupt) -> Result<(), Failure> {
    // A run's directory has its views already; of a pipeline, what comes before them is run beside the page.
    let run = match arguments.pipeline.is_run() {
        true => arguments.pipeline.path().to_owned(),
        false => draw(arguments, interrupt.clone())?,
    };
    let views = runtime()?.block_on(sample(&run, arguments.stage.as_deref(), arguments.views.into()))?;
    if views.is_empty() {
        let message = "no view was drawn; the table `rejects` says why".to_owned();
        return Err(RunError::RunDir { path: run, message }.into());
    }
    let page = listen::write(&arguments.output, &views, &interrupt)?;
    print(&format!("{} views: open {}\n", views.len(), page.display()))
}

/// Runs the pipeline as far as the views, one epoch of them, into a folder beside the page.
fn draw(arguments: &ListenArguments, interrupt: Interrupt) -> Result<PathBuf, Failure> {
    let (mut pipeline, mut graph) = arguments.pipeline.load()?;
    let is_views = |name: &&String| matches!(pipeline.stages.get(*name), Some(Stage::Views(_)));
    let stage = match &arguments.stage {
        Some(stage) => graph.order.iter().filter(is_views).find(|name| *name == stage),
        None => graph.order.iter().find(is_views),
    };
    let Some(stage) = stage.cloned() else {
        return Err(Failure::Usage("the pipeline has no such stage of views".to_owned()));
    };
    let mut needed = vec![stage.clone()];
    let mut at = 0;
    while let Some(name) = needed.get(at).cloned() {
        needed.extend(graph.inputs(&name).iter().cloned());
        at += 1;
    }
    graph.order.retain(|name| needed.contains(name));
    pipeline.stages.retain(|name, _| needed.contains(name));
    if let Some(Stage::Views(views)) = pipeline.stages.get_mut(&stage) {
        views.epochs = Epochs::Count(1);
        views.materialize = false;
    }
    let out = arguments.output.join("run");
    run::run(pipeline, &graph, &Options::new(out.clone(), Progress::detect(), interrupt))?;
    Ok(out)
}
