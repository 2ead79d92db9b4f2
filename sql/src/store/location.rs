//! Addresses of files and folders.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::error::{SqlError, StoreFault};

/// A kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `s3://`: Amazon S3 and what speaks its protocol.
    S3,
    /// `gs://`: Google Cloud Storage.
    Gs,
}

impl Scheme {
    /// The scheme of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Gs),
            _ => None,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
        })
    }
}

/// Where a file or folder is. Its text, from `Display`, is parsed to the same location again.
///
/// The key of an object is taken as it stands, as the clouds' own tools do: `%20` in it is three
/// characters, and a space is a space. In `file://` addresses escapes are decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A path on this machine.
    Local(PathBuf),
    /// An object, or all objects below a key.
    Object {
        /// The kind of store.
        scheme: Scheme,
        /// The bucket.
        bucket: String,
        /// The key, without slashes at its ends. Empty for the whole bucket.
        key: String,
    },
}

impl Location {
    /// Reads a path, `file:///path`, `s3://bucket/key` or `gs://bucket/key`.
    ///
    /// # Errors
    /// [`SqlError::Store`] for an empty text, another scheme, no bucket, or a key that cannot be kept
    /// apart from others: with `//`, `.` or `..` between its slashes.
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        let wrong = |reason: &str| Err(SqlError::store(text, StoreFault::Address, reason));
        if text.trim().is_empty() {
            return wrong("an empty address");
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Local(text.into())) };
        if scheme == "file" {
            if !rest.starts_with('/') {
                return wrong("after file:// an absolute path is needed");
            }
            return match decoded(rest) {
                Some(path) => Ok(Self::Local(path.into())),
                None => wrong("not UTF-8 after decoding its % escapes"),
            };
        }
        let Some(scheme) = Scheme::named(scheme) else {
            return wrong(&format!("unknown scheme '{scheme}'; known are a path, file://, s3:// and gs://"));
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c)) {
            return wrong(&format!("after {scheme}:// the name of a bucket is needed"));
        }
        let key = key.strip_suffix('/').unwrap_or(key);
        if object_store::path::Path::parse(key).is_err() || key.starts_with('/') {
            return wrong("a key with '//', '.', '..' or control characters cannot be read");
        }
        Ok(Self::Object { scheme, bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// What `text` means in this folder: a path below it, in which `..` goes up; an absolute path or an
    /// address stands for itself.
    ///
    /// # Errors
    /// As [`Self::parse`], and when `..` leads out of the bucket.
    pub fn join(&self, text: &str) -> Result<Self, SqlError> {
        if text.contains("://") || text.starts_with('/') {
            return Self::parse(text);
        }
        match self {
            Self::Local(folder) => Ok(Self::Local(folder.join(text))),
            Self::Object { scheme, bucket, key } => {
                let mut parts: Vec<&str> = key.split('/').filter(|part| !part.is_empty()).collect();
                for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
                    if part != ".." {
                        parts.push(part);
                    } else if parts.pop().is_none() {
                        let reason = format!("'{text}' leads out of the bucket");
                        return Err(SqlError::store(self, StoreFault::Address, reason));
                    }
                }
                Self::parse(&format!("{scheme}://{bucket}/{}", parts.join("/")))
            }
        }
    }

    /// The folder that this is in; `None` at the top.
    pub fn parent(&self) -> Option<Self> {
        match self {
            Self::Local(path) => path.parent().filter(|p| *p != Path::new("")).map(Self::from),
            Self::Object { key, .. } if key.is_empty() => None,
            Self::Object { key, .. } => Some(self.with_key(key.rsplit_once('/').map_or("", |(up, _)| up))),
        }
    }

    /// The last part of the path or key.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Local(path) => path.file_name()?.to_str(),
            Self::Object { key, .. } => key.rsplit('/').next().filter(|name| !name.is_empty()),
        }
    }

    /// The ending of the name, without its dot.
    pub fn extension(&self) -> Option<&str> {
        Path::new(self.name()?).extension()?.to_str()
    }

    /// The path, if it is one on this machine.
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Object { .. } => None,
        }
    }

    /// The path below `folder`, with `/`; `None` if it is not in there.
    pub fn below(&self, folder: &Self) -> Option<String> {
        match (self, folder) {
            (Self::Local(path), Self::Local(folder)) => {
                let rest = path.strip_prefix(folder).ok()?;
                let parts: Option<Vec<&str>> = rest.components().map(|c| c.as_os_str().to_str()).collect();
                Some(parts?.join("/"))
            }
            (Self::Object { key, .. }, Self::Object { key: up, .. }) if self.with_key(up) == *folder => {
                let rest =
                    if up.is_empty() { Some(key.as_str()) } else { key.strip_prefix(up)?.strip_prefix('/') };
                rest.map(str::to_owned)
            }
            _ => None,
        }
    }

    pub(super) fn with_key(&self, key: &str) -> Self {
        match self {
            Self::Local(_) => self.clone(),
            Self::Object { scheme, bucket, .. } => {
                Self::Object { scheme: *scheme, bucket: bucket.clone(), key: key.to_owned() }
            }
        }
    }

    /// As a URL. Every byte that is not plain is escaped, so that `*`, `[`, `%` and spaces in a name mean
    /// themselves.
    ///
    /// # Errors
    /// When the working directory, where a relative path starts, is not known.
    pub fn url(&self) -> std::io::Result<String> {
        let mut url;
        match self {
            Self::Local(path) => {
                url = String::from("file://");
                for part in std::path::absolute(path)?.components() {
                    if !matches!(part, Component::RootDir) {
                        url.push('/');
                        escape(part.as_os_str().as_encoded_bytes(), &mut url);
                    }
                }
            }
            Self::Object { scheme, bucket, key } => {
                url = format!("{scheme}://{bucket}");
                for part in key.split('/').filter(|part| !part.is_empty()) {
                    url.push('/');
                    escape(part.as_bytes(), &mut url);
                }
            }
        }
        Ok(url)
    }

    /// What places are sorted by: names, folder by folder.
    pub(super) fn order(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Local(path) => {
                path.components().map(|part| part.as_os_str().as_encoded_bytes().to_vec()).collect()
            }
            Self::Object { key, .. } => key.split('/').map(|part| part.as_bytes().to_vec()).collect(),
        }
    }
}

fn escape(bytes: &[u8], url: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// `%41` to `A`; a `%` that no two hexadecimal digits follow stays. `None` when not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let escaped = (*byte == b'%').then(|| after.get(..2)).flatten();
        let digits = escaped.and_then(|two| std::str::from_utf8(two).ok());
        match digits.filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit())) {
            Some(two) => {
                out.push(u8::from_str_radix(two, 16).ok()?);
                rest = after.get(2..)?;
            }
            None => out.push(*byte),
        }
    }
    String::from_utf8(out).ok()
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Object { scheme, bucket, key } => write!(f, "{scheme}://{bucket}/{key}"),
        }
    }
}

impl Default for Location {
    /// The working directory.
    fn default() -> Self {
        Self::Local(PathBuf::new())
    }
}

impl FromStr for Location {
    type Err = SqlError;

    fn from_str(text: &str) -> Result<Self, SqlError> {
        Self::parse(text)
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::Local(path.to_path_buf())
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Local(path)
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        Self::Local(path.clone())
    }
}

impl From<&Location> for Location {
    fn from(location: &Location) -> Self {
        location.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Location {
        Location::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn addresses_are_parsed_and_printed() {
        for text in ["runs/a", "/data/100% [x]", "s3://bucket/a b/%20#1?.wav", "gs://b_1.x/静か"] {
            assert_eq!(at(text).to_string(), text);
        }
        assert_eq!(at("file:///a/100%25%20b%.wav"), at("/a/100% b%.wav"));
        assert_eq!(at("s3://bucket"), at("s3://bucket/"));
        assert_eq!(at("s3://bucket/a/"), at("s3://bucket/a"));
        let reason = |text: &str| Location::parse(text).unwrap_err().to_string();
        assert!(
            reason("az://b/k").contains("unknown scheme 'az'; known are a path, file://, s3:// and gs://")
        );
        for bad in [
            "",
            " ",
            "file://a",
            "file:///%ff",
            "s3://",
            "s3:///k",
            "gs://a b/k",
            "s3://b/a//b",
            "s3://b/../k",
        ] {
            assert!(
                matches!(Location::parse(bad), Err(SqlError::Store { fault: StoreFault::Address, .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn paths_are_joined_in_folders_and_buckets() {
        let folder = at("s3://bucket/data/tables");
        assert_eq!(folder.join("a/./b.wav").unwrap(), at("s3://bucket/data/tables/a/b.wav"));
        assert_eq!(folder.join("../audio/b.wav").unwrap(), at("s3://bucket/data/audio/b.wav"));
        assert_eq!(folder.join("gs://other/c").unwrap(), at("gs://other/c"));
        assert_eq!(folder.join("/c").unwrap(), at("/c"));
        assert!(folder.join("../../../c").unwrap_err().to_string().contains("out of the bucket"));
        assert_eq!(at("s3://bucket").join("a").unwrap(), at("s3://bucket/a"));
        assert_eq!(at("data").join("a/b").unwrap(), at("data/a/b"));
        let file = at("gs://bucket/x/a b.tar.gz");
        assert_eq!((file.name(), file.extension()), (Some("a b.tar.gz"), Some("gz")));
        assert_eq!(file.parent().and_then(|up| up.parent()), Some(at("gs://bucket")));
        assert_eq!(at("gs://bucket").parent(), None);
        assert_eq!(file.below(&at("gs://bucket")).as_deref(), Some("x/a b.tar.gz"));
        assert_eq!(file.below(&at("gs://bucket/x")).as_deref(), Some("a b.tar.gz"));
        for other in ["gs://bucket/a", "s3://bucket/x", "gs://bucket2/x", "x"] {
            assert_eq!(file.below(&at(other)), None);
        }
        assert_eq!(at("d/x/y").below(&at("d")).as_deref(), Some("x/y"));
    }

    #[test]
    fn urls_are_escaped() {
        assert_eq!(at("s3://b/a b/50%[*].x").url().unwrap(), "s3://b/a%20b/50%25%5B%2A%5D.x");
        assert_eq!(at("/d/50% x").url().unwrap(), "file:///d/50%25%20x");
    }
}
