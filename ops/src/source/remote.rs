//! Audio in an object store, read in blocks.
//!
//! This crate knows no network. A program that has an object store hands it over once, with
//! [`set_remote`]; from then on `s3://` and `gs://` addresses are read like files. All readers of one
//! stream share its blocks. A reader that goes on where it stopped asks for more at a time; one that
//! jumps pays for one block.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::known::lock;
use crate::error::{AudioError, RejectKind};

/// The address schemes that are left to a [`Remote`].
pub const SCHEMES: [&str; 2] = ["s3", "gs"];
/// Bytes that are fetched at least, except at the end of an object.
const BLOCK: u64 = 256 << 10;
/// Most blocks fetched at a time, and most that are kept (4 MiB).
const MOST_AHEAD: u64 = 8;
const MOST_KEPT: usize = 16;

/// What a store says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteInfo {
    /// Its size.
    pub bytes: u64,
    /// A text that changes when the object does.
    pub stamp: String,
}

/// An object store, as audio needs it. Calls block; they come from any thread.
pub trait Remote: Send + Sync {
    /// Size and stamp of the object at `url`.
    ///
    /// # Errors
    ///
    /// [`RejectKind::Missing`], [`RejectKind::BadUri`], or [`RejectKind::Io`] for whatever the network does.
    fn info(&self, url: &str) -> Result<RemoteInfo, AudioError>;

    /// Fills `buffer` with the object's bytes from `offset` on. The range lies within the object as
    /// `info` describes it.
    ///
    /// # Errors
    ///
    /// As [`Self::info`]; [`RejectKind::Io`] too when the object is no longer the one of `info`.
    fn read_at(&self, url: &str, info: &RemoteInfo, offset: u64, buffer: &mut [u8])
    -> Result<(), AudioError>;
}

static REMOTE: RwLock<Option<Arc<dyn Remote>>> = RwLock::new(None);

/// Sets the store behind `s3://` and `gs://` addresses, for the whole process.
pub fn set_remote(remote: Arc<dyn Remote>) {
    *REMOTE.write().unwrap_or_else(PoisonError::into_inner) = Some(remote);
}

/// Blocks that were fetched, the least recently used first.
#[derive(Default)]
struct Blocks {
    kept: VecDeque<(u64, Vec<u8>)>,
    /// The block after the last one fetched, and how many were fetched with that.
    next: u64,
    ahead: u64,
}

/// An object that is open for reading.
pub(super) struct Object {
    pub url: String,
    pub info: RemoteInfo,
    remote: Arc<dyn Remote>,
    blocks: Mutex<Blocks>,
    failure: OnceLock<AudioError>,
}

impl Object {
    /// Asks the store about an object.
    pub fn open(url: &str) -> Result<Self, AudioError> {
        Self::of(url, REMOTE.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn of(url: &str, remote: Option<Arc<dyn Remote>>) -> Result<Self, AudioError> {
        let Some(remote) = remote else {
            let message = format!("'{url}': this program has no object store; use a path or file://");
            return Err(AudioError::new(RejectKind::BadUri, message));
        };
        Ok(Self {
            url: url.to_owned(),
            info: remote.info(url)?,
            remote,
            blocks: Mutex::default(),
            failure: OnceLock::new(),
        })
    }

    /// The first error of the store. Decoders take a failed read for the end of the audio, or try
    /// elsewhere; what they made of it is not to be used.
    pub fn failure(&self) -> Option<&AudioError> {
        self.failure.get()
    }

    /// Reads what one block has at `at`; 0 bytes at the end.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if at >= self.info.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let index = at / BLOCK;
        let mut blocks = lock(&self.blocks);
        match blocks.kept.iter().position(|(kept, _)| *kept == index) {
            Some(place) => {
                let block = blocks.kept.remove(place);
                blocks.kept.extend(block);
            }
            None => self.fetch(&mut blocks, index)?,
        }
        let block = blocks.kept.iter().rfind(|(kept, _)| *kept == index);
        let bytes = block.and_then(|(_, block)| block.get((at % BLOCK) as usize..)).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Fetches block `index`, and more if it is the one after the last.
    fn fetch(&self, blocks: &mut Blocks, index: u64) -> io::Result<()> {
        if let Some(failure) = self.failure() {
            return Err(io::Error::other(failure.clone()));
        }
        let run = if index == blocks.next { (2 * blocks.ahead).clamp(1, MOST_AHEAD) } else { 1 };
        let start = index * BLOCK;
        let end = (start + run * BLOCK).min(self.info.bytes);
        let mut bytes = vec![0; (end - start) as usize];
        if let Err(error) = self.remote.read_at(&self.url, &self.info, start, &mut bytes) {
            return Err(io::Error::other(self.failure.get_or_init(|| error).clone()));
        }
        (blocks.next, blocks.ahead) = (index + run, run);
        for (number, block) in (index..).zip(bytes.chunks(BLOCK as usize)) {
            blocks.kept.retain(|(kept, _)| *kept != number);
            blocks.kept.push_back((number, block.to_vec()));
        }
        while blocks.kept.len() > MOST_KEPT {
            blocks.kept.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::sync::LazyLock;

    use super::*;
    use crate::source::{Limits, Source, probe, probe_file};

    /// A store in memory that counts its requests and fails from a given one on.
    #[derive(Default)]
    struct Shelf {
        objects: Mutex<BTreeMap<String, Vec<u8>>>,
        asked: Mutex<BTreeMap<String, Vec<(u64, usize)>>>,
        fails_after: Mutex<BTreeMap<String, usize>>,
    }

    static SHELF: LazyLock<Arc<Shelf>> = LazyLock::new(|| {
        let shelf = Arc::new(Shelf::default());
        set_remote(Arc::clone(&shelf) as Arc<dyn Remote>);
        shelf
    });

    impl Remote for Shelf {
        fn info(&self, url: &str) -> Result<RemoteInfo, AudioError> {
            let objects = lock(&self.objects);
            let object = objects.get(url).ok_or_else(|| AudioError::new(RejectKind::Missing, url))?;
            let stamp = blake3::hash(object).to_string();
            Ok(RemoteInfo { bytes: object.len() as u64, stamp })
        }

        fn read_at(&self, url: &str, _: &RemoteInfo, at: u64, buffer: &mut [u8]) -> Result<(), AudioError> {
            let mut asked = lock(&self.asked);
            let asked = asked.entry(url.to_owned()).or_default();
            if lock(&self.fails_after).get(url).is_some_and(|n| asked.len() >= *n) {
                return Err(AudioError::new(RejectKind::Io, format!("{url}: the network is down")));
            }
            asked.push((at, buffer.len()));
            buffer.copy_from_slice(&lock(&self.objects)[url][at as usize..][..buffer.len()]);
            Ok(())
        }
    }

    fn put(url: &str, bytes: Vec<u8>) -> Source {
        lock(&SHELF.objects).insert(url.to_owned(), bytes);
        Source::parse(url).unwrap()
    }

    /// The requests since the last time.
    fn asked(url: &str) -> Vec<(u64, usize)> {
        lock(&SHELF.asked).remove(url).unwrap_or_default()
    }

    /// FLAC of one channel, 16 bits, stored as it is, without a table of places: `frames` blocks of 4096.
    fn flac(frames: u32) -> Vec<u8> {
        let crc = |bytes: &[u8], bits: u32, polynomial: u32| {
            bytes.iter().fold(0u32, |crc, byte| {
                (0..8).fold(crc ^ (u32::from(*byte) << (bits - 8)), |crc, _| {
                    let out = crc >> (bits - 1) & 1 == 1;
                    (crc << 1 ^ if out { polynomial } else { 0 }) & ((1 << bits) - 1)
                })
            })
        };
        let mut bytes = b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
        let (rate, samples) = (44_100u64, u64::from(frames) * 4096);
        bytes.extend((rate << 44 | 15 << 36 | samples).to_be_bytes());
        bytes.extend([0; 16]);
        for n in 0..frames {
            let mut frame = vec![0xff, 0xf8, 0xc0, 0x00];
            frame.extend(char::from_u32(n).unwrap().to_string().bytes());
            frame.push(crc(&frame, 8, 0x07) as u8);
            frame.push(2);
            let sample = |i: u32| ((n * 4096 + i) as f64 / 40.0).sin() * 9000.0;
            frame.extend((0..4096).flat_map(|i| (sample(i) as i16).to_be_bytes()));
            let check = crc(&frame, 16, 0x8005) as u16;
            bytes.extend(frame);
            bytes.extend(check.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn an_object_is_read_as_the_same_file_is() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut read = 0;
        for entry in fs::read_dir(fixtures).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let Ok(info) = probe_file(&path, &Limits::default()) else { continue };
            let remote = put(&format!("gs://fixtures/a b%20/{name}"), fs::read(&path).unwrap());
            assert_eq!(probe(&remote, &Limits::default()).unwrap(), info, "{name}");
            assert_eq!(remote.seconds().unwrap(), info.seconds);
            let local = Source::File(path);
            for share in [0.0, 0.3, 0.99] {
                let start = (info.seconds - 0.2) * share;
                for rate in [info.rate, 16_000] {
                    let audio = remote.read(start, 0.2, rate).unwrap();
                    assert_eq!(audio, local.read(start, 0.2, rate).unwrap(), "{name}");
                }
            }
            read += 1;
        }
        assert!(read >= 15, "{read} fixtures");
    }

    #[test]
    fn a_segment_of_a_long_file_costs_a_few_requests() {
        let url = "s3://long/one.flac";
        let bytes = flac(6500);
        let (length, dir) = (bytes.len(), tempfile::tempdir().unwrap());
        assert!(length > 50 << 20);
        let local = dir.path().join("one.flac");
        fs::write(&local, &bytes).unwrap();
        let (source, local) = (put(url, bytes), Source::File(local));
        for start in [0.0, 17.0, 300.0, 590.0] {
            let audio = source.read_mono(start, 5.0, 44_100).unwrap();
            assert_eq!(audio, local.read_mono(start, 5.0, 44_100).unwrap(), "at {start} s");
            let asked = asked(url);
            let total: usize = asked.iter().map(|request| request.1).sum();
            assert!(asked.len() <= 16 && total < 5 << 20, "at {start} s: {asked:?}");
        }
        // A walk through the whole of it asks for ever more at a time, and for no byte twice.
        let object = Object::open(url).unwrap();
        let mut at = 0;
        let mut buffer = [0; 10_000];
        while let Ok(count @ 1..) = object.read_at(at, &mut buffer) {
            at += count as u64;
        }
        let asked = asked(url);
        assert_eq!((at, asked.iter().map(|request| request.1).sum::<usize>()), (length as u64, length));
        assert!(asked.len() <= 3 + length / (2 << 20) + 1, "{}", asked.len());
        assert!(lock(&object.blocks).kept.len() <= MOST_KEPT);
    }

    #[test]
    fn what_the_network_breaks_is_told_and_not_remembered() {
        let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        for (name, bytes) in [
            ("a.flac", flac(200)),
            ("a.mp3", fs::read(fixture("vbr.mp3")).unwrap().repeat(30)),
            (
                "a.ogg",
                [fs::read(fixture("long.ogg")).unwrap(), fs::read(fixture("chain.ogg")).unwrap()].concat(),
            ),
        ] {
            let url = format!("s3://flaky/{name}");
            let source = put(&url, bytes);
            let whole = source.read(1.0, 0.5, 8000);
            let all = asked(&url).len();
            for most in 0..all {
                lock(&SHELF.fails_after).insert(url.clone(), most);
                let error = source.read(1.0, 0.5, 8000).unwrap_err();
                assert_eq!(error.kind, RejectKind::Io, "{name}, {most} of {all}: {error}");
                assert_eq!(error.message, format!("{url}: the network is down"));
                lock(&SHELF.fails_after).remove(&url);
                asked(&url);
                assert_eq!(source.read(1.0, 0.5, 8000), whole);
                asked(&url);
            }
        }
        let missing = Source::parse("s3://flaky/none.wav").unwrap().read(0.0, 1.0, 8000).unwrap_err();
        assert_eq!(missing.kind, RejectKind::Missing);
    }

    #[test]
    fn an_object_that_changes_is_read_anew() {
        let url = "s3://changing/a.mp3";
        for name in ["chirp.mp3", "vbr.mp3"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
            let source = put(url, fs::read(&path).unwrap());
            assert_eq!(source.read(1.0, 0.5, 16_000), Source::File(path).read(1.0, 0.5, 16_000), "{name}");
        }
    }

    #[test]
    fn a_program_without_a_store_says_so() {
        let error = Object::of("s3://bucket/a.wav", None).err().unwrap();
        assert_eq!(error.kind, RejectKind::BadUri);
        assert!(error.message.contains("'s3://bucket/a.wav'") && error.message.contains("no object store"));
        for bad in ["s3://", "gs://bucket", "s3://bucket/", "s3:///key", "az://bucket/key"] {
            assert_eq!(Source::parse(bad).unwrap_err().kind, RejectKind::BadUri, "{bad}");
        }
        let address = "gs://bucket/a b/100%25.wav";
        assert_eq!(Source::parse(address).unwrap().uri(), address);
        let clip = Source::parse("synth:v1?seed=17&index=3&seconds=12").unwrap();
        assert_eq!(probe(&clip, &Limits::default()).unwrap_err().kind, RejectKind::BadUri);
    }
}
