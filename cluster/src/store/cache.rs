//! The newest log entries in memory, so that replication and apply don't read them back.

use std::collections::VecDeque;

use crate::raft::Entry;
use crate::wire::entry::encoded_bytes;

/// Bytes of entries kept, as encoded. Beyond, the oldest leave; readers then go to RocksDB.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// A gapless run of entries that ends with the log's last one.
#[derive(Default)]
pub(super) struct EntryCache {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl EntryCache {
    /// Adds the log's new last entry.
    pub(super) fn push(&mut self, entry: Entry) {
        let follows = self
            .entries
            .back()
            .is_none_or(|(last, _)| last.log_id.index.checked_add(1) == Some(entry.log_id.index));
        if !follows {
            self.clear();
        }
        let bytes = encoded_bytes(&entry);
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        while self.bytes > CACHE_BYTES_MAX && self.entries.len() > 1 {
            self.pop_front();
        }
    }

    /// The first index in the cache.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id.index)
    }

    /// The entries from an index on, with their encoded sizes; none where it isn't in the cache.
    pub(super) fn from(&self, index: u64) -> impl Iterator<Item = (&Entry, usize)> {
        let skipped = self
            .first()
            .and_then(|first| usize::try_from(index.checked_sub(first)?).ok())
            .unwrap_or(self.entries.len());
        self.entries.iter().skip(skipped).map(|(entry, bytes)| (entry, *bytes))
    }

    /// Forgets entries at and above an index.
    pub(super) fn truncate(&mut self, end: u64) {
        while self.entries.back().is_some_and(|(entry, _)| entry.log_id.index >= end) {
            if let Some((_, bytes)) = self.entries.pop_back() {
                self.bytes -= bytes;
            }
        }
    }

    /// Forgets entries at and below an index.
    pub(super) fn purge(&mut self, last: u64) {
        while self.first().is_some_and(|first| first <= last) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}
