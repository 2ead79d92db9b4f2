//! Where the bytes of a stream are: in a file, or in an object store.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::remote::Object;
use crate::error::AudioError;

/// A file or an object.
#[derive(Clone)]
pub(super) enum Input {
    File(PathBuf),
    Object(Arc<Object>),
}

/// A state of a file or object, by which one knows that it has not changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stamp {
    pub length: u64,
    changed: Changed,
}

#[derive(Debug, Clone, PartialEq)]
enum Changed {
    At(Option<SystemTime>),
    Tag(String),
}

impl Input {
    /// An object, once the store has answered for it.
    pub fn object(url: &str) -> std::result::Result<Self, AudioError> {
        Ok(Self::Object(Arc::new(Object::open(url)?)))
    }

    /// A reader of its own, at the first byte.
    pub fn open(&self) -> Result<Reader> {
        Ok(match self {
            Self::File(path) => Reader::File(File::open(path)?),
            Self::Object(object) => Reader::Object { object: Arc::clone(object), at: 0 },
        })
    }

    /// The ending of the name, without its dot.
    pub fn extension(&self) -> Option<&str> {
        match self {
            Self::File(path) => path.extension()?.to_str(),
            Self::Object(object) => Path::new(&object.url).extension()?.to_str(),
        }
    }

    /// What the object store failed with, if it did.
    pub fn failure(&self) -> Option<&AudioError> {
        match self {
            Self::File(_) => None,
            Self::Object(object) => object.failure(),
        }
    }

    /// The path or address, to tell inputs apart.
    pub fn key(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Object(object) => PathBuf::from(&object.url),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Object(object) => f.write_str(&object.url),
        }
    }
}

/// The bytes of an [`Input`].
pub(super) enum Reader {
    File(File),
    Object { object: Arc<Object>, at: u64 },
}

impl Reader {
    /// The state of what is read; `None` for what is no regular file.
    pub fn stamp(&self) -> Result<Option<Stamp>> {
        Ok(match self {
            Self::File(file) => {
                let meta = file.metadata()?;
                let changed = Changed::At(meta.modified().ok());
                meta.is_file().then_some(Stamp { length: meta.len(), changed })
            }
            Self::Object { object, .. } => {
                let changed = Changed::Tag(object.info.stamp.clone());
                Some(Stamp { length: object.info.bytes, changed })
            }
        })
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Object { object, at } => {
                let count = object.read_at(*at, buffer)?;
                *at += count as u64;
                Ok(count)
            }
        }
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Object { object, at } => {
                let target = match to {
                    SeekFrom::Start(at) => Some(at),
                    SeekFrom::Current(by) => at.checked_add_signed(by),
                    SeekFrom::End(by) => object.info.bytes.checked_add_signed(by),
                };
                *at = target.ok_or(ErrorKind::InvalidInput)?;
                Ok(*at)
            }
        }
    }
}
