//! The test files of `sql/tests/slt`: statements with their answers, in the format of sqllogictest.
//!
//! Each file has a session of its own. Floats are compared at five significant digits. `\i PATH` runs the statement of
//! a file, named from the project's root. `\open A B` opens made-up runs (`toy`): `toy`, and `worse`, which does not
//! know the key of one clip more.

#![allow(clippy::unwrap_used)]

mod toy;

use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::context::SessionContext;
use loev_sql::{Location, Source, SqlError, new_session, open_runs, query};
use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};
use tokio::runtime::Runtime;

struct Session {
    runtime: Runtime,
    context: SessionContext,
    /// The runs that are open.
    folder: Option<tempfile::TempDir>,
}

impl Session {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let context = new_session(2, None).unwrap();
        Self { runtime, context, folder: None }
    }
}

impl DB for Session {
    type Error = SqlError;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SqlError> {
        if let Some(names) = sql.strip_prefix("\\open ") {
            let folder = tempfile::tempdir().unwrap();
            let made = names.split_whitespace().map(|name| {
                let root = folder.path().join(name);
                if name == "toy" {
                    toy::write(&root, &[], 1)
                } else {
                    toy::write(&root, &[8], 2)
                }
                Source::from(Location::from(root))
            });
            let open = self.runtime.block_on(open_runs(&made.collect::<Vec<_>>(), 2, None))?;
            assert_eq!(open.notes(), [] as [&str; 0]);
            self.context = open.context;
            self.folder = Some(folder);
            return Ok(DBOutput::StatementComplete(0));
        }
        let file = sql.strip_prefix("\\i ").map(|path| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            std::fs::read_to_string(root.join(path.trim())).unwrap_or_else(|error| panic!("{path}: {error}"))
        });
        let batches = self.runtime.block_on(query(&self.context, file.as_deref().unwrap_or(sql)))?;
        let schema = batches[0].schema();
        let types = schema.fields().iter().map(|field| match field.data_type() {
            DataType::Utf8 => DefaultColumnType::Text,
            other if other.is_integer() => DefaultColumnType::Integer,
            other if other.is_floating() => DefaultColumnType::FloatingPoint,
            _ => DefaultColumnType::Any,
        });
        let types: Vec<_> = types.collect();
        if types.is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let rows = batches.iter().flat_map(|batch| {
            (0..batch.num_rows())
                .map(|row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>())
        });
        Ok(DBOutput::Rows { types, rows: rows.collect() })
    }

    fn engine_name(&self) -> &str {
        "loev"
    }
}

/// A value as text without spaces at its ends; an empty text is `(empty)`.
fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            digits(cast(array, &DataType::Float64).unwrap().as_primitive::<Float64Type>().value(row))
        }
        DataType::List(_) => list(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter();
            let texts =
                columns.zip(fields).map(|(column, field)| format!("{}: {}", field.name(), cell(column, row)));
            format!("{{{}}}", texts.collect::<Vec<_>>().join(", "))
        }
        _ => {
            let options = FormatOptions::default();
            let text = ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string();
            if text.is_empty() { "(empty)".to_owned() } else { text }
        }
    }
}

fn list(items: &ArrayRef) -> String {
    let texts: Vec<String> = (0..items.len()).map(|row| cell(items, row)).collect();
    format!("[{}]", texts.join(", "))
}

/// Five significant digits, without needless zeros.
fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{}", value.abs());
    }
    let rounded: f64 = format!("{value:.4e}").parse().unwrap();
    let size = rounded.abs();
    if (1e-4..1e7).contains(&size) { format!("{rounded}") } else { format!("{rounded:e}") }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "slt")).collect();
    files.sort();
    files
}

/// `render` needs the chain of a real stage of views: `relation::render` has its tests.
#[test]
fn every_function_has_statements() {
    let texts: String = files().iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let calls = |name: &str| {
        let call = format!("{name}(");
        texts
            .match_indices(&call)
            .any(|(at, _)| !texts[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let context = new_session(1, None).unwrap();
    let aliases: Vec<String> = (context.state().scalar_functions().values())
        .flat_map(|function| function.aliases().to_vec())
        .chain(
            context.state().aggregate_functions().values().flat_map(|function| function.aliases().to_vec()),
        )
        .collect();
    let names = loev_sql::functions::names().into_iter().filter(|name| !aliases.contains(name));
    let silent: Vec<String> = names.filter(|name| name != "render" && !calls(name)).collect();
    assert!(silent.is_empty(), "no .slt file calls {silent:?}");
}

#[test]
fn statements_have_their_answers() {
    let files = files();
    assert!(!files.is_empty());
    let failed: Vec<String> = files
        .iter()
        .filter_map(|file| Runner::new(async || Ok(Session::new())).run_file(file).err())
        .map(|error| error.display(false).to_string())
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
