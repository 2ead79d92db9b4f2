//! Where the frames of an MPEG audio file (MP3, MP2) are, so that a crop need not look for them twice.
//!
//! Such a file has no table of its frames: each says how long it is, and the next one follows. The
//! index walks these headers once, as far as they have been asked for, and keeps the place of every
//! n-th frame. The walk ends where the frames do not follow each other any more; from there on a
//! reader has to look for itself, from the last place known.

use std::io::{Read, Result, Seek, SeekFrom};

/// Bytes read at a time: some hundred frames.
const CHUNK: usize = 256 << 10;
/// Most places kept. When there are more, every second one is dropped.
const MAX_PLACES: usize = 512;
/// Every how many frames a place is kept at first.
const SPACING: u64 = 32;

/// What a frame header (ISO/IEC 11172-3, 2.4.1.3) tells.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Header {
    /// The frame in bytes, with its header.
    bytes: usize,
    /// Frames of audio, per channel.
    samples: u32,
    /// Version, layer and sampling rate: these never change within a stream.
    kind: u16,
    /// Where an Info or Xing tag would be.
    tag_at: usize,
}

/// Bit rates in kbit/s by index, for MPEG-1 layers I, II, III and MPEG-2 layers I, II and III.
const RATES: [[u16; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[0xff, b1, b2, b3] = bytes.get(..4)? else { return None };
        let (version, layer) = ((b1 >> 3) & 3, 4 - ((b1 >> 1) & 3));
        if b1 & 0xe0 != 0xe0 || version == 1 || layer == 4 {
            return None;
        }
        let first = version == 3;
        let rates = match (first, layer) {
            (true, _) => &RATES[usize::from(layer) - 1],
            (false, 1) => &RATES[3],
            (false, _) => &RATES[4],
        };
        // Index 0 is "free format", whose frames do not tell their length.
        let kbps = u32::from(*rates.get(usize::from(b2 >> 4).checked_sub(1)?)?);
        let divisor = match version {
            3 => 1,
            2 => 2,
            _ => 4,
        };
        let rate = [44_100, 48_000, 32_000].get(usize::from((b2 >> 2) & 3))? / divisor;
        let padding = usize::from((b2 >> 1) & 1);
        let samples = match (layer, first) {
            (1, _) => 384,
            (2, _) | (3, true) => 1152,
            _ => 576,
        };
        let bytes = match layer {
            1 => ((12_000 * kbps / rate) as usize + padding) * 4,
            _ => (samples / 8 * 1000 * kbps / rate) as usize + padding,
        };
        let mono = b3 >> 6 == 3;
        let tag_at = 4 + match (first, mono) {
            (true, false) => 32,
            (true, true) | (false, false) => 17,
            (false, true) => 9,
        };
        let kind = u16::from(b1 & 0x1e) << 8 | u16::from(b2 & 0x0c);
        (bytes > 4).then_some(Self { bytes, samples, kind, tag_at })
    }
}

/// The places of frames in a file.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Byte of every `spacing`-th frame, the first one of audio included.
    places: Vec<u64>,
    spacing: u64,
    header: Header,
    /// The next frame to be looked at: its number and place.
    next: (u64, u64),
    /// The frames have been followed as far as they go.
    done: bool,
}

impl Index {
    /// An index that begins at the frame at byte `first`.
    pub fn new(file: &mut (impl Read + Seek), first: u64) -> Result<Option<Self>> {
        let mut bytes = [0; 4];
        file.seek(SeekFrom::Start(first))?;
        if file.read_exact(&mut bytes).is_err() {
            return Ok(None);
        }
        Ok(Header::parse(&bytes).map(|header| Self {
            places: Vec::new(),
            spacing: SPACING,
            header,
            next: (0, first),
            done: false,
        }))
    }

    /// Frames of audio in each frame of the stream.
    pub fn samples(&self) -> i64 {
        i64::from(self.header.samples)
    }

    /// The most that one occupies, in bytes.
    pub const SIZE: usize = size_of::<Self>() + 8 * MAX_PLACES;

    /// A frame not after frame `number`, as near to it as the places are, and its byte.
    pub fn locate(&mut self, file: &mut (impl Read + Seek), number: u64) -> Result<Option<(u64, u64)>> {
        if !self.done && self.next.0 <= number {
            self.follow(file, number)?;
        }
        let slot = ((number / self.spacing) as usize).min(self.places.len().saturating_sub(1));
        Ok(self.places.get(slot).map(|place| (slot as u64 * self.spacing, *place)))
    }

    /// Follows the frames up to `number`.
    fn follow(&mut self, file: &mut (impl Read + Seek), number: u64) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        let (mut base, mut filled) = (self.next.1, 0);
        while self.next.0 <= number {
            let mut at = (self.next.1 - base) as usize;
            // The header and the place of a tag must be in the chunk.
            if at + 64 > filled {
                base = self.next.1;
                file.seek(SeekFrom::Start(base))?;
                filled = 0;
                while filled < CHUNK {
                    match file.read(&mut chunk[filled..])? {
                        0 => break,
                        n => filled += n,
                    }
                }
                at = 0;
            }
            let Some(frame) = chunk.get(at..filled) else { break };
            match Header::parse(frame) {
                Some(h) if h.kind == self.header.kind && !is_tag(frame, &h) => {
                    if self.next.0.is_multiple_of(self.spacing) {
                        self.keep(self.next.1);
                    }
                    self.next = (self.next.0 + 1, self.next.1 + h.bytes as u64);
                }
                _ => {
                    self.done = true;
                    break;
                }
            }
        }
        self.places.shrink_to_fit();
        Ok(())
    }

    fn keep(&mut self, place: u64) {
        self.places.push(place);
        if self.places.len() > MAX_PLACES {
            let mut even = [true, false].into_iter().cycle();
            self.places.retain(|_| even.next().unwrap_or(true));
            self.spacing *= 2;
        }
    }
}

/// Whether a frame carries a table for players rather than audio. Readers leave such frames out.
fn is_tag(frame: &[u8], header: &Header) -> bool {
    let named = |at: usize, names: &[&[u8]]| frame.get(at..at + 4).is_some_and(|id| names.contains(&id));
    named(header.tag_at, &[b"Xing", b"Info"]) || named(36, &[b"VBRI"])
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// MPEG-1 layer III at 44.1 kHz, stereo, of the bit rates that `index` gives.
    fn stream(index: &[u8], lead: usize) -> Vec<u8> {
        let mut bytes = vec![0x55; lead];
        for (i, &rate) in index.iter().enumerate() {
            let header = [0xff, 0xfb, rate << 4 | ((i as u8 & 1) << 1), 0x00];
            let length = 144_000 * usize::from(RATES[2][usize::from(rate) - 1]) / 44_100 + (i & 1);
            bytes.extend(header);
            bytes.extend(vec![0x11; length - 4]);
        }
        bytes
    }

    fn places(bytes: &[u8], first: u64, numbers: &[u64]) -> Vec<Option<(u64, u64)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp3");
        std::fs::write(&path, bytes).unwrap();
        let mut file = File::open(path).unwrap();
        let mut index = Index::new(&mut file, first).unwrap().unwrap();
        numbers.iter().map(|n| index.locate(&mut file, *n).unwrap()).collect()
    }

    #[test]
    fn published_frame_lengths() {
        // 128 kbit/s at 44.1 kHz: 417 bytes, 418 with padding; MPEG-2 64 kbit/s at 22.05 kHz: 208.
        let parse = |b: [u8; 4]| Header::parse(&b).map(|h| (h.bytes, h.samples, h.tag_at));
        assert_eq!(parse([0xff, 0xfb, 0x90, 0x00]), Some((417, 1152, 36)));
        assert_eq!(parse([0xff, 0xfb, 0x92, 0xc0]), Some((418, 1152, 21)));
        assert_eq!(parse([0xff, 0xf3, 0x80, 0x00]), Some((208, 576, 21)));
        assert_eq!(parse([0xff, 0xe3, 0x18, 0xc0]), Some((72, 576, 13)));
        // Layer II, 192 kbit/s, 48 kHz; layer I, 384 kbit/s, 32 kHz.
        assert_eq!(parse([0xff, 0xfd, 0xa4, 0x00]).map(|h| h.0), Some(576));
        assert_eq!(parse([0xff, 0xff, 0xc8, 0x00]).map(|h| (h.0, h.1)), Some((576, 384)));
        for bad in
            [[0xff, 0xfb, 0x00, 0], [0xff, 0xfb, 0xf0, 0], [0xff, 0xfb, 0x9c, 0], [0xff, 0xeb, 0x90, 0]]
        {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn frames_of_any_bit_rate_are_found_in_any_order() {
        let index: Vec<u8> = (0..40_000u32).map(|i| 1 + (i * i % 13) as u8).collect();
        let bytes = stream(&index, 1000);
        let mut truth = vec![1000u64];
        for (i, rate) in index.iter().enumerate() {
            let length = 144_000 * u64::from(RATES[2][usize::from(*rate) - 1]) / 44_100 + (i as u64 & 1);
            truth.push(truth[i] + length);
        }
        let numbers = [20_000, 5, 39_999, 0, 17, 31_000, 90_000];
        for (number, found) in numbers.iter().zip(places(&bytes, 1000, &numbers)) {
            let (frame, place) = found.unwrap();
            assert_eq!(place, truth[frame as usize]);
            assert!(frame <= *number && (number.min(&39_999) - frame) < 128, "{number}: {frame}");
        }
    }

    #[test]
    fn the_walk_ends_at_what_is_no_frame_of_this_stream() {
        let mut bytes = stream(&[9; 40], 0);
        let end = bytes.len();
        bytes.extend(b"TAG and so on, a hundred and twenty-eight bytes of it, which are no frame");
        assert_eq!(places(&bytes, 0, &[1000]), [Some((32, 32 * 417 + 16))]);
        // A second file's table, as in files joined end to end.
        bytes.truncate(end);
        let mut tag = stream(&[9], 0);
        tag[36..40].copy_from_slice(b"Info");
        bytes.extend([tag, stream(&[9; 40], 0)].concat());
        assert_eq!(places(&bytes, 0, &[1000]), [Some((32, 32 * 417 + 16))]);
    }
}
