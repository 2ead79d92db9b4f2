//! What the host tells the device about a batch: one copy, beside the work of the device.

use crate::gpu::memory::bytes_of;
use crate::gpu::{Buffer, Gpu, GpuError, Pinned, Plain, Ticket};

/// Batches that the host may be ahead of the device.
const AHEAD: usize = 3;

/// Tables that are gathered on the host.
#[derive(Default)]
pub(super) struct Tables {
    words: Vec<u64>,
}

/// Where a table lies, in words from the beginning of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(usize);

impl At {
    /// Its address, for tables that lie at `base`.
    pub(super) fn address(self, base: u64) -> u64 {
        base + 8 * self.0 as u64
    }

    /// Its place in samples of 4 bytes.
    pub(super) fn samples(self) -> i64 {
        2 * self.0 as i64
    }
}

impl Tables {
    pub(super) fn clear(&mut self) {
        self.words.clear();
    }

    /// Adds a table. It begins at a multiple of 16 bytes.
    pub(super) fn push<T: Plain>(&mut self, values: &[T]) -> At {
        self.words.resize(self.words.len().next_multiple_of(2), 0);
        let at = At(self.words.len());
        let (words, rest) = bytes_of(values).as_chunks::<8>();
        self.words.extend(words.iter().map(|word| u64::from_ne_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.words.push(u64::from_ne_bytes(word));
        }
        at
    }
}

/// Memory that tables are sent through.
#[derive(Default)]
pub(super) struct Staging {
    slots: [Option<Slot>; AHEAD],
    next: usize,
}

struct Slot {
    host: Pinned<u64>,
    device: Buffer<u64>,
    under_way: Option<Ticket>,
}

impl Staging {
    /// Sends tables; work asked for from now on finds them at the address that is returned, until as many batches as
    /// the host may be ahead have been sent after them.
    pub(super) fn send(&mut self, gpu: &Gpu, tables: &Tables) -> Result<u64, GpuError> {
        let len = tables.words.len();
        let slot = &mut self.slots[self.next];
        self.next = (self.next + 1) % AHEAD;
        let enough = slot.take().filter(|slot| slot.device.len() >= len);
        let slot = match enough {
            Some(found) => slot.insert(found),
            None => {
                let room = len.next_power_of_two();
                slot.insert(Slot { host: gpu.pinned(room)?, device: gpu.memory(room)?, under_way: None })
            }
        };
        if let Some(ticket) = slot.under_way.take() {
            gpu.finish(&ticket)?;
        }
        slot.host[..len].copy_from_slice(&tables.words);
        let ticket = gpu.stage(&slot.host, len, &mut slot.device)?;
        gpu.after(&ticket)?;
        slot.under_way = Some(ticket);
        Ok(slot.device.address())
    }
}

/// A buffer of at least `len` values, the one at hand where that is as long; what it held is lost.
pub(in crate::gpu) fn room<T: Plain>(
    gpu: &Gpu,
    buffer: &mut Option<Buffer<T>>,
    len: usize,
) -> Result<(), GpuError> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < len) {
        // Given back before more is asked for.
        *buffer = None;
        *buffer = Some(gpu.memory(len)?);
    }
    Ok(())
}

/// As many rows or a few more, of which there are eight numbers per octave: transforms are planned by it.
pub(in crate::gpu) fn rounded(rows: usize) -> usize {
    rows.next_multiple_of((rows.next_power_of_two() / 16).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_their_bytes_and_their_places() {
        let mut tables = Tables::default();
        let (a, b) = (tables.push(&[1.5f32, 2.5, 3.5]), tables.push(&[7u64, 8]));
        assert_eq!((a.samples(), b.address(1_000)), (0, 1_016));
        assert_eq!(tables.words[2..], [7, 8]);
        assert_eq!(bytes_of(&tables.words[..2])[..12], *bytes_of(&[1.5f32, 2.5, 3.5]));
    }

    #[test]
    fn numbers_of_rows_are_few() {
        let all: std::collections::BTreeSet<usize> = (1..=4_096).map(rounded).collect();
        assert!(all.len() <= 80 && (1..=4_096).all(|n| rounded(n) >= n && rounded(n) <= n + n / 8 + 1));
    }
}
