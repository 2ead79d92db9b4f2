//! What a session can be asked about: its tables with their columns, and its functions. For `\d`
//! and for completion at the prompt.

use std::fmt::Write as _;

use datafusion::common::TableReference;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::Documentation;

use crate::diagnose;
use crate::error::SqlError;
use crate::functions;
use crate::suggest::{listed, nearest};
use crate::types::type_name;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name, as stored.
    pub name: String,
    /// Its type, as [`type_name`] shows it.
    pub data_type: String,
    /// Whether NULL may occur.
    pub nullable: bool,
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
    /// Functions of all kinds; the order is by name, then kind.
    pub functions: Vec<FunctionInfo>,
}

impl Catalog {
    /// Takes stock of a session.
    ///
    /// # Errors
    /// [`SqlError::Engine`] if a table's provider cannot be had.
    pub async fn of(context: &SessionContext) -> Result<Self, SqlError> {
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
            });
            tables.push(TableInfo { name, columns: columns.collect() });
        }
        Ok(Self { tables, functions: functions_of(context) })
    }

    /// The table of that name; letters' case does not count unless two names differ only in it.
    pub fn table(&self, name: &str) -> Option<&TableInfo> {
        let exact = self.tables.iter().find(|table| table.name == name);
        exact.or_else(|| self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name)))
    }

    /// Names that start with `prefix`, for completion: tables, then columns, then functions with
    /// an opening parenthesis; each once. Case does not count.
    pub fn complete(&self, prefix: &str) -> Vec<String> {
        let starts =
            |name: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let columns = self.tables.iter().flat_map(|table| &table.columns).map(|column| column.name.as_str());
        let names = self.tables.iter().map(|table| table.name.as_str()).chain(columns).map(quoted);
        let functions = self.functions.iter().map(|function| format!("{}(", function.name));
        let mut seen = std::collections::HashSet::new();
        names
            .chain(functions)
            .filter(|name| starts(name.trim_start_matches('"')) && seen.insert(name.clone()))
            .collect()
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
        let width = table.columns.iter().map(|column| column.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for column in &table.columns {
            let null = if column.nullable { "" } else { ", never NULL" };
            let _ = writeln!(text, "{:width$}  {}{null}", column.name, column.data_type);
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
    let config = context.copied_config();
    let defaults = &config.options().catalog;
    let mut names = context
        .catalog(&defaults.default_catalog)
        .and_then(|catalog| catalog.schema(&defaults.default_schema))
        .map(|schema| schema.table_names())
        .unwrap_or_default();
    names.sort();
    names
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
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !name.starts_with(|c: char| c.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
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

    #[test]
    fn completion_quotes_what_must_be_quoted() {
        let catalog = block_on(Catalog::of(&session())).unwrap();
        assert_eq!(catalog.complete("mus"), ["music"]);
        assert_eq!(catalog.complete("bp"), ["\"BPM\""]);
        assert_eq!(catalog.complete("cosine_"), ["cosine_distance(", "cosine_similarity("]);
        assert!(catalog.complete("zzz").is_empty());
        assert!(catalog.complete("").len() > 100);
    }
}
