//! What has been found out about files, kept between reads of one process.
//!
//! Training crops the same files again and again. What it takes to find a place in them (the frames of
//! an MP3, the links of an Ogg file) is remembered here, by path, for as long as the file's length and
//! time of change stay the same. All threads share it; the oldest entries go when it is full. Nothing
//! in here changes what is read, only how soon.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use symphonia::core::codecs::audio::AudioCodecParameters;

use super::input::{Input, Stamp};
use super::mpeg::Index;

/// Most bytes remembered, roughly: the frames of some ten thousand MP3 files.
const BUDGET: usize = 64 << 20;

/// What is known of an MPEG audio file.
pub(super) struct Mpeg {
    pub params: AudioCodecParameters,
    pub container: &'static str,
    /// Frames before the first one to be heard.
    pub delay: i64,
    /// Frames to be heard, where the file says so.
    pub promised: Option<u64>,
    pub index: Mutex<Index>,
}

/// What is known of a file.
#[derive(Clone)]
pub(super) enum Known {
    Mpeg(Arc<Mpeg>),
    /// Links of an Ogg file: bytes and, in a chain, frames.
    Ogg(Arc<Vec<(Range<u64>, u64)>>),
}

impl Known {
    fn size(&self) -> usize {
        match self {
            Self::Mpeg(_) => size_of::<Mpeg>() + Index::SIZE,
            Self::Ogg(links) => links.len() * size_of::<(Range<u64>, u64)>(),
        }
    }
}

#[derive(Default)]
struct Store {
    entries: HashMap<PathBuf, (Stamp, Known, usize)>,
    order: VecDeque<PathBuf>,
    bytes: usize,
}

static STORE: LazyLock<Mutex<Store>> = LazyLock::new(Mutex::default);

/// Locks what a panic elsewhere may have left: every entry is whole at all times.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of the file, if it has not changed since.
pub(super) fn recall(input: &Input, stamp: &Stamp) -> Option<Known> {
    let store = lock(&STORE);
    let (old, known, _) = store.entries.get(&input.key())?;
    (old == stamp).then(|| known.clone())
}

/// Remembers something of a file, unless it was learnt from reads that failed.
pub(super) fn remember(input: &Input, stamp: &Stamp, known: Known) {
    if input.failure().is_some() {
        return;
    }
    let path = input.key();
    let size = known.size() + 2 * path.as_os_str().len() + 256;
    let mut store = lock(&STORE);
    match store.entries.insert(path.clone(), (stamp.clone(), known, size)) {
        Some((_, _, old)) => store.bytes -= old,
        None => store.order.push_back(path),
    }
    store.bytes += size;
    while store.bytes > BUDGET
        && let Some(oldest) = store.order.pop_front()
    {
        if let Some((_, _, freed)) = store.entries.remove(&oldest) {
            store.bytes -= freed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_not_recalled_and_the_store_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let input = |name: &str| Input::File(dir.path().join(name));
        let stamp = || input("a").open().unwrap().stamp().unwrap().unwrap();
        std::fs::write(&path, b"one").unwrap();
        let old = stamp();
        let links = |n: usize| Known::Ogg(Arc::new(vec![(0..3, 0); n]));
        remember(&input("a"), &old, links(1));
        assert!(matches!(recall(&input("a"), &old), Some(Known::Ogg(l)) if l.len() == 1));
        std::fs::write(&path, b"three").unwrap();
        assert!(recall(&input("a"), &stamp()).is_none());
        for i in 0..100 {
            remember(&input(&i.to_string()), &old, links(1 << 16));
        }
        assert!(lock(&STORE).bytes <= BUDGET);
        assert!(recall(&input("0"), &old).is_none());
        assert!(recall(&input("99"), &old).is_some());
    }
}
