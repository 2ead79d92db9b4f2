//! What the stages that evaluate share: rows by SQL, labels by task, tables of figures.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use loev_models::probe::{Labels, Split, TaskSpec};
use loev_ops::mir::MusicalKey;
use loev_sql::quoted;

use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, column, number, text};
use crate::exec::scan::Table;
use crate::run::dir::Figure;
use crate::spec::{Kind, Pipeline, Stage};

/// The stage that holds what an `embed` stage embeds.
pub fn embedded<'a>(pipeline: &'a Pipeline, embed: &str) -> Option<&'a str> {
    match pipeline.stages.get(embed) {
        Some(Stage::Embed(embed)) => Some(embed.from.as_str()),
        _ => None,
    }
}

/// Whether an `embed` stage has a baseline beside it.
pub fn has_baseline(pipeline: &Pipeline, embed: &str) -> bool {
    matches!(pipeline.stages.get(embed), Some(Stage::Embed(embed)) if embed.baseline)
}

/// The figures of a finished stage, for the run's manifest; none for kinds that make no figures.
///
/// # Errors
/// When its table cannot be read.
pub fn results(
    kind: &str,
    table: impl FnOnce() -> Result<Table, RunError>,
) -> Result<Option<Vec<Figure>>, RunError> {
    // Columns of the table for the subspace, task, probe and metric of a figure.
    let columns: [&[&str]; 4] = match Kind::from_name(kind) {
        Some(Kind::Probe | Kind::Finetune) => [&["subspace"], &["task"], &["probe"], &["metric"]],
        Some(Kind::Equivariance) => [&["subspace"], &["factor", "parameter"], &[], &["measure"]],
        Some(Kind::Retrieve) => [&["subspace"], &["task"], &["k"], &["metric"]],
        _ => return Ok(None),
    };
    let mut names: Vec<&str> = columns.into_iter().flatten().copied().collect();
    names.extend(["value", "lo", "hi"]);
    let mut figures = Vec::new();
    for rows in table()?.read(&names)? {
        let of = |names: &[&str], row: usize| -> Result<String, RunError> {
            let parts = names.iter().map(|name| Ok(text(&rows, name)?.value(row).to_owned()));
            Ok(parts.collect::<Result<Vec<_>, RunError>>()?.join("."))
        };
        let [value, lo, hi] = ["value", "lo", "hi"].map(|name| number(&rows, name));
        let (value, lo, hi) = (value?, lo?, hi?);
        for row in 0..rows.num_rows() {
            let [subspace, task, probe, metric] = columns.map(|names| of(names, row));
            figures.push(Figure {
                subspace: subspace?,
                task: task?,
                probe: match Kind::from_name(kind) {
                    Some(Kind::Retrieve) => format!("nearest {}", probe?),
                    Some(Kind::Equivariance) => "ridge".to_owned(),
                    _ => probe?,
                },
                metric: metric?,
                value: value.value(row),
                lo: lo.value(row),
                hi: hi.value(row),
            });
        }
    }
    Ok(Some(figures))
}

/// All rows of a query.
///
/// # Errors
/// When it cannot be planned or carried out.
pub async fn rows(session: &SessionContext, query: &str) -> Result<RecordBatch, RunError> {
    let result = loev_sql::plan(session, query).await?;
    let schema: SchemaRef = Arc::new(result.schema().as_arrow().clone());
    Ok(concat_batches(&schema, &result.collect().await?)?)
}

/// The column of vectors, all values in a row, and their length.
///
/// # Errors
/// When there is none.
pub fn vectors(rows: &RecordBatch, table: &str) -> Result<(Float32Array, usize), RunError> {
    let vectors = rows
        .column_by_name("embedding")
        .and_then(|column| column.as_fixed_size_list_opt())
        .ok_or_else(|| RunError::Engine(format!("table `{table}` has no embeddings")))?;
    let dim = vectors.value_length() as usize;
    let values = cast(vectors.values(), &DataType::Float32)?;
    Ok((values.as_primitive().clone(), dim))
}

/// The labels of a task in the rows of a table.
///
/// # Errors
/// When there is no such column, or it does not hold such labels.
pub fn labels_of(table: &RecordBatch, task: &TaskSpec) -> Result<Labels, RunError> {
    let name = task.column();
    Ok(match task {
        TaskSpec::Key(_) => {
            Labels::Key(text(table, name)?.iter().map(|key| key.and_then(MusicalKey::parse)).collect())
        }
        TaskSpec::Tempo(_) => Labels::Tempo(number(table, name)?.iter().collect()),
        TaskSpec::Class(_) => {
            Labels::Class(text(table, name)?.iter().map(|class| class.map(str::to_owned)).collect())
        }
        TaskSpec::Tags(_) => {
            let tag = Arc::new(Field::new_list_field(DataType::Utf8, true));
            let lists = column(table, name, &DataType::List(tag))?;
            let tags = |list: ArrayRef| list.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
            Labels::Tags(lists.as_list::<i32>().iter().map(|list| list.map(tags)).collect())
        }
    })
}

/// The part of the data that a word of column `column` names.
///
/// # Errors
/// When it names none.
pub fn split_of(stage: &str, column: &str, word: &str) -> Result<Split, RunError> {
    Split::parse(word).ok_or_else(|| {
        let message = format!("column `{column}` says `{word}`; a split is `train`, `valid` or `test`");
        RunError::stage(stage, message)
    })
}

/// The clips with a split: of each name its number, in the order of names, and its part.
///
/// # Errors
/// When the table has no such column, or it says something else than a split.
pub async fn splits(
    session: &SessionContext,
    stage: &str,
    column: &str,
    labels: &str,
) -> Result<BTreeMap<String, (usize, Split)>, RunError> {
    let split = quoted(column);
    let query = format!(
        "select {CLIP_ID}, {split} as split from {} where {split} is not null order by {CLIP_ID}",
        quoted(labels)
    );
    let table = rows(session, &query).await.map_err(|e| RunError::stage(stage, e.to_string()))?;
    let (ids, words) = (text(&table, CLIP_ID)?, text(&table, "split")?);
    let mut clips = BTreeMap::new();
    for (id, word) in ids.iter().flatten().zip(words.iter().flatten()) {
        let number = clips.len();
        clips.insert(id.to_owned(), (number, split_of(stage, column, word)?));
    }
    Ok(clips)
}

/// A table of these columns; only those in `nullable` may hold NULL.
///
/// # Errors
/// When their lengths differ.
pub fn table(columns: Vec<(&str, ArrayRef)>, nullable: &[&str]) -> Result<RecordBatch, RunError> {
    let field = |(name, column): &(&str, ArrayRef)| {
        Field::new(*name, column.data_type().clone(), nullable.contains(name))
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, c)| c).collect())?)
}
