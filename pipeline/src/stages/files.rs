//! `files`: a folder, a glob or a manifest of audio. Every file is probed; those that cannot be used
//! become rejects, the others clips with what the probe found and the labels of the manifest.
//!
//! ```text
//! list (names, sizes, stamps) ─► shards ─► probe the files that are new or have changed ─► clips
//!                                              │
//!                      receipts/<stage>/ ◄─────┘ what each probe found, to be used again
//! ```
//!
//! A file counts as unchanged while its size and its times of modification are; whether content changed is then told by
//! its digest, so that touching a file costs a probe and nothing more.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionContext};
use futures::{StreamExt, stream};
use loev_ops::jams::{self, Jams};
use loev_ops::source::{FileInfo, Limits, Source, probe_file};
use loev_ops::{AudioError, RejectKind};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::clips::{self, shard_of};
use super::{Content, Outcome};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SECONDS, URI, required, text};
use crate::exec::scan::Table;
use crate::exec::write::TableWriter;
use crate::resume::recipe::{Recipe, combined};
use crate::resume::work::{Job, Shard, Work};
use crate::run::context::Context;
use crate::run::rejects::Reject;
use crate::run::stage::StageHandle;
use crate::spec::Kind;
use crate::spec::stage::{ClipLimits, Files};

/// Counts changes of the code that alter what a probe finds.
const PROBE_VERSION: u32 = 1;
/// The entry of a table of probes that says under which options they were made.
const PROBE: &str = "loev.probe";

/// The files that a stage names, as they lie on disk.
#[derive(Debug)]
pub struct Listing {
    files: Vec<Found>,
    /// Labels from the manifest, row by row.
    labels: Option<RecordBatch>,
    /// The positions of the files of each shard, in the order of their names.
    shards: Vec<Vec<u32>>,
}

#[derive(Debug)]
struct Found {
    /// Its name in the run: the path below the folder or the manifest, with `/`.
    clip_id: String,
    path: PathBuf,
    /// Changes when the file does; so does that of its annotations.
    stamp: String,
    annotations: Option<(PathBuf, String)>,
}

/// The name of a file in the run, and where it lies.
struct Named {
    clip_id: String,
    path: PathBuf,
}

/// Size and times of a file; a file that cannot be looked at has a stamp of its own.
fn stamp(path: &Path) -> String {
    match fs::metadata(path) {
        Err(error) => format!("{:?}", error.kind()),
        Ok(found) => {
            #[cfg(unix)]
            let times = {
                use std::os::unix::fs::MetadataExt;
                (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec())
            };
            #[cfg(not(unix))]
            let times = found.modified().ok();
            format!("{} {times:?}", found.len())
        }
    }
}

/// What a `files` stage has to make: its files are listed, not read.
///
/// # Errors
/// When the folder or the manifest cannot be read, or two files have one name.
pub async fn work(name: &str, options: &Files) -> Result<Work, RunError> {
    let path = Path::new(&options.path);
    let (named, labels) = if options.is_manifest() {
        from_manifest(name, options, path).await?
    } else if options.is_glob() {
        (from_glob(name, &options.path)?, None)
    } else {
        (from_folder(name, options, path)?, None)
    };
    let jams = options.jams.as_ref().map(Path::new);
    let found = |Named { clip_id, path }: Named| {
        let annotations = jams.map(|folder| folder.join(&clip_id).with_extension("jams"));
        let annotations = annotations.map(|path| (stamp(&path), path)).map(|(stamp, path)| (path, stamp));
        Found { stamp: stamp(&path), clip_id, path, annotations }
    };
    let files: Vec<Found> = named.into_iter().map(found).collect();
    if let Some(folder) = jams
        && !files.iter().filter_map(|file| file.annotations.as_ref()).any(|(path, _)| path.exists())
    {
        return Err(RunError::stage(name, format!("no clip has a JAMS file under {}", folder.display())));
    }
    let mut shards = vec![Vec::new(); options.shards as usize];
    for (i, file) in files.iter().enumerate() {
        if let Some(shard) = shards.get_mut(shard_of(&file.clip_id, options.shards) as usize) {
            shard.push(i as u32);
        }
    }
    for shard in &mut shards {
        shard.sort_by(|a, b| files[*a as usize].clip_id.cmp(&files[*b as usize].clip_id));
        let twice = |pair: &&[u32]| files[pair[0] as usize].clip_id == files[pair[1] as usize].clip_id;
        if let Some(pair) = shard.windows(2).find(twice) {
            let message = format!("two clips are named `{}`", files[pair[0] as usize].clip_id);
            return Err(RunError::stage(name, message));
        }
    }
    let listing = Listing { files, labels, shards };
    let told = listing.labels_told()?;
    let content: Vec<String> =
        listing.shards.iter().map(|shard| listing.content(shard, told.as_deref())).collect();
    let recipe = Recipe::new(Kind::Files, PROBE_VERSION)
        .options(options, &["path", "audio", "labels", "jams", "extensions", "follow_links", "shards"])
        .with("labels", listing.labels.as_ref().map(|labels| format!("{:?}", labels.schema_ref().fields())))
        .with("jams", options.jams.is_some());
    let shards = clips::shards(name, &recipe, options.shards, |number| {
        content.get(number as usize).cloned().unwrap_or_default()
    });
    let all = Content { digest: combined(content.iter().map(String::as_str)) };
    let recipe = recipe.with("shards", options.shards).with("count", listing.files.len()).with("files", all);
    Ok(Work { listing: Some(Arc::new(listing)), ..Work::each(recipe, shards) })
}

impl Listing {
    /// The labels of each row as bytes.
    fn labels_told(&self) -> Result<Option<Vec<String>>, RunError> {
        let Some(labels) = self.labels.as_ref().filter(|labels| labels.num_columns() > 0) else {
            return Ok(None);
        };
        let fields = labels.schema_ref().fields().iter().map(|f| SortField::new(f.data_type().clone()));
        let rows = RowConverter::new(fields.collect())?.convert_columns(labels.columns())?;
        Ok(Some(rows.iter().map(|row| blake3::hash(row.data()).to_hex().to_string()).collect()))
    }

    /// A digest of all that the clips of a shard are made from.
    fn content(&self, shard: &[u32], labels: Option<&[String]>) -> String {
        let parts = shard.iter().flat_map(|i| {
            let Found { clip_id, path, stamp, annotations } = &self.files[*i as usize];
            let label = labels.and_then(|labels| labels.get(*i as usize)).map_or("", String::as_str);
            let annotations = annotations.as_ref().map_or("", |(_, stamp)| stamp);
            [clip_id.as_str(), path.to_str().unwrap_or_default(), stamp, label, annotations]
        });
        combined(parts)
    }
}

/// Probes the files of a `files` stage and writes its clips, shard by shard.
///
/// # Errors
/// When a table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Files) -> Result<Outcome, RunError> {
    let listing = job.listing.as_ref().ok_or_else(|| RunError::stage(name, "its files are not listed"))?;
    let todo = job.todo(name);
    let of_shard = |shard: &Shard| -> &[u32] {
        let number = clips::number_of(&shard.file).and_then(|number| listing.shards.get(number as usize));
        number.map(Vec::as_slice).unwrap_or_default()
    };
    let files = todo.iter().map(|shard| of_shard(shard).len() as u64).sum();
    let stage = context.stage(name, files, "files");
    let dir = context.dir.create_table(name)?;
    let memory = context.dir.memory(name);
    fs::create_dir_all(&memory).map_err(RunError::io("cannot create", &memory))?;
    let prober = Prober::new(context, &stage, options);
    for (number, shard) in todo.iter().enumerate() {
        let chosen = of_shard(shard);
        let remembered = memory.join(&shard.file);
        let probes = prober.probe(listing, chosen, &remembered).await?;
        let mut found = Vec::new();
        let mut rows = Vec::new();
        let mut jams = Vec::new();
        for (i, Probe { outcome, labels }) in chosen.iter().zip(&probes) {
            let file = &listing.files[*i as usize];
            let reject = |reason: &str, message: &str| {
                let (clip_id, uri) = (file.clip_id.clone(), uri_of(file));
                let (reason, message) = (reason.to_owned(), message.to_owned());
                stage.rejects.add(number, Reject { clip_id, uri, reason, message });
            };
            match (outcome, labels) {
                (Outcomes::Good(info), Ok(labels)) => {
                    rows.push(*i);
                    found.push((file, info));
                    jams.push(labels.clone());
                }
                (Outcomes::Bad { reason, message }, _) => reject(reason, message),
                (_, Err(error)) => reject(error.kind.as_str(), &error.message),
            }
        }
        let mut labels = Vec::new();
        if let Some(table) = &listing.labels {
            let rows = take_record_batch(table, &UInt32Array::from(rows))?;
            let fields = table.schema_ref().fields().iter().map(|field| field.as_ref().clone());
            labels.extend(fields.zip(rows.columns().to_vec()));
        }
        if options.jams.is_some() {
            labels.extend(jams::columns(&jams)?);
        }
        let clips = clips(name, &found, labels)?;
        let schema = clips::with_shard_field(clips.schema_ref());
        let clips = clips::with_shard(&clips, &schema, clips::number_of(&shard.file).unwrap_or_default())?;
        let mut writer = TableWriter::create(&dir.join(&shard.file), &schema)?;
        writer.write(clips)?;
        let written = writer.finish()?;
        prober.remember(listing, chosen, &probes, &remembered)?;
        job.enter(written.receipt(name, &shard.recipe, stage.rejects.take(number)))?;
    }
    stage.bar.finish();
    let good = context.table(name)?;
    let mut hours = 0.0;
    for rows in good.read(&[SECONDS])? {
        hours += crate::exec::columns::number(&rows, SECONDS)?.values().iter().sum::<f64>() / 3600.0;
    }
    Ok(Outcome::note(format!("{} of {} files, {hours:.1} h of audio", good.rows(), listing.files.len())))
}

/// What a probe found, as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcomes {
    Good(Info),
    Bad { reason: String, message: String },
}

/// [`FileInfo`], on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Info {
    codec: String,
    container: String,
    rate: u32,
    channels: u16,
    frames: u64,
    seconds: f64,
    bytes: u64,
    digest: String,
}

impl From<FileInfo> for Info {
    fn from(info: FileInfo) -> Self {
        let FileInfo { codec, container, rate, channels, frames, seconds, bytes, digest } = info;
        Self { codec, container, rate, channels, frames, seconds, bytes, digest }
    }
}

/// A probed file, and the labels of its annotations.
struct Probe {
    outcome: Outcomes,
    labels: Result<Jams, AudioError>,
}

struct Prober<'a> {
    context: &'a Context,
    stage: &'a StageHandle,
    limits: Limits,
    /// A digest of everything that a probe depends on beside the file.
    key: String,
}

impl<'a> Prober<'a> {
    fn new(context: &'a Context, stage: &'a StageHandle, options: &Files) -> Self {
        let limits = limits(options);
        let key = blake3::hash(format!("{PROBE_VERSION} {limits:?}").as_bytes()).to_hex().to_string();
        Self { context, stage, limits, key }
    }

    /// Probes the chosen files, or remembers what it found when they were as they are now.
    async fn probe(
        &self,
        listing: &Arc<Listing>,
        chosen: &[u32],
        memory: &Path,
    ) -> Result<Vec<Probe>, RunError> {
        let known = Arc::new(self.known(memory));
        let jobs = chosen.iter().map(|i| {
            let (listing, known, i) = (Arc::clone(listing), Arc::clone(&known), *i as usize);
            let (stage, limits) = (self.stage.clone(), self.limits.clone());
            self.context.pool.submit(move || {
                stage.interrupt.check()?;
                let Found { path, stamp, annotations, .. } = &listing.files[i];
                let key = (path.to_string_lossy().into_owned(), stamp.clone());
                let outcome = match known.get(&key) {
                    Some(outcome) => outcome.clone(),
                    None => match probe_file(path, &limits) {
                        Ok(info) => Outcomes::Good(info.into()),
                        Err(error) => bad(&error),
                    },
                };
                let labels = annotations.as_ref().map_or(Ok(Jams::default()), |(path, _)| read_jams(path));
                stage.bar.add(1);
                Ok::<_, RunError>(Probe { outcome, labels })
            })
        });
        let mut answers = stream::iter(jobs).buffered(4 * self.context.pool.threads());
        let mut probes = Vec::with_capacity(chosen.len());
        while let Some(answer) = answers.next().await {
            probes.push(match answer.map_err(|_| RunError::Interrupted)? {
                Ok(probe) => probe?,
                Err(panic) => {
                    let outcome = bad(&AudioError::new(RejectKind::Panicked, panic));
                    Probe { outcome, labels: Ok(Jams::default()) }
                }
            });
        }
        Ok(probes)
    }

    /// What earlier probes of a shard's files found, by path and stamp. Nothing when that cannot be read: the files are
    /// probed again then.
    fn known(&self, memory: &Path) -> HashMap<(String, String), Outcomes> {
        let mut known = HashMap::new();
        let Ok(table) = Table::of_file(memory) else { return known };
        if table.schema.metadata().get(PROBE) != Some(&self.key) {
            return known;
        }
        for rows in table.read(&["path", "stamp", "outcome"]).unwrap_or_default() {
            let columns = ["path", "stamp", "outcome"].map(|name| text(&rows, name));
            let [Ok(paths), Ok(stamps), Ok(outcomes)] = columns else { continue };
            for row in 0..rows.num_rows() {
                if let Ok(outcome) = serde_json::from_str(outcomes.value(row)) {
                    known.insert((paths.value(row).to_owned(), stamps.value(row).to_owned()), outcome);
                }
            }
        }
        known
    }

    fn remember(
        &self,
        listing: &Listing,
        chosen: &[u32],
        probes: &[Probe],
        memory: &Path,
    ) -> Result<(), RunError> {
        let files = || chosen.iter().map(|i| &listing.files[*i as usize]);
        let json = |probe: &Probe| serde_json::to_string(&probe.outcome);
        let outcomes: Vec<String> =
            probes.iter().map(json).collect::<Result<_, _>>().map_err(|e| RunError::Engine(e.to_string()))?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(files().map(|file| file.path.to_string_lossy()))),
            Arc::new(StringArray::from_iter_values(files().map(|file| &file.stamp))),
            Arc::new(StringArray::from(outcomes)),
        ];
        let fields =
            ["path", "stamp", "outcome"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec();
        let metadata = [(PROBE.to_owned(), self.key.clone())].into();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let mut writer = TableWriter::create(memory, &schema)?;
        writer.write(RecordBatch::try_new(schema, columns)?)?;
        writer.finish()?;
        Ok(())
    }
}

fn bad(error: &AudioError) -> Outcomes {
    Outcomes::Bad { reason: error.kind.as_str().to_owned(), message: error.message.clone() }
}

fn uri_of(file: &Found) -> String {
    Source::File(file.path.clone()).uri()
}

fn limits(options: &Files) -> Limits {
    let ClipLimits { max_channels, max_rate, max_seconds, max_bytes } = options.limits;
    let min_seconds = options.min_seconds;
    Limits { max_channels, max_rate, max_seconds, max_bytes, min_seconds, ..Limits::default() }
}

/// The labels of a JAMS file; none where there is no such file.
fn read_jams(path: &Path) -> Result<Jams, AudioError> {
    match Jams::read(path) {
        Err(error) if error.kind == RejectKind::Missing => Ok(Jams::default()),
        read => read,
    }
}

/// The table of clips: what the probe found, then the labels.
fn clips(
    stage: &str,
    found: &[(&Found, &Info)],
    labels: Vec<(Field, ArrayRef)>,
) -> Result<RecordBatch, RunError> {
    let texts = |f: &dyn Fn(&(&Found, &Info)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(found.iter().map(f)))
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (CLIP_ID, texts(&|(file, _)| file.clip_id.clone())),
        (URI, texts(&|(file, _)| uri_of(file))),
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

fn from_folder(stage: &str, options: &Files, folder: &Path) -> Result<Vec<Named>, RunError> {
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

fn from_glob(stage: &str, pattern: &str) -> Result<Vec<Named>, RunError> {
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

fn named(stage: &str, root: &Path, paths: Vec<PathBuf>) -> Result<Vec<Named>, RunError> {
    if paths.is_empty() {
        return Err(RunError::stage(stage, format!("no audio file under {}", root.display())));
    }
    let files = paths.into_iter().map(|path| {
        let below = path.strip_prefix(root).unwrap_or(&path);
        let clip_id =
            below.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
        let path = std::path::absolute(&path).map_err(RunError::io("cannot find", &path))?;
        Ok(Named { clip_id, path })
    });
    files.collect()
}

/// Reads a manifest: its audio column names the files, its other columns are labels.
async fn from_manifest(
    stage: &str,
    options: &Files,
    manifest: &Path,
) -> Result<(Vec<Named>, Option<RecordBatch>), RunError> {
    if !manifest.is_file() {
        return Err(RunError::stage(stage, format!("there is no manifest {}", manifest.display())));
    }
    let session = loev_sql::new_session(1, None)?;
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
        files.push(Named { clip_id: clip_id.to_owned(), path });
    }
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
