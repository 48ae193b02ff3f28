//! The Raft log and vote.
//!
//! `append` writes to RocksDB and returns; entries are readable at once, and openraft's callback
//! comes from the flusher once they are synced. Votes, truncation and purges go through the same
//! queue, so what reaches the disk does so in the order in which openraft asked for it.

use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use peat_gateway_proto::stored as proto;
use prost::Message;
use rocksdb::{ReadOptions, WriteBatch};

use super::Inner;
use super::cache::EntryCache;
use super::error::{StoreError, chain};
use super::flusher::{Counters, MarkChange};
use super::layout::{Database, LOG, META, key};
use super::reader::LogReader;
use super::steps::step;
use crate::raft::{Entry, LogId, TypeConfig, Vote};
#[cfg(test)]
use crate::simulation::{Bug, planted};
use crate::wire::entry::{decode, encode};
use crate::wire::stored::{log_id_from_stored, log_id_to_stored, vote_from_stored, vote_to_stored};

/// What is known of the log without reading it.
#[derive(Default)]
pub(super) struct Log {
    pub vote: Option<Vote>,
    /// The vote that is being written, or else the one above: who was promised a vote can't have been told
    /// before it stands here.
    pub promised: Option<Vote>,
    pub committed: Option<LogId>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The index of the first entry that is there.
    pub first: Option<u64>,
    /// The last entry that is there.
    pub last: Option<LogId>,
    pub cache: EntryCache,
}

/// Entries to read, and what is needed to read them without the lock.
pub(super) enum Found<'db> {
    /// All are in memory.
    Cached(Vec<Entry>),
    /// They must be read; the iterator sees the log as it was when they were looked up.
    Stored(rocksdb::DBRawIteratorWithThreadMode<'db, super::layout::Db>),
}

impl Log {
    /// Reads what is known from the database.
    pub(super) fn load(database: &Database) -> Result<Self, StoreError> {
        let position = |key: &[u8]| -> Result<Option<LogId>, StoreError> {
            let Some(bytes) = database.meta(key)? else { return Ok(None) };
            let stored =
                proto::LogId::decode(&*bytes).map_err(StoreError::decode("log position"))?;
            Ok(Some(log_id_from_stored(&stored)))
        };
        let vote = match database.meta(key::VOTE)? {
            None => None,
            Some(bytes) => Some(vote_from_stored(
                &proto::Vote::decode(&*bytes).map_err(StoreError::decode("vote"))?,
            )),
        };
        let purged = position(key::PURGED)?;
        let column = database.column(LOG)?;
        let mut entries = database.db.raw_iterator_cf(&column);
        entries.seek(purged.map_or(0, |id| id.index + 1).to_be_bytes());
        let first = entries.item().map(|(key, value)| decode_at(key, value)).transpose()?;
        entries.seek_to_last();
        let last = entries.item().map(|(key, value)| decode_at(key, value)).transpose()?;
        entries.status().map_err(StoreError::database("read the log"))?;
        // Entries below the purged one may be left in a file; they are no part of the log.
        let last = last.filter(|_| first.is_some());
        Ok(Self {
            vote,
            promised: vote,
            committed: position(key::COMMITTED)?,
            purged,
            first: first.map(|entry| entry.log_id.index),
            last: last.map(|entry| entry.log_id),
            cache: EntryCache::default(),
        })
    }

    /// The index after the last entry; 0 for a log that never had one.
    pub(super) fn end(&self) -> u64 {
        self.last_id().map_or(0, |id| id.index + 1)
    }

    /// The last entry, or the last purged one where none is left.
    pub(super) fn last_id(&self) -> Option<LogId> {
        self.last.or(self.purged)
    }

    /// Finds the entries of a range that are there, up to a limit.
    pub(super) fn find<'db>(
        &self,
        database: &'db Database,
        range: (u64, u64),
        limit: Limit,
    ) -> Result<Found<'db>, StoreError> {
        let (start, end) = range;
        if start >= end {
            return Ok(Found::Cached(Vec::new()));
        }
        if self.cache.first().is_some_and(|first| first <= start) {
            let mut entries = Vec::new();
            let mut bytes_left = limit.bytes;
            for (entry, bytes) in self.cache.from(start) {
                let over = bytes > bytes_left && !entries.is_empty();
                if entry.log_id.index >= end || over || entries.len() == limit.entries {
                    break;
                }
                bytes_left = bytes_left.saturating_sub(bytes);
                entries.push(entry.clone());
            }
            return Ok(Found::Cached(entries));
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start.to_be_bytes());
        options.set_iterate_upper_bound(end.to_be_bytes());
        Ok(Found::Stored(database.db.raw_iterator_cf_opt(&database.column(LOG)?, options)))
    }
}

/// How much a read returns at most; one entry is always returned.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub entries: usize,
    pub bytes: usize,
}

/// Decodes an entry and checks that it stands where it says.
pub(super) fn decode_at(key: &[u8], value: &[u8]) -> Result<Entry, StoreError> {
    let entry = decode(&Bytes::copy_from_slice(value)).map_err(StoreError::decode("log entry"))?;
    if key != entry.log_id.index.to_be_bytes() {
        return Err(StoreError::Decode {
            what: "log entry",
            reason: format!("entry {} stands under key {}", entry.log_id.index, hex::encode(key)),
        });
    }
    Ok(entry)
}

/// The log as openraft writes it. One at a time: openraft holds the only one.
pub(crate) struct LogStore {
    inner: Arc<Inner>,
}

impl LogStore {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Writes entries, readable at once; returns the log's new end.
    pub(super) fn write_entries(
        &self,
        entries: impl Iterator<Item = Entry>,
    ) -> Result<u64, StoreError> {
        let database = &self.inner.database;
        let column = database.column(LOG)?;
        let mut batch = WriteBatch::default();
        let mut added = Vec::new();
        let mut log = self.inner.log();
        let mut expected = log.last_id().map(|id| id.index + 1);
        let mut bytes_count = 0;
        for entry in entries {
            let index = entry.log_id.index;
            if let Some(expected) = expected.filter(|expected| *expected != index) {
                return Err(StoreError::NotConsecutive { doing: "append", found: index, expected });
            }
            let bytes = encode(&entry);
            bytes_count += bytes.len() as u64;
            batch.put_cf(&column, index.to_be_bytes(), &bytes);
            added.push(entry);
            expected = Some(index + 1);
        }
        database.write(batch, "append to the log")?;
        step!(AppendWritten);
        for entry in added {
            log.first.get_or_insert(entry.log_id.index);
            log.last = Some(entry.log_id);
            log.cache.push(entry);
        }
        let counters = &self.inner.counters;
        Counters::add(&counters.append_batches, 1);
        Counters::add(&counters.append_bytes, bytes_count);
        Ok(log.end())
    }

    /// Deletes entries at and above `end`.
    fn delete_from(&self, end: u64) -> Result<(), StoreError> {
        let database = &self.inner.database;
        let mut log = self.inner.log();
        let Some(last) = log.last.filter(|last| last.index >= end) else { return Ok(()) };
        let kept = match log.first {
            Some(first) if first < end => Some(self.inner.read_id(end - 1)?),
            _ => None,
        };
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(
            &database.column(LOG)?,
            end.to_be_bytes(),
            (last.index + 1).to_be_bytes(),
        );
        database.write(batch, "truncate the log")?;
        step!(TruncateWritten);
        log.last = kept;
        if kept.is_none() {
            log.first = None;
        }
        log.cache.truncate(end);
        Ok(())
    }

    async fn truncate(&self, end: u64) -> Result<(), StoreError> {
        let lowered = {
            let log = self.inner.log();
            if log.last.is_none_or(|last| last.index < end) {
                return Ok(());
            }
            end.max(log.purged.map_or(0, |id| id.index + 1))
        };
        self.inner.flusher.flush(MarkChange::LowerLogEnd(lowered)).await?;
        step!(TruncateAllowed);
        self.delete_from(end)
    }

    fn purge_to(&self, id: LogId) -> Result<(), StoreError> {
        let database = &self.inner.database;
        let mut log = self.inner.log();
        if log.purged.is_some_and(|purged| purged.index >= id.index) {
            return Ok(());
        }
        let start = log.first.unwrap_or(id.index).to_be_bytes();
        let end = (id.index + 1).to_be_bytes();
        let mut batch = WriteBatch::default();
        // One batch, so the new beginning of the log and the deletion can't be told apart by a crash.
        batch.put_cf(&database.column(META)?, key::PURGED, log_id_to_stored(&id).encode_to_vec());
        batch.delete_range_cf(&database.column(LOG)?, start, end);
        database.write(batch, "purge the log")?;
        step!(PurgeWritten);
        log.purged = Some(id);
        log.cache.purge(id.index);
        let change = match log.last {
            Some(last) if last.index > id.index => {
                log.first = Some(id.index + 1);
                MarkChange::None
            }
            _ => {
                log.first = None;
                log.last = None;
                MarkChange::LogEnd(id.index + 1)
            }
        };
        drop(log);
        let database = database.clone();
        let failure = self.inner.failure.clone();
        // Whole files go only once the purge is durable: their deletion isn't in the WAL.
        self.inner.flusher.submit(
            change,
            Box::new(move |flushed| {
                let Ok(()) = flushed else { return };
                step!(PurgeSynced);
                let deleted = database.column(LOG).and_then(|column| {
                    database
                        .db
                        .delete_file_in_range_cf(&column, start, end)
                        .map_err(StoreError::database("delete files of purged entries"))
                });
                step!(PurgeFilesDeleted);
                if let Err(error) = deleted {
                    failure.set(&chain(&error));
                }
            }),
        );
        Ok(())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.inner.log();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last_id() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader::new(self.inner.clone())
    }

    /// Durable when it returns.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.inner.log().promised = Some(*vote);
        let mut batch = WriteBatch::default();
        let database = &self.inner.database;
        let stored = vote_to_stored(vote).encode_to_vec();
        batch.put_cf(&database.column(META)?, key::VOTE, stored);
        self.inner.check(database.write(batch, "write the vote"))?;
        step!(VoteWritten);
        #[cfg(test)]
        if planted(Bug::VoteNotSynced) {
            self.inner.log().vote = Some(*vote);
            return Ok(());
        }
        self.inner.check(self.inner.flusher.flush(MarkChange::Vote(*vote)).await)?;
        step!(VoteKept);
        self.inner.log().vote = Some(*vote);
        Ok(())
    }

    /// Durable with the next sync: losing it only means applying entries a little later.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut batch = WriteBatch::default();
        let database = &self.inner.database;
        let column = database.column(META)?;
        match &committed {
            Some(id) => {
                batch.put_cf(&column, key::COMMITTED, log_id_to_stored(id).encode_to_vec());
            }
            None => batch.delete_cf(&column, key::COMMITTED),
        }
        self.inner.check(database.write(batch, "write the committed position"))?;
        step!(CommittedWritten);
        self.inner.log().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.inner.log().committed)
    }

    /// Entries are readable when it returns, and durable when the callback is called.
    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let end = self.inner.check(self.write_entries(entries.into_iter()))?;
        #[cfg(test)]
        if planted(Bug::AcknowledgedBeforeSync) {
            self.inner.flusher.submit(MarkChange::LogEnd(end), Box::new(|_| {}));
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.inner.flusher.submit(
            MarkChange::LogEnd(end),
            Box::new(move |result| {
                callback.io_completed(result.map_err(|reason| io::Error::other(reason.to_owned())));
            }),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let end = last.map_or(0, |id| id.index + 1);
        self.inner.check(self.truncate(end).await)?;
        Ok(())
    }

    /// The deletion is durable with the next sync; nothing depends on it.
    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        self.inner.check(self.purge_to(id))?;
        Ok(())
    }
}

impl Inner {
    pub(super) fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        // A panic between two assignments of positions would be a bug; the values stay usable.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the position of one entry from the database.
    fn read_id(&self, index: u64) -> Result<LogId, StoreError> {
        let key = index.to_be_bytes();
        let value = self
            .database
            .db
            .get_cf(&self.database.column(LOG)?, key)
            .map_err(StoreError::database("read the log"))?
            .ok_or(StoreError::MissingEntry { start: index, end: index + 1, missing: index })?;
        Ok(decode_at(&key, &value)?.log_id)
    }
}

/// The half-open range of indexes that any range of them means.
pub(super) fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}
