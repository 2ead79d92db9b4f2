//! The `loev` command: arguments, exit codes, and what is printed.
//!
//! Exit codes: 0 done, 1 failed while running, 2 bad usage or configuration, 130 interrupted.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::error::RunError;
use crate::run::interrupt::Interrupt;
use crate::spec::SpecError;

mod answer;
mod bench;
mod compare;
mod export;
mod jams;
mod listen;
mod log;
mod ops;
mod pipeline;
mod prompt;
mod replay;
mod report;
mod serve;
mod sql;
mod verify;

/// Music and audio representation learning as a dataflow.
#[derive(Debug, Parser)]
#[command(name = "loev", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What goes to standard error: lines for people, or one JSON object per event.
    #[arg(long, global = true, default_value = "human", value_name = "FORMAT")]
    log: log::LogFormat,
    /// The least level of events to log: error, warn, info, debug or trace, as a whole or by module
    /// (info,loev_pipeline=debug) [default: warn for people, info in JSON].
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline.
    Run(pipeline::RunArguments),
    /// Check a pipeline without running it.
    Check(pipeline::PipelineArguments),
    /// Print a pipeline's graph: what each stage reads, does and writes; and what a run would do, and why.
    Plan(pipeline::PlanArguments),
    /// Print the JSON Schema of pipelines, for editors; or the reference of all options.
    Schema {
        /// Print the reference as Markdown instead.
        #[arg(long)]
        reference: bool,
    },
    /// Ask the tables of runs, and files; without a query, a prompt.
    Sql(sql::SqlArguments),
    /// Compare what the probes of two runs say of the same test clips, and the runs' options.
    Compare(compare::CompareArguments),
    /// Render one view of a run again, from its row, into a WAV file.
    Replay(replay::ReplayArguments),
    /// Write some views as WAV files with their parameters, and a page to hear and see them, before any training.
    Listen(listen::ListenArguments),
    /// Write one page of HTML with what a run found: curves, figures with intervals, a map of clips that plays them.
    Report(report::ReportArguments),
    /// Write the labels of a table of clips or views as JAMS files.
    Jams(jams::JamsArguments),
    /// Write a trained model to give away: weights, model card and a loader for PyTorch.
    Export(export::ExportArguments),
    /// Measure this machine's GPU, and check what it computes.
    Bench(bench::BenchArguments),
    /// Check that a run is what its receipts say; compare it with another.
    Verify(verify::VerifyArguments),
    /// List the augmentation operators, or explain one.
    Ops {
        /// The operator to explain.
        name: Option<String>,
        /// Print the reference of all of them as Markdown instead.
        #[arg(long, conflicts_with = "name")]
        reference: bool,
    },
}

/// Why a command did not do what was asked.
#[derive(Debug)]
enum Failure {
    /// The pipeline file is wrong: exit code 2.
    Spec(Box<SpecError>),
    /// The arguments are wrong: exit code 2.
    Usage(String),
    /// It failed while running: exit code 1, or 130 when interrupted.
    Run(RunError),
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::Spec(Box::new(error))
    }
}

impl From<loev_sql::SqlError> for Failure {
    fn from(error: loev_sql::SqlError) -> Self {
        Self::Run(error.into())
    }
}

/// The `loev` command, with the arguments of this process.
pub fn main() -> ExitCode {
    crate::allocator::start();
    let arguments = Arguments::parse();
    loev_sql::store::enable_remote_audio();
    let progress = match log::start(arguments.log, arguments.log_level.as_deref()) {
        Ok(progress) => progress,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let interrupt = Interrupt::default();
    let (handler, format) = (interrupt.clone(), arguments.log);
    // A second Ctrl-C does not wait for the first to take effect. Without a handler (it can only be set
    // once in a process) Ctrl-C ends the process at once, as usual.
    ctrlc::set_handler(move || {
        if handler.request() {
            std::process::exit(130);
        }
        log::notice(format, "interrupted: stopping at the next safe point (again to stop now)");
    })
    .ok();
    let done = match arguments.command {
        Command::Run(arguments) => pipeline::run(&arguments, progress, interrupt),
        Command::Check(arguments) => pipeline::check(&arguments),
        Command::Plan(arguments) => pipeline::plan(&arguments),
        Command::Schema { reference } => pipeline::schema(reference),
        Command::Sql(arguments) => sql::sql(&arguments, &interrupt),
        Command::Compare(arguments) => compare::compare(&arguments),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Listen(arguments) => listen::listen(&arguments, interrupt),
        Command::Report(arguments) => report::report(&arguments, interrupt),
        Command::Jams(arguments) => jams::jams(&arguments, &interrupt),
        Command::Export(arguments) => export::export(&arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Verify(arguments) => verify::verify(&arguments, progress, interrupt),
        Command::Ops { name, reference } => ops::ops(name.as_deref(), reference),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Spec(error)) => {
            eprintln!("{:?}", miette::Report::new(*error));
            ExitCode::from(2)
        }
        Err(Failure::Usage(message)) => {
            log::failed(arguments.log, &message);
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            log::failed(arguments.log, &error.to_string());
            match error {
                RunError::Interrupted => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Prints to standard output; a closed pipe (`loev ops | head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(RunError::io("cannot write", PathBuf::from("standard output"))(error).into())
        }
        _ => Ok(()),
    }
}

/// A runtime for commands that ask a question or two.
fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build();
    Ok(runtime.map_err(RunError::io("cannot start", "the runtime"))?)
}
