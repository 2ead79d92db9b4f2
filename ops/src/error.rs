//! The one error type of this crate: why a clip, or one view of it, could not be used.
//!
//! Whatever an audio file can do wrong ends in an [`AudioError`]; a pipeline turns it into a row of
//! its `rejects` table, where [`RejectKind`] is the column that one groups by.

use std::fmt;

/// Why audio was refused. The set grows as more faults are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RejectKind {
    /// There is no such file.
    Missing,
    /// The file exists and could not be read.
    Io,
    /// The file has no bytes, or the stream no frames.
    Empty,
    /// No supported container or codec.
    Unsupported,
    /// The container or codec is known, its data are damaged.
    Corrupt,
    /// The stream ends before the length that its header promises.
    Truncated,
    /// Shorter than what is asked of it.
    TooShort,
    /// Nothing to hear.
    Silent,
    /// Samples that are NaN, infinite, or beyond 1e10: they would be infinite soon.
    NotFinite,
    /// Larger than a limit allows: channels, rate, duration, bytes.
    OverLimit,
    /// Another file than the one that was probed.
    Changed,
    /// Not a source address that we know.
    BadUri,
    /// A decoder or operator panicked; the panic was contained.
    Panicked,
}

impl RejectKind {
    /// The name used in tables: `snake_case`, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Io => "io",
            Self::Empty => "empty",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt",
            Self::Truncated => "truncated",
            Self::TooShort => "too_short",
            Self::Silent => "silent",
            Self::NotFinite => "not_finite",
            Self::OverLimit => "over_limit",
            Self::Changed => "changed",
            Self::BadUri => "bad_uri",
            Self::Panicked => "panicked",
        }
    }
}

impl fmt::Display for RejectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Audio that could not be used: a kind to count by and a message to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AudioError {
    /// What went wrong, for grouping.
    pub kind: RejectKind,
    /// What went wrong, for a person.
    pub message: String,
}

impl AudioError {
    /// An error of `kind` with a message.
    pub fn new(kind: RejectKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
