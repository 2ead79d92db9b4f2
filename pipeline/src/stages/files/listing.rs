//! What a `files` stage finds: folders and globs, on this machine or in an object store, and the annotations beside them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use glob::{MatchOptions, Pattern};
use loev_ops::source::Source;
use loev_sql::Location;
use loev_sql::store::{self, Entry};
use walkdir::WalkDir;

use crate::error::RunError;
use crate::resume::recipe::combined;
use crate::spec::stage::Files;

/// What makes a part of a path a pattern.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The files that a stage names, as they lie on disk or in a store.
#[derive(Debug)]
pub struct Listing {
    pub(super) files: Vec<Found>,
    /// Labels from the manifest, row by row.
    pub(super) labels: Option<RecordBatch>,
    /// The positions of the files of each shard, in the order of their names.
    pub(super) shards: Vec<Vec<u32>>,
}

#[derive(Debug)]
pub(super) struct Found {
    /// Its name in the run: the path below the folder or the manifest, with `/`.
    pub(super) clip_id: String,
    pub(super) source: Source,
    /// Changes when the file does; so does that of its annotations.
    pub(super) stamp: String,
    pub(super) annotations: Option<(Location, String)>,
}

/// The name of a file in the run, where it lies, and its stamp.
pub(super) struct Named {
    pub(super) clip_id: String,
    pub(super) source: Source,
    pub(super) stamp: String,
}

impl Named {
    pub(super) fn local(clip_id: String, path: &Path) -> Result<Self, RunError> {
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
pub(super) fn stamp_of(entry: &Entry) -> String {
    format!("{} {}", entry.bytes, entry.stamp)
}

impl Listing {
    /// The labels of each row as bytes.
    pub(super) fn labels_told(&self) -> Result<Option<Vec<String>>, RunError> {
        let Some(labels) = self.labels.as_ref().filter(|labels| labels.num_columns() > 0) else {
            return Ok(None);
        };
        let fields = labels.schema_ref().fields().iter().map(|f| SortField::new(f.data_type().clone()));
        let rows = RowConverter::new(fields.collect())?.convert_columns(labels.columns())?;
        Ok(Some(rows.iter().map(|row| blake3::hash(row.data()).to_hex().to_string()).collect()))
    }

    /// A digest of all that the clips of a shard are made from.
    pub(super) fn content(&self, shard: &[u32], labels: Option<&[String]>) -> String {
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

pub(super) fn parsed(stage: &str, text: &str) -> Result<Location, RunError> {
    Location::parse(text).map_err(|error| RunError::stage(stage, error.to_string()))
}

pub(super) fn from_folder(stage: &str, options: &Files, folder: &Location) -> Result<Vec<Named>, RunError> {
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
pub(super) fn from_glob(stage: &str, pattern: &Location) -> Result<Vec<Named>, RunError> {
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

/// The folder of annotations. What lies in a folder of a bucket is listed once.
pub(super) enum Annotations {
    Local(PathBuf),
    Listed(HashMap<String, Entry>),
}

impl Annotations {
    pub(super) fn in_folder(stage: &str, folder: &str) -> Result<Self, RunError> {
        let folder = match parsed(stage, folder)? {
            Location::Local(folder) => return Ok(Self::Local(folder)),
            folder @ Location::Object { .. } => folder,
        };
        let entries = store::list(&folder, true).map_err(|e| RunError::stage(stage, e.to_string()))?;
        let named = |entry: Entry| entry.location.below(&folder).map(|name| (name, entry));
        Ok(Self::Listed(entries.into_iter().filter_map(named).collect()))
    }

    /// Where the annotations of a clip are, or would be, and their stamp.
    pub(super) fn of_clip(&self, clip_id: &str) -> Option<(Location, String)> {
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
