//! Files wherever they are: on this machine, in `s3://` or in `gs://`.
//!
//! ```text
//! list, read, write ...  plain threads ──┐
//! RemoteAudio            decoders      ──┼──► one store per bucket ──► HTTP, on a runtime of its own
//! Registry               DataFusion    ──┘
//! ```
//!
//! The functions here block until they are done. They may be called from any thread, those of a
//! runtime included: requests run on threads of this module. A request that fails for a passing reason
//! (no connection, 429, 5xx) is made again with longer and longer pauses, for about a minute in all.
//!
//! A session that reads tables from a store must run where tokio's clock is on
//! (`tokio::runtime::Builder::enable_time`): those pauses are taken there.

mod audio;
mod cloud;
mod files;
mod location;
mod tables;

use std::fs;
use std::future::Future;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::UNIX_EPOCH;

use futures::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use tokio::runtime::Handle;

pub use audio::enable_remote_audio;
pub use cloud::register;
pub(crate) use files::{is_row_file, table_at};
pub use location::{Location, Scheme};
pub(crate) use tables::{AddressedTables, Registry};

use crate::error::{SqlError, StoreFault};

/// Larger objects are sent in parts.
const WHOLE: usize = 16 << 20;
const PART: usize = 8 << 20;

/// A file or object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub location: Location,
    /// Its size.
    pub bytes: u64,
    /// A text that changes when the file does: the store's entity tag, or size and time of change.
    pub stamp: String,
}

/// The files in a folder, sorted by name, folder by folder; with `recursive`, those in its folders too.
/// Links to folders are not followed. A bucket has no folders: where nothing lies below a key, the
/// list is empty.
///
/// # Errors
/// [`SqlError::Store`] if the folder does not exist on this machine, or the store does not answer.
pub fn list(folder: &Location, recursive: bool) -> Result<Vec<Entry>, SqlError> {
    let mut entries = match folder {
        Location::Local(path) => {
            let mut entries = Vec::new();
            list_local(path, recursive, &mut entries).map_err(|error| SqlError::file(folder, &error))?;
            entries
        }
        Location::Object { .. } => {
            let (store, key) = store_and_key(folder)?;
            let metas = wait(folder, async move {
                if recursive {
                    store.list(Some(&key)).try_collect::<Vec<_>>().await
                } else {
                    Ok(store.list_with_delimiter(Some(&key)).await?.objects)
                }
            })?;
            metas.iter().map(|meta| entry(folder.with_key(meta.location.as_ref()), meta)).collect()
        }
    };
    entries.sort_by_cached_key(|entry| entry.location.order());
    Ok(entries)
}

fn list_local(folder: &Path, recursive: bool, entries: &mut Vec<Entry>) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        let item = item?;
        let path = item.path();
        if item.file_type()?.is_dir() {
            if recursive {
                list_local(&path, recursive, entries)?;
            }
        } else if fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
            entries.push(local_entry(&path)?);
        }
    }
    Ok(())
}

/// The names of the folders in a folder of a bucket.
pub(crate) fn folders(folder: &Location) -> Result<Vec<String>, SqlError> {
    let (store, key) = store_and_key(folder)?;
    let listed = wait(folder, async move { store.list_with_delimiter(Some(&key)).await })?;
    Ok(listed.common_prefixes.iter().filter_map(|key| key.filename().map(str::to_owned)).collect())
}

/// What is known of one file.
///
/// # Errors
/// [`SqlError::Store`] if there is no such file, or the store does not answer.
pub fn entry_of(file: &Location) -> Result<Entry, SqlError> {
    match file {
        Location::Local(path) => local_entry(path).map_err(|error| SqlError::file(file, &error)),
        Location::Object { .. } => {
            let (store, key) = store_and_key(file)?;
            let meta = wait(file, async move { store.head(&key).await })?;
            Ok(entry(file.clone(), &meta))
        }
    }
}

/// The size of a file in bytes.
///
/// # Errors
/// As [`entry_of`].
pub fn size(file: &Location) -> Result<u64, SqlError> {
    entry_of(file).map(|entry| entry.bytes)
}

/// Whether there is such a file, or a folder with a file in it.
///
/// # Errors
/// [`SqlError::Store`] if the store does not answer.
pub fn exists(place: &Location) -> Result<bool, SqlError> {
    if let Location::Local(path) = place {
        return path.try_exists().map_err(|error| SqlError::file(place, &error));
    }
    match entry_of(place) {
        Err(SqlError::Store { fault: StoreFault::Missing, .. }) => {
            let (store, key) = store_and_key(place)?;
            let first = wait(place, async move { store.list(Some(&key)).try_next().await })?;
            Ok(first.is_some())
        }
        found => found.map(|_| true),
    }
}

/// All bytes of a file, which may have `limit` at most.
///
/// # Errors
/// As [`entry_of`], and [`StoreFault::TooLarge`].
pub fn read(file: &Location, limit: u64) -> Result<Vec<u8>, SqlError> {
    let fits = |bytes: u64| {
        if bytes <= limit {
            return Ok(());
        }
        let reason = format!("{bytes} bytes; at most {limit} are read");
        Err(SqlError::store(file, StoreFault::TooLarge, reason))
    };
    match file {
        Location::Local(path) => {
            fits(local_entry(path).map_err(|error| SqlError::file(file, &error))?.bytes)?;
            fs::read(path).map_err(|error| SqlError::file(file, &error))
        }
        Location::Object { .. } => {
            let (store, key) = store_and_key(file)?;
            let (size, bytes) = wait(file, async move {
                let found = store.get(&key).await?;
                let size = found.meta.size;
                Ok((size, if size <= limit { Some(found.bytes().await?) } else { None }))
            })?;
            fits(size)?;
            Ok(bytes.map(|bytes| bytes.to_vec()).unwrap_or_default())
        }
    }
}

/// The bytes of a file in a range; fewer if the file ends within it.
///
/// # Errors
/// As [`entry_of`]; in an object store also if the range begins at the end or after it.
pub fn read_range(file: &Location, range: Range<u64>) -> Result<Vec<u8>, SqlError> {
    match file {
        Location::Local(path) => {
            let read = || {
                use std::io::{Read, Seek, SeekFrom};
                let mut bytes = Vec::new();
                let mut opened = fs::File::open(path)?;
                opened.seek(SeekFrom::Start(range.start))?;
                opened.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            read().map_err(|error: io::Error| SqlError::file(file, &error))
        }
        Location::Object { .. } => read_object(file, range, None),
    }
}

/// A range of an object, which must have the entity tag `tag` if one is given.
fn read_object(file: &Location, range: Range<u64>, tag: Option<String>) -> Result<Vec<u8>, SqlError> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let (store, key) = store_and_key(file)?;
    let options = GetOptions::new().with_range(Some(range)).with_if_match(tag);
    let bytes = wait(file, async move { store.get_opts(&key, options).await?.bytes().await })?;
    Ok(bytes.to_vec())
}

/// Writes a file, replacing what was there. Readers see the old bytes or the new ones, never part of
/// them; when this returns, the new ones are durable.
///
/// # Errors
/// [`SqlError::Store`] if it cannot be written.
pub fn write(file: &Location, bytes: Vec<u8>) -> Result<(), SqlError> {
    match file {
        Location::Local(path) => write_local(path, &bytes).map_err(|error| SqlError::file(file, &error)),
        Location::Object { .. } => {
            let (store, key) = store_and_key(file)?;
            wait(file, async move {
                if bytes.len() <= WHOLE {
                    return store.put(&key, PutPayload::from(bytes)).await.map(|_| ());
                }
                let mut parts = WriteMultipart::new_with_chunk_size(store.put_multipart(&key).await?, PART);
                for part in bytes.chunks(PART) {
                    parts.wait_for_capacity(4).await?;
                    parts.write(part);
                }
                parts.finish().await.map(|_| ())
            })
        }
    }
}

fn write_local(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// A file of this machine on its way. Readers see the old bytes until [`finish`](Self::finish), and nothing is left of
/// one that is dropped before.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    file: io::BufWriter<fs::File>,
    finished: bool,
}

impl AtomicFile {
    /// A file that is to be at `path`.
    ///
    /// # Errors
    /// When `path` names no file, or its folder cannot be written to.
    pub fn create(path: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(".{name}.{}.{number}.tmp", std::process::id()));
        let file = io::BufWriter::new(fs::File::create(&temporary)?);
        Ok(Self { path: path.to_owned(), temporary, file, finished: false })
    }

    /// Puts the file in its place; when this returns, it is durable.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.finished = true;
        let folder = self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.finished {
            // The error that counts is the one of writing.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn local_entry(path: &Path) -> io::Result<Entry> {
    let meta = fs::metadata(path)?;
    let changed = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let stamp = format!("{}-{}", meta.len(), changed.map_or(0, |since| since.as_nanos()));
    Ok(Entry { location: path.into(), bytes: meta.len(), stamp })
}

fn entry(location: Location, meta: &ObjectMeta) -> Entry {
    let changed = || format!("{}-{}", meta.size, meta.last_modified.timestamp_micros());
    Entry { location, bytes: meta.size, stamp: meta.e_tag.clone().unwrap_or_else(changed) }
}

fn store_and_key(place: &Location) -> Result<(std::sync::Arc<dyn ObjectStore>, Key), SqlError> {
    match place {
        Location::Object { scheme, bucket, key } => {
            let key = Key::parse(key).map_err(|error| failed(place, error.into()))?;
            Ok((cloud::store_of(*scheme, bucket)?, key))
        }
        Location::Local(_) => {
            Err(SqlError::store(place, StoreFault::Address, "a path on this machine is in no bucket"))
        }
    }
}

/// The runtime on which all requests are made. It lasts as long as the process.
fn runtime() -> Result<&'static Handle, SqlError> {
    static RUNTIME: OnceLock<Result<tokio::runtime::Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name("loev-store").enable_all().build();
        runtime.map_err(|error| error.to_string())
    });
    made.as_ref().map(|runtime| runtime.handle()).map_err(|error| {
        SqlError::store("object stores", StoreFault::Other, format!("no threads for requests: {error}"))
    })
}

/// Waits on this thread for what is done on those of the runtime.
fn wait<T: Send + 'static>(
    place: &Location,
    work: impl Future<Output = object_store::Result<T>> + Send + 'static,
) -> Result<T, SqlError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // Whoever waits holds the receiver, so that sending cannot fail.
    runtime()?.spawn(async move { drop(sender.send(work.await)) });
    match receiver.recv() {
        Ok(done) => done.map_err(|error| failed(place, error)),
        Err(_) => Err(SqlError::store(place, StoreFault::Other, "a request was broken off")),
    }
}

/// An error of a store as one of ours.
fn failed(place: &Location, error: object_store::Error) -> SqlError {
    use object_store::Error;
    let fault = match &error {
        Error::NotFound { .. } => StoreFault::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreFault::Denied,
        Error::Precondition { .. } => StoreFault::Changed,
        _ => StoreFault::Other,
    };
    let reason = match fault {
        StoreFault::Missing if reason(&error).contains("NoSuchBucket") => "no such bucket".to_owned(),
        StoreFault::Missing => "no such object".to_owned(),
        StoreFault::Changed => "it has changed since it was opened".to_owned(),
        StoreFault::Denied => match place {
            Location::Object { scheme, .. } => {
                format!("access denied: {}. {}", reason(&error), cloud::what_to_set(*scheme))
            }
            Location::Local(_) => reason(&error),
        },
        _ => reason(&error),
    };
    SqlError::store(place, fault, reason)
}

/// What a store says, in one line and without the library's prefix.
fn reason(error: &object_store::Error) -> String {
    let text = match error {
        object_store::Error::Generic { source, .. }
        | object_store::Error::PermissionDenied { source, .. }
        | object_store::Error::Unauthenticated { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
