//! Broken files from good ones, the same for the same number on every machine.

/// A way to break a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Damage {
    /// It ends early.
    Cut,
    /// Bits are turned over, in the headers as often as elsewhere.
    Flip,
    /// A block is zero.
    Zero,
    /// Two blocks change places.
    Swap,
    /// A length or count in a header is as large as it can be.
    Lengths,
    /// Another file follows, or stands in the middle.
    Glue,
    /// Random bytes stand in between.
    Insert,
    /// A block, or a page of an Ogg file, comes again.
    Repeat,
}

impl Damage {
    /// Every way.
    pub const ALL: [Self; 8] = [
        Self::Cut,
        Self::Flip,
        Self::Zero,
        Self::Swap,
        Self::Lengths,
        Self::Glue,
        Self::Insert,
        Self::Repeat,
    ];
}

/// Numbers by SplitMix64 (Steele, Lea, Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, 0 where there is none.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A place in `length` bytes: every second time among the first 400.
    fn place(&mut self, length: usize) -> usize {
        let reach = if self.next().is_multiple_of(2) { length.min(400) } else { length };
        self.below(reach)
    }

    /// A range in `length` bytes, of 1 to `most` bytes.
    fn range(&mut self, length: usize, most: usize) -> std::ops::Range<usize> {
        let start = self.place(length);
        start..(start + 1 + self.below(most)).min(length)
    }
}

/// Names before or behind which a file says how long something is, how far the field is from the name's
/// start, and its bytes.
const LENGTHS: [(&[u8], isize, usize); 34] = [
    (b"RIFF", 4, 4),
    (b"fmt ", 4, 4),
    (b"fmt ", 10, 2), // channels
    (b"fmt ", 12, 4), // rate
    (b"fmt ", 20, 2), // bytes of a block
    (b"LIST", 4, 4),
    (b"data", 4, 4),
    (b"FORM", 4, 4),
    (b"COMM", 8, 2),  // channels
    (b"COMM", 10, 4), // frames
    (b"SSND", 4, 4),
    (b"fLaC", 5, 3),
    (b"fLaC", 8, 4),  // block sizes
    (b"fLaC", 21, 5), // frames
    (b"ID3", 6, 4),
    (b"Xing", 8, 4), // frames
    (b"Info", 8, 4),
    (b"OggS", 6, 8),  // granule position
    (b"OggS", 26, 1), // segments
    (b"vorbis", 6, 4),
    (b"OpusHead", 9, 3), // channels, pre-skip
    (b"OpusTags", 8, 4),
    (b"moov", -4, 4),
    (b"trak", -4, 4),
    (b"mdat", -4, 4),
    (b"mdhd", 16, 4),
    (b"stts", 8, 12), // entries, and the first one
    (b"stsc", 8, 16),
    (b"stsz", 8, 8), // size of all samples, and their number
    (b"stco", 8, 8),
    (b"elst", 8, 12),
    (b"esds", -4, 4),
    (b"ilst", -4, 4),
    (b"\x1a\x45\xdf\xa3", 4, 1),
];

/// The places of a name.
fn places<'a>(bytes: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(name.len()).enumerate().filter(move |(_, w)| *w == name).map(|(at, _)| at)
}

/// Broken bytes from good ones. Some damage takes what it adds from `other`.
pub fn mutate(bytes: &[u8], other: &[u8], damage: Damage, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut out = bytes.to_vec();
    let length = out.len();
    if length == 0 {
        return out;
    }
    match damage {
        Damage::Cut => {
            let end = numbers.place(length);
            out.truncate(end);
        }
        Damage::Flip => {
            for _ in 0..1 + numbers.below(24) {
                let at = numbers.place(length);
                out[at] ^= 1 << numbers.below(8);
            }
        }
        Damage::Zero => {
            let range = numbers.range(length, 4096);
            out[range].fill(0);
        }
        Damage::Swap => {
            let size = 1 + numbers.below((length / 2).min(2048));
            let (a, b) = (numbers.place(length - size + 1), numbers.place(length - size + 1));
            if a.abs_diff(b) >= size {
                for i in 0..size {
                    out.swap(a + i, b + i);
                }
            } else {
                out.rotate_left(a);
            }
        }
        Damage::Lengths => {
            let known: Vec<(usize, usize)> = LENGTHS
                .iter()
                .flat_map(|&(name, by, width)| {
                    let fields = places(bytes, name).filter_map(move |at| at.checked_add_signed(by));
                    fields.map(move |at| (at, width))
                })
                .filter(|(at, width)| at + width <= length)
                .collect();
            for _ in 0..1 + numbers.below(3) {
                // A stream without such names has its first bytes to count by.
                let (at, width) = match known.get(numbers.below(known.len())) {
                    Some(field) => *field,
                    None => (numbers.below(length.min(64)), 1),
                };
                let value = [0xff, 0x7f, 0x80, 0x00, numbers.next() as u8][numbers.below(5)];
                out[at..at + width].fill(0xff);
                out[at] = value;
            }
        }
        Damage::Glue => {
            let at = if numbers.next().is_multiple_of(2) { length } else { numbers.place(length) };
            let from = if numbers.next().is_multiple_of(2) { 0 } else { numbers.below(other.len()) };
            out.splice(at..at, other.iter().skip(from).copied());
        }
        Damage::Insert => {
            let at = numbers.place(length);
            let garbage: Vec<u8> = (0..1 + numbers.below(3000)).map(|_| numbers.next() as u8).collect();
            out.splice(at..at, garbage);
        }
        Damage::Repeat => {
            let pages: Vec<usize> = places(bytes, b"OggS").chain([length]).collect();
            let range = match pages.get(numbers.below(pages.len() - 1)..) {
                Some(&[start, end, ..]) => start..end,
                _ => numbers.range(length, 4096),
            };
            let again = bytes[range.clone()].repeat(1 + numbers.below(4));
            out.splice(range.end..range.end, again);
        }
    }
    out
}
