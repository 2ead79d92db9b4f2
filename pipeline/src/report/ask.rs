//! The run that is reported: what it says of itself, and its tables, open to SQL.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::SessionContext;
use loev_sql::{Location, quoted, store};

use crate::error::RunError;
use crate::run::dir::{Manifest, Status};
use crate::run::interrupt::Interrupt;
use crate::spec::{Graph, Kind, Pipeline};
use crate::stages::embed::BASELINE;
use crate::stages::probe::ALL;
use crate::stages::tables::rows;
use crate::stages::{graph_of, side_table};

/// The most that `run.json` may have.
const MOST_BYTES: u64 = 64 << 20;
/// The last colour.
const GREY: usize = 7;

/// A run, open for questions.
pub struct Run {
    /// What `run.json` says, without the reports: what is reported does not depend on them.
    pub manifest: Manifest,
    /// The pipeline, where this version can read it.
    pub pipeline: Option<Pipeline>,
    /// What reads what, where the pipeline can be read.
    pub graph: Option<Graph>,
    /// Tables that are named and not there, with the reason.
    pub absent: BTreeMap<String, String>,
    /// The stages that report it.
    pub reports: Vec<String>,
    /// How work on it is stopped.
    pub interrupt: Interrupt,
    session: SessionContext,
    schemas: BTreeMap<String, SchemaRef>,
}

impl Run {
    /// Opens the run in `root`.
    ///
    /// # Errors
    /// When there is no run, or its `run.json` is damaged.
    pub async fn open(root: &Location, interrupt: &Interrupt) -> Result<Self, RunError> {
        let open = loev_sql::open_run(root.clone(), 1, None).await?;
        let text = store::read(&root.join("run.json")?, MOST_BYTES)?;
        let damaged = |message: String| RunError::RunDir { path: format!("{root}/run.json").into(), message };
        let manifest = Manifest::parse(&String::from_utf8_lossy(&text)).map_err(damaged)?;
        let (manifest, reports) = without_reports(manifest);
        let pipeline = crate::spec::parse(&manifest.pipeline.to_string(), "run.json", &[]).ok();
        let graph = pipeline.as_ref().and_then(|pipeline| graph_of(pipeline).ok());
        let mut schemas = BTreeMap::new();
        for table in manifest.tables.keys() {
            if let Ok(provider) =
                open.context.table_provider(datafusion::common::TableReference::bare(table.as_str())).await
            {
                schemas.insert(table.clone(), provider.schema());
            }
        }
        let absent = open.absent.into_iter().map(|absent| (absent.table, absent.reason)).collect();
        let (session, interrupt) = (open.context, interrupt.clone());
        Ok(Self { manifest, pipeline, graph, absent, reports, interrupt, session, schemas })
    }

    /// All rows of a query.
    ///
    /// # Errors
    /// When it fails, or the user asked to stop.
    pub async fn ask(&self, sql: &str) -> Result<RecordBatch, RunError> {
        self.interrupt.check()?;
        rows(&self.session, sql).await
    }

    /// The stages in the order of the pipeline, with their kinds; also those that were never finished.
    pub fn stages(&self) -> Vec<(&str, &str)> {
        let planned = self.manifest.pipeline.get("stages").and_then(|stages| stages.as_object());
        let mut stages: Vec<(&str, &str)> = Vec::new();
        for (name, stage) in planned.into_iter().flatten() {
            let kind = stage.as_object().and_then(|stage| stage.keys().next());
            stages.push((name, kind.map_or("", String::as_str)));
        }
        for (name, record) in &self.manifest.stages {
            if !stages.iter().any(|(known, _)| known == name) {
                stages.push((name, &record.kind));
            }
        }
        stages
    }

    /// The stages of these kinds.
    pub fn of_kinds(&self, kinds: &[Kind]) -> Vec<&str> {
        let fits = |kind: &str| kinds.iter().any(|wanted| wanted.name() == kind);
        self.stages().into_iter().filter(|(_, kind)| fits(kind)).map(|(name, _)| name).collect()
    }

    /// An option of a stage, as `run.json` has it.
    pub fn option(&self, stage: &str, option: &str) -> Option<&serde_json::Value> {
        let stage = self.manifest.pipeline.get("stages")?.get(stage)?.as_object()?;
        stage.values().next()?.get(option)
    }

    /// The schema of a table, if it can be read.
    pub fn schema(&self, table: &str) -> Option<&SchemaRef> {
        self.schemas.get(table)
    }

    /// Whether a table can be read and has these columns.
    pub fn has(&self, table: &str, columns: &[&str]) -> bool {
        let schema = self.schema(table);
        schema.is_some_and(|schema| columns.iter().all(|column| schema.index_of(column).is_ok()))
    }

    /// Those of `stages` whose tables have these columns. What is wrong with the others is noted in `marks`.
    pub fn readable<'a>(
        &self,
        stages: &[&'a str],
        columns: &[&str],
        marks: &mut Vec<String>,
    ) -> Vec<&'a str> {
        let mut readable = Vec::new();
        for stage in stages {
            if self.has(stage, columns) {
                readable.push(*stage);
                continue;
            }
            let reason = match (self.schema(stage), self.absent.get(*stage)) {
                (Some(_), _) => format!("it lacks one of the columns {}", columns.join(", ")),
                (None, Some(reason)) => reason.clone(),
                (None, None) => "the stage was not finished".to_owned(),
            };
            marks.push(format!("no table `{stage}`: {reason}"));
        }
        readable
    }

    /// The stages that embed clips, with the table of clips, and those that embed views, with the table of views.
    pub fn embeddings(&self, views: bool) -> Vec<(&str, String)> {
        let from = |stage: &str| self.option(stage, "from").and_then(|from| from.as_str()).map(str::to_owned);
        let kind =
            |table: &str| self.stages().into_iter().find(|(name, _)| *name == table).map(|(_, kind)| kind);
        let embeds = self.of_kinds(&[Kind::Embed]).into_iter();
        let with_source = embeds.filter_map(|stage| Some((stage, from(stage)?)));
        with_source.filter(|(_, from)| (kind(from) == Some(Kind::Views.name())) == views).collect()
    }

    /// The table of the baseline beside an `embed` stage, if it has one.
    pub fn baseline(&self, stage: &str) -> Option<String> {
        Some(side_table(stage, "baseline")).filter(|table| self.has(table, &["embedding", "subspace"]))
    }

    /// All subspaces of the run's tables, in order; see [`colour`].
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn subspaces(&self) -> Result<Vec<String>, RunError> {
        let mut names: Vec<String> = Vec::new();
        let figures: Vec<&str> =
            self.of_kinds(&[Kind::Embed, Kind::Probe, Kind::Retrieve, Kind::Equivariance, Kind::Finetune]);
        for table in figures.into_iter().filter(|table| self.has(table, &["subspace"])) {
            let sql = format!("select distinct subspace from {} order by subspace", quoted(table));
            let found = self.ask(&sql).await?;
            let found = crate::exec::columns::text(&found, "subspace")?;
            for name in found.iter().flatten() {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
        names.sort_by_key(|name| rank(name));
        Ok(names)
    }
}

/// The colour of a subspace, the same all over the page; the baseline is grey, and what is no subspace too.
pub fn colour(spaces: &[String], name: &str) -> usize {
    let model = spaces.iter().filter(|space| *space != BASELINE).position(|space| space == name);
    model.map_or(GREY, |number| number % GREY)
}

/// The order of subspaces: invariant, factors, all, baseline.
pub fn rank(subspace: &str) -> u8 {
    match subspace {
        "invariant" => 0,
        ALL => 2,
        BASELINE => 3,
        _ => 1,
    }
}

/// The manifest without its reports, and their names. A run whose last stage is the report at work is complete.
fn without_reports(mut manifest: Manifest) -> (Manifest, Vec<String>) {
    let report = Kind::Report.name();
    let (mut reports, mut done) = (Vec::new(), true);
    if let Some(stages) = manifest.pipeline.get_mut("stages").and_then(|stages| stages.as_object_mut()) {
        reports = stages
            .iter()
            .filter(|(_, stage)| stage.get(report).is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in &reports {
            stages.shift_remove(name);
            manifest.tables.shift_remove(name);
            manifest.data.shift_remove(name);
        }
        done = stages.keys().all(|name| manifest.stages.contains_key(name));
    }
    manifest.stages.retain(|_, record| record.kind != report);
    if manifest.status == Status::Running && done && !reports.is_empty() {
        manifest.status = Status::Complete;
    }
    manifest.peak_memory_bytes = None;
    (manifest, reports)
}
