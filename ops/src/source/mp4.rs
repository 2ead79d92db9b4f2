//! The edit list of an MP4 file (ISO/IEC 14496-12): which part of a track is to be heard.
//!
//! Encoders put their delay before the audio (1024 frames for ffmpeg's AAC, 2112 for Apple's) and say
//! so in an edit list, or in a comment named `iTunSMPB` that holds the length too.

use std::io::{Read, Result, Seek, SeekFrom};
use std::ops::Range;

/// Boxes of one level that are looked at, and the largest one that is read into memory.
const MAX_BOXES: usize = 10_000;
const MAX_BYTES: u64 = 1 << 20;

/// What part of a track is heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Heard {
    /// Frames before the first one that is heard.
    pub delay: u64,
    /// Frames that are heard, where the file states them exactly.
    pub frames: Option<u64>,
}

/// A box: its name and where its content is.
type Box4 = ([u8; 4], Range<u64>);

/// What is heard of the track with the number `id`, whose clock ticks once per frame. `None` when
/// nothing is cut off, or what is said cannot be told as one range.
pub(super) fn heard(file: &mut (impl Read + Seek), length: u64, id: u32) -> Result<Option<Heard>> {
    let Some(movie) = find(file, 0..length, b"moov")? else { return Ok(None) };
    for (name, track) in boxes(file, movie.clone())? {
        if &name != b"trak" {
            continue;
        }
        let header = match find(file, track.clone(), b"tkhd")? {
            Some(range) => content(file, range)?,
            None => continue,
        };
        let at = if header.first() == Some(&1) { 20 } else { 12 };
        if number(&header, at, 4) != Some(u64::from(id)) {
            continue;
        }
        let list = match find(file, track, b"edts")? {
            Some(edits) => find(file, edits, b"elst")?,
            None => None,
        };
        if let Some(list) = list {
            let list = content(file, list)?;
            return Ok(delay(&list).map(|delay| Heard { delay, frames: None }));
        }
    }
    Ok(comment(file, movie)?.and_then(|text| parse_comment(&text)))
}

/// The start of the only part that an edit list plays. Empty edits before it delay the track against
/// others, which is nothing to a track alone.
fn delay(list: &[u8]) -> Option<u64> {
    let wide = list.first() == Some(&1);
    let (width, step) = if wide { (8, 20) } else { (4, 12) };
    let count = number(list, 4, 4)?;
    let mut only = None;
    for i in 0..usize::try_from(count).ok()?.min(MAX_BOXES) {
        let at = 8 + i * step;
        let start = number(list, at + width, width)?;
        if start == if wide { u64::MAX } else { u64::from(u32::MAX) } {
            continue;
        }
        let rate = number(list, at + 2 * width, 4)?;
        if only.is_some() || rate != 1 << 16 {
            return None;
        }
        only = Some(start);
    }
    only.filter(|start| *start > 0)
}

/// The text of the comment `iTunSMPB` of a movie.
fn comment(file: &mut (impl Read + Seek), movie: Range<u64>) -> Result<Option<String>> {
    let Some(user) = find(file, movie, b"udta")? else { return Ok(None) };
    let Some(meta) = find(file, user, b"meta")? else { return Ok(None) };
    // Unlike other boxes that hold boxes, this one begins with a version.
    let Some(items) = find(file, meta.start + 4..meta.end, b"ilst")? else { return Ok(None) };
    for (name, item) in boxes(file, items)? {
        if &name != b"----" {
            continue;
        }
        let called = match find(file, item.clone(), b"name")? {
            Some(range) => content(file, range)?,
            None => continue,
        };
        if called.get(4..) == Some(b"iTunSMPB")
            && let Some(data) = find(file, item, b"data")?
        {
            let data = content(file, data)?;
            return Ok(data.get(8..).map(|text| String::from_utf8_lossy(text).into_owned()));
        }
    }
    Ok(None)
}

/// Hexadecimal words: zero, delay, padding, length, and more.
fn parse_comment(text: &str) -> Option<Heard> {
    let mut words = text.split_whitespace().skip(1).map(|w| u64::from_str_radix(w, 16).ok());
    let delay = words.next()??;
    let frames = words.nth(1).flatten();
    (delay < 1 << 20).then_some(Heard { delay, frames: frames.filter(|n| *n > 0) })
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let digits = bytes.get(at..at.checked_add(width)?)?;
    Some(digits.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
}

fn content(file: &mut (impl Read + Seek), range: Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(range.start))?;
    Read::by_ref(file).take((range.end - range.start).min(MAX_BYTES)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn find(file: &mut (impl Read + Seek), within: Range<u64>, name: &[u8; 4]) -> Result<Option<Range<u64>>> {
    Ok(boxes(file, within)?.into_iter().find(|b| &b.0 == name).map(|b| b.1))
}

/// The boxes of one level.
fn boxes(file: &mut (impl Read + Seek), within: Range<u64>) -> Result<Vec<Box4>> {
    let mut found = Vec::new();
    let mut at = within.start;
    while at < within.end && found.len() < MAX_BOXES {
        let header = content(file, at..(at + 16).min(within.end))?;
        let (Some(size), Some(name)) = (number(&header, 0, 4), header.get(4..8)) else { break };
        let (size, begin) = match size {
            0 => (within.end - at, 8),
            1 => (number(&header, 8, 8).unwrap_or(0), 16),
            size => (size, 8),
        };
        if size < begin || size > within.end - at {
            break;
        }
        if let Ok(name) = name.try_into() {
            found.push((name, at + begin..at + size));
        }
        at += size;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes()[..], name, content].concat()
    }

    fn edits(entries: &[(u32, u32)]) -> Vec<u8> {
        let mut list = vec![0; 4];
        list.extend((entries.len() as u32).to_be_bytes());
        for (length, start) in entries {
            list.extend([length.to_be_bytes(), start.to_be_bytes(), (1u32 << 16).to_be_bytes()].concat());
        }
        boxed(b"edts", &boxed(b"elst", &list))
    }

    fn found(tracks: &[Vec<u8>], rest: &[u8]) -> Option<Heard> {
        let tracks: Vec<u8> = tracks
            .iter()
            .enumerate()
            .flat_map(|(i, edits)| {
                let mut header = vec![0; 12];
                header.extend((i as u32 + 1).to_be_bytes());
                boxed(b"trak", &[boxed(b"tkhd", &header), edits.clone()].concat())
            })
            .collect();
        let bytes = [boxed(b"ftyp", b"M4A "), boxed(b"moov", &[tracks, rest.to_vec()].concat())].concat();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.m4a");
        std::fs::write(&path, &bytes).unwrap();
        heard(&mut File::open(path).unwrap(), bytes.len() as u64, 2).unwrap()
    }

    #[test]
    fn an_edit_list_tells_the_delay_of_its_own_track() {
        let plain = Some(Heard { delay: 1024, frames: None });
        assert_eq!(found(&[edits(&[(9, 7)]), edits(&[(100, 1024)])], b""), plain);
        assert_eq!(found(&[vec![], edits(&[(50, u32::MAX), (100, 1024)])], b""), plain);
        for nothing in [edits(&[(100, 0)]), edits(&[(50, 1024), (50, 9000)]), vec![]] {
            assert_eq!(found(&[vec![], nothing], b""), None);
        }
    }

    #[test]
    fn a_comment_tells_delay_and_length() {
        let text = b" 00000000 00000840 000001CA 00000000003F31F6 00000000 00000000";
        let name = boxed(b"name", b"\0\0\0\0iTunSMPB");
        let item = boxed(b"----", &[name, boxed(b"data", &[&[0; 8][..], text].concat())].concat());
        let meta = boxed(b"meta", &[vec![0; 4], boxed(b"ilst", &item)].concat());
        let heard = found(&[vec![], vec![]], &boxed(b"udta", &meta));
        assert_eq!(heard, Some(Heard { delay: 2112, frames: Some(0x3F_31F6) }));
    }
}
