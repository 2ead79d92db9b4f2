//! A run's directory, and the file in it that says what the run is.
//!
//! ```text
//! runs/quickstart/
//!   run.json                     what was run, what came of it (written at every step)
//!   tables/<table>/*.parquet     one folder per table; open to SQL under the table's name
//!   checkpoints/<stage>.safetensors
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::RunError;

const MANIFEST: &str = "run.json";
const TABLES: &str = "tables";
const CHECKPOINTS: &str = "checkpoints";

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

/// `run.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of loev that made the run.
    pub loev: String,
    /// The pipeline's name.
    pub name: String,
    /// Where the run stands.
    pub status: Status,
    /// The pipeline with every default filled in.
    pub pipeline: serde_json::Value,
    /// Tables by name: their folders, relative to the run.
    pub tables: IndexMap<String, String>,
    /// What each finished stage did.
    pub stages: IndexMap<String, StageRecord>,
    /// The largest resident memory of the process so far, in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

/// What a finished stage did.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
}

/// A run's directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// Makes `root` ready for a new run. A directory that holds an earlier run loses that run's
    /// tables and checkpoints; a directory that holds anything else is left alone.
    ///
    /// # Errors
    /// When `root` is not empty and not a run, or cannot be written.
    pub fn create(root: &Path) -> Result<Self, RunError> {
        fs::create_dir_all(root).map_err(RunError::io("cannot create", root))?;
        let mut entries = fs::read_dir(root).map_err(RunError::io("cannot read", root))?;
        if !root.join(MANIFEST).exists() && entries.next().is_some() {
            return Err(RunError::RunDir {
                path: root.to_owned(),
                message: "this directory is not empty and holds no run; choose another with --out".to_owned(),
            });
        }
        let dir = Self { root: root.to_owned() };
        for part in [TABLES, CHECKPOINTS] {
            let path = root.join(part);
            if path.exists() {
                fs::remove_dir_all(&path).map_err(RunError::io("cannot remove", &path))?;
            }
            fs::create_dir(&path).map_err(RunError::io("cannot create", &path))?;
        }
        Ok(dir)
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
        self.root.join(CHECKPOINTS).join(format!("{stage}.safetensors"))
    }

    /// Writes `run.json`; readers see the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), RunError> {
        let path = self.root.join(MANIFEST);
        let temporary = self.root.join("run.json.tmp");
        let text = serde_json::to_string_pretty(manifest).map_err(|e| self.damaged(e.to_string()))?;
        fs::write(&temporary, text + "\n").map_err(RunError::io("cannot write", &temporary))?;
        fs::rename(&temporary, &path).map_err(RunError::io("cannot write", &path))
    }

    /// Reads `run.json` of the run in `root`.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn read_manifest(root: &Path) -> Result<Manifest, RunError> {
        let dir = Self { root: root.to_owned() };
        let path = root.join(MANIFEST);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| dir.damaged(e.to_string())),
            Err(_) if !path.exists() => Err(RunError::RunDir {
                path: root.to_owned(),
                message: "no run here (there is no run.json)".to_owned(),
            }),
            Err(error) => Err(RunError::io("cannot read", path)(error)),
        }
    }

    /// Opens the run in `root`.
    pub fn open(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn damaged(&self, message: String) -> RunError {
        RunError::RunDir { path: self.root.join(MANIFEST), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        assert!(matches!(RunDir::create(dir.path()), Err(RunError::RunDir { .. })));
        assert!(dir.path().join("thesis.tex").exists());
    }

    #[test]
    fn a_new_run_replaces_an_old_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::create(root.path()).unwrap();
        let manifest = Manifest {
            loev: "0".to_owned(),
            name: "test".to_owned(),
            status: Status::Complete,
            pipeline: serde_json::Value::Null,
            tables: IndexMap::new(),
            stages: IndexMap::new(),
            peak_memory_bytes: None,
        };
        dir.write_manifest(&manifest).unwrap();
        dir.create_table("clips").unwrap();
        RunDir::create(root.path()).unwrap();
        assert!(!dir.table("clips").exists());
        assert_eq!(RunDir::read_manifest(root.path()).unwrap().status, Status::Complete);
    }
}
