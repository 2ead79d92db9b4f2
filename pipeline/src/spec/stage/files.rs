//! Options of a `files` stage.

use garde::Validate;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Audio files: a folder, a glob, or a manifest that lists them with their labels.
///
/// Every file is probed for rate, channels, length, codec and a digest of its content. A file that cannot
/// be used becomes a row of `rejects`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Files {
    /// A folder (searched with its subfolders), a glob such as `music/**/*.flac`, or one manifest
    /// (`.csv`, `.parquet`, `.jsonl`). A relative path starts at the working directory. All of these may also be at
    /// `s3://`, `gs://` or `file://` addresses, such as `s3://bucket/music/**/*.flac`.
    #[garde(length(chars, min = 1))]
    pub path: String,
    /// The manifest's column that holds the path of the audio file, relative to the manifest's folder; absolute
    /// paths and addresses stand for themselves.
    #[serde(default = "default_audio")]
    pub audio: String,
    /// Label columns: the name to give, and the manifest's column. Absent: all the manifest's other
    /// columns, under their own names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub labels: Option<IndexMap<String, String>>,
    /// A folder of JAMS annotations: the clip `a/b.ogg` has its labels in `a/b.jams` below it, a clip without such a
    /// file has none. Gives the columns key, bpm, beats, onsets, chords, sections and tags, as far as any clip has
    /// them. May be at an `s3://`, `gs://` or `file://` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jams: Option<String>,
    /// File name endings taken from a folder, without the dot, in any case. A glob or a manifest takes
    /// what it names.
    #[serde(default = "default_extensions")]
    #[garde(length(min = 1))]
    pub extensions: Vec<String>,
    /// Follow symbolic links below the folder. Object stores have none.
    #[serde(default)]
    pub follow_links: bool,
    /// Number of shards, the unit of work and of resume. Part of the run's identity. Absent: 8, doubled while
    /// a shard would hold more than 256 clips, up to 1024; `shard % 8` is a clip's own at any of these numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 65536))]
    pub shards: Option<u32>,
    /// Clips shorter than this are rejected.
    #[serde(default = "default_min_seconds")]
    #[garde(range(min = 0.0, max = 86400.0))]
    #[schemars(extend("x-unit" = "s"))]
    pub min_seconds: f64,
    /// Clips beyond these limits are rejected unread.
    #[serde(default)]
    #[garde(dive)]
    pub limits: ClipLimits,
}

/// Limits on one clip, against damaged or hostile files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct ClipLimits {
    /// Most channels.
    #[garde(range(min = 1, max = 256))]
    pub max_channels: u16,
    /// Highest sample rate.
    #[garde(range(min = 1000, max = 1_536_000))]
    #[schemars(extend("x-unit" = "Hz"))]
    pub max_rate: u32,
    /// Longest clip.
    #[garde(range(min = 0.1, max = 604_800.0))]
    #[schemars(extend("x-unit" = "s"))]
    pub max_seconds: f64,
    /// Largest file.
    #[garde(range(min = 1))]
    #[schemars(extend("x-unit" = "bytes"))]
    pub max_bytes: u64,
}

impl Default for ClipLimits {
    fn default() -> Self {
        Self { max_channels: 16, max_rate: 384_000, max_seconds: 6.0 * 3600.0, max_bytes: 8 << 30 }
    }
}

fn default_audio() -> String {
    "path".to_string()
}

fn default_extensions() -> Vec<String> {
    ["wav", "aif", "aiff", "flac", "mp3", "ogg", "oga", "opus", "m4a", "mp4", "aac"]
        .map(str::to_string)
        .to_vec()
}

fn default_min_seconds() -> f64 {
    0.1
}

impl Files {
    /// Whether `path` names a manifest, by its ending.
    pub fn is_manifest(&self) -> bool {
        let lower = self.path.to_lowercase();
        [".csv", ".parquet", ".jsonl"].iter().any(|ending| lower.ends_with(ending))
    }

    /// Whether `path` is a glob.
    pub fn is_glob(&self) -> bool {
        !self.is_manifest() && self.path.contains(['*', '?', '['])
    }
}
