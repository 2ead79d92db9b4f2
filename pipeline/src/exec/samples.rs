//! The file of a shard's samples: clip after clip, without a header. Rows of tables name ranges of it.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::error::RunError;
use crate::resume::fault;
use crate::resume::journal::{Artifact, sync_folder};
use crate::run::dir::RunDir;

/// Writes one file of samples. Nothing appears under its name before [`Self::finish`].
#[derive(Debug)]
pub struct SamplesWriter {
    /// Relative to the run.
    relative: String,
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    /// Where the clip under way begins, and where it has come to.
    start: u64,
    end: u64,
    /// Of what is written, up to the same places.
    kept: blake3::Hasher,
    digest: blake3::Hasher,
}

impl SamplesWriter {
    /// Starts `file` among the samples of a stage.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(dir: &RunDir, stage: &str, file: &str) -> Result<Self, RunError> {
        let folder = RunDir::relative_audio(stage);
        let relative = format!("{folder}/{file}");
        let path = dir.root().join(&relative);
        let temporary = path.with_extension("pcm.tmp");
        let folder = dir.root().join(folder);
        fs::create_dir_all(&folder).map_err(RunError::io("cannot create", &folder))?;
        let file = fault::io("samples.create").and_then(|()| File::create(&temporary));
        let file = file.map_err(RunError::io("cannot create", &temporary))?;
        let digest = blake3::Hasher::new();
        Ok(Self { relative, path, temporary, file, start: 0, end: 0, kept: digest.clone(), digest })
    }

    /// The path of the file, relative to the run.
    pub fn relative(&self) -> &str {
        &self.relative
    }

    /// Where the clip under way begins, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Appends samples to the clip under way.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn append(&mut self, samples: &[u8]) -> Result<(), RunError> {
        let written = fault::io("samples.write").and_then(|()| self.file.write_all(samples));
        written.map_err(RunError::io("cannot write", &self.temporary))?;
        self.end += samples.len() as u64;
        self.digest.update(samples);
        Ok(())
    }

    /// The clip under way is whole; the next one begins behind it.
    pub fn keep(&mut self) {
        self.start = self.end;
        self.kept = self.digest.clone();
    }

    /// The clip under way is none; the next one takes its place.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn drop_clip(&mut self) -> Result<(), RunError> {
        self.end = self.start;
        self.digest = self.kept.clone();
        let back = self.file.set_len(self.end).and_then(|()| self.file.seek(SeekFrom::Start(self.end)));
        back.map(|_| ()).map_err(RunError::io("cannot write", &self.temporary))
    }

    /// Ends the file, makes it durable, and gives it its name.
    ///
    /// # Errors
    /// When the disk is full or the file cannot be renamed.
    pub fn finish(self) -> Result<Artifact, RunError> {
        let Self { relative, path, temporary, file, end, digest, .. } = self;
        let durable = fault::io("samples.sync").and_then(|()| file.sync_all());
        durable.map_err(RunError::io("cannot write", &temporary))?;
        let rename = || {
            fault::io("samples.rename")?;
            fs::rename(&temporary, &path)?;
            sync_folder(&path)
        };
        rename().map_err(RunError::io("cannot write", &path))?;
        Ok(Artifact { path: relative, bytes: end, digest: digest.finalize().to_hex().to_string() })
    }
}

/// BLAKE3 of a file's bytes, in hex.
///
/// # Errors
/// When it cannot be read.
pub fn digest_of(path: &std::path::Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_that_is_dropped_leaves_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::open(root.path());
        let mut writer = SamplesWriter::create(&dir, "pcm", "a.pcm").unwrap();
        for (samples, whole) in [("one", true), ("twotwo", false), ("three", true), ("four", false)] {
            writer.append(samples.as_bytes()).unwrap();
            match whole {
                true => writer.keep(),
                false => writer.drop_clip().unwrap(),
            }
        }
        let path = root.path().join(writer.relative());
        assert!(!path.exists(), "no file before it is finished");
        let Artifact { path: relative, bytes, digest } = writer.finish().unwrap();
        assert_eq!((relative.as_str(), bytes), ("audio/pcm/a.pcm", 8));
        assert_eq!(fs::read_to_string(&path).unwrap(), "onethree");
        assert_eq!(digest, blake3::hash(b"onethree").to_hex().to_string());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
