//! `loev sql`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use loev_sql::{Bars, Format, OpenRuns, Source};
use tokio::runtime::Runtime;

use super::answer::{Answers, Settings, refuse_own};
use super::prompt::Session;
use super::serve::{Address, serve};
use super::{Failure, print, runtime};
use crate::error::RunError;
use crate::run::interrupt::Interrupt;

#[derive(Debug, clap::Args)]
pub struct SqlArguments {
    /// Runs (directories, s3:// or gs:// addresses) and files of rows (Parquet, CSV, TSV, JSON, Arrow, or folders of
    /// them), then the statements; without these, a prompt. A file is a table named after it. Several runs are schemas
    /// named after their directories, and `probes` is the rows of all of them with the column `run`. NAME=PATH names
    /// either.
    #[arg(value_name = "RUN|FILE... [QUERY]")]
    arguments: Vec<String>,
    /// Read the statements from a file; each is answered in turn.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// How answers are written: table, csv, json (one object a line), markdown or parquet [default: table, or what the
    /// ending of --output says].
    #[arg(long)]
    format: Option<Format>,
    /// Write the answer to a file, which appears when it is whole.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw numbers as bars and lists of numbers as lines: in all columns, or in those named.
    #[arg(long, value_name = "COLUMNS", num_args = 0..=1, require_equals = true, default_missing_value = "", value_delimiter = ',')]
    bars: Option<Vec<String>>,
    /// Show each row as a block of lines.
    #[arg(long)]
    records: bool,
    /// Do not show long tables in $PAGER.
    #[arg(long)]
    no_pager: bool,
    /// Answer clients of PostgreSQL (psql, drivers, tools that draw) until Ctrl-C. Statements only read, and there is no
    /// password. ADDRESS is PORT, IP or IP:PORT; without it, port 5433 of this machine alone.
    #[arg(
        long,
        value_name = "ADDRESS",
        num_args = 0..=1,
        require_equals = true,
        conflicts_with_all = ["file", "format", "output", "bars", "records", "no_pager"],
    )]
    serve: Option<Option<Address>>,
    /// Print the reference of all functions as Markdown.
    #[arg(long, exclusive = true)]
    functions: bool,
}

/// The last argument when it is a statement, and the sources before it. A statement is more than one word and nothing
/// that is there.
fn query_of(arguments: &[String]) -> (Option<&str>, &[String]) {
    let exists = |text: &str| {
        Path::new(text).exists()
            || ["s3://", "gs://", "file://"].iter().any(|scheme| text.starts_with(scheme))
    };
    let is_place = |text: &str| match text.split_once('=') {
        Some((name, path)) if !name.contains(char::is_whitespace) => exists(text) || exists(path),
        _ => exists(text),
    };
    match arguments {
        [sources @ .., last] if last.contains(char::is_whitespace) && !is_place(last) => {
            (Some(last), sources)
        }
        _ => (None, arguments),
    }
}

pub fn sql(arguments: &SqlArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    if arguments.functions {
        return print(&loev_sql::functions::reference()?);
    }
    let (query, sources) = query_of(&arguments.arguments);
    if query.is_some() && arguments.file.is_some() {
        return Err(Failure::Usage("a query and --file cannot both be given".to_owned()));
    }
    if query.is_some() && arguments.serve.is_some() {
        return Err(Failure::Usage("a query and --serve cannot both be given".to_owned()));
    }
    let script = match &arguments.file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(RunError::io("cannot read", path))?),
        None => query.map(str::to_owned),
    };
    let settings = settings(arguments, script.as_deref())?;
    let sources = sources.iter().map(|source| source.parse()).collect::<Result<Vec<Source>, _>>();
    let sources = sources.map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(address) = arguments.serve {
        return serve(address.unwrap_or_default(), &sources, interrupt);
    }
    let runtime = runtime()?;
    let open = open(&runtime, &sources)?;
    let mut session = Session::new(Answers::new(&runtime, &open.context, interrupt, settings))?;
    let done = match script {
        Some(script) => session.script(&script),
        None if std::io::stdin().is_terminal() => session.prompt(),
        None => session.lines(std::io::stdin().lock()),
    };
    if matches!(done, Err(RunError::Interrupted)) {
        // What is still at work need not come to its end.
        runtime.shutdown_background();
    }
    Ok(done?)
}

/// Opens runs and files on all cores, and says what is to be said of them.
pub(super) fn open(runtime: &Runtime, sources: &[Source]) -> Result<OpenRuns, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let open = runtime.block_on(loev_sql::open_runs(sources, cores, None))?;
    for note in open.notes() {
        eprintln!("note: {note}");
    }
    Ok(open)
}

fn settings(arguments: &SqlArguments, script: Option<&str>) -> Result<Settings, Failure> {
    let output = match &arguments.output {
        Some(path) => {
            let Some(format) = arguments.format.or(Format::of_file(path)) else {
                let known = "its ending says no format; name one with --format";
                return Err(Failure::Usage(format!("{}: {known}", path.display())));
            };
            refuse_own(path)?;
            Some((path.clone(), format))
        }
        None => None,
    };
    let answers = script.map_or(1, |script| {
        loev_sql::statements(script).iter().filter(|statement| loev_sql::gives_rows(statement)).count()
    });
    let one_only = output.is_some() || arguments.format == Some(Format::Parquet);
    if one_only && answers > 1 {
        let message = format!("one file holds one answer, and these are {answers} statements that answer");
        return Err(Failure::Usage(message));
    }
    Ok(Settings {
        format: arguments.format.unwrap_or_default(),
        bars: match &arguments.bars {
            None => Bars::None,
            Some(columns) if columns.iter().all(String::is_empty) => Bars::All,
            Some(columns) => Bars::Columns(columns.clone()),
        },
        records: arguments.records,
        output,
        pager: !arguments.no_pager,
        timing: false,
    })
}
