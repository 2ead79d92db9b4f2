//! `loev sql`.

use std::io::{BufWriter, IsTerminal};
use std::path::PathBuf;

use datafusion::prelude::SessionContext;
use loev_sql::{Format, Location, SqlError, Style};
use tokio::runtime::Runtime;

use super::{Failure, prompt, runtime};
use crate::error::RunError;

#[derive(Debug, clap::Args)]
pub struct SqlArguments {
    /// The run's directory, on this machine or at an s3:// or gs:// address.
    run: Location,
    /// The query; without one, a prompt.
    query: Option<String>,
    /// Read the query from a file.
    #[arg(short, long, conflicts_with = "query")]
    file: Option<PathBuf>,
    /// How results are written: table, csv or json (one object a line).
    #[arg(long, default_value_t = Format::Table)]
    format: Format,
}

pub fn sql(arguments: &SqlArguments) -> Result<(), Failure> {
    let runtime = runtime()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let run = runtime.block_on(loev_sql::open_run(&arguments.run, cores, None))?;
    for absent in &run.absent {
        eprintln!("note: no table `{}`: {}", absent.table, absent.reason);
    }
    let query = match &arguments.file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(RunError::io("cannot read", path))?),
        None => arguments.query.clone(),
    };
    match query {
        Some(query) => Ok(answer(&runtime, &run.context, &query, arguments.format)?),
        None => prompt::prompt(&runtime, &run.context, arguments.format),
    }
}

/// Runs a query and prints its rows as they come.
pub fn answer(
    runtime: &Runtime,
    session: &SessionContext,
    query: &str,
    format: Format,
) -> Result<(), SqlError> {
    let stdout = std::io::stdout();
    let style = match stdout.is_terminal() {
        true => Style::terminal(format, usize::from(console::Term::stdout().size().1)),
        false => Style::new(format),
    };
    let mut out = BufWriter::new(stdout.lock());
    match runtime.block_on(loev_sql::execute(session, query, &style, &mut out)) {
        // `loev sql ... | head` is no failure.
        Err(error) if error.is_broken_pipe() => Ok(()),
        other => other.map(|_| ()),
    }
}
