//! A directory and a command for each test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A small pipeline over procedural music that touches every kind of stage but `files`.
pub const SMALL: &str = "
name: small
seed: 5
stages:
  clips: { synth: { clips: 36, seconds: 8, shards: 4 } }
  split:
    sql: >
      select *, case when clip_id < 'synth-000020' then 'train' when clip_id < 'synth-000026' then 'valid'
      else 'test' end as split from clips
  views:
    views:
      from: split
      seconds: 2
      base: [ {gain: {db: [-15, 5]}}, polarity, {colored_noise: {snr_db: [3, 30]}}, {filter: {}} ]
      variant: [ {pitch_shift: {semitones: [-4, 4]}}, {time_stretch: {rate: [0.7, 1.3]}} ]
  model:
    train:
      from: views
      encoder: { vit: { dim: 16, depth: 2, heads: 2, patch_frames: 5 } }
      front_end: { window: 1024, hop: 320, fft: 1024, mels: 32 }
      batch: 32
      steps: 6
      warmup: 2
  embeddings: { embed: { from: split, model: model } }
  probes:
    probe: { from: embeddings, tasks: [ {key: key}, {tempo: bpm}, {tags: instruments} ], seeds: 1 }
";

/// A test's own directory.
pub struct Workplace(tempfile::TempDir);

impl Workplace {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The command `loev`, about to run here.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loev-under-test"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs `loev` here.
    pub fn loev(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `loev` here with a fault: see `loev_pipeline::resume::fault`.
    pub fn with_fault(&self, fault: &str, arguments: &[&str]) -> Output {
        self.command(arguments).env("LOEV_FAULT", fault).output().unwrap()
    }

    /// Every file of a run that must not depend on how it was made: tables but for those that hold times, and models.
    pub fn results(&self, run: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut queue = vec![self.path(run).join("tables"), self.path(run).join("checkpoints")];
        while let Some(folder) = queue.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().map(Result::unwrap) {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                match path.is_dir() {
                    true if folder.ends_with("tables") && ["receipts", "model"].contains(&name.as_str()) => {}
                    true => queue.push(path),
                    false => {
                        let key = path.strip_prefix(self.path(run)).unwrap().to_string_lossy().into_owned();
                        found.insert(key, std::fs::read(path).unwrap());
                    }
                }
            }
        }
        found
    }

    /// Runs `loev`, which must succeed; what it printed.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.loev(arguments);
        assert!(output.status.success(), "loev {arguments:?}\n{}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The answer of `loev sql RUN QUERY` as CSV lines, without the header.
    pub fn sql(&self, run: &str, query: &str) -> Vec<String> {
        let text = self.done(&["sql", run, query, "--format", "csv"]);
        text.lines().skip(1).map(str::to_owned).collect()
    }
}

/// What a command wrote to standard error.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All rows of a table of a run, file by file.
pub fn table(run: &Path, name: &str) -> RecordBatch {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(run.join("tables").join(name)).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let batches: Vec<RecordBatch> = files
        .iter()
        .flat_map(|file| {
            let file = std::fs::File::open(file).unwrap();
            ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap)
        })
        .collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// A tone, as 16-bit mono WAV bytes at 22.05 kHz.
pub fn tone(seconds: f64, hz: f64) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 22_050,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    for i in 0..(seconds * 22_050.0) as usize {
        let phase = std::f64::consts::TAU * hz * i as f64 / 22_050.0;
        writer.write_sample((phase.sin() * 12_000.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}
