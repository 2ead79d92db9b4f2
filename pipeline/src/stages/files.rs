//! `files`: a folder, a glob or a manifest of audio, on this machine or in an object store. Every file is probed; those
//! that cannot be used become rejects, the others clips with what the probe found and the labels of the manifest.
//!
//! ```text
//! list (names, sizes, stamps) ─► shards ─► probe the files that are new or have changed ─► clips
//!                                              │
//!                      receipts/<stage>/ ◄─────┘ what each probe found, to be used again
//! ```
//!
//! A file counts as unchanged while its size and its times of modification are; whether content changed is then told by
//! its digest, so that touching a file costs a probe and nothing more. Of an object these are its size and entity tag,
//! which a listing tells without a request for each.

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
use futures::{StreamExt, TryStreamExt, stream};
use glob::{MatchOptions, Pattern};
use loev_ops::jams::{self, Jams};
use loev_ops::source::{FileInfo, Limits, Source, probe};
use loev_ops::{AudioError, RejectKind};
use loev_sql::store::{self, Entry};
use loev_sql::{Location, SqlError, StoreFault};
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
/// Objects of a manifest that are asked for at a time.
const ASKED: usize = 32;
/// What makes a part of a path a pattern.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The files that a stage names, as they lie on disk or in a store.
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
    source: Source,
    /// Changes when the file does; so does that of its annotations.
    stamp: String,
    annotations: Option<(Location, String)>,
}

/// The name of a file in the run, where it lies, and its stamp.
struct Named {
    clip_id: String,
    source: Source,
    stamp: String,
}

impl Named {
    fn local(clip_id: String, path: &Path) -> Result<Self, RunError> {
        let path = std::path::absolute(path).map_err(RunError::io("cannot find", path))?;
        Ok(Self { clip_id, stamp: stamp(&path), source: Source::File(path) })
    }
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

/// As [`stamp`], of an object.
fn stamp_of(entry: &Entry) -> String {
    format!("{} {}", entry.bytes, entry.stamp)
}

/// What a `files` stage has to make: its files are listed, not read.
///
/// # Errors
/// When the folder or the manifest cannot be read, or two files have one name.
pub async fn work(name: &str, options: &Files) -> Result<Work, RunError> {
    let place = parsed(name, &options.path)?;
    let (named, labels) = if options.is_manifest() {
        from_manifest(name, options, &place).await?
    } else if options.is_glob() {
        (from_glob(name, &place)?, None)
    } else {
        (from_folder(name, options, &place)?, None)
    };
    let jams = options.jams.as_ref().map(|folder| Annotations::in_folder(name, folder)).transpose()?;
    let found = |Named { clip_id, source, stamp }: Named| {
        let annotations = jams.as_ref().and_then(|jams| jams.of_clip(&clip_id));
        Found { clip_id, source, stamp, annotations }
    };
    let files: Vec<Found> = named.into_iter().map(found).collect();
    let exists = |place: &Location| place.as_path().is_none_or(Path::exists);
    if let Some(folder) = &options.jams
        && !files.iter().filter_map(|file| file.annotations.as_ref()).any(|(place, _)| exists(place))
    {
        return Err(RunError::stage(name, format!("no clip has a JAMS file under {folder}")));
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
        let uris: Vec<String> = shard.iter().map(|i| self.files[*i as usize].source.uri()).collect();
        let parts = shard.iter().zip(&uris).flat_map(|(i, uri)| {
            let Found { clip_id, stamp, annotations, .. } = &self.files[*i as usize];
            let label = labels.and_then(|labels| labels.get(*i as usize)).map_or("", String::as_str);
            let annotations = annotations.as_ref().map_or("", |(_, stamp)| stamp);
            [clip_id.as_str(), uri, stamp, label, annotations]
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
    let of_shard = |shard: &Shard| clips::part_of(&listing.shards, shard);
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
                let (clip_id, uri) = (file.clip_id.clone(), file.source.uri());
                let (reason, message) = (reason.to_owned(), message.to_owned());
                stage.rejects.add(number, Reject { clip_id, uri, reason, message, whole: true });
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
                let Found { source, stamp, annotations, .. } = &listing.files[i];
                let key = (source.uri(), stamp.clone());
                let outcome = match known.get(&key) {
                    Some(outcome) => outcome.clone(),
                    None => match probe(source, &limits) {
                        Ok(info) => Outcomes::Good(info.into()),
                        Err(error) => bad(&error),
                    },
                };
                let labels = annotations.as_ref().map_or(Ok(Jams::default()), |(place, _)| read_jams(place));
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
        // What the disk or the network failed with may be over the next time.
        let lasts = |outcome: &Outcomes| match outcome {
            Outcomes::Good(_) => true,
            Outcomes::Bad { reason, .. } => reason != RejectKind::Io.as_str(),
        };
        let (mut paths, mut stamps, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for (i, Probe { outcome, .. }) in chosen.iter().zip(probes).filter(|(_, probe)| lasts(&probe.outcome))
        {
            let Found { source, stamp, .. } = &listing.files[*i as usize];
            paths.push(source.uri());
            stamps.push(stamp.as_str());
            outcomes.push(serde_json::to_string(outcome).map_err(|e| RunError::Engine(e.to_string()))?);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(paths)),
            Arc::new(StringArray::from(stamps)),
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

fn limits(options: &Files) -> Limits {
    let ClipLimits { max_channels, max_rate, max_seconds, max_bytes } = options.limits;
    let min_seconds = options.min_seconds;
    Limits { max_channels, max_rate, max_seconds, max_bytes, min_seconds, ..Limits::default() }
}

/// The folder of annotations. What lies in a folder of a bucket is listed once.
enum Annotations {
    Local(PathBuf),
    Listed(HashMap<String, Entry>),
}

impl Annotations {
    fn in_folder(stage: &str, folder: &str) -> Result<Self, RunError> {
        let folder = match parsed(stage, folder)? {
            Location::Local(folder) => return Ok(Self::Local(folder)),
            folder @ Location::Object { .. } => folder,
        };
        let entries = store::list(&folder, true).map_err(|e| RunError::stage(stage, e.to_string()))?;
        let named = |entry: Entry| entry.location.below(&folder).map(|name| (name, entry));
        Ok(Self::Listed(entries.into_iter().filter_map(named).collect()))
    }

    /// Where the annotations of a clip are, or would be, and their stamp.
    fn of_clip(&self, clip_id: &str) -> Option<(Location, String)> {
        match self {
            Self::Local(folder) => {
                let path = folder.join(clip_id).with_extension("jams");
                let stamp = stamp(&path);
                Some((path.into(), stamp))
            }
            Self::Listed(entries) => {
                let name = Path::new(clip_id).with_extension("jams");
                let entry = entries.get(name.to_str()?)?;
                Some((entry.location.clone(), stamp_of(entry)))
            }
        }
    }
}

/// The labels of a JAMS file; none where there is no such file.
fn read_jams(place: &Location) -> Result<Jams, AudioError> {
    let read = match place {
        Location::Local(path) => Jams::read(path),
        Location::Object { .. } => match store::read(place, jams::MAX_BYTES) {
            Ok(bytes) => Jams::parse(&bytes, &place.to_string()),
            Err(error) => {
                let kind = match &error {
                    SqlError::Store { fault: StoreFault::Missing, .. } => RejectKind::Missing,
                    SqlError::Store { fault: StoreFault::TooLarge, .. } => RejectKind::OverLimit,
                    _ => RejectKind::Io,
                };
                Err(AudioError::new(kind, error.to_string()))
            }
        },
    };
    match read {
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
        (URI, texts(&|(file, _)| file.source.uri())),
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

fn parsed(stage: &str, text: &str) -> Result<Location, RunError> {
    Location::parse(text).map_err(|error| RunError::stage(stage, error.to_string()))
}

fn from_folder(stage: &str, options: &Files, folder: &Location) -> Result<Vec<Named>, RunError> {
    let wanted = |ending: &str| options.extensions.iter().any(|e| e.to_lowercase() == ending.to_lowercase());
    let folder = match folder {
        Location::Local(folder) => folder,
        Location::Object { .. } => {
            let mut entries = store::list(folder, true).map_err(|e| RunError::stage(stage, e.to_string()))?;
            entries.retain(|entry| entry.location.extension().is_some_and(wanted));
            return listed(stage, folder, entries);
        }
    };
    if !folder.is_dir() {
        return Err(RunError::stage(stage, format!("there is no folder {}", folder.display())));
    }
    let mut paths = Vec::new();
    for entry in WalkDir::new(folder).follow_links(options.follow_links).sort_by_file_name() {
        let entry = entry.map_err(|e| RunError::stage(stage, e.to_string()))?;
        let ending = entry.path().extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
        if entry.file_type().is_file() && wanted(&ending) {
            paths.push(entry.into_path());
        }
    }
    named(stage, folder, &paths)
}

/// Names start where the pattern's first wildcard stands.
fn from_glob(stage: &str, pattern: &Location) -> Result<Vec<Named>, RunError> {
    let wrong = |error: String| RunError::stage(stage, format!("{pattern}: {error}"));
    match pattern {
        Location::Local(path) => {
            let paths = glob::glob(&path.to_string_lossy()).map_err(|e| wrong(e.to_string()))?;
            let mut paths: Vec<PathBuf> =
                paths.collect::<Result<_, _>>().map_err(|e| RunError::stage(stage, e.to_string()))?;
            paths.retain(|path| path.is_file());
            let fixed: PathBuf = path
                .components()
                .take_while(|c| !c.as_os_str().to_string_lossy().contains(WILDCARDS))
                .collect();
            named(stage, &fixed, &paths)
        }
        Location::Object { scheme, bucket, key } => {
            let matches = Pattern::new(key).map_err(|e| wrong(e.to_string()))?;
            let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
            let parts: Vec<&str> = key.split('/').collect();
            let fixed = parts.iter().take_while(|part| !part.contains(WILDCARDS)).count();
            let (above, rest) = parts.split_at(fixed);
            let root = Location::Object { scheme: *scheme, bucket: bucket.clone(), key: above.join("/") };
            let recursive = rest.len() > 1 || rest.contains(&"**");
            let mut entries =
                store::list(&root, recursive).map_err(|e| RunError::stage(stage, e.to_string()))?;
            entries.retain(|entry| match &entry.location {
                Location::Object { key, .. } => matches.matches_with(key, options),
                Location::Local(_) => false,
            });
            listed(stage, &root, entries)
        }
    }
}

fn named(stage: &str, root: &Path, paths: &[PathBuf]) -> Result<Vec<Named>, RunError> {
    if paths.is_empty() {
        return Err(RunError::stage(stage, format!("no audio file under {}", root.display())));
    }
    let files = paths.iter().map(|path| {
        let below = path.strip_prefix(root).unwrap_or(path);
        let clip_id =
            below.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
        Named::local(clip_id, path)
    });
    files.collect()
}

/// As [`named`], of objects.
fn listed(stage: &str, root: &Location, entries: Vec<Entry>) -> Result<Vec<Named>, RunError> {
    if entries.is_empty() {
        return Err(RunError::stage(stage, format!("no audio file under {root}")));
    }
    let file = |entry: Entry| {
        let (stamp, uri) = (stamp_of(&entry), entry.location.to_string());
        let clip_id = entry.location.below(root).unwrap_or_else(|| uri.clone());
        Named { clip_id, source: Source::Remote(uri), stamp }
    };
    Ok(entries.into_iter().map(file).collect())
}

/// Reads a manifest: its audio column names the files, its other columns are labels.
async fn from_manifest(
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

#[cfg(test)]
mod tests {
    use datafusion::object_store::memory::InMemory;

    use super::*;
    use crate::resume::work::Shards;

    fn place(name: &str) -> Location {
        Location::parse(&format!("s3://test-bucket/{name}")).unwrap()
    }

    fn put(name: &str, text: &str) {
        store::write(&place(name), text.as_bytes().to_vec()).unwrap();
    }

    fn listed(path: &str, jams: Option<&str>) -> Result<Work, RunError> {
        let options = serde_json::json!({ "path": path, "shards": 8, "jams": jams });
        let options: Files = serde_json::from_value(options).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
        runtime.block_on(work("music", &options))
    }

    fn files(work: &Work) -> &[Found] {
        &work.listing.as_ref().unwrap().files
    }

    fn names(work: &Work) -> Vec<&str> {
        files(work).iter().map(|file| file.clip_id.as_str()).collect()
    }

    /// The shards whose recipes differ.
    fn changed(one: &Work, other: &Work) -> Vec<usize> {
        let (Shards::Each(one), Shards::Each(other)) = (&one.shards, &other.shards) else { panic!() };
        assert_eq!(one.len(), 8);
        (0..8).filter(|i| one[*i] != other[*i]).collect()
    }

    #[test]
    fn folders_globs_and_manifests_in_a_bucket_are_listed() {
        store::register("s3://test-bucket", Arc::new(InMemory::new())).unwrap();
        for name in ["a 1.wav", "b/2.FLAC", "b/2.jams", "b/c/3.wav", "notes.txt", "50%.wav"] {
            put(&format!("music/{name}"), name);
        }
        put("other/4.wav", "4");

        let folder = listed("s3://test-bucket/music/", Some("s3://test-bucket/music")).unwrap();
        assert_eq!(names(&folder), ["50%.wav", "a 1.wav", "b/2.FLAC", "b/c/3.wav"]);
        assert_eq!(files(&folder)[1].source, Source::Remote("s3://test-bucket/music/a 1.wav".to_owned()));
        let annotated: Vec<bool> = files(&folder).iter().map(|file| file.annotations.is_some()).collect();
        assert_eq!(annotated, [false, false, true, false]);

        let glob = |pattern: &str| {
            let work = listed(&format!("s3://test-bucket/{pattern}"), None)?;
            Ok::<_, RunError>(names(&work).join(" "))
        };
        assert_eq!(glob("music/*.wav").unwrap(), "50%.wav a 1.wav");
        assert_eq!(glob("music/**/*.wav").unwrap(), "50%.wav a 1.wav b/c/3.wav");
        assert_eq!(glob("*/b/?.FLAC").unwrap(), "music/b/2.FLAC");
        assert!(
            glob("music/*.mp3")
                .unwrap_err()
                .to_string()
                .contains("no audio file under s3://test-bucket/music")
        );

        put(
            "music/lists/all 1%.csv",
            "path,key\n../b/2.FLAC,C\nnone.wav,D\nhttp://x/5.wav,E\n../../../6.wav,F\ns3://test-bucket/other/4.wav,G\n",
        );
        let list = "s3://test-bucket/music/lists/all 1%.csv";
        let manifest = listed(list, None).unwrap();
        let uris: Vec<String> = files(&manifest).iter().map(|file| file.source.uri()).collect();
        assert_eq!(
            uris,
            [
                "s3://test-bucket/music/b/2.FLAC",
                "s3://test-bucket/music/lists/none.wav",
                "http://x/5.wav",
                "s3://test-bucket/music/lists/../../../6.wav",
                "s3://test-bucket/other/4.wav",
            ]
        );
        assert_eq!(names(&manifest)[0], "../b/2.FLAC");
        assert!(
            listed("s3://test-bucket/no.csv", None).unwrap_err().to_string().contains("there is no manifest")
        );

        // An object with new bytes changes its own shard; so do new annotations.
        let jams = || listed("s3://test-bucket/music", Some("s3://test-bucket/music")).unwrap();
        assert_eq!(changed(&folder, &jams()), Vec::<usize>::new());
        put("music/b/2.FLAC", "others");
        let shard = |name: &str| shard_of(name, 8) as usize;
        assert_eq!(changed(&folder, &jams()), [shard("b/2.FLAC")]);
        assert_eq!(changed(&manifest, &listed(list, None).unwrap()), [shard("../b/2.FLAC")]);
        assert_ne!(folder.recipe.digest(), jams().recipe.digest());
        let before = jams();
        put("music/b/2.jams", "labels");
        assert_eq!(changed(&before, &jams()), [shard("b/2.FLAC")]);
    }
}
