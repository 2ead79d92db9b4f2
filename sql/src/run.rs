//! Runs as databases: `run.json` names the tables, each table is a directory of Parquet files.
//!
//! ```text
//! runs/quickstart/
//!   run.json                 {"name": ..., "status": ..., "tables": {"clips": "tables/clips", ...}}
//!   tables/clips/*.parquet   one schema; a finished table has at least one file
//! ```
//!
//! A run that is still going, or that failed, opens with the tables that exist; the others are
//! told with the reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use datafusion::common::TableReference;
use datafusion::datasource::file_format::options::ReadOptions;
use datafusion::execution::context::SessionContext;
use datafusion::execution::options::ParquetReadOptions;
use loev_ops::source::{Source, add_pcm_root};
use serde::Deserialize;

use crate::diagnose;
use crate::error::{SqlError, StoreFault};
use crate::session::new_session;
use crate::store::{self, Location};
use crate::suggest::nearest;

/// The file in a run's directory that names its tables, and the most that it may have.
const RUN_FILE: &str = "run.json";
const MAX_BYTES: u64 = 64 << 20;

/// The version of this crate, and of the runs that it knows how to read.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `run.json` says, with the directory it was read from. Fields not named here are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct RunCatalog {
    /// The version of loev that wrote the run.
    #[serde(default)]
    pub loev: String,
    /// The pipeline's name.
    #[serde(default)]
    pub name: String,
    /// `running`, `done`, `failed`, ... as the pipeline wrote it.
    #[serde(default)]
    pub status: String,
    /// Directory of each table, relative to the run, by table name.
    #[serde(default)]
    pub tables: BTreeMap<String, PathBuf>,
    /// The pipeline, with its defaults filled in.
    #[serde(default)]
    pub pipeline: serde_json::Value,
    /// Where the run was made.
    #[serde(default)]
    pub machine: RunMachine,
    /// What each finished stage did, by name.
    #[serde(default)]
    pub stages: BTreeMap<String, RunStage>,
    /// The figures of each finished stage of evaluation, by name.
    #[serde(default)]
    pub results: BTreeMap<String, Vec<RunFigure>>,
    /// The run's directory.
    #[serde(skip)]
    pub root: Location,
}

/// Where a run was made.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RunMachine {
    /// The level of SIMD instructions.
    #[serde(default)]
    pub cpu: String,
    /// Where models ran.
    #[serde(default)]
    pub device: String,
}

/// What a finished stage did.
#[derive(Debug, Clone, Deserialize)]
pub struct RunStage {
    /// Its kind, such as `views`.
    #[serde(default)]
    pub kind: String,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
}

/// One figure of a stage of evaluation.
#[derive(Debug, Clone, Deserialize)]
pub struct RunFigure {
    /// The subspace.
    pub subspace: String,
    /// The task, or the parameter that a figure is about.
    pub task: String,
    /// What read the embeddings: a kind of probe, `nearest K`, `ridge`.
    pub probe: String,
    /// The metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Lower end of its 95% interval.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

/// A table that `run.json` names and that cannot be queried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// The table's name.
    pub table: String,
    /// Why: not written yet, or what is wrong with its files.
    pub reason: String,
}

/// A run that is open for queries.
pub struct OpenRun {
    /// The session; the run's tables are in its default schema.
    pub context: SessionContext,
    /// What the run says of itself.
    pub catalog: RunCatalog,
    /// Tables that are not there (a half-finished run) or not readable.
    pub absent: Vec<Absent>,
}

impl RunCatalog {
    /// Reads `<run>/run.json`, of a directory or of a folder in an object store.
    ///
    /// # Errors
    /// [`SqlError::Run`] if there is no such directory or file, if the file is not a catalogue or one of a
    /// newer loev, or if a table's path leads out of the run.
    pub fn read(run: impl Into<Location>) -> Result<Self, SqlError> {
        let run = run.into();
        let wrong = |reason: String| SqlError::Run { location: run.clone(), reason };
        let text = store::read(&run.join(RUN_FILE)?, MAX_BYTES).map_err(|error| match error {
            SqlError::Store { fault: StoreFault::Missing, .. } => wrong(missing_run(&run)),
            SqlError::Store { reason, .. } => wrong(format!("{RUN_FILE}: {reason}")),
            other => other,
        })?;
        let damaged = |error: serde_json::Error| wrong(format!("{RUN_FILE} is damaged: {error}"));
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        if !value.get("tables").is_some_and(serde_json::Value::is_object) {
            return Err(wrong(format!("{RUN_FILE} is not that of a run of loev: it names no tables")));
        }
        let written = value.get("loev").and_then(serde_json::Value::as_str).unwrap_or_default();
        if is_newer(written, VERSION) {
            let reason =
                format!("{RUN_FILE} was written by loev {written}; this is {VERSION}, which is older");
            return Err(wrong(reason));
        }
        let mut catalog: Self = serde_json::from_value(value).map_err(damaged)?;
        let inside = |path: &Path| {
            path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        if let Some((table, path)) = catalog.tables.iter().find(|(_, path)| !inside(path)) {
            return Err(wrong(format!("table '{table}' leads out of the run: {}", path.display())));
        }
        catalog.root = run;
        Ok(catalog)
    }

    /// Whether every stage is done.
    pub fn is_complete(&self) -> bool {
        self.status == "complete"
    }

    /// The stages in the order of the pipeline, each with its kind and options.
    pub fn pipeline_stages(&self) -> impl Iterator<Item = (&str, &str, &serde_json::Value)> {
        let stages = self.pipeline.get("stages").and_then(serde_json::Value::as_object);
        stages.into_iter().flatten().filter_map(|(name, stage)| {
            let (kind, options) = stage.as_object()?.iter().next()?;
            Some((name.as_str(), kind.as_str(), options))
        })
    }

    /// Registers every table that can be read, and returns the others with the reason. From then on the addresses of the
    /// run's samples can be read.
    pub async fn register(&self, context: &SessionContext) -> Vec<Absent> {
        self.register_as(context, |table| TableReference::bare(table)).await
    }

    /// The same under other names. A bare reference keeps stage names with dots, dashes or capitals whole.
    pub(crate) async fn register_as(
        &self,
        context: &SessionContext,
        reference: impl Fn(&str) -> TableReference,
    ) -> Vec<Absent> {
        match &self.root {
            Location::Local(folder) => add_pcm_root(Source::File(folder.clone())),
            bucket => add_pcm_root(Source::Remote(bucket.to_string())),
        }
        let mut absent = Vec::new();
        for (table, path) in &self.tables {
            let registered = match self.root.join(&path.to_string_lossy()) {
                Ok(dir) => register_at(context, table, reference(table), dir).await,
                Err(error) => Err(error),
            };
            let reason = match registered {
                Ok(()) => continue,
                Err(SqlError::Table { reason, .. }) => reason,
                Err(other) => other.to_string(),
            };
            absent.push(Absent { table: table.clone(), reason });
        }
        absent
    }
}

/// Whether version `a` may have a format that `b` does not know: a higher first or second number.
fn is_newer(a: &str, b: &str) -> bool {
    let numbers = |version: &str| -> Option<(u64, u64)> {
        let mut parts = version.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    matches!((numbers(a), numbers(b)), (Some(a), Some(b)) if a > b)
}

/// The run that a file belongs to, if it is one of a run's own: its `run.json`, or a file of its tables, checkpoints or
/// receipts. Such files are what receipts and digests tell of, and not for other results.
pub fn owning_run(file: &Path) -> Option<PathBuf> {
    const OWN: [&str; 6] = [RUN_FILE, "tables", "checkpoints", "audio", "receipts", "lock"];
    let absolute = std::path::absolute(file).ok()?;
    // The folder may be a link, and the file need not exist.
    let folder = absolute.parent()?;
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf()).join(absolute.file_name()?);
    let owner = real.ancestors().skip(1).find(|up| {
        let part = real.strip_prefix(up).ok().and_then(|rest| rest.components().next());
        let own = part.is_some_and(|part| OWN.iter().any(|own| part.as_os_str() == *own));
        own && up.join(RUN_FILE).is_file()
    });
    owner.map(Path::to_path_buf)
}

/// Opens a run for queries, in a session of its own ([`new_session`]): a directory, or a folder in an
/// object store.
///
/// # Errors
/// [`SqlError::Run`] if the directory is not a run. A table that cannot be read is no error: see
/// [`OpenRun::absent`].
pub async fn open_run(
    run: impl Into<Location>,
    threads: usize,
    memory_limit: Option<usize>,
) -> Result<OpenRun, SqlError> {
    let catalog = RunCatalog::read(run)?;
    let context = new_session(threads, memory_limit)?;
    let absent = catalog.register(&context).await;
    Ok(OpenRun { context, catalog, absent })
}

/// Registers `<dir>/*.parquet` as table `name`, replacing one of that name. Subdirectories and
/// files with other endings (unfinished writes) do not count.
///
/// # Errors
/// [`SqlError::Table`] if the directory does not exist, has no Parquet file, or one cannot be read.
pub async fn register_table(
    context: &SessionContext,
    name: &str,
    dir: impl Into<Location>,
) -> Result<(), SqlError> {
    register_at(context, name, TableReference::bare(name), dir.into()).await
}

async fn register_at(
    context: &SessionContext,
    name: &str,
    reference: TableReference,
    dir: Location,
) -> Result<(), SqlError> {
    let wrong = |reason: String| SqlError::Table { table: name.to_owned(), location: dir.clone(), reason };
    let files = store::list(&dir, false).map_err(|error| match error {
        SqlError::Store { fault: StoreFault::Missing, .. } => wrong("it has not been written".to_owned()),
        SqlError::Store { reason, .. } => wrong(reason),
        other => other,
    })?;
    // A bucket has no empty folders.
    if files.is_empty() && dir.as_path().is_none() {
        return Err(wrong("it has not been written".to_owned()));
    }
    if !files.iter().any(|file| file.location.extension() == Some("parquet")) {
        return Err(wrong("it has no Parquet file yet".to_owned()));
    }
    let url = dir.url().map_err(|error| wrong(error.to_string()))? + "/";
    // What the files say of themselves stays: tables of views carry their chain.
    let options = ParquetReadOptions::default()
        .skip_metadata(false)
        .to_listing_options(&context.copied_config(), context.copied_table_options());
    let registered = async {
        context.deregister_table(reference.clone())?;
        context.register_listing_table(reference.clone(), url, options, None, None).await
    };
    registered.await.map_err(|error| wrong(diagnose::engine(error).to_string()))
}

/// Why a place is no run, with the runs next to it or in it.
fn missing_run(run: &Location) -> String {
    match run {
        Location::Local(run) => missing_directory(run),
        Location::Object { .. } => missing_folder(run),
    }
}

fn missing_folder(run: &Location) -> String {
    let reason = format!("it has no {RUN_FILE}");
    let (Some(parent), Some(name)) = (run.parent(), run.name()) else { return reason };
    let siblings = store::folders(&parent).unwrap_or_default();
    let near = nearest(name, siblings.iter().map(String::as_str)).and_then(|near| parent.join(near).ok());
    let is_run = |near: &Location| near.join(RUN_FILE).and_then(|file| store::exists(&file));
    match near.filter(|near| near != run && is_run(near).unwrap_or(false)) {
        Some(near) => format!("{reason}; did you mean {near}?"),
        None => reason,
    }
}

fn missing_directory(run: &Path) -> String {
    let runs_in = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().join(RUN_FILE).is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    };
    if run.is_dir() {
        let reason = format!("it has no {RUN_FILE}");
        return match runs_in(run).first() {
            Some(inner) => format!("{reason}; did you mean {}?", run.join(inner).display()),
            None => reason,
        };
    }
    let parent = match run.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let siblings = runs_in(parent);
    let name = run.file_name().and_then(|name| name.to_str()).unwrap_or("");
    match nearest(name, siblings.iter().map(String::as_str)) {
        Some(near) => format!("no such directory; did you mean {}?", run.with_file_name(near).display()),
        None => "no such directory".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, FixedSizeListArray, Float32Array, ListArray, RecordBatch, StringArray, StructArray,
    };
    use arrow::datatypes::{DataType, Field, Float64Type, Schema};

    use super::*;
    use crate::query::query;
    use crate::testing::{block_on, write_parquet};

    /// A batch with the types that stages write.
    fn views(rows: usize) -> RecordBatch {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values = Float32Array::from_iter_values((0..rows * 4).map(|i| i as f32));
        let vector = FixedSizeListArray::new(item, 4, Arc::new(values), None);
        let names = StringArray::from_iter_values((0..rows).map(|i| format!("clip {i}")));
        let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(
            (0..rows).map(|i| Some(vec![Some(i as f64); i])),
        );
        let db: ArrayRef = Arc::new(Float32Array::from(vec![Some(-3.0); rows]));
        let gain = StructArray::from(vec![(Arc::new(Field::new("db", DataType::Float32, true)), db)]);
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("clip", Arc::new(names), false),
            ("vector", Arc::new(vector), true),
            ("list", Arc::new(lists), true),
            ("gain", Arc::new(gain), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    fn run_with(tables: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let text =
            format!("{{\"name\": \"demo\", \"status\": \"running\", \"tables\": {tables}, \"seed\": 1}}");
        fs::write(dir.path().join(RUN_FILE), text).unwrap();
        dir
    }

    #[test]
    fn a_half_finished_run_opens_with_what_exists() {
        let run = run_with(
            r#"{"views": "tables/views", "empty": "tables/empty", "Odd Name": "tables/x", "model": "tables/model",
                "gone": "tables/gone", "bad": "tables/bad"}"#,
        );
        let tables = run.path().join("tables");
        write_parquet(&tables.join("views"), "a.parquet", &views(2));
        write_parquet(&tables.join("views"), "b.parquet", &views(3));
        fs::write(tables.join("views/c.parquet.tmp"), "half").unwrap();
        write_parquet(&tables.join("empty"), "a.parquet", &views(0));
        write_parquet(&tables.join("x"), "a.parquet", &views(1));
        fs::create_dir_all(tables.join("model")).unwrap();
        fs::create_dir_all(tables.join("bad")).unwrap();
        fs::write(tables.join("bad/a.parquet"), "not parquet").unwrap();

        let open = block_on(open_run(run.path(), 2, None)).unwrap();
        assert_eq!((open.catalog.name.as_str(), open.catalog.status.as_str()), ("demo", "running"));
        let absent: Vec<&str> = open.absent.iter().map(|absent| absent.table.as_str()).collect();
        assert_eq!(absent, ["bad", "gone", "model"]);
        assert!(open.absent[1].reason.contains("not been written"));

        // Types come back as stored, also from a table without rows.
        for sql in ["select * from views", "select * from empty", "select * from \"Odd Name\""] {
            let rows = block_on(query(&open.context, sql)).unwrap();
            let plain = |schema: &Schema| -> Vec<(String, DataType)> {
                schema
                    .fields()
                    .iter()
                    .map(|field| (field.name().clone(), field.data_type().clone()))
                    .collect()
            };
            assert_eq!(plain(&rows[0].schema()), plain(&views(0).schema()), "{sql}");
        }
        let count =
            block_on(query(&open.context, "select count(*) from views where vector[1] >= 0")).unwrap();
        assert_eq!(
            format!("{:?}", count[0].column(0)),
            format!("{:?}", arrow::array::Int64Array::from(vec![5]))
        );
    }

    #[test]
    fn a_table_can_be_registered_again_after_it_grew() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("100% [odd] dir*");
        write_parquet(&table, "a.parquet", &views(2));
        let context = new_session(1, None).unwrap();
        let count = || {
            let rows = block_on(query(&context, "select clip from \"my.views\"")).unwrap();
            rows.iter().map(RecordBatch::num_rows).sum::<usize>()
        };
        block_on(register_table(&context, "my.views", &table)).unwrap();
        assert_eq!(count(), 2);
        write_parquet(&table, "b.parquet", &views(3));
        block_on(register_table(&context, "my.views", &table)).unwrap();
        assert_eq!(count(), 5);
    }

    #[test]
    fn directories_that_are_no_runs_say_why() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("quickstart")).unwrap();
        fs::write(dir.path().join("quickstart").join(RUN_FILE), "{}").unwrap();
        let reason = |path: &Path| RunCatalog::read(path).unwrap_err().to_string();
        assert!(reason(&dir.path().join("quickstrat")).contains("did you mean"));
        assert!(reason(dir.path()).contains("it has no run.json; did you mean"));
        fs::write(dir.path().join("quickstart").join(RUN_FILE), "{").unwrap();
        assert!(reason(&dir.path().join("quickstart")).contains("damaged"));
        assert!(reason(run_with(r#"{"x": "../../etc"}"#).path()).contains("leads out of the run"));
        for (text, told) in [
            ("{}", "names no tables"),
            ("[1]", "names no tables"),
            (r#"{"tables": {"x": 3}}"#, "damaged"),
            (r#"{"tables": {}, "loev": "99.0.0"}"#, "written by loev 99.0.0"),
        ] {
            fs::write(dir.path().join("quickstart").join(RUN_FILE), text).unwrap();
            assert!(reason(&dir.path().join("quickstart")).contains(told), "{text}");
        }
    }

    #[test]
    fn a_runs_own_files_are_known() {
        let run = run_with("{}");
        fs::create_dir_all(run.path().join("tables/clips")).unwrap();
        for own in ["tables/clips/new.parquet", "run.json", "tables/../run.json", "receipts/x/y.jsonl"] {
            assert!(owning_run(&run.path().join(own)).is_some(), "{own}");
        }
        assert_eq!(owning_run(&run.path().join("answer.csv")), None);
        assert_eq!(owning_run(&run.path().join("report/tables/x.csv")), None);
    }
}
