//! `files`: a folder, a glob or a manifest of audio. Every file is probed; those that cannot be used
//! become rejects, the others clips with what the probe found and the labels of the manifest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionContext};
use loev_ops::jams::{self, Jams};
use loev_ops::source::{FileInfo, Limits, Source, probe_file};
use loev_ops::{AudioError, RejectKind};
use walkdir::WalkDir;

use super::Outcome;
use super::clips::store;
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SECONDS, URI, required, text};
use crate::run::context::Context;
use crate::spec::stage::{ClipLimits, Files};

/// A file to probe.
#[derive(Debug, Clone)]
struct Candidate {
    /// Its name in the run: the path below the folder or the manifest, with `/`.
    clip_id: String,
    path: PathBuf,
}

/// Files to probe, and the labels that go with them row by row.
struct Candidates {
    files: Vec<Candidate>,
    labels: Option<RecordBatch>,
}

/// Probes the files of a `files` stage and writes its clips.
///
/// # Errors
/// When the folder or manifest cannot be read, or the table cannot be written.
pub async fn run(context: &Context, name: &str, options: &Files) -> Result<Outcome, RunError> {
    let path = Path::new(&options.path);
    let candidates = if options.is_manifest() {
        from_manifest(context, name, options, path).await?
    } else if options.is_glob() {
        from_glob(name, &options.path)?
    } else {
        from_folder(name, options, path)?
    };
    let stage = context.stage(name, candidates.files.len() as u64, "files");
    let limits = limits(options);
    let mut answers = Vec::with_capacity(candidates.files.len());
    for file in &candidates.files {
        let (stage, path, limits) = (stage.clone(), file.path.clone(), limits.clone());
        let annotations = options.jams.as_ref().map(|jams| Path::new(jams).join(&file.clip_id));
        answers.push(context.pool.submit(move || {
            stage.interrupt.check()?;
            let labels = || annotations.map_or(Ok(Jams::default()), |path| read_jams(&path));
            let info = probe_file(&path, &limits).and_then(|info| Ok((info, labels()?)));
            stage.bar.add(1);
            Ok::<_, RunError>(info)
        }));
    }
    let (mut rows, mut found, mut jams) = (Vec::new(), Vec::new(), Vec::new());
    for (row, answer) in answers.into_iter().enumerate() {
        let file = &candidates.files[row];
        let probed = match answer.await.map_err(|_| RunError::Interrupted)? {
            Ok(probed) => probed?,
            Err(panic) => Err(AudioError::new(RejectKind::Panicked, panic)),
        };
        match probed {
            Ok((info, labels)) => {
                rows.push(row as u32);
                found.push((file, info));
                jams.push(labels);
            }
            Err(error) => stage.reject(&file.clip_id, &file.path.to_string_lossy(), &error),
        }
    }
    let mut labels = match &candidates.labels {
        Some(labels) => {
            let rows = UInt32Array::from(rows);
            let columns = labels.columns().iter().map(|column| take(column, &rows, None));
            let fields =
                labels.schema().fields().iter().map(|field| field.as_ref().clone()).collect::<Vec<_>>();
            fields.into_iter().zip(columns.collect::<Result<Vec<_>, _>>()?).collect()
        }
        None => Vec::new(),
    };
    if let Some(folder) = &options.jams {
        let told = jams::columns(&jams)?.into_iter().filter(|(_, column)| column.null_count() < column.len());
        let told: Vec<(Field, ArrayRef)> = told.collect();
        if told.is_empty() && !found.is_empty() {
            return Err(RunError::stage(name, format!("no clip has a label in a JAMS file under {folder}")));
        }
        labels.extend(told);
    }
    let batch = clips(name, &found, labels)?;
    let rows = store(context, name, &batch.schema(), &[batch], options.shards)?;
    stage.bar.finish();
    let hours: f64 = found.iter().map(|(_, info)| info.seconds).sum::<f64>() / 3600.0;
    Ok(Outcome::rows(
        rows,
        format!("{} of {} files, {hours:.1} h of audio", found.len(), candidates.files.len()),
    ))
}

fn limits(options: &Files) -> Limits {
    let ClipLimits { max_channels, max_rate, max_seconds, max_bytes } = options.limits;
    let min_seconds = options.min_seconds;
    Limits { max_channels, max_rate, max_seconds, max_bytes, min_seconds, ..Limits::default() }
}

/// The JAMS labels beside the name of a clip; none where there is no such file.
fn read_jams(clip: &Path) -> Result<Jams, AudioError> {
    match Jams::read(&clip.with_extension("jams")) {
        Err(error) if error.kind == RejectKind::Missing => Ok(Jams::default()),
        read => read,
    }
}

/// The table of clips: what the probe found, then the labels.
fn clips(
    stage: &str,
    found: &[(&Candidate, FileInfo)],
    labels: Vec<(Field, ArrayRef)>,
) -> Result<RecordBatch, RunError> {
    let texts = |f: &dyn Fn(&(&Candidate, FileInfo)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(found.iter().map(f)))
    };
    let uri = |(file, _): &(&Candidate, FileInfo)| Source::File(file.path.clone()).uri();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (CLIP_ID, texts(&|(file, _)| file.clip_id.clone())),
        (URI, texts(&uri)),
        (SECONDS, Arc::new(Float64Array::from_iter_values(found.iter().map(|(_, i)| i.seconds)))),
        ("rate", Arc::new(Int32Array::from_iter_values(found.iter().map(|(_, i)| i.rate as i32)))),
        (
            "channels",
            Arc::new(Int32Array::from_iter_values(found.iter().map(|(_, i)| i32::from(i.channels)))),
        ),
        ("frames", Arc::new(Int64Array::from_iter_values(found.iter().map(|(_, i)| i.frames as i64)))),
        ("container", texts(&|(_, info)| info.container.clone())),
        ("codec", texts(&|(_, info)| info.codec.clone())),
        ("bytes", Arc::new(Int64Array::from_iter_values(found.iter().map(|(_, i)| i.bytes as i64)))),
        ("digest", texts(&|(_, info)| info.digest.clone())),
    ];
    let mut fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), false)).collect();
    let mut columns: Vec<ArrayRef> = columns.drain(..).map(|(_, column)| column).collect();
    for (field, column) in labels {
        if fields.iter().any(|known| known.name() == field.name()) || field.name() == "shard" {
            return Err(RunError::stage(
                stage,
                format!(
                    "the manifest's column `{0}` has the name of a column that is there already; give it another with \
                     `labels: {{my_{0}: {0}}}`",
                    field.name()
                ),
            ));
        }
        fields.push(field);
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn from_folder(stage: &str, options: &Files, folder: &Path) -> Result<Candidates, RunError> {
    if !folder.is_dir() {
        return Err(RunError::stage(stage, format!("there is no folder {}", folder.display())));
    }
    let mut paths = Vec::new();
    for entry in WalkDir::new(folder).follow_links(options.follow_links).sort_by_file_name() {
        let entry = entry.map_err(|e| RunError::stage(stage, e.to_string()))?;
        let ending = entry.path().extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if entry.file_type().is_file() && options.extensions.iter().any(|e| e.to_lowercase() == ending) {
            paths.push(entry.into_path());
        }
    }
    named(stage, folder, paths)
}

fn from_glob(stage: &str, pattern: &str) -> Result<Candidates, RunError> {
    let paths = glob::glob(pattern).map_err(|e| RunError::stage(stage, format!("{pattern}: {e}")))?;
    let paths: Vec<PathBuf> =
        paths.collect::<Result<_, _>>().map_err(|e| RunError::stage(stage, e.to_string()))?;
    // Names start where the pattern's first wildcard stands.
    let fixed: PathBuf = Path::new(pattern)
        .components()
        .take_while(|c| !c.as_os_str().to_string_lossy().contains(['*', '?', '[']))
        .collect();
    named(stage, &fixed, paths.into_iter().filter(|path| path.is_file()).collect())
}

fn named(stage: &str, root: &Path, paths: Vec<PathBuf>) -> Result<Candidates, RunError> {
    if paths.is_empty() {
        return Err(RunError::stage(stage, format!("no audio file under {}", root.display())));
    }
    let files = paths.into_iter().map(|path| {
        let below = path.strip_prefix(root).unwrap_or(&path);
        let clip_id =
            below.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
        Ok(Candidate {
            clip_id,
            path: std::path::absolute(&path).map_err(RunError::io("cannot find", &path))?,
        })
    });
    Ok(Candidates { files: files.collect::<Result<_, RunError>>()?, labels: None })
}

/// Reads a manifest: its audio column names the files, its other columns are labels.
async fn from_manifest(
    context: &Context,
    stage: &str,
    options: &Files,
    manifest: &Path,
) -> Result<Candidates, RunError> {
    if !manifest.is_file() {
        return Err(RunError::stage(stage, format!("there is no manifest {}", manifest.display())));
    }
    let session = context.session(&[]).await?;
    let batch = read_table(&session, manifest).await.map_err(|error| {
        RunError::stage(stage, format!("the manifest {} cannot be read: {error}", manifest.display()))
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
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let paths = text(&batch, &options.audio)?;
    let mut files = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let clip_id =
            required(&paths, &options.audio, row).map_err(|e| RunError::stage(stage, e.to_string()))?;
        let path = folder.join(clip_id);
        let path = std::path::absolute(&path).map_err(RunError::io("cannot find", &path))?;
        files.push(Candidate { clip_id: clip_id.to_owned(), path });
    }
    Ok(Candidates { files, labels: Some(labels(stage, options, &batch)?) })
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

async fn read_table(session: &SessionContext, path: &Path) -> Result<RecordBatch, RunError> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let location = path.to_string_lossy().into_owned();
    let rows = match ending.as_str() {
        "parquet" => session.read_parquet(location, ParquetReadOptions::default()).await?,
        "jsonl" => session.read_json(location, JsonReadOptions::default().file_extension(".jsonl")).await?,
        _ => session.read_csv(location, CsvReadOptions::new()).await?,
    };
    let schema: SchemaRef = Arc::new(rows.schema().as_arrow().clone());
    Ok(concat_batches(&schema, &rows.collect().await?)?)
}
