//! The coupling of channels in a Vorbis setup header (Vorbis I, 4.2.4).
//!
//! Channels are uncoupled from the last step of a mapping to the first (4.3.5). Symphonia 0.6.1 goes
//! from the first to the last, which is the same for two channels, and wrong where several steps share
//! a channel, as they do in surround. It is handed the steps in reverse.

/// Bytes of the identification header, before the setup header in the codec's parameters.
const IDENTIFICATION: usize = 30;

/// Bits of a header, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: usize) -> Option<usize> {
        let value = peek(self.bytes, self.at, count)?;
        self.at += count;
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        self.read(1).map(|bit| bit == 1)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= 8 * self.bytes.len())?;
        Some(())
    }
}

fn peek(bytes: &[u8], at: usize, count: usize) -> Option<usize> {
    (0..count).try_fold(0, |value, i| {
        let bit = bytes.get((at + i) / 8)? >> ((at + i) % 8) & 1;
        Some(value | usize::from(bit) << i)
    })
}

/// The number of bits that hold `n`.
fn width(n: usize) -> usize {
    (usize::BITS - n.leading_zeros()) as usize
}

/// The codec's parameters with the coupling steps of each mapping in reverse. `None` when the headers
/// cannot be understood.
pub(super) fn with_couplings_reversed(headers: &[u8]) -> Option<Vec<u8>> {
    let channels = usize::from(*headers.get(11)?);
    let mut out = headers.to_vec();
    for (at, steps, bits) in couplings(headers.get(IDENTIFICATION..)?, channels)? {
        for i in 0..steps {
            let from = peek(headers, 8 * IDENTIFICATION + at + (steps - 1 - i) * bits, bits)?;
            for bit in 0..bits {
                let to = 8 * IDENTIFICATION + at + i * bits + bit;
                let byte = out.get_mut(to / 8)?;
                *byte = *byte & !(1 << (to % 8)) | ((from >> bit & 1) as u8) << (to % 8);
            }
        }
    }
    Some(out)
}

/// For each mapping that couples channels: the first bit of its steps, their number, bits of a step.
fn couplings(setup: &[u8], channels: usize) -> Option<Vec<(usize, usize, usize)>> {
    if !setup.starts_with(b"\x05vorbis") {
        return None;
    }
    let mut bits = Bits { bytes: setup, at: 56 };
    for _ in 0..bits.read(8)? + 1 {
        codebook(&mut bits)?;
    }
    let times = bits.read(6)? + 1;
    bits.skip(16 * times)?;
    for _ in 0..bits.read(6)? + 1 {
        floor(&mut bits)?;
    }
    for _ in 0..bits.read(6)? + 1 {
        residue(&mut bits)?;
    }
    let mut found = Vec::new();
    for _ in 0..bits.read(6)? + 1 {
        bits.skip(16)?;
        let submaps = if bits.flag()? { bits.read(4)? + 1 } else { 1 };
        if bits.flag()? {
            let (steps, step) = (bits.read(8)? + 1, 2 * width(channels.checked_sub(1)?));
            found.push((bits.at, steps, step));
            bits.skip(steps * step)?;
        }
        bits.skip(2 + if submaps > 1 { 4 * channels } else { 0 } + 24 * submaps)?;
    }
    Some(found)
}

fn codebook(bits: &mut Bits<'_>) -> Option<()> {
    if bits.read(24)? != 0x56_4342 {
        return None;
    }
    let (dimensions, entries) = (bits.read(16)?, bits.read(24)?);
    if bits.flag()? {
        bits.skip(5)?;
        let mut entry = 0;
        while entry < entries {
            entry += bits.read(width(entries - entry))?;
        }
    } else if bits.flag()? {
        for _ in 0..entries {
            if bits.flag()? {
                bits.skip(5)?;
            }
        }
    } else {
        bits.skip(5 * entries)?;
    }
    let kind = bits.read(4)?;
    if kind == 0 {
        return Some(());
    }
    bits.skip(64)?;
    let value = bits.read(4)? + 1;
    bits.skip(1)?;
    let count = match kind {
        // The greatest number of values whose power is not above the entries.
        1 => {
            let power = |n: usize| n.checked_pow(u32::try_from(dimensions).ok()?);
            let guess = (entries as f64).powf(1.0 / dimensions.max(1) as f64) as usize;
            (guess.saturating_sub(1)..=guess + 1).rfind(|n| power(*n).is_some_and(|p| p <= entries))?
        }
        2 => entries.checked_mul(dimensions)?,
        _ => return None,
    };
    bits.skip(count.checked_mul(value)?)
}

fn floor(bits: &mut Bits<'_>) -> Option<()> {
    match bits.read(16)? {
        0 => {
            bits.skip(8 + 16 + 16 + 6 + 8)?;
            let books = bits.read(4)? + 1;
            bits.skip(8 * books)
        }
        1 => {
            let count = bits.read(5)?;
            let classes = (0..count).map(|_| bits.read(4)).collect::<Option<Vec<_>>>()?;
            let mut sizes = Vec::new();
            for _ in 0..classes.iter().max().map_or(0, |most| most + 1) {
                sizes.push(bits.read(3)? + 1);
                let subclasses = bits.read(2)?;
                bits.skip(if subclasses > 0 { 8 } else { 0 } + (8 << subclasses))?;
            }
            bits.skip(2)?;
            let range = bits.read(4)?;
            let points: usize = classes.iter().filter_map(|class| sizes.get(*class)).sum();
            bits.skip(points * range)
        }
        _ => None,
    }
}

fn residue(bits: &mut Bits<'_>) -> Option<()> {
    bits.skip(16 + 24 + 24 + 24)?;
    let classes = bits.read(6)? + 1;
    bits.skip(8)?;
    let mut books = 0;
    for _ in 0..classes {
        let low = bits.read(3)?;
        let high = if bits.flag()? { bits.read(5)? } else { 0 };
        books += (low.count_ones() + high.count_ones()) as usize;
    }
    bits.skip(8 * books)
}
