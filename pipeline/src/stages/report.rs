//! `report`: a page with what the run found, made when all other stages are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use loev_sql::Location;
use serde_json::Value;

use super::tables::table;
use super::{Content, Outcome};
use crate::error::RunError;
use crate::report;
use crate::resume::journal::Artifact;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::Context;
use crate::spec::stage::Report;
use crate::spec::{Kind, Stage};

/// The page of a stage, in the run's directory.
pub fn page_of(stage: &str) -> String {
    format!("{stage}.html")
}

/// What a `report` stage has to make: it shows all tables, and the configuration as it is.
///
/// # Errors
/// When another stage is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Report) -> Result<Work, RunError> {
    let mut read = BTreeMap::new();
    for input in inputs.graph.inputs(name) {
        let side = inputs.pipeline.stages.get(input).map(Stage::side_tables).unwrap_or_default();
        for table in inputs.ledger.tables_of(input, side) {
            read.insert(table, Content { digest: inputs.content(table, None)? });
        }
    }
    let mut pipeline = serde_json::to_value(inputs.pipeline).map_err(|e| RunError::Engine(e.to_string()))?;
    if let Some(stages) = pipeline.get_mut("stages").and_then(Value::as_object_mut) {
        stages.retain(|_, stage| stage.get(Kind::Report.name()).is_none());
    }
    let recipe = Recipe::new(Kind::Report, 1)
        .options(options, &[])
        .with("loev", env!("CARGO_PKG_VERSION"))
        .with("pipeline", pipeline)
        .with("tables", read);
    Ok(Work::whole(recipe))
}

/// Writes the page of a `report` stage, and the table of its figures.
///
/// # Errors
/// When the run cannot be read, or the page cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Report) -> Result<Outcome, RunError> {
    let stage = context.stage(name, 0, "figures");
    let root =
        &std::path::absolute(context.dir.root()).map_err(RunError::io("cannot find", context.dir.root()))?;
    let page = root.join(page_of(name));
    let folder = report::folder_of(&page);
    let location = Location::Local(root.to_owned());
    let made = report::make(&location, options, &folder, &context.pool, &context.interrupt).await?;
    let mut artifacts = Vec::new();
    for file in report::write(&made, &page)? {
        artifacts.push(artifact(root, &file)?);
    }
    let column = |f: fn(&report::Listed) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(made.figures.iter().map(f)))
    };
    let columns = vec![
        ("section", column(|figure| &figure.section)),
        ("figure", column(|figure| &figure.figure)),
        ("title", column(|figure| &figure.title)),
        ("sql", column(|figure| &figure.sql)),
    ];
    context.store_batch(job, name, table(columns, &[])?)?;
    stage.bar.finish();
    let note = format!("{}, {:.1} MB", page_of(name), made.html.len() as f64 / 1e6);
    Ok(Outcome { artifacts, ..Outcome::note(note) })
}

fn artifact(root: &Path, file: &Path) -> Result<Artifact, RunError> {
    let bytes = std::fs::read(file).map_err(RunError::io("cannot read", file))?;
    let path = file.strip_prefix(root).unwrap_or(file).to_string_lossy().into_owned();
    Ok(Artifact { path, bytes: bytes.len() as u64, digest: blake3::hash(&bytes).to_hex().to_string() })
}
