//! The files of this crate: safetensors with one header entry of ours, read as if a stranger had made
//! them.
//!
//! A file is eight bytes that give the length of a JSON header, the header, and the values of the
//! tensors one after the other (<https://github.com/huggingface/safetensors>). The reader is our own,
//! because no sum over what a header claims may overflow, and because the header must be readable
//! without the values. It allocates in proportion to the bytes that are there: a tensor exists only
//! once its bytes do.

use crate::{ModelError, Result};
use safetensors::{Dtype, tensor::TensorView};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};

/// The layout that this version writes and reads.
pub(crate) const FORMAT: u64 = 1;
/// The longest header that safetensors allows, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes before the header.
const LENGTH: usize = size_of::<u64>();

pub(crate) fn fault(message: impl Into<String>) -> ModelError {
    ModelError::Checkpoint(message.into())
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + '_ {
    move |source| ModelError::Io { path: path.to_owned(), source }
}

/// What a file is. It holds one entry of ours, a header as JSON: one, because entries are written in
/// no fixed order, and equal contents should be equal files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    State,
}

impl Kind {
    fn entry(self) -> &'static str {
        match self {
            Self::Model => "loev",
            Self::State => "loev_state",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "a model",
            Self::State => "the state of a training",
        })
    }
}

/// The format that every header names, alone: another one may have other fields.
#[derive(Deserialize)]
struct Format {
    format: Option<u64>,
}

/// The type of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    F32,
    F64,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F64 => "F64",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Values of a tensor to write.
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// A tensor to write.
pub(crate) struct Named {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// Writes a file through a temporary one: there is either the whole new file, safe against a loss of
/// power, or what was there before. Gives the file's BLAKE3 digest in hexadecimal.
pub(crate) fn write<H: Serialize>(
    path: &Path,
    kind: Kind,
    header: &H,
    tensors: Vec<Named>,
) -> Result<String> {
    let header = serde_json::to_string(header).map_err(|e| fault(e.to_string()))?;
    let header = HashMap::from([(kind.entry().to_owned(), header)]);
    let stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|Named { name, shape, values }| {
            let (dtype, bytes) = match values {
                Values::F32(values) => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
                Values::F64(values) => (Dtype::F64, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            };
            (name, dtype, shape, bytes)
        })
        .collect();
    let views = stored
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| fault(e.to_string()))?;
    let data = safetensors::serialize(views, Some(header)).map_err(|e| fault(e.to_string()))?;
    replace(path, &data).map_err(io(path))?;
    Ok(blake3::hash(&data).to_hex().to_string())
}

fn replace(path: &Path, data: &[u8]) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let written = File::create(partial)
        .and_then(|mut file| {
            file.write_all(data)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(partial, path));
    if written.is_err() {
        fs::remove_file(partial).ok();
    }
    written?;
    // The new name is safe once the folder is; only Unix lets a folder be opened for that.
    #[cfg(unix)]
    {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// A whole file's bytes.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(io(path))
}

/// Puts the path before what is wrong with the file.
pub(crate) fn at(path: &Path) -> impl FnOnce(ModelError) -> ModelError + '_ {
    move |error| match error {
        ModelError::Checkpoint(message) => fault(format!("{}: {message}", path.display())),
        other => other,
    }
}

/// A tensor as the header describes it.
#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
    #[serde(skip)]
    expected: bool,
}

/// The header of a file.
#[derive(Debug, Default)]
pub(crate) struct Head {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Head;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Head, A::Error> {
                let mut head = Head::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        head.metadata = map.next_value()?;
                    } else {
                        head.tensors.insert(name, map.next_value()?);
                    }
                }
                Ok(head)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Head {
    fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|e| fault(format!("it cannot be read as safetensors: {e}")))
    }

    /// Reads the header of a file, and nothing else.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || -> std::io::Result<Result<Vec<u8>>> {
            let mut file = File::open(path)?;
            let mut prefix = Vec::new();
            Read::by_ref(&mut file).take(LENGTH as u64).read_to_end(&mut prefix)?;
            let length = match length(&prefix) {
                Ok(length) => length,
                Err(error) => return Ok(Err(error)),
            };
            let mut text = Vec::new();
            file.take(length as u64).read_to_end(&mut text)?;
            Ok(if text.len() == length { Ok(text) } else { Err(short()) })
        };
        Self::parse(&read().map_err(io(path))??)
    }

    /// Our own entry.
    pub fn header<H: DeserializeOwned>(&self, kind: Kind) -> Result<H> {
        let Some(text) = self.metadata.get(kind.entry()) else {
            let others = [Kind::Model, Kind::State].into_iter();
            let other = others.into_iter().find(|other| self.metadata.contains_key(other.entry()));
            return Err(fault(match other {
                Some(other) => format!("this is {other}, not {kind}"),
                None => format!("this is a safetensors file, but no file of ours: not {kind}"),
            }));
        };
        let Format { format } =
            serde_json::from_str(text).map_err(|e| fault(format!("its header cannot be read: {e}")))?;
        match format {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(fault(format!("format {other} is not the format {FORMAT} that is read here")));
            }
            None => return Err(fault("its header names no format")),
        }
        serde_json::from_str(text).map_err(|e| fault(format!("its configuration does not fit: {e}")))
    }
}

fn short() -> ModelError {
    fault("it cannot be read as safetensors: it ends before its header does")
}

/// The length of the header, from a file's first bytes.
fn length(file: &[u8]) -> Result<usize> {
    let prefix = file.first_chunk::<LENGTH>().ok_or_else(short)?;
    let length = u64::from_le_bytes(*prefix);
    if length > LONGEST_HEADER {
        return Err(fault(format!("it cannot be read as safetensors: a header of {length} bytes")));
    }
    usize::try_from(length).map_err(|_| short())
}

/// A whole file: its header and the bytes of its tensors.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    pub head: Head,
    data: &'a [u8],
}

impl<'a> Contents<'a> {
    /// Splits a file, and checks that its tensors are its data: one after the other, with nothing
    /// between, before or after.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        let length = length(file)?;
        let (text, data) = file[LENGTH..].split_at_checked(length).ok_or_else(short)?;
        let head = Head::parse(text)?;
        let mut places: Vec<(usize, usize)> = head.tensors.values().map(|entry| entry.data_offsets).collect();
        places.sort_unstable();
        let end = places.iter().try_fold(0, |end, &(from, to)| (from == end && to >= from).then_some(to));
        if end != Some(data.len()) {
            return Err(fault(format!("its {} bytes of data are not what its header lists", data.len())));
        }
        Ok(Self { head, data })
    }

    /// Checks that the file holds exactly these tensors. Stops at the first that it does not, so that
    /// the work is bounded by the file, whatever `expected` asks for; its names must differ.
    pub fn expect(&mut self, expected: impl Iterator<Item = (String, Type, Vec<usize>)>) -> Result<()> {
        for (name, kind, shape) in expected {
            let Some(entry) = self.head.tensors.get_mut(&name) else {
                return Err(fault(format!("parameter {name:?} is missing")));
            };
            if entry.dtype != kind.name() || entry.shape != shape {
                return Err(fault(format!(
                    "parameter {name:?} is {} {:?}, expected {} {shape:?}",
                    entry.dtype,
                    entry.shape,
                    kind.name()
                )));
            }
            let bytes = shape.iter().try_fold(kind.bytes(), |bytes, &n| bytes.checked_mul(n));
            if bytes != entry.data_offsets.1.checked_sub(entry.data_offsets.0) {
                return Err(fault(format!("parameter {name:?} does not have the bytes of its shape")));
            }
            entry.expected = true;
        }
        match self.head.tensors.iter().find(|(_, entry)| !entry.expected) {
            Some((name, _)) => Err(fault(format!("{name:?} is no parameter of the model"))),
            None => Ok(()),
        }
    }

    /// The values of a tensor that [`Self::expect`] has checked as `f32`, finite all of them.
    pub fn f32s(&self, name: &str) -> Result<Vec<f32>> {
        let values: Vec<f32> = self.words(name)?.map(f32::from_le_bytes).collect();
        finite(name, values.iter().all(|v| v.is_finite()))?;
        Ok(values)
    }

    /// The values of a tensor that [`Self::expect`] has checked as `f64`, finite all of them.
    pub fn f64s(&self, name: &str) -> Result<Vec<f64>> {
        let values: Vec<f64> = self.words(name)?.map(f64::from_le_bytes).collect();
        finite(name, values.iter().all(|v| v.is_finite()))?;
        Ok(values)
    }

    fn words<const N: usize>(&self, name: &str) -> Result<impl Iterator<Item = [u8; N]>> {
        let place = self.head.tensors.get(name).map(|entry| entry.data_offsets);
        let bytes = place.and_then(|(from, to)| self.data.get(from..to));
        let bytes = bytes.ok_or_else(|| fault(format!("parameter {name:?} is missing")))?;
        Ok(bytes.as_chunks::<N>().0.iter().copied())
    }
}

fn finite(name: &str, yes: bool) -> Result<()> {
    if yes { Ok(()) } else { Err(fault(format!("parameter {name:?} is not finite"))) }
}
