//! The prompt of `loev sql`: statements that end with `;`, history across sessions, completion of
//! tables, columns and functions, and `\d` to look around.

use std::path::PathBuf;

use datafusion::prelude::SessionContext;
use loev_sql::{Catalog, Format};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Context, Editor, Helper, Highlighter, Hinter, Validator};
use tokio::runtime::Runtime;

use super::sql::answer;
use super::{Failure, print};
use crate::error::RunError;

const HELP: &str = "\
A statement ends with ; and may span lines. Tab completes tables, columns and functions.
  \\d           tables
  \\d TABLE     columns of a table
  \\df          functions of loev
  \\df NAME     one function
  \\?           this help
  \\q           quit (also Ctrl-D)
";

#[derive(Helper, Highlighter, Hinter, Validator)]
struct Names(Catalog);

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..pos).unwrap_or(line);
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
        Ok((start, self.0.complete(before.get(start..).unwrap_or_default())))
    }
}

/// Asks for statements until the user leaves.
pub fn prompt(runtime: &Runtime, session: &SessionContext, format: Format) -> Result<(), Failure> {
    let failed = |error: ReadlineError| RunError::Engine(format!("the prompt failed: {error}"));
    let catalog = runtime.block_on(Catalog::of(session))?;
    let mut editor: Editor<Names, DefaultHistory> = Editor::new().map_err(failed)?;
    editor.set_helper(Some(Names(catalog.clone())));
    let history = history_file();
    if let Some(history) = &history {
        // There is none before the first session.
        editor.load_history(history).ok();
    }
    print(&format!("{}\\? for help\n", catalog.describe_tables()))?;
    let mut statement = String::new();
    loop {
        match editor.readline(if statement.is_empty() { "loev> " } else { "  ... " }) {
            Ok(line) if statement.is_empty() && line.trim_start().starts_with('\\') => {
                editor.add_history_entry(&line).map_err(failed)?;
                match command(&catalog, line.trim()) {
                    Some(text) => print(&text)?,
                    None => break,
                }
            }
            Ok(line) => {
                statement.push_str(&line);
                statement.push('\n');
                if line.trim_end().ends_with(';') {
                    editor.add_history_entry(statement.trim_end()).map_err(failed)?;
                    if let Err(error) = answer(runtime, session, statement.trim(), format) {
                        eprintln!("{error}");
                    }
                    statement.clear();
                }
            }
            // Ctrl-C drops what was typed, Ctrl-D leaves.
            Err(ReadlineError::Interrupted) => statement.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error).into()),
        }
    }
    if let Some(history) = &history {
        editor.save_history(history).map_err(failed)?;
    }
    Ok(())
}

/// The answer to a backslash command; `None` to quit.
fn command(catalog: &Catalog, line: &str) -> Option<String> {
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    Some(match (name, argument.trim()) {
        ("\\q", _) => return None,
        ("\\d", "") => catalog.describe_tables(),
        ("\\d", table) => catalog.describe_table(table),
        ("\\df", "") => catalog.describe_functions(None),
        ("\\df", function) => catalog.describe_functions(Some(function)),
        _ => HELP.to_owned(),
    })
}

/// Where history is kept: the user's state directory, made if need be.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    let dir = state.join("loev");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("sql_history"))
}
