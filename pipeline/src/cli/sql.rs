//! `loev sql`.

use std::io::{BufWriter, IsTerminal};
use std::path::{Path, PathBuf};

use datafusion::prelude::SessionContext;
use loev_sql::{Format, Location, SqlError, Style};
use tokio::runtime::Runtime;

use super::{Failure, prompt, runtime};
use crate::error::RunError;

#[derive(Debug, clap::Args)]
pub struct SqlArguments {
    /// Directories of runs, on this machine or at s3:// or gs:// addresses, then the query; without one, a prompt.
    /// Several runs are schemas named after their directories, and `probes` is the rows of all of them with the
    /// column `run`.
    #[arg(value_name = "RUN... [QUERY]", required = true)]
    arguments: Vec<String>,
    /// Read the query from a file.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// How results are written: table, csv or json (one object a line).
    #[arg(long, default_value_t = Format::Table)]
    format: Format,
}

/// The last argument when it is a query, and the runs before it. A query is more than one word.
fn query_of(arguments: &[String]) -> (Option<&str>, &[String]) {
    match arguments {
        [runs @ .., last] if last.contains(char::is_whitespace) && !Path::new(last).is_dir() => {
            (Some(last), runs)
        }
        _ => (None, arguments),
    }
}

pub fn sql(arguments: &SqlArguments) -> Result<(), Failure> {
    let (query, runs) = query_of(&arguments.arguments);
    if runs.is_empty() {
        return Err(Failure::Usage("which run? Name its directory before the query".to_owned()));
    }
    if query.is_some() && arguments.file.is_some() {
        return Err(Failure::Usage("a query and --file cannot both be given".to_owned()));
    }
    let runs = runs.iter().map(|run| run.parse()).collect::<Result<Vec<Location>, _>>();
    let runs = runs.map_err(|error| Failure::Usage(error.to_string()))?;
    let runtime = runtime()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let open = runtime.block_on(loev_sql::open_runs(&runs, cores, None))?;
    for absent in &open.absent {
        eprintln!("note: no table `{}`: {}", absent.table, absent.reason);
    }
    let query = match &arguments.file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(RunError::io("cannot read", path))?),
        None => query.map(str::to_owned),
    };
    match query {
        Some(query) => Ok(answer(&runtime, &open.context, &query, arguments.format)?),
        None => prompt::prompt(&runtime, &open.context, arguments.format),
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
