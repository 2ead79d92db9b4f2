//! Sessions of `loev sql`: statements that end with `;` and commands that begin with `\`, from the prompt, a pipe, a
//! file or the command line. The prompt has history across sessions, and completion.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use loev_sql::{Bars, Catalog, Format, is_finished, statements};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper, Highlighter, Hinter};

use super::answer::{Answers, refuse_own};
use super::print;
use crate::error::RunError;

/// Files that `\i` may read from one another.
const DEEPEST: usize = 16;

const HELP: &str = "\
A statement ends with ; and may span lines. Tab completes names and keywords. Ctrl-C stops a statement.
  \\d               tables
  \\d TABLE         columns of a table, and what they are
  \\df              functions of loev
  \\df NAME         one function
  \\i FILE          run the statements of a file
  \\o FILE          write the next answer to a file
  \\format FORMAT   table, csv, json, markdown or parquet
  \\bars [COLUMNS]  draw numbers as bars, in all columns or those named; again to stop
  \\x               each row as a block of lines; again to stop
  \\timing          tell how long an answer took; again to stop
  \\?               this help
  \\q               quit (also Ctrl-D)
";

/// Whether a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Quit,
}

/// A session: what is asked, and what its names are.
pub struct Session<'a> {
    answers: Answers<'a>,
    catalog: Catalog,
    /// How many files read one another.
    depth: usize,
}

impl<'a> Session<'a> {
    /// A session that answers with `answers`.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn new(answers: Answers<'a>) -> Result<Self, RunError> {
        let catalog = answers.runtime.block_on(Catalog::of(answers.session))?;
        Ok(Self { answers, catalog, depth: 0 })
    }

    /// Runs the statements and commands of a text, up to the first that fails.
    ///
    /// # Errors
    /// That of the statement.
    pub fn script(&mut self, text: &str) -> Result<(), RunError> {
        self.lines(text.as_bytes())
    }

    /// Runs statements and commands as their lines come, up to the first that fails. The last statement needs no
    /// semicolon.
    ///
    /// # Errors
    /// That of the statement, or of reading.
    pub fn lines(&mut self, input: impl BufRead) -> Result<(), RunError> {
        // Blank lines stand for those before, so that errors name the right one.
        let (mut above, mut pending) = (0, String::new());
        let mut below = 0;
        for line in input.lines() {
            let line = line.map_err(RunError::io("cannot read", "the statements"))?;
            below += 1;
            if line.trim_start().starts_with('\\') && statements(&pending).is_empty() {
                if self.command(line.trim())? == Flow::Quit {
                    return Ok(());
                }
            } else {
                pending.push_str(&line);
                pending.push('\n');
                if !line.contains(';') || !is_finished(&pending) {
                    continue;
                }
                self.statements(above, &pending)?;
            }
            pending.clear();
            above = below;
        }
        self.statements(above, &pending)
    }

    fn statements(&mut self, above: usize, text: &str) -> Result<(), RunError> {
        for statement in statements(&format!("{}{text}", "\n".repeat(above))) {
            self.answers.answer(&statement)?;
        }
        Ok(())
    }

    /// Asks for statements until the user leaves.
    ///
    /// # Errors
    /// When the terminal fails. What is wrong with a statement is told, and the session goes on.
    pub fn prompt(&mut self) -> Result<(), RunError> {
        let failed = |error: ReadlineError| RunError::Engine(format!("the prompt failed: {error}"));
        let config = Config::builder().completion_show_all_if_ambiguous(true).build();
        let mut editor: Editor<Names, DefaultHistory> = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Names(self.catalog.clone())));
        let history = history_file();
        if let Some(history) = &history {
            // There is none before the first session.
            editor.load_history(history).ok();
        }
        self.answers.settings.timing = true;
        say(&format!("{}\\? for help\n", self.catalog.describe_tables()))?;
        loop {
            let line = match editor.readline("loev> ") {
                Ok(line) => line,
                // Ctrl-C drops what was typed, Ctrl-D leaves.
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(failed(error)),
            };
            if line.trim().is_empty() {
                continue;
            }
            editor.add_history_entry(line.trim_end()).map_err(failed)?;
            self.answers.interrupt.clear();
            let done = match line.trim_start().starts_with('\\') {
                true => self.command(line.trim()),
                false => self.statements(0, &line).map(|()| Flow::On),
            };
            match done {
                Ok(Flow::On) => {}
                Ok(Flow::Quit) => break,
                Err(error) => eprintln!("{error}"),
            }
            self.answers.interrupt.clear();
            // Views may have come and gone.
            self.catalog = self.answers.runtime.block_on(Catalog::of(self.answers.session))?;
            if let Some(names) = editor.helper_mut() {
                names.0 = self.catalog.clone();
            }
        }
        if let Some(history) = &history {
            editor.save_history(history).map_err(failed)?;
        }
        Ok(())
    }

    /// Carries out a command.
    fn command(&mut self, line: &str) -> Result<Flow, RunError> {
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim().trim_end_matches(';').trim_end();
        let settings = &mut self.answers.settings;
        let told = |what: &str, on: bool| format!("{what} {}\n", if on { "on" } else { "off" });
        let text = match (name, argument) {
            ("\\q", _) => return Ok(Flow::Quit),
            ("\\?", _) => HELP.to_owned(),
            ("\\d", "") => self.catalog.describe_tables(),
            ("\\d", table) => self.catalog.describe_table(table.trim_matches('"')),
            ("\\df", "") => self.catalog.describe_functions(None),
            ("\\df", function) => self.catalog.describe_functions(Some(function)),
            ("\\timing", _) => {
                settings.timing = !settings.timing;
                told("timing", settings.timing)
            }
            ("\\x", _) => {
                settings.records = !settings.records;
                told("records", settings.records)
            }
            ("\\bars", columns) => {
                let names: Vec<String> =
                    columns.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
                settings.bars = match (names.is_empty(), &settings.bars) {
                    (true, Bars::None) => Bars::All,
                    (true, _) => Bars::None,
                    (false, _) => Bars::Columns(names),
                };
                told("bars", settings.bars != Bars::None)
            }
            ("\\format", format) => {
                settings.format = format.parse().map_err(RunError::Engine)?;
                String::new()
            }
            ("\\o", "") => return Err(RunError::Engine("\\o needs the name of a file".to_owned())),
            ("\\o", file) => {
                let path = PathBuf::from(file);
                refuse_own(&path)?;
                let format = Format::of_file(&path).unwrap_or(settings.format);
                settings.output = Some((path, format));
                String::new()
            }
            ("\\i", file) => return self.include(Path::new(file)),
            (other, _) => {
                return Err(RunError::Engine(format!("there is no command {other}; \\? lists them")));
            }
        };
        say(&text).map(|()| Flow::On)
    }

    /// Runs the statements of a file.
    fn include(&mut self, path: &Path) -> Result<Flow, RunError> {
        if self.depth >= DEEPEST {
            let message = format!("more than {DEEPEST} files read one another");
            return Err(RunError::RunDir { path: path.to_owned(), message });
        }
        let text = std::fs::read_to_string(path).map_err(RunError::io("cannot read", path))?;
        self.depth += 1;
        let done = self.script(&text);
        self.depth -= 1;
        done.map(|()| Flow::On)
    }
}

/// Prints an answer that is no table of rows.
fn say(text: &str) -> Result<(), RunError> {
    print(text).map_err(|failure| match failure {
        super::Failure::Run(error) => error,
        other => RunError::Engine(format!("{other:?}")),
    })
}

/// What the editor knows of the session: its names, and where a statement ends.
#[derive(Helper, Highlighter, Hinter)]
struct Names(Catalog);

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let Some((command, rest)) = line.split_once(' ').filter(|(command, _)| command.starts_with('\\'))
        else {
            return Ok(self.0.complete(line, at));
        };
        let start = command.len() + 1;
        let names: Vec<&str> = match command {
            "\\d" => self.0.tables.iter().map(|table| table.name.as_str()).collect(),
            "\\df" => self.0.functions.iter().map(|function| function.name.as_str()).collect(),
            "\\format" => Format::NAMES.to_vec(),
            _ => Vec::new(),
        };
        let typed = rest.get(..at.saturating_sub(start)).unwrap_or(rest);
        Ok((start, names.into_iter().filter(|name| name.starts_with(typed)).map(str::to_owned).collect()))
    }
}

impl Validator for Names {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        Ok(match text.trim_start().starts_with('\\') || is_finished(text) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

/// Where history is kept: the user's state directory, made if need be.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    let dir = state.join("loev");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("sql_history"))
}
