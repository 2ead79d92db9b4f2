//! A run's directory, and the file in it that says what the run is.
//!
//! ```text
//! runs/quickstart/
//!   run.json                     what was run, what came of it (written at every step)
//!   tables/<table>/*.parquet     one folder per table; open to SQL under the table's name
//!   checkpoints/<stage>.safetensors, checkpoints/<stage>/   models; states of a training under way
//!   audio/<stage>/*.pcm         samples of decoded clips; tables name ranges of them
//!   receipts/<stage>.jsonl       which shards are done, and what they were made from
//!   lock                         held by the process that works here
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use loev_ops::source::{Source, add_pcm_root};
use serde::{Deserialize, Serialize};

use crate::error::RunError;
use crate::resume::journal::{Receipt, durable_write};
use crate::resume::recipe::combined;
use crate::spec::Pipeline;

const MANIFEST: &str = "run.json";
const TABLES: &str = "tables";
const CHECKPOINTS: &str = "checkpoints";
const AUDIO: &str = "audio";
const RECEIPTS: &str = "receipts";
const LOCK: &str = "lock";

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// At work, or killed while at work.
    Running,
    /// Every stage is done.
    Complete,
    /// A stage failed.
    Failed,
    /// Stopped by the user.
    Interrupted,
}

/// `run.json`: what was run, with what, and what came of it; enough to run it again elsewhere and compare.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of loev that made the run.
    pub loev: String,
    /// The pipeline's name.
    pub name: String,
    /// Where the run stands.
    pub status: Status,
    /// The machine and the code, as far as bytes may depend on them.
    #[serde(default)]
    pub machine: Machine,
    /// The pipeline with every default filled in, seeds included.
    pub pipeline: serde_json::Value,
    /// The version of each operator that the pipeline uses.
    #[serde(default)]
    pub operators: BTreeMap<String, u32>,
    /// Tables by name: their folders, relative to the run.
    pub tables: IndexMap<String, String>,
    /// What each table holds.
    #[serde(default)]
    pub data: IndexMap<String, TableDigest>,
    /// What each finished stage did.
    pub stages: IndexMap<String, StageRecord>,
    /// The figures of each stage of probes.
    #[serde(default)]
    pub results: IndexMap<String, Vec<Figure>>,
    /// The largest resident memory of the process so far, in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

/// Where a run was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and processor architecture.
    pub platform: String,
    /// The level of SIMD instructions: files are equal byte for byte among machines of one class.
    pub cpu: String,
    /// Where models ran.
    pub device: String,
}

/// The content of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDigest {
    /// Files.
    pub files: u64,
    /// Rows of all files.
    pub rows: u64,
    /// Size of all files.
    pub bytes: u64,
    /// A digest of the names and digests of all files.
    pub digest: String,
}

impl TableDigest {
    /// Of the files of one table, in the order of their names.
    pub fn of(files: &[&Receipt]) -> Self {
        Self {
            files: files.len() as u64,
            rows: files.iter().map(|r| r.rows).sum(),
            bytes: files.iter().map(|r| r.bytes).sum(),
            digest: combined(files.iter().flat_map(|r| [r.file.as_str(), r.digest.as_str()])),
        }
    }
}

/// One figure of a probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The subspace.
    pub subspace: String,
    /// The task.
    pub task: String,
    /// The kind of probe.
    pub probe: String,
    /// The metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Lower end of its 95% interval.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

/// What a finished stage did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its kind, such as `views`.
    pub kind: String,
    /// Rows of its table.
    pub rows: u64,
    /// Clips that it rejected.
    pub rejects: u64,
    /// How long it took.
    pub seconds: f64,
    /// One line about its result.
    pub note: String,
    /// The digest of everything that determined what it made.
    #[serde(default)]
    pub recipe: String,
}

/// A run's directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    root: PathBuf,
}

/// The right to work in a run's directory; given back when dropped, or when the process ends in whatever way.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holds the lock")] File);

impl RunDir {
    /// Makes `root` ready to be worked in: new, or with what an earlier run left.
    ///
    /// # Errors
    /// When another process works there, when `root` is not empty and not a run, or when it cannot be written.
    pub fn claim(root: &Path) -> Result<(Self, Lock), RunError> {
        fs::create_dir_all(root).map_err(RunError::io("cannot create", root))?;
        let ours = [MANIFEST, TABLES, CHECKPOINTS, AUDIO, RECEIPTS, LOCK].map(std::ffi::OsStr::new);
        for entry in fs::read_dir(root).map_err(RunError::io("cannot read", root))? {
            let name = entry.map_err(RunError::io("cannot read", root))?.file_name();
            let temporary = name.to_string_lossy().starts_with(MANIFEST);
            if !root.join(MANIFEST).exists() && !temporary && !ours.contains(&name.as_os_str()) {
                let message = format!(
                    "this directory holds {} and no run; choose another with --out",
                    name.to_string_lossy()
                );
                return Err(RunError::RunDir { path: root.to_owned(), message });
            }
        }
        let path = root.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(RunError::io("cannot create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = "another process is working on this run; wait for it, or choose another --out";
                return Err(RunError::RunDir { path: root.to_owned(), message: message.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(RunError::io("cannot lock", path)(error)),
        }
        for part in [TABLES, CHECKPOINTS, RECEIPTS] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(RunError::io("cannot create", &path))?;
        }
        Ok((Self::open(root), Lock(file)))
    }

    /// The receipts of a stage.
    pub fn journal(&self, stage: &str) -> PathBuf {
        self.root.join(RECEIPTS).join(format!("{stage}.jsonl"))
    }

    /// The folder of what a stage remembers beside its tables.
    pub fn memory(&self, stage: &str) -> PathBuf {
        self.root.join(RECEIPTS).join(stage)
    }

    /// Removes the files of a table that `keep` does not want.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn retain(&self, table: &str, keep: impl Fn(&str) -> bool) -> Result<(), RunError> {
        retain(&self.table(table), keep)
    }

    /// Removes the files of a stage's samples that `keep`, which gets their paths relative to the run, does not want.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn retain_audio(&self, stage: &str, keep: impl Fn(&str) -> bool) -> Result<(), RunError> {
        let folder = Self::relative_audio(stage);
        retain(&self.root.join(&folder), |file| keep(&format!("{folder}/{file}")))
    }

    /// The folder of a stage's samples, relative to the run.
    pub fn relative_audio(stage: &str) -> String {
        format!("{AUDIO}/{stage}")
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a table.
    pub fn table(&self, name: &str) -> PathBuf {
        self.root.join(TABLES).join(name)
    }

    /// Makes the folder of a table.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create_table(&self, name: &str) -> Result<PathBuf, RunError> {
        let path = self.table(name);
        fs::create_dir_all(&path).map_err(RunError::io("cannot create", &path))?;
        Ok(path)
    }

    /// The path of a table, relative to the run.
    pub fn relative_table(name: &str) -> String {
        format!("{TABLES}/{name}")
    }

    /// The checkpoint of a training stage.
    pub fn checkpoint(&self, stage: &str) -> PathBuf {
        self.root.join(Self::relative_checkpoint(stage))
    }

    /// The path of a checkpoint, relative to the run.
    pub fn relative_checkpoint(stage: &str) -> String {
        format!("{CHECKPOINTS}/{stage}.safetensors")
    }

    /// The folder of the states of a training under way.
    pub fn states(&self, stage: &str) -> PathBuf {
        self.root.join(CHECKPOINTS).join(stage)
    }

    /// Writes `run.json`; readers see the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), RunError> {
        let text = serde_json::to_string_pretty(manifest).map_err(|e| self.damaged(e.to_string()))?;
        durable_write(&self.root.join(MANIFEST), (text + "\n").as_bytes())
    }

    /// Reads `run.json` of the run in `root`.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn read_manifest(root: &Path) -> Result<Manifest, RunError> {
        let dir = Self { root: root.to_owned() };
        let path = root.join(MANIFEST);
        match fs::read_to_string(&path) {
            Ok(text) => Manifest::parse(&text).map_err(|e| dir.damaged(e)),
            Err(_) if !path.exists() => Err(RunError::RunDir {
                path: root.to_owned(),
                message: "no run here (there is no run.json)".to_owned(),
            }),
            Err(error) => Err(RunError::io("cannot read", path)(error)),
        }
    }

    /// Opens the run in `root`. From now on the addresses of its samples can be read.
    pub fn open(root: &Path) -> Self {
        add_pcm_root(Source::File(root.to_owned()));
        Self { root: root.to_owned() }
    }

    /// The pipeline of a run, with every default filled in.
    ///
    /// # Errors
    /// When `run.json` is damaged, or this version reads its pipeline no more.
    pub fn read_pipeline(root: &Path) -> Result<Pipeline, RunError> {
        let manifest = Self::read_manifest(root)?;
        let text = manifest.pipeline.to_string();
        let read = crate::spec::parse(&text, &root.join(MANIFEST).display().to_string(), &[]);
        read.map_err(|e| Self::open(root).damaged(format!("its pipeline cannot be read: {e}")))
    }

    fn damaged(&self, message: String) -> RunError {
        RunError::RunDir { path: self.root.join(MANIFEST), message }
    }
}

fn retain(dir: &Path, keep: impl Fn(&str) -> bool) -> Result<(), RunError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RunError::io("cannot read", dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(RunError::io("cannot read", dir))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !keep(&name) {
            fs::remove_file(&path).map_err(RunError::io("cannot remove", &path))?;
        }
    }
    Ok(())
}

impl Manifest {
    /// Reads the text of a `run.json`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let error = RunDir::claim(dir.path()).unwrap_err();
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let (dir, lock) = RunDir::claim(root.path()).unwrap();
        let error = RunDir::claim(root.path()).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(lock);
        dir.create_table("clips").unwrap();
        RunDir::claim(root.path()).unwrap();
        assert!(dir.table("clips").exists(), "what an earlier run made stays");
    }

    #[test]
    fn files_that_are_not_wanted_go() {
        let root = tempfile::tempdir().unwrap();
        let (dir, _lock) = RunDir::claim(root.path()).unwrap();
        let table = dir.create_table("clips").unwrap();
        for file in ["a.parquet", "b.parquet", "c.parquet.tmp"] {
            fs::write(table.join(file), "x").unwrap();
        }
        dir.retain("clips", |file| file == "a.parquet").unwrap();
        assert_eq!(fs::read_dir(table).unwrap().count(), 1);
        dir.retain("no such table", |_| true).unwrap();
    }
}
