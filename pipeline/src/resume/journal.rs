//! Receipts on disk: one file per stage, appended to as shards are finished.
//!
//! ```text
//! <16 hex digits of BLAKE3 of the rest> {"receipt":{...}}
//! ```
//!
//! A line that is torn, by a killed process or a full disk, does not fit its digest; it and what follows it is
//! taken for not written, and the shards that it told of are made again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::fault;
use super::recipe::Recipe;
use crate::error::RunError;
use crate::run::dir::StageRecord;
use crate::run::rejects::Reject;

/// A receipt file larger than this is not ours.
const MOST_BYTES: u64 = 4 << 30;

/// A shard is done: what it was made from, and the file that came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The table.
    pub table: String,
    /// The file's name in the table's folder.
    pub file: String,
    /// Rows.
    pub rows: u64,
    /// Size, in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file's bytes, in hex.
    pub digest: String,
    /// A digest of each column's content, by its name: what reads some columns does not depend on the others.
    pub columns: IndexMap<String, String>,
    /// The digest of the recipe that the shard was made by.
    pub recipe: String,
    /// How long it took.
    pub seconds: f64,
    /// When it was finished, in seconds since 1970 (UTC) by the system's clock. For people: nothing relies on it.
    pub finished: f64,
    /// The file beside the table's that its rows point into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Artifact>,
    /// Clips of this shard that could not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejects: Vec<Reject>,
}

/// A file that is no table, such as a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its path, relative to the run.
    pub path: String,
    /// Size, in bytes.
    pub bytes: u64,
    /// BLAKE3 of its bytes, in hex.
    pub digest: String,
}

/// A stage is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The recipe in full, so that a later run can say what changed.
    pub recipe: Recipe,
    /// What the stage did.
    pub record: StageRecord,
    /// Its tables; the first has the stage's name.
    pub tables: Vec<String>,
    /// How many files its tables have.
    pub files: u64,
    /// Files beside its tables.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// Clips that could not be used, beside those in the receipts of shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejects: Vec<Reject>,
}

/// A line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly all entries are receipts")]
pub enum Entry {
    /// See [`Receipt`].
    Receipt(Receipt),
    /// See [`Done`].
    Done(Box<Done>),
}

/// A stage's receipts, open for more. Threads may append at the same time.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Opens the journal at `path`, or starts it. Also its entries; a torn end is cut off.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path) -> Result<(Self, Vec<Entry>), RunError> {
        let cannot = |action| RunError::io(action, path);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(cannot("cannot open"))?;
        let bytes = limited(path, &mut file)?;
        let (entries, whole) = parse(&bytes);
        file.set_len(whole as u64).map_err(cannot("cannot write"))?;
        file.seek(SeekFrom::End(0)).map_err(cannot("cannot write"))?;
        Ok((Self { path: path.to_owned(), file: Mutex::new(file) }, entries))
    }

    /// The entries of the journal at `path`; none when there is no such file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> Result<Vec<Entry>, RunError> {
        match File::open(path) {
            Ok(mut file) => Ok(parse(&limited(path, &mut file)?).0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(RunError::io("cannot open", path)(error)),
        }
    }

    /// Appends an entry and makes it durable.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn append(&self, entry: &Entry) -> Result<(), RunError> {
        let line = line(entry)?;
        if let Entry::Receipt(Receipt { table, file, rows, bytes, seconds, .. }) = entry {
            tracing::debug!(table, file, rows, bytes, seconds, "shard written");
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let cannot = RunError::io("cannot write", &self.path);
        let mut write = || -> std::io::Result<()> {
            let start = file.stream_position()?;
            let written = fault::io("receipt.write").and_then(|()| file.write_all(&line));
            if let Err(error) = written {
                // Half a line would hide the whole ones after it.
                file.set_len(start)?;
                file.seek(SeekFrom::Start(start))?;
                return Err(error);
            }
            fault::io("receipt.sync")?;
            file.sync_data()
        };
        write().map_err(cannot)
    }

    /// Replaces the entries; readers and a killed process see the old ones or the new ones.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn replace(path: &Path, entries: &[Entry]) -> Result<(), RunError> {
        let mut bytes = Vec::new();
        for entry in entries {
            bytes.extend(line(entry)?);
        }
        durable_write(path, &bytes)
    }
}

fn limited(path: &Path, file: &mut File) -> Result<Vec<u8>, RunError> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(RunError::io("cannot read", path))?;
    Ok(bytes)
}

fn line(entry: &Entry) -> Result<Vec<u8>, RunError> {
    let text = serde_json::to_string(entry).map_err(|e| RunError::Engine(e.to_string()))?;
    Ok(format!("{} {text}\n", check(text.as_bytes())).into_bytes())
}

fn check(text: &[u8]) -> String {
    let digest = blake3::hash(text).to_hex();
    digest.chars().take(16).collect()
}

/// The entries of the bytes of a journal, and how many of its bytes are whole lines that fit their digests.
pub fn parse(bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (mut entries, mut whole) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let entry = line.strip_suffix(b"\n").and_then(|line| {
            let (digest, rest) = line.split_at_checked(17)?;
            let (digest, blank) = digest.split_at(16);
            let fits = blank == b" " && check(rest).as_bytes() == digest;
            fits.then(|| serde_json::from_slice(rest).ok()).flatten()
        });
        match entry {
            Some(entry) => entries.push(entry),
            None => break,
        }
        whole += line.len();
    }
    (entries, whole)
}

/// Writes a file through a temporary name: after a crash there is the old file or the new one, whole.
///
/// # Errors
/// When the disk is full or the file cannot be renamed.
pub fn durable_write(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || -> std::io::Result<()> {
        fault::io("file.create")?;
        let mut file = File::create(&temporary)?;
        fault::io("file.write")?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fault::io("file.rename")?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    write().map_err(RunError::io("cannot write", path))
}

/// Makes a rename in the folder of `path` durable, where the system can.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(file: &str) -> Entry {
        Entry::Receipt(Receipt {
            table: "clips".to_owned(),
            file: file.to_owned(),
            rows: 3,
            bytes: 10,
            digest: "d".to_owned(),
            columns: IndexMap::from([("clip_id".to_owned(), "c".to_owned())]),
            recipe: "r".to_owned(),
            seconds: 0.25,
            finished: 1.5,
            data: None,
            rejects: Vec::new(),
        })
    }

    #[test]
    fn whatever_was_torn_off_the_end_the_lines_before_it_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clips.jsonl");
        let (journal, none) = Journal::open(&path).unwrap();
        assert!(none.is_empty());
        for file in ["a", "b", "c"] {
            journal.append(&receipt(file)).unwrap();
        }
        let bytes = fs::read(&path).unwrap();
        let third = bytes.len() / 3;
        for length in 0..=bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let (journal, entries) = Journal::open(&path).unwrap();
            assert_eq!(entries.len(), length / third, "{length} bytes");
            journal.append(&receipt("d")).unwrap();
            assert_eq!(Journal::read(&path).unwrap().len(), length / third + 1);
        }
    }

    #[test]
    fn a_changed_byte_voids_its_line_and_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clips.jsonl");
        Journal::replace(&path, &[receipt("a"), receipt("b"), receipt("c")]).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(parse(&bytes).0, [receipt("a"), receipt("b"), receipt("c")]);
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert_eq!(parse(&damaged).0.len(), at / (bytes.len() / 3), "byte {at}");
        }
    }
}
