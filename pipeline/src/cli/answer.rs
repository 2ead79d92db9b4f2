//! Answers: a statement runs on the runtime's threads, and its rows are written as they come, to the terminal, a pager
//! or a file. Ctrl-C stops the statement.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use loev_sql::store::AtomicFile;
use loev_sql::{Bars, Format, SqlError, Style, Writer};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;

use crate::error::RunError;
use crate::run::interrupt::Interrupt;

/// How often a waiting program looks whether Ctrl-C was pressed.
const TICK: Duration = Duration::from_millis(40);
/// Batches that may wait to be written.
const AHEAD: usize = 4;
/// Rows of a table that a pager gets.
const PAGED_ROWS: usize = 10_000;
/// The pager where `$PAGER` names none; and how it is to behave unless `$LESS` says.
const PAGER: &str = "less";
const LESS: &str = "FRSX";

/// Where answers go, and how they look.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The format of answers on standard output.
    pub format: Format,
    /// Columns of tables that are drawn as bars.
    pub bars: Bars,
    /// Tables are shown row by row.
    pub records: bool,
    /// Where the next answer goes instead, and in which format.
    pub output: Option<(PathBuf, Format)>,
    /// Whether long tables go through a pager.
    pub pager: bool,
    /// Whether the time is told after an answer.
    pub timing: bool,
}

/// A session that answers.
pub struct Answers<'a> {
    /// Where statements run.
    pub runtime: &'a Runtime,
    /// What they ask.
    pub session: &'a SessionContext,
    /// Whether Ctrl-C was pressed.
    pub interrupt: &'a Interrupt,
    /// Where answers go, and how they look.
    pub settings: Settings,
    /// Answers given so far.
    given: u64,
}

impl<'a> Answers<'a> {
    /// Answers of `session`, none of them given yet.
    pub fn new(
        runtime: &'a Runtime,
        session: &'a SessionContext,
        interrupt: &'a Interrupt,
        settings: Settings,
    ) -> Self {
        Self { runtime, session, interrupt, settings, given: 0 }
    }

    /// Runs one statement and writes its rows.
    ///
    /// # Errors
    /// What is wrong with the statement or went wrong on the way; [`RunError::Interrupted`] after Ctrl-C.
    pub fn answer(&mut self, sql: &str) -> Result<(), RunError> {
        let begun = Instant::now();
        let mut rows = Rows::start(self, sql);
        let Some(schema) = rows.schema()? else { return Ok(()) };
        let output = match schema.fields().is_empty() {
            true => None,
            false => self.settings.output.take(),
        };
        let count = match output {
            Some((path, format)) => {
                let count = to_file(&path, format, &schema, &mut rows)?;
                eprintln!("{}: {count} rows", path.display());
                count
            }
            None => match self.to_stdout(&schema, &mut rows) {
                // `loev sql ... | head` is no failure.
                Err(RunError::Sql(error)) if error.is_broken_pipe() => return Ok(()),
                other => other?,
            },
        };
        if self.settings.timing {
            let noun = if count == 1 { "row" } else { "rows" };
            eprintln!("{count} {noun} in {:.3} s", begun.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn to_stdout(&mut self, schema: &SchemaRef, rows: &mut Rows) -> Result<u64, RunError> {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let format = self.settings.format;
        if terminal && format == Format::Parquet && !schema.fields().is_empty() {
            let message = "Parquet is nothing for a terminal: write to a file with -o FILE".to_owned();
            return Err(RunError::Engine(message));
        }
        let (height, width) = console::Term::stdout().size();
        let mut style = match terminal {
            true => Style::terminal(format, usize::from(width)),
            false => Style::new(format),
        };
        style.bars = self.settings.bars.clone();
        style.records = self.settings.records;
        let paged = terminal && self.settings.pager && format.is_text_table();
        if paged {
            style.max_rows = Some(PAGED_ROWS);
        }
        let mut text = Vec::new();
        self.given += 1;
        if self.given > 1 && !terminal && matches!(format, Format::Table | Format::Csv | Format::Markdown) {
            text.push(b'\n');
        }
        if paged {
            let count = write_all(schema, &style, rows, &mut text)?;
            let lines = text.iter().filter(|byte| **byte == b'\n').count();
            if lines >= usize::from(height) && page(&text).is_ok() {
                // Ctrl-C in the pager was for the pager.
                self.interrupt.clear();
                return Ok(count);
            }
            stdout.lock().write_all(&text).map_err(SqlError::from)?;
            return Ok(count);
        }
        let mut out = BufWriter::new(stdout.lock());
        out.write_all(&text).map_err(SqlError::from)?;
        write_all(schema, &style, rows, &mut out)
    }
}

/// Writes an answer into a file, which appears when it is whole.
///
/// # Errors
/// When the file is one of a run's own or cannot be written, and when the statement fails.
fn to_file(path: &Path, format: Format, schema: &SchemaRef, rows: &mut Rows) -> Result<u64, RunError> {
    refuse_own(path)?;
    let mut file = AtomicFile::create(path).map_err(RunError::io("cannot write", path))?;
    let count = write_all(schema, &Style::new(format), rows, &mut file)?;
    file.finish().map_err(RunError::io("cannot write", path))?;
    Ok(count)
}

/// # Errors
/// When `path` is one of a run's own files.
pub fn refuse_own(path: &Path) -> Result<(), RunError> {
    match loev_sql::owning_run(path) {
        Some(run) => {
            let message = format!("this is one of the files of the run {}; choose another", run.display());
            Err(RunError::RunDir { path: path.to_owned(), message })
        }
        None => Ok(()),
    }
}

fn write_all(
    schema: &SchemaRef,
    style: &Style,
    rows: &mut Rows,
    out: &mut dyn Write,
) -> Result<u64, RunError> {
    let mut writer = Writer::new(SchemaRef::clone(schema), style, out);
    while let Some(batch) = rows.next()? {
        writer.push(&batch)?;
    }
    Ok(writer.finish()?)
}

/// Shows text in the user's pager.
fn page(text: &[u8]) -> std::io::Result<()> {
    let pager = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
    let mut command = Command::new("sh");
    command.arg("-c").arg(pager.unwrap_or_else(|| PAGER.to_owned())).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", LESS);
    }
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A pager that was left before the end closes its input.
        input.write_all(text).ok();
    }
    // 127 is what the shell says of a command that is not there.
    match child.wait()?.code() {
        Some(127) => Err(std::io::ErrorKind::NotFound.into()),
        _ => Ok(()),
    }
}

/// What a running statement has to say.
enum Part {
    Schema(SchemaRef),
    Rows(RecordBatch),
}

/// The rows of a statement that runs on other threads; dropping it stops the statement.
struct Rows<'a> {
    runtime: &'a Runtime,
    interrupt: &'a Interrupt,
    parts: Receiver<Result<Part, SqlError>>,
    task: JoinHandle<()>,
}

impl<'a> Rows<'a> {
    fn start(answers: &Answers<'a>, sql: &str) -> Self {
        let (sender, parts) = channel(AHEAD);
        let (session, sql) = (answers.session.clone(), sql.to_owned());
        let task = answers.runtime.spawn(async move {
            let mut stream = match loev_sql::stream(&session, &sql).await {
                Ok(stream) => stream,
                Err(error) => return drop(sender.send(Err(error)).await),
            };
            let mut part = Ok(Part::Schema(stream.schema()));
            // Nobody listens any more once the statement was stopped.
            while sender.send(part).await.is_ok() {
                part = match stream.next().await {
                    Some(Ok(rows)) => Ok(Part::Rows(rows)),
                    Some(Err(error)) => Err(loev_sql::explain_error(&session, &sql, error)),
                    None => return,
                };
            }
        });
        Self { runtime: answers.runtime, interrupt: answers.interrupt, parts, task }
    }

    fn part(&mut self) -> Result<Option<Part>, RunError> {
        loop {
            let waited = async { tokio::time::timeout(TICK, self.parts.recv()).await };
            match self.runtime.block_on(waited) {
                Ok(Some(part)) => return Ok(Some(part?)),
                Ok(None) => {
                    let ended = self.runtime.block_on(&mut self.task);
                    return match ended.is_err_and(|error| error.is_panic()) {
                        true => Err(RunError::Engine("the query panicked; please report it".to_owned())),
                        false => Ok(None),
                    };
                }
                Err(_) if self.interrupt.requested() => return Err(RunError::Interrupted),
                Err(_) => {}
            }
        }
    }

    fn schema(&mut self) -> Result<Option<SchemaRef>, RunError> {
        Ok(match self.part()? {
            Some(Part::Schema(schema)) => Some(schema),
            _ => None,
        })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, RunError> {
        Ok(match self.part()? {
            Some(Part::Rows(rows)) => Some(rows),
            _ => None,
        })
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
