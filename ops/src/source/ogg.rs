//! The links of a chained Ogg file (RFC 3533): whole streams, one after the other.

use std::collections::BTreeSet;
use std::io::{Read, Result, Seek, SeekFrom};
use std::ops::Range;

/// Most bytes of a page: a header of 27, 255 lacing values, 255 segments of 255 bytes.
const PAGE: u64 = 27 + 255 + 255 * 255;
/// Flag of the first page of a stream.
const FIRST: u8 = 2;
/// More links than this are not followed.
const MAX_LINKS: usize = 4096;

/// A page, as far as its header.
struct Page {
    start: u64,
    end: u64,
    serial: u32,
    first: bool,
}

/// The byte ranges of the links of a file: one for most files. A file that does not begin with a page
/// has none.
///
/// Links are told apart by the serial numbers of their streams, which a chain must not repeat. An
/// ordinary file costs two reads, of its first and last pages.
pub(super) fn links(file: &mut (impl Read + Seek), length: u64) -> Result<Vec<Range<u64>>> {
    let mut links = Vec::new();
    let mut start = 0;
    while start < length && links.len() < MAX_LINKS {
        let mut serials = BTreeSet::new();
        let mut at = start;
        while let Some(page) = page_from(file, at, length)?
            && page.first
        {
            serials.insert(page.serial);
            at = page.end;
        }
        if serials.is_empty() {
            break;
        }
        let end = end_of(file, &serials, at, length)?;
        links.push(start..end);
        start = end;
    }
    Ok(links)
}

/// Where the streams `serials` end, which are known to last until `from`.
fn end_of(file: &mut (impl Read + Seek), serials: &BTreeSet<u32>, from: u64, length: u64) -> Result<u64> {
    let mut at = from.max(length.saturating_sub(2 * PAGE));
    let mut last = None;
    while let Some(page) = page_from(file, at, length)? {
        at = page.end;
        last = Some(page.serial);
    }
    if last.is_none_or(|serial| serials.contains(&serial)) {
        return Ok(length);
    }
    let (mut low, mut high) = (from, length);
    while high - low > 2 * PAGE {
        let middle = low.midpoint(high);
        match page_from(file, middle, length)? {
            Some(page) if serials.contains(&page.serial) => low = page.end,
            _ => high = middle,
        }
    }
    while let Some(page) = page_from(file, low, length)? {
        if !serials.contains(&page.serial) {
            return Ok(page.start);
        }
        low = page.end;
    }
    Ok(length)
}

/// The first page that begins at `from` or later, and is followed by another one or the end.
fn page_from(file: &mut (impl Read + Seek), from: u64, length: u64) -> Result<Option<Page>> {
    let mut buffer = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    // Usually the page is right here, so that its header is enough.
    for reach in [27 + 255, 2 * PAGE + 4] {
        Read::by_ref(file).take(reach - buffer.len() as u64).read_to_end(&mut buffer)?;
        for at in 0..buffer.len().saturating_sub(26) {
            let Some(page) = page_at(&buffer, at, from) else { continue };
            if at == 0 || page.end >= length || buffer.get((page.end - from) as usize..).is_some_and(is_page)
            {
                return Ok((page.end <= length).then_some(page));
            }
        }
    }
    Ok(None)
}

fn is_page(bytes: &[u8]) -> bool {
    bytes.starts_with(b"OggS\0")
}

/// The page whose header is at `at` of `buffer`, which begins at byte `base` of the file.
fn page_at(buffer: &[u8], at: usize, base: u64) -> Option<Page> {
    let header = buffer.get(at..).filter(|b| is_page(b))?;
    let segments = usize::from(*header.get(26)?);
    let body: u64 = header.get(27..27 + segments)?.iter().map(|&n| u64::from(n)).sum();
    let serial = header.get(14..18)?.try_into().ok()?;
    let start = base + at as u64;
    Some(Page {
        start,
        end: start + 27 + segments as u64 + body,
        serial: u32::from_le_bytes(serial),
        first: header.get(5)? & FIRST != 0,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_chain_is_cut_where_its_links_were_joined() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let read = |name| std::fs::read(fixtures.join(name)).unwrap();
        let chain = read("chain.ogg");
        let (one, two) = (read("long.ogg"), read("chain.opus"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.ogg");
        let found = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            links(&mut File::open(&path).unwrap(), bytes.len() as u64).unwrap()
        };
        // Three parts of these sizes were joined.
        assert_eq!(found(&chain), vec![0..4886, 4886..9691, 9691..14_560]);
        let (a, b) = (one.len() as u64, 5896);
        let two = two[..b as usize].to_vec();
        assert_eq!(found(&one), vec![0..a]);
        assert_eq!(found(&[one.clone(), two.clone()].concat()), vec![0..a, a..a + b]);
        assert_eq!(found(&[two.clone(), one.clone()].concat()), vec![0..b, b..a + b]);
        assert_eq!(found(b"not an Ogg file, whatever its name"), vec![]);
        // Cut off in its second link.
        let cut = a + b / 2;
        assert_eq!(found(&[one, two].concat()[..cut as usize]), vec![0..a, a..cut]);
    }
}
