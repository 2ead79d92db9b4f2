//! Several runs in one session, to compare them.
//!
//! Each run is a schema of its own, `a.probes` and `b.probes`; the plain name `probes` is the rows of all runs
//! that have such a table, with the column `run` in front. The table `runs` has one row per run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use datafusion::catalog::{MemTable, MemorySchemaProvider};
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;

use crate::diagnose;
use crate::error::SqlError;
use crate::run::{Absent, RunCatalog};
use crate::session::new_session;
use crate::store::Location;

/// The table with one row per run, unless the runs have a stage of that name.
pub const RUNS: &str = "runs";

/// Runs that are open for queries.
pub struct OpenRuns {
    /// The session.
    pub context: SessionContext,
    /// The name under which each run is known, and what it says of itself.
    pub runs: Vec<(String, RunCatalog)>,
    /// Tables that are not there or not readable; with several runs, under `run.table`.
    pub absent: Vec<Absent>,
}

/// Opens runs for queries, in a session of their own ([`new_session`]).
///
/// One run has its tables under their plain names. Several are schemas named after their directories (a second
/// `x` is `x_2`), and plain names stand for the rows of all of them: columns are matched by name, and a column
/// that a run lacks is NULL there.
///
/// # Errors
/// [`SqlError::Run`] for a directory that is no run. A table that cannot be read is no error, nor is one whose
/// columns do not fit between runs: see [`OpenRuns::absent`].
pub async fn open_runs(
    runs: &[Location],
    threads: usize,
    memory_limit: Option<usize>,
) -> Result<OpenRuns, SqlError> {
    let context = new_session(threads, memory_limit)?;
    let mut open = OpenRuns { context, runs: Vec::new(), absent: Vec::new() };
    for run in runs {
        let catalog = RunCatalog::read(run.clone())?;
        let name = free_name(run.name().unwrap_or("run"), &open.runs);
        open.runs.push((name, catalog));
    }
    match open.runs.as_slice() {
        [(_, only)] => open.absent = only.register(&open.context).await,
        _ => open.register_all().await?,
    }
    if !open.runs.iter().any(|(_, catalog)| catalog.tables.contains_key(RUNS)) {
        let table = MemTable::try_new(open.table()?.schema(), vec![vec![open.table()?]]);
        let table = Arc::new(table.map_err(diagnose::engine)?);
        open.context.register_table(TableReference::bare(RUNS), table).map_err(diagnose::engine)?;
    }
    Ok(open)
}

impl OpenRuns {
    async fn register_all(&mut self) -> Result<(), SqlError> {
        let mut present: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (run, catalog) in &self.runs {
            let schemas = self.context.catalog("datafusion");
            if let Some(schemas) = schemas {
                let schema = Arc::new(MemorySchemaProvider::new());
                schemas.register_schema(run, schema).map_err(diagnose::engine)?;
            }
            let reference = |table: &str| TableReference::partial(run.as_str(), table);
            let absent = catalog.register_as(&self.context, reference).await;
            let gone: BTreeSet<&str> = absent.iter().map(|absent| absent.table.as_str()).collect();
            for table in catalog.tables.keys().filter(|table| !gone.contains(table.as_str())) {
                present.entry(table).or_default().push(run);
            }
            let named = |absent: Absent| Absent { table: format!("{run}.{}", absent.table), ..absent };
            self.absent.extend(absent.into_iter().map(named));
        }
        for (table, runs) in present {
            let rows = runs.iter().map(|run| {
                let (text, run) = (run.replace('\'', "''"), run.replace('"', "\"\""));
                format!("select '{text}' as run, * from \"{run}\".\"{}\"", table.replace('"', "\"\""))
            });
            let query = rows.collect::<Vec<_>>().join(" union all by name ");
            let made = async {
                if let Some(column) = self.differing(table, &runs).await? {
                    return Err(DataFusionError::Plan(format!("column {column} has another type")));
                }
                let view = self.context.sql(&query).await?.into_view();
                self.context.register_table(TableReference::bare(table), view)
            };
            if let Err(error) = made.await {
                let reason = format!("its rows in these runs are no one table: {}", diagnose::engine(error));
                self.absent.push(Absent { table: table.to_owned(), reason });
            }
        }
        Ok(())
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

    /// The table [`RUNS`].
    fn table(&self) -> Result<RecordBatch, SqlError> {
        let text = |f: &dyn Fn(&(String, RunCatalog)) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.runs.iter().map(f)))
        };
        let seed = |(_, catalog): &(String, RunCatalog)| catalog.pipeline.get("seed")?.as_i64();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("run", text(&|(run, _)| run.clone())),
            ("location", text(&|(_, catalog)| catalog.root.to_string())),
            ("name", text(&|(_, catalog)| catalog.name.clone())),
            ("status", text(&|(_, catalog)| catalog.status.clone())),
            ("seed", Arc::new(self.runs.iter().map(seed).collect::<Int64Array>())),
            ("pipeline", text(&|(_, catalog)| catalog.pipeline.to_string())),
        ];
        RecordBatch::try_from_iter(columns).map_err(|error| diagnose::engine(error.into()))
    }
}

/// `name`, or with the first free number behind it.
fn free_name(name: &str, taken: &[(String, RunCatalog)]) -> String {
    let is_free = |name: &String| taken.iter().all(|(other, _)| !other.eq_ignore_ascii_case(name));
    let numbered = (2..).map(|n| format!("{name}_{n}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arrow::array::{AsArray, Float64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::query::query;
    use crate::testing::{block_on, write_parquet};

    fn run(dir: &Path, name: &str, columns: Vec<(&str, ArrayRef)>) -> Location {
        let root = dir.join(name);
        write_parquet(
            &root.join("tables/probes"),
            "a.parquet",
            &RecordBatch::try_from_iter(columns).unwrap(),
        );
        let text = r#"{"name": "demo", "status": "complete", "pipeline": {"seed": 4},
                       "tables": {"probes": "tables/probes", "model": "tables/model"}}"#;
        std::fs::write(root.join("run.json"), text).unwrap();
        root.into()
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
}
