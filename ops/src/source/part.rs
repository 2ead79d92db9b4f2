//! A range of a file's bytes as a source of its own.

use std::io::{Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use symphonia::core::io::MediaSource;

use super::input::Reader;
use super::watch::Watch;

/// Bytes `start..end` of a file, of which a reader sees nothing else.
pub(super) struct Part {
    file: Reader,
    start: u64,
    length: u64,
    at: u64,
    watch: Arc<Watch>,
}

impl Part {
    /// The part of `file` in `bytes`, from its first byte on, for as long as `watch` allows.
    pub fn new(mut file: Reader, bytes: Range<u64>, watch: &Arc<Watch>) -> Result<Self> {
        file.seek(SeekFrom::Start(bytes.start))?;
        let length = bytes.end.saturating_sub(bytes.start);
        Ok(Self { file, start: bytes.start, length, at: 0, watch: Arc::clone(watch) })
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = self.length.saturating_sub(self.at);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let got = match &self.file {
            Reader::File(_) => self.file.read(buffer)?,
            Reader::Object { .. } => self.watch.waiting(|| self.file.read(buffer))?,
        };
        self.at += got as u64;
        self.watch.take(got)?;
        Ok(got)
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        let target = target.ok_or(std::io::ErrorKind::InvalidInput)?;
        self.file.seek(SeekFrom::Start(self.start.saturating_add(target)))?;
        self.at = target;
        Ok(target)
    }
}

impl MediaSource for Part {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::Limits;
    use super::*;

    #[test]
    fn a_part_begins_and_ends_where_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        std::fs::write(&path, (0..100).collect::<Vec<u8>>()).unwrap();
        let watch = Arc::new(Watch::new(&Limits::default()));
        let mut part = Part::new(Reader::File(File::open(&path).unwrap()), 10..30, &watch).unwrap();
        let mut all = Vec::new();
        part.read_to_end(&mut all).unwrap();
        assert_eq!(all, (10..30).collect::<Vec<u8>>());
        assert_eq!(part.seek(SeekFrom::End(-2)).unwrap(), 18);
        assert_eq!(part.seek(SeekFrom::Current(-3)).unwrap(), 15);
        let mut two = [0; 2];
        part.read_exact(&mut two).unwrap();
        assert_eq!((two, part.byte_len()), ([25, 26], Some(20)));
        assert!(part.seek(SeekFrom::End(-21)).is_err());
    }
}
