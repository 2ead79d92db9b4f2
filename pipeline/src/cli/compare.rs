//! `loev compare`.

use std::io::Write;
use std::path::PathBuf;

use loev_sql::store::AtomicFile;
use loev_sql::{Format, SqlError, Style};

use super::answer::refuse_own;
use super::{Failure, print, runtime};
use crate::compare::{self, Pairing};
use crate::error::RunError;

#[derive(Debug, clap::Args)]
pub struct CompareArguments {
    /// A run.
    a: String,
    /// Another one, or the same for two stages of it.
    b: String,
    /// Compare this stage of probes alone.
    #[arg(long)]
    stage: Option<String>,
    /// Compare it with that stage of the second run.
    #[arg(long, requires = "stage", value_name = "STAGE")]
    with: Option<String>,
    /// How the differences are written: table, csv, json, markdown or parquet [default: table, or what the ending of
    /// --output says].
    #[arg(long)]
    format: Option<Format>,
    /// Write the differences to a file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn compare(arguments: &CompareArguments) -> Result<(), Failure> {
    let parse = |run: &str| run.parse().map_err(|error: SqlError| Failure::Usage(error.to_string()));
    let (a, b) = (parse(&arguments.a)?, parse(&arguments.b)?);
    let pairing = arguments.stage.as_ref().map(|stage| Pairing {
        a: stage.clone(),
        b: arguments.with.clone().unwrap_or_else(|| stage.clone()),
    });
    let compared = runtime()?.block_on(compare::compare(a, b, pairing))?;
    let format = match (arguments.format, &arguments.output) {
        (Some(format), _) => format,
        (None, Some(path)) => Format::of_file(path).ok_or_else(|| {
            Failure::Usage(format!("{}: its ending says no format; name one with --format", path.display()))
        })?,
        (None, None) => Format::Table,
    };
    for note in &compared.notes {
        eprintln!("note: {note}");
    }
    let mut bytes = Vec::new();
    loev_sql::write(&[compared.rows], &Style::new(format), &mut bytes)?;
    if let Some(path) = &arguments.output {
        refuse_own(path)?;
        let failed = RunError::io("cannot write", path);
        let written = AtomicFile::create(path).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.finish()
        });
        return Ok(written.map_err(failed)?);
    }
    if format == Format::Table {
        let mut text = String::from("options that differ, from the first run to the second:\n");
        for option in &compared.options {
            text.push_str(&format!("  {option}\n"));
        }
        if compared.options.is_empty() {
            text = "no option differs\n".to_owned();
        }
        print(&format!("{text}\n"))?;
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(&bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(RunError::io("cannot write", "standard output")(error).into())
        }
        _ => Ok(()),
    }
}
