//! Runs and files in one session.
//!
//! Each of several runs is a schema of its own, `a.probes` and `b.probes`; the plain name `probes` is the rows of all
//! runs that have such a table, with the column `run` in front. A file is a table under its own name. Beside them are
//! the tables [`RUNS`], [`FIGURES`] and [`COLUMNS`], and views of labels ([`super::views`]), each unless the runs have a
//! stage of that name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{MemTable, MemorySchemaProvider};
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;

use super::facts::{self, COLUMNS, FIGURES, RUNS};
use super::sources::{Source, table_name};
use super::views::{self, Tables};
use crate::diagnose;
use crate::error::SqlError;
use crate::run::{Absent, RunCatalog};
use crate::session::new_session;
use crate::store;
use crate::suggest::listed;
use crate::types::quoted;

/// Runs and files that are open for queries.
pub struct OpenRuns {
    /// The session.
    pub context: SessionContext,
    /// The name under which each run is known, and what it says of itself.
    pub runs: Vec<(String, RunCatalog)>,
    /// The names of the tables that are files, with the sources they came from.
    pub files: Vec<(String, Source)>,
    /// Tables that are not there or not readable; with several runs, under `run.table`.
    pub absent: Vec<Absent>,
}

/// Opens runs and files for queries, in a session of their own ([`new_session`]).
///
/// One run has its tables under their plain names. Several are schemas named after their directories (a second
/// `x` is `x_2`), and plain names stand for the rows of all of them: columns are matched by name, and a column
/// that a run lacks is NULL there.
///
/// # Errors
/// [`SqlError::Run`] for a place that is neither a run nor holds files of rows, [`SqlError::Table`] for a file that
/// cannot be read. A table of a run that cannot be read is no error, nor is one whose columns do not fit between runs:
/// see [`OpenRuns::absent`].
pub async fn open_runs(
    sources: &[Source],
    threads: usize,
    memory_limit: Option<usize>,
) -> Result<OpenRuns, SqlError> {
    let context = new_session(threads, memory_limit)?;
    let mut open = OpenRuns { context, runs: Vec::new(), files: Vec::new(), absent: Vec::new() };
    let mut files = Vec::new();
    for source in sources {
        if store::is_row_file(&source.location) {
            files.push((source, open.file(source).await?));
            continue;
        }
        match RunCatalog::read(source.location.clone()) {
            Ok(catalog) => {
                let wanted = source.name.as_deref().or(source.location.name()).unwrap_or("run");
                let taken: Vec<&str> = open.runs.iter().map(|(run, _)| run.as_str()).collect();
                let name = free_name(wanted, &taken);
                open.runs.push((name, catalog));
            }
            // A folder of files of rows is no run, and a table.
            Err(not_a_run) => match open.file(source).await {
                Ok(table) if !store::exists(&source.location.join("run.json")?)? => {
                    files.push((source, table))
                }
                Err(of_file) if source.location.as_path().is_some_and(|path| path.is_file()) => {
                    return Err(of_file);
                }
                _ => return Err(not_a_run),
            },
        }
    }
    match open.runs.as_slice() {
        [] => {}
        [(_, only)] => open.absent = only.register(&open.context).await,
        _ => open.register_schemas().await?,
    }
    open.register_views().await;
    if open.runs.len() > 1 {
        open.register_unions().await;
    }
    for (source, table) in files {
        let wanted = source.name.clone().unwrap_or_else(|| table_name(&source.location));
        let taken = super::table_names(&open.context);
        let taken: Vec<&str> = taken.iter().map(String::as_str).chain([RUNS, FIGURES, COLUMNS]).collect();
        let name = free_name(&wanted, &taken);
        let reference = TableReference::bare(name.as_str());
        open.context.register_table(reference, table).map_err(diagnose::engine)?;
        open.files.push((name, source.clone()));
    }
    open.register_facts().await?;
    Ok(open)
}

impl OpenRuns {
    /// What a user should know before asking: runs that are not complete, tables that are not there, and names that are
    /// not those of the files.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, run) in self.runs.iter().filter(|(_, run)| !run.is_complete()) {
            let (done, all) = (run.stages.len(), run.pipeline_stages().count());
            let status = if run.status.is_empty() { "unknown" } else { run.status.as_str() };
            notes.push(format!(
                "run `{name}` is not complete ({status}, {done} of {all} stages done): its tables may lack rows"
            ));
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for absent in &self.absent {
            reasons.entry(&absent.reason).or_default().push(&absent.table);
        }
        for (reason, tables) in reasons {
            let noun = if tables.len() == 1 { "table" } else { "tables" };
            notes.push(format!("no {noun} {}: {reason}", listed(tables, 8)));
        }
        for (name, source) in &self.files {
            if source.location.name().and_then(|file| file.split('.').next()) != Some(name.as_str())
                && source.name.as_ref() != Some(name)
            {
                notes.push(format!("{} is the table {name}", source.location));
            }
        }
        notes
    }

    /// The table of a file.
    async fn file(&self, source: &Source) -> Result<Arc<dyn datafusion::catalog::TableProvider>, SqlError> {
        let name = source.name.clone().unwrap_or_else(|| table_name(&source.location));
        store::table_at(&self.context.state(), &name, &source.location).await
    }

    /// How a table of a run is named: with the run's schema if there are several.
    fn reference(&self, run: &str, table: &str) -> TableReference {
        match self.runs.len() {
            1 => TableReference::bare(table),
            _ => TableReference::partial(run, table),
        }
    }

    async fn register_schemas(&mut self) -> Result<(), SqlError> {
        for (run, catalog) in &self.runs {
            if let Some(schemas) = self.context.catalog("datafusion") {
                let schema = Arc::new(MemorySchemaProvider::new());
                schemas.register_schema(run, schema).map_err(diagnose::engine)?;
            }
            let reference = |table: &str| TableReference::partial(run.as_str(), table);
            let absent = catalog.register_as(&self.context, reference).await;
            let named = |absent: Absent| Absent { table: format!("{run}.{}", absent.table), ..absent };
            self.absent.extend(absent.into_iter().map(named));
        }
        Ok(())
    }

    /// The views of each run. What cannot be one (columns of other types than ours) is left out.
    async fn register_views(&self) {
        for (run, catalog) in &self.runs {
            let mut tables = RunTables { run, several: self.runs.len() > 1, schemas: HashMap::new() };
            for table in catalog.tables.keys() {
                if let Ok(provider) = self.context.table_provider(self.reference(run, table)).await {
                    tables.schemas.insert(table, provider.schema());
                }
            }
            for view in views::of(catalog, &tables) {
                if let Ok(rows) = self.context.sql(&view.query).await {
                    let reference = self.reference(run, &view.name);
                    // The name is free, and the schema is there.
                    self.context.register_table(reference, rows.into_view()).ok();
                }
            }
        }
    }

    /// Under plain names, the rows of all runs.
    async fn register_unions(&mut self) {
        let mut present: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (run, _) in &self.runs {
            for table in super::tables_in(&self.context, run) {
                present.entry(table).or_default().push(run);
            }
        }
        let mut absent = Vec::new();
        for (table, runs) in present {
            let rows = runs.iter().map(|run| {
                let text = run.replace('\'', "''");
                format!("select '{text}' as run, * from {}.{}", quoted(run), quoted(&table))
            });
            let query = rows.collect::<Vec<_>>().join(" union all by name ");
            let made = async {
                if let Some(column) = self.differing(&table, &runs).await? {
                    return Err(DataFusionError::Plan(format!("column {column} has another type")));
                }
                let view = self.context.sql(&query).await?.into_view();
                self.context.register_table(TableReference::bare(table.as_str()), view)
            };
            if let Err(error) = made.await {
                let reason = format!("its rows in these runs are no one table: {}", diagnose::engine(error));
                absent.push(Absent { table, reason });
            }
        }
        self.absent.extend(absent);
    }

    /// A column of `table` whose type is not the same in all of `runs`.
    async fn differing(&self, table: &str, runs: &[&str]) -> Result<Option<String>, DataFusionError> {
        let mut types: BTreeMap<String, DataType> = BTreeMap::new();
        for run in runs {
            let rows = self.context.table(TableReference::partial(*run, table)).await?;
            for field in rows.schema().fields() {
                let known = types.entry(field.name().clone()).or_insert_with(|| field.data_type().clone());
                if known != field.data_type() {
                    return Ok(Some(field.name().clone()));
                }
            }
        }
        Ok(None)
    }

    /// The tables about runs and columns, where their names are free.
    async fn register_facts(&self) -> Result<(), SqlError> {
        let taken: BTreeSet<String> = super::table_names(&self.context).into_iter().collect();
        let mut facts = Vec::new();
        if !self.runs.is_empty() {
            facts.extend([(RUNS, facts::runs(&self.runs)?), (FIGURES, facts::figures(&self.runs)?)]);
        }
        for (name, rows) in facts {
            if !taken.contains(name) {
                let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(diagnose::engine)?;
                let reference = TableReference::bare(name);
                self.context.register_table(reference, Arc::new(table)).map_err(diagnose::engine)?;
            }
        }
        if !taken.contains(COLUMNS) {
            let rows = facts::columns(self).await?;
            let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(diagnose::engine)?;
            let reference = TableReference::bare(COLUMNS);
            self.context.register_table(reference, Arc::new(table)).map_err(diagnose::engine)?;
        }
        Ok(())
    }
}

/// The tables of one run, for its views.
struct RunTables<'a> {
    run: &'a str,
    several: bool,
    schemas: HashMap<&'a str, SchemaRef>,
}

impl Tables for RunTables<'_> {
    fn schema(&self, table: &str) -> Option<SchemaRef> {
        self.schemas.get(table).map(Arc::clone)
    }

    fn sql(&self, table: &str) -> String {
        match self.several {
            true => format!("{}.{}", quoted(self.run), quoted(table)),
            false => quoted(table),
        }
    }
}

/// `name`, or with the first free number behind it.
fn free_name(name: &str, taken: &[&str]) -> String {
    let is_free = |name: &String| taken.iter().all(|other| !other.eq_ignore_ascii_case(name));
    let numbered = (2..).map(|n| format!("{name}_{n}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::query::query;
    use crate::store::Location;
    use crate::testing::{block_on, write_parquet};

    fn run(dir: &Path, name: &str, columns: Vec<(&str, ArrayRef)>) -> Source {
        let root = dir.join(name);
        write_parquet(
            &root.join("tables/probes"),
            "a.parquet",
            &RecordBatch::try_from_iter(columns).unwrap(),
        );
        let text = r#"{"name": "demo", "status": "complete", "pipeline": {"seed": 4},
                       "tables": {"probes": "tables/probes", "model": "tables/model"}}"#;
        std::fs::write(root.join("run.json"), text).unwrap();
        Location::from(root).into()
    }

    fn texts(open: &OpenRuns, sql: &str) -> Vec<String> {
        let rows = block_on(query(&open.context, sql)).unwrap();
        let column = |rows: &RecordBatch| -> Vec<String> {
            rows.column(0).as_string::<i32>().iter().map(|text| text.unwrap_or("null").to_owned()).collect()
        };
        rows.iter().flat_map(column).collect()
    }

    #[test]
    fn runs_stand_beside_each_other_and_in_one_table() {
        let dir = tempfile::tempdir().unwrap();
        let values = |values: &[f64]| -> ArrayRef { Arc::new(Float64Array::from(values.to_vec())) };
        let words = |words: &[&str]| -> ArrayRef { Arc::new(StringArray::from(words.to_vec())) };
        let a = run(dir.path(), "a-1", vec![("value", values(&[1.0, 2.0]))]);
        let b = run(&dir.path().join("x"), "a-1", vec![("task", words(&["key"])), ("value", values(&[5.0]))]);
        let open = block_on(open_runs(&[a.clone(), b], 2, None)).unwrap();
        let rows = "select run || ':' || coalesce(task, '-') || ':' || value from probes order by value";
        assert_eq!(texts(&open, rows), ["a-1:-:1.0", "a-1:-:2.0", "a-1_2:key:5.0"]);
        assert_eq!(texts(&open, "select cast(sum(value) as varchar) from \"a-1\".probes"), ["3.0"]);
        let absent: Vec<&str> = open.absent.iter().map(|absent| absent.table.as_str()).collect();
        assert_eq!(absent, ["a-1.model", "a-1_2.model"]);
        assert_eq!(texts(&open, "select run from runs order by run"), ["a-1", "a-1_2"]);
        let seeds = block_on(query(&open.context, "select seed from runs")).unwrap();
        assert_eq!(seeds[0].column(0).as_primitive::<Int64Type>().value(0), 4);

        // One run has no schema and no extra column.
        let open = block_on(open_runs(&[a], 2, None)).unwrap();
        assert_eq!(texts(&open, "select cast(sum(value) as varchar) from probes"), ["3.0"]);
        assert_eq!(texts(&open, "select name from runs"), ["demo"]);
    }

    #[test]
    fn tables_that_do_not_fit_stay_apart() {
        let dir = tempfile::tempdir().unwrap();
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        let lists: ArrayRef =
            Arc::new(arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]));
        let a = run(dir.path(), "a", vec![("value", numbers)]);
        let b = run(dir.path(), "b", vec![("value", lists)]);
        let open = block_on(open_runs(&[a, b], 1, None)).unwrap();
        assert!(open.absent.iter().any(|absent| absent.table == "probes"), "{:?}", open.absent);
        assert_eq!(texts(&open, "select cast(value as varchar) from a.probes"), ["1.0"]);
    }

    #[test]
    fn files_are_tables_beside_runs_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        write("Labels 2.csv", "clip_id,key,n\na,C major,1\nb,,2\n");
        write("many/1.tsv", "x\ty\n1\ta b\n");
        write("many/2.tsv", "x\ty\n2\tc\n");
        write("many/_temporary.csv", "z\n");
        write("lines.ndjson", "{\"a\": 1}\n{\"a\": null}\n");
        write("array.json", "  [{\"a\": 1, \"b\": [1.5]}, {\"a\": 2, \"b\": []}]");
        write("mixed/a.csv", "x\n1\n");
        write("mixed/b.json", "{}");
        write("notes.txt", "hm");
        write("half.csv.gz", "x");
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        let run = run(dir.path(), "r", vec![("value", values)]);
        let at = |name: &str| Source::from(Location::from(dir.path().join(name)));
        let named: Source = format!("truth={}", dir.path().join("lines.ndjson").display()).parse().unwrap();

        let sources = [run, at("Labels 2.csv"), at("many"), named, at("array.json")];
        let open = block_on(open_runs(&sources, 1, None)).unwrap();
        let names: Vec<&str> = open.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["labels_2", "many", "truth", "array"]);
        assert_eq!(texts(&open, "select key from labels_2 order by n"), ["C major", "null"]);
        assert_eq!(texts(&open, "select y from many order by x"), ["a b", "c"]);
        assert_eq!(texts(&open, "select cast(sum(a) as varchar) from truth"), ["1"]);
        assert_eq!(texts(&open, "select cast(b[1] as varchar) from array order by a"), ["1.5", "null"]);
        assert_eq!(texts(&open, "select cast(count(*) as varchar) from probes, runs"), ["1"]);
        let path = dir.path().join("Labels 2.csv");
        let from = format!("select key from '{}' where n = 1", path.display());
        assert_eq!(texts(&open, &from), ["C major"]);

        let open = block_on(open_runs(&[], 1, None)).unwrap();
        assert_eq!(texts(&open, &from), ["C major"]);
        let reason = |name: &str| block_on(open_runs(&[at(name)], 1, None)).err().unwrap().to_string();
        assert!(reason("mixed").contains("it has no run.json"), "{}", reason("mixed"));
        assert!(reason("notes.txt").contains("known are parquet, csv"), "{}", reason("notes.txt"));
        assert!(reason("none.csv").contains("no such file"), "{}", reason("none.csv"));
        let gone = block_on(query(&open.context, "select * from 'gone.csv'")).unwrap_err().to_string();
        assert!(gone.contains("no such file") && gone.contains('^'), "{gone}");
        let table = block_on(query(&open.context, "select * from gone")).unwrap_err().to_string();
        assert!(table.contains("table 'gone' not found"), "{table}");
    }

    #[test]
    fn half_finished_runs_and_odd_names_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        let source = run(dir.path(), "r", vec![("value", numbers)]);
        let text = r#"{"status": "failed", "tables": {"probes": "tables/probes", "model": "tables/model"},
            "stages": {"probes": {"kind": "probe", "seconds": 1.5}},
            "pipeline": {"stages": {"model": {"train": {}}, "probes": {"probe": {}}}}}"#;
        std::fs::write(dir.path().join("r/run.json"), text).unwrap();
        std::fs::write(dir.path().join("probes.csv"), "x\n1\n").unwrap();
        let file = Source::from(Location::from(dir.path().join("probes.csv")));
        let open = block_on(open_runs(&[source, file], 1, None)).unwrap();
        let notes = open.notes();
        assert!(notes[0].starts_with("run `r` is not complete (failed, 1 of 2 stages done)"), "{notes:?}");
        assert_eq!(notes[1], "no table model: it has not been written");
        assert!(notes[2].ends_with("probes.csv is the table probes_2"), "{notes:?}");
        assert_eq!(texts(&open, "select status from runs"), ["failed"]);
    }
}
