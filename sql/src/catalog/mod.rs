//! What a session can be asked about: runs and files as tables, views over them, what their columns are, and functions.
//!
//! ```text
//! Source ──open_runs──► SessionContext: tables, views, `runs`, `figures`, `columns` ──Catalog::of──► `\d`, completion
//! ```

mod comments;
mod complete;
mod facts;
mod runs;
mod sources;
pub(crate) mod views;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use datafusion::common::TableReference;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::Documentation;

use crate::diagnose;
use crate::error::SqlError;
use crate::functions;
use crate::query::query;
use crate::suggest::{listed, nearest};
use crate::types::{quoted, type_name};

pub use facts::{COLUMNS, FIGURES, RUNS};
pub use runs::{OpenRuns, open_runs};
pub use sources::Source;

/// Types up to this many characters share a column of `\d TABLE`.
const WIDEST_TYPE: usize = 24;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name, as stored.
    pub name: String,
    /// Its type, as [`type_name`] shows it.
    pub data_type: String,
    /// Whether NULL may occur.
    pub nullable: bool,
    /// The fields of a struct.
    pub fields: Vec<String>,
    /// What it is, with its unit, where the table [`COLUMNS`] says so.
    pub comment: Option<String>,
}

/// A table of the session's default schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name, as stored.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<ColumnInfo>,
}

/// What a function takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FunctionKind {
    /// One value per row.
    Scalar,
    /// One value per group.
    Aggregate,
    /// One value per row of a window.
    Window,
    /// A table, in `from`.
    Table,
}

/// A function, under one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionInfo {
    /// The name; an alias has its own entry.
    pub name: String,
    /// What it takes and gives.
    pub kind: FunctionKind,
    /// True for the functions of this crate.
    pub ours: bool,
    /// How it is called, as in `transpose_key(key, semitones)`.
    pub syntax: Option<String>,
    /// What it does.
    pub description: Option<String>,
}

/// The tables and functions of a session, both by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Tables of the default schema.
    pub tables: Vec<TableInfo>,
    /// The other schemas, which are runs.
    pub schemas: Vec<String>,
    /// Functions of all kinds; the order is by name, then kind.
    pub functions: Vec<FunctionInfo>,
}

impl Catalog {
    /// Takes stock of a session.
    ///
    /// # Errors
    /// [`SqlError::Engine`] if a table's provider cannot be had.
    pub async fn of(context: &SessionContext) -> Result<Self, SqlError> {
        let comments = comments_of(context).await;
        let mut tables = Vec::new();
        for name in table_names(context) {
            let provider = context
                .table_provider(TableReference::bare(name.as_str()))
                .await
                .map_err(diagnose::engine)?;
            let schema = provider.schema();
            let columns = schema.fields().iter().map(|field| ColumnInfo {
                name: field.name().clone(),
                data_type: type_name(field.data_type()),
                nullable: field.is_nullable(),
                fields: match field.data_type() {
                    DataType::Struct(fields) => fields.iter().map(|field| field.name().clone()).collect(),
                    _ => Vec::new(),
                },
                comment: comments.get(&(name.clone(), field.name().clone())).cloned(),
            });
            tables.push(TableInfo { columns: columns.collect(), name });
        }
        Ok(Self { tables, schemas: schema_names(context), functions: functions_of(context) })
    }

    /// The table of that name; letters' case does not count unless two names differ only in it.
    pub fn table(&self, name: &str) -> Option<&TableInfo> {
        let exact = self.tables.iter().find(|table| table.name == name);
        exact.or_else(|| self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name)))
    }

    /// The text of `\d`: all tables with their columns in short.
    pub fn describe_tables(&self) -> String {
        if self.tables.is_empty() {
            return "no tables\n".to_owned();
        }
        let width = self.tables.iter().map(|table| table.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for table in &self.tables {
            let columns = listed(table.columns.iter().map(|column| column.name.as_str()), 12);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:width$}  {columns}", table.name);
        }
        text
    }

    /// The text of `\d TABLE`: its columns with their types, or what it might be called.
    pub fn describe_table(&self, name: &str) -> String {
        let Some(table) = self.table(name) else {
            let tables = || self.tables.iter().map(|table| table.name.as_str());
            return match nearest(name, tables()) {
                Some(near) => format!("no table '{name}'; did you mean '{near}'?\n"),
                None => format!("no table '{name}'; tables are: {}\n", listed(tables(), 20)),
            };
        };
        let width = |of: &dyn Fn(&ColumnInfo) -> &str| {
            table.columns.iter().map(|column| of(column).chars().count()).max().unwrap_or(0)
        };
        let (names, types) =
            (width(&|column| &column.name), width(&|column| &column.data_type).min(WIDEST_TYPE));
        let mut text = String::new();
        for column in &table.columns {
            let comment = column.comment.as_deref().unwrap_or_default();
            let line = format!("{:names$}  {:types$}  {comment}", column.name, column.data_type);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// The text of `\df`: the vector and music functions; with a name, one function's description.
    pub fn describe_functions(&self, name: Option<&str>) -> String {
        let Some(name) = name else {
            let mut text = String::new();
            for function in self.functions.iter().filter(|function| function.ours) {
                let syntax = function.syntax.as_deref().unwrap_or(&function.name);
                let first =
                    function.description.as_deref().and_then(|text| text.split(". ").next()).unwrap_or("");
                let _ = writeln!(text, "{syntax}\n    {}", first.trim_end_matches('.'));
            }
            let others = self.functions.iter().filter(|function| !function.ours).count();
            let _ = writeln!(text, "and DataFusion's {others}; \\df NAME describes one");
            return text;
        };
        let matching: Vec<&FunctionInfo> =
            self.functions.iter().filter(|function| function.name.eq_ignore_ascii_case(name)).collect();
        if matching.is_empty() {
            let near = nearest(name, self.functions.iter().map(|function| function.name.as_str()));
            let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            return format!("no function '{name}'{hint}\n");
        }
        let mut text = String::new();
        for function in matching {
            let syntax = function.syntax.as_deref().unwrap_or(&function.name);
            let _ = writeln!(
                text,
                "{syntax}\n    {}",
                function.description.as_deref().unwrap_or("not documented")
            );
        }
        text
    }
}

/// The tables of the default schema, by name.
pub(crate) fn table_names(context: &SessionContext) -> Vec<String> {
    tables_in(context, &context.copied_config().options().catalog.default_schema)
}

/// The tables of a schema, by name.
fn tables_in(context: &SessionContext, schema: &str) -> Vec<String> {
    let catalog = context.catalog(&context.copied_config().options().catalog.default_catalog);
    let schema = catalog.and_then(|catalog| catalog.schema(schema));
    let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
    names.sort();
    names
}

/// The schemas of runs.
fn schema_names(context: &SessionContext) -> Vec<String> {
    let config = context.copied_config();
    let defaults = &config.options().catalog;
    let catalog = context.catalog(&defaults.default_catalog);
    let mut names = catalog.map(|catalog| catalog.schema_names()).unwrap_or_default();
    names.retain(|name| *name != defaults.default_schema && name != "information_schema");
    names.sort();
    names
}

/// What the table [`COLUMNS`] says of the columns of the default schema; nothing if the runs have another such table.
async fn comments_of(context: &SessionContext) -> BTreeMap<(String, String), String> {
    let sql = format!("select table_name, column_name, comment from {COLUMNS} where table_schema = 'public'");
    let mut comments = BTreeMap::new();
    for rows in query(context, &sql).await.unwrap_or_default() {
        let column = |index: usize| rows.column(index).as_string_opt::<i32>();
        if let (Some(tables), Some(columns), Some(texts)) = (column(0), column(1), column(2)) {
            for ((table, column), text) in tables.iter().zip(columns).zip(texts) {
                if let (Some(table), Some(column), Some(text)) = (table, column, text) {
                    comments.insert((table.to_owned(), column.to_owned()), text.to_owned());
                }
            }
        }
    }
    comments
}

fn functions_of(context: &SessionContext) -> Vec<FunctionInfo> {
    let state = context.state();
    let ours = functions::names();
    let info = |name: &String, kind: FunctionKind, documentation: Option<&Documentation>| FunctionInfo {
        name: name.clone(),
        kind,
        ours: ours.iter().any(|known| known == name),
        syntax: documentation.map(|text| text.syntax_example.clone()),
        description: documentation.map(|text| text.description.trim().to_owned()),
    };
    let scalars = state
        .scalar_functions()
        .iter()
        .map(|(name, function)| info(name, FunctionKind::Scalar, function.documentation()));
    let aggregates = state
        .aggregate_functions()
        .iter()
        .map(|(name, function)| info(name, FunctionKind::Aggregate, function.documentation()));
    let windows = state
        .window_functions()
        .iter()
        .map(|(name, function)| info(name, FunctionKind::Window, function.documentation()));
    let tables = state.table_functions().keys().map(|name| info(name, FunctionKind::Table, None));
    let relations = functions::relation::documentation()
        .map(|(name, documentation)| info(&name.to_owned(), FunctionKind::Table, Some(&documentation)));
    let mut functions: Vec<FunctionInfo> =
        scalars.chain(aggregates).chain(windows).chain(tables).chain(relations).collect();
    functions.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    functions
}

/// A name as SQL wants it: in double quotes unless it is plain and lower-case.
fn written(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !name.starts_with(|c: char| c.is_ascii_digit()) { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, session};

    #[test]
    fn tables_columns_and_functions_are_listed() {
        let catalog = block_on(Catalog::of(&session())).unwrap();
        let names: Vec<&str> = catalog.tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["music"]);
        assert_eq!(
            catalog.describe_table("MUSIC"),
            "name    text\nn       bigint\nBPM     double\nvector  float[3]\n"
        );
        assert!(catalog.describe_table("musik").contains("did you mean 'music'"));
        assert_eq!(catalog.describe_tables(), "music  name, n, BPM, vector\n");
        let function = |name: &str| catalog.functions.iter().find(|function| function.name == name).unwrap();
        assert!(function("transpose_key").ours && function("dot_product").ours && !function("avg").ours);
        assert_eq!(function("avg").kind, FunctionKind::Aggregate);
        for name in ["silhouette", "centroid", "bootstrap_ci"] {
            assert!(function(name).ours && function(name).kind == FunctionKind::Aggregate, "{name}");
        }
        assert!(catalog.describe_functions(Some("linear_cak")).contains("did you mean 'linear_cka'"));
        assert_eq!(function("row_number").kind, FunctionKind::Window);
        let table = FunctionKind::Table;
        assert!(
            catalog
                .functions
                .iter()
                .any(|function| function.name == "generate_series" && function.kind == table)
        );
        assert!(catalog.describe_functions(None).contains("mirex_weighted(estimate, reference[, rule])"));
        assert!(catalog.describe_functions(Some("tempo_acc2")).contains("double"));
        assert!(catalog.describe_functions(Some("tempo_ac2")).contains("did you mean 'tempo_acc2'"));
    }
}
