//! Manifests: a table whose audio column names the files, and whose other columns are labels.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionContext};
use futures::{StreamExt, TryStreamExt, stream};
use loev_ops::source::Source;
use loev_sql::store;
use loev_sql::{Location, SqlError, StoreFault};

use super::listing::{Named, stamp_of};
use crate::error::RunError;
use crate::exec::columns::{required, text};
use crate::spec::stage::Files;

/// Objects of a manifest that are asked for at a time.
const ASKED: usize = 32;

/// Reads a manifest: its audio column names the files, its other columns are labels.
pub(super) async fn from_manifest(
    stage: &str,
    options: &Files,
    manifest: &Location,
) -> Result<(Vec<Named>, Option<RecordBatch>), RunError> {
    let missing = || RunError::stage(stage, format!("there is no manifest {manifest}"));
    match manifest {
        Location::Local(path) if path.is_file() => {}
        Location::Local(_) => return Err(missing()),
        Location::Object { .. } => match store::entry_of(manifest) {
            Ok(_) => {}
            Err(SqlError::Store { fault: StoreFault::Missing, .. }) => return Err(missing()),
            Err(error) => return Err(RunError::stage(stage, error.to_string())),
        },
    }
    let session = loev_sql::new_session(1, None)?;
    let batch = read_table(&session, manifest).await.map_err(|error| {
        RunError::stage(stage, format!("the manifest {manifest} cannot be read: {error}"))
    })?;
    if batch.schema().index_of(&options.audio).is_err() {
        let names: Vec<String> = batch.schema().fields().iter().map(|f| format!("`{}`", f.name())).collect();
        return Err(RunError::stage(
            stage,
            format!(
                "the manifest has no column `{}` with the paths of the audio; it has {}; name the right one with \
                 `audio:`",
                options.audio,
                names.join(", ")
            ),
        ));
    }
    let folder = manifest.parent().unwrap_or_default();
    let paths = text(&batch, &options.audio)?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let clip_id =
            required(&paths, &options.audio, row).map_err(|e| RunError::stage(stage, e.to_string()))?;
        rows.push((clip_id.to_owned(), folder.clone()));
    }
    let asked = rows.into_iter().map(|(clip_id, folder)| async move {
        match folder.join(&clip_id) {
            Ok(Location::Local(path)) => Named::local(clip_id, &path),
            Ok(place) => {
                let uri = place.to_string();
                let asked = tokio::task::spawn_blocking(move || store::entry_of(&place)).await;
                let stamp = match asked.map_err(|error| RunError::Engine(error.to_string()))? {
                    Ok(entry) => stamp_of(&entry),
                    Err(SqlError::Store { fault: StoreFault::Missing, reason, .. }) => reason,
                    Err(error) => return Err(RunError::stage(stage, error.to_string())),
                };
                Ok(Named { clip_id, source: Source::Remote(uri), stamp })
            }
            // The probe will say what is wrong with it.
            Err(error) => {
                let uri =
                    if clip_id.contains("://") { clip_id.clone() } else { format!("{folder}/{clip_id}") };
                Ok(Named { clip_id, source: Source::Remote(uri), stamp: error.to_string() })
            }
        }
    });
    let files = stream::iter(asked).buffered(ASKED).try_collect().await?;
    Ok((files, Some(labels(stage, options, &batch)?)))
}

/// The label columns of a manifest under their new names.
fn labels(stage: &str, options: &Files, manifest: &RecordBatch) -> Result<RecordBatch, RunError> {
    let schema = manifest.schema();
    let chosen: Vec<(String, usize)> = match &options.labels {
        Some(labels) => labels
            .iter()
            .map(|(name, column)| match schema.index_of(column) {
                Ok(index) => Ok((name.clone(), index)),
                Err(_) => Err(RunError::stage(stage, format!("the manifest has no column `{column}`"))),
            })
            .collect::<Result<_, _>>()?,
        None => schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| *field.name() != options.audio)
            .map(|(index, field)| (field.name().clone(), index))
            .collect(),
    };
    let fields: Vec<Field> =
        chosen.iter().map(|(name, i)| schema.field(*i).clone().with_name(name).with_nullable(true)).collect();
    let columns = chosen.iter().map(|(_, i)| Arc::clone(manifest.column(*i))).collect();
    let rows = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(manifest.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)?)
}

async fn read_table(session: &SessionContext, manifest: &Location) -> Result<RecordBatch, RunError> {
    let ending = manifest.extension().unwrap_or_default().to_lowercase();
    let location = match manifest {
        Location::Local(path) => path.to_string_lossy().into_owned(),
        Location::Object { .. } => manifest.url().map_err(|error| RunError::Engine(error.to_string()))?,
    };
    let rows = match ending.as_str() {
        "parquet" => session.read_parquet(location, ParquetReadOptions::default()).await?,
        "jsonl" => session.read_json(location, JsonReadOptions::default().file_extension(".jsonl")).await?,
        _ => session.read_csv(location, CsvReadOptions::new()).await?,
    };
    let schema: SchemaRef = Arc::new(rows.schema().as_arrow().clone());
    Ok(concat_batches(&schema, &rows.collect().await?)?)
}
