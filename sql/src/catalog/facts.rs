//! The tables about runs: what each run is, its figures, and what every column is.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::common::TableReference;
use serde_json::{Map, Value, json};

use super::comments::{Rows, comment, of_kind, rows_of};
use super::runs::OpenRuns;
use super::{table_names, tables_in};
use crate::diagnose;
use crate::error::SqlError;
use crate::run::{RunCatalog, RunFigure};
use crate::types::type_name;

/// The table with one row per run.
pub const RUNS: &str = "runs";
/// The table with one row per figure of the stages of evaluation.
pub const FIGURES: &str = "figures";
/// The table with one row per column, and what it is.
pub const COLUMNS: &str = "columns";

/// The subspace under which mel statistics are scored beside a model.
const BASELINE: &str = "mel_baseline";
/// The schema of plain names.
const PUBLIC: &str = "public";

type Run = (String, RunCatalog);

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, SqlError> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|error| diagnose::engine(error.into()))
}

/// One row per run.
pub(super) fn runs(runs: &[Run]) -> Result<RecordBatch, SqlError> {
    let text = |f: &dyn Fn(&Run) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(runs.iter().map(f)))
    };
    let count = |f: &dyn Fn(&RunCatalog) -> usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(runs.iter().map(|(_, run)| f(run) as i64)))
    };
    let seed = |(_, catalog): &Run| catalog.pipeline.get("seed")?.as_i64();
    let seconds = |(_, run): &Run| run.stages.values().map(|stage| stage.seconds).sum::<f64>();
    batch(vec![
        ("run", text(&|(run, _)| run.clone())),
        ("location", text(&|(_, catalog)| catalog.root.to_string())),
        ("name", text(&|(_, catalog)| catalog.name.clone())),
        ("status", text(&|(_, catalog)| catalog.status.clone())),
        ("loev", text(&|(_, catalog)| catalog.loev.clone())),
        ("seed", Arc::new(runs.iter().map(seed).collect::<Int64Array>())),
        ("cpu", text(&|(_, catalog)| catalog.machine.cpu.clone())),
        ("device", text(&|(_, catalog)| catalog.machine.device.clone())),
        ("stages_done", count(&|catalog| catalog.stages.len())),
        ("stages", count(&|catalog| catalog.pipeline_stages().count())),
        ("seconds", Arc::new(Float64Array::from_iter_values(runs.iter().map(seconds)))),
        ("best", text(&|(_, catalog)| best(catalog).to_string())),
        ("pipeline", text(&|(_, catalog)| catalog.pipeline.to_string())),
    ])
}

/// The figures of a run: stage, kind and figure, in the order of the pipeline.
fn figures_of(run: &RunCatalog) -> impl Iterator<Item = (&str, &str, &RunFigure)> {
    run.pipeline_stages().flat_map(|(stage, kind, _)| {
        let figures = run.results.get(stage).into_iter().flatten();
        figures.map(move |figure| (stage, kind, figure))
    })
}

/// For each task and metric, where the highest value is.
fn best(run: &RunCatalog) -> Value {
    let mut best: Map<String, Value> = Map::new();
    for (stage, _, figure) in figures_of(run).filter(|(.., figure)| figure.subspace != BASELINE) {
        let name = format!("{} {}", figure.task, figure.metric);
        let known = best.get(&name).and_then(|known| known.get("value")).and_then(Value::as_f64);
        if known.is_none_or(|known| figure.value > known) {
            let found = json!({ "value": figure.value, "stage": stage, "subspace": figure.subspace, "probe": figure.probe });
            best.insert(name, found);
        }
    }
    Value::Object(best)
}

/// One row per figure.
pub(super) fn figures(runs: &[Run]) -> Result<RecordBatch, SqlError> {
    let rows: Vec<(&str, (&str, &str, &RunFigure))> =
        runs.iter().flat_map(|(name, run)| figures_of(run).map(|row| (name.as_str(), row))).collect();
    let text = |f: &dyn Fn(&RunFigure) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, (_, _, figure))| f(figure))))
    };
    let number = |f: &dyn Fn(&RunFigure) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, (_, _, figure))| f(figure))))
    };
    batch(vec![
        ("run", Arc::new(StringArray::from_iter_values(rows.iter().map(|(run, _)| *run)))),
        ("stage", Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, (stage, ..))| *stage)))),
        ("kind", Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, (_, kind, _))| *kind)))),
        ("subspace", text(&|figure| &figure.subspace)),
        ("task", text(&|figure| &figure.task)),
        ("probe", text(&|figure| &figure.probe)),
        ("metric", text(&|figure| &figure.metric)),
        ("value", number(&|figure| figure.value)),
        ("lo", number(&|figure| figure.lo)),
        ("hi", number(&|figure| figure.hi)),
    ])
}

/// One row per column of every table.
pub(super) async fn columns(open: &OpenRuns) -> Result<RecordBatch, SqlError> {
    struct Row {
        schema: String,
        table: String,
        column: String,
        position: i64,
        data_type: String,
        nullable: bool,
        comment: Option<String>,
    }
    let mut tables: Vec<(String, String, TableReference)> = Vec::new();
    for table in table_names(&open.context) {
        let reference = TableReference::bare(table.as_str());
        tables.push((PUBLIC.to_owned(), table, reference));
    }
    if open.runs.len() > 1 {
        for (run, _) in &open.runs {
            let of_run = tables_in(&open.context, run).into_iter();
            tables.extend(of_run.map(|table| {
                let reference = TableReference::partial(run.as_str(), table.as_str());
                (run.clone(), table, reference)
            }));
        }
    }
    let mut rows = Vec::new();
    for (schema, table, reference) in tables {
        let provider = open.context.table_provider(reference).await.map_err(diagnose::engine)?;
        let kind = match table.as_str() {
            file if open.files.iter().any(|(name, _)| name == file) => None,
            RUNS => Some(Rows::Runs),
            FIGURES => Some(Rows::AllFigures),
            // Runs that are compared mostly have the same stages.
            _ => open
                .runs
                .iter()
                .find(|(run, _)| schema == PUBLIC || *run == schema)
                .map(|(_, run)| rows_of(run, &table)),
        };
        for (index, field) in provider.schema().fields().iter().enumerate() {
            rows.push(Row {
                schema: schema.clone(),
                table: table.clone(),
                column: field.name().clone(),
                position: index as i64 + 1,
                data_type: type_name(field.data_type()),
                nullable: field.is_nullable(),
                comment: kind.and_then(|kind| comment(kind, field.name())),
            });
        }
    }
    let own = [("position", "bigint"), ("nullable", "boolean")];
    for (index, (name, text)) in of_kind(Rows::Columns).iter().enumerate() {
        let other = own.iter().find(|(column, _)| column == name).map(|(_, data_type)| *data_type);
        rows.push(Row {
            schema: PUBLIC.to_owned(),
            table: COLUMNS.to_owned(),
            column: (*name).to_owned(),
            position: index as i64 + 1,
            data_type: other.unwrap_or("text").to_owned(),
            nullable: true,
            comment: Some((*text).to_owned()),
        });
    }
    let text = |f: &dyn Fn(&Row) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(f).collect::<StringArray>())
    };
    batch(vec![
        ("table_schema", text(&|row| Some(&row.schema))),
        ("table_name", text(&|row| Some(&row.table))),
        ("column_name", text(&|row| Some(&row.column))),
        ("position", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.position)))),
        ("data_type", text(&|row| Some(&row.data_type))),
        ("nullable", Arc::new(rows.iter().map(|row| Some(row.nullable)).collect::<BooleanArray>())),
        ("comment", text(&|row| row.comment.as_deref())),
    ])
}
