//! The `k` best of a stream of rows.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// How a row ranks. Less is better: by `class`, then by `value`, then by the rows' own order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Tells apart what has no number: 0 is the best.
    pub(crate) class: u8,
    pub(crate) value: f64,
    /// The row's number; no two rows have the same.
    pub(crate) row: u64,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_class = self.class.cmp(&other.class);
        by_class.then(self.value.total_cmp(&other.value)).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

/// A row among the best, with where it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<P> {
    pub(crate) key: Key,
    pub(crate) place: P,
}

impl<P> Ord for Entry<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl<P> PartialOrd for Entry<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Entry<P> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<P> Eq for Entry<P> {}

/// The `k` rows with the least keys.
#[derive(Debug, Clone)]
pub(crate) struct Top<P> {
    k: usize,
    heap: BinaryHeap<Entry<P>>,
}

impl<P> Top<P> {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    /// The best of several, in which one row may be several times.
    pub(crate) fn merged(k: usize, parts: impl Iterator<Item = Self>) -> Self {
        let mut entries: Vec<Entry<P>> = parts.flat_map(|part| part.heap.into_vec()).collect();
        entries.sort_unstable();
        entries.dedup();
        entries.truncate(k);
        Self { k, heap: entries.into() }
    }

    /// The key that a row must be better than; `None` while every row is among the best.
    pub(crate) fn limit(&self) -> Option<Key> {
        if self.heap.len() < self.k { None } else { self.heap.peek().map(|entry| entry.key) }
    }

    /// Takes a row if it is among the best so far.
    pub(crate) fn push(&mut self, key: Key, place: P) -> bool {
        if self.heap.len() < self.k {
            self.heap.push(Entry { key, place });
            return true;
        }
        match self.heap.peek_mut() {
            Some(mut worst) if key < worst.key => {
                *worst = Entry { key, place };
                true
            }
            _ => false,
        }
    }

    /// Lets places be changed; keys stay as they are.
    pub(crate) fn replace(&mut self, mut change: impl FnMut(&mut P)) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.iter_mut().for_each(|entry| change(&mut entry.place));
        self.heap = entries.into();
    }

    /// The rows, best first.
    pub(crate) fn into_sorted(self) -> Vec<Entry<P>> {
        self.heap.into_sorted_vec()
    }
}
