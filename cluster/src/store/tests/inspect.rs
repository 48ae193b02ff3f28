//! What the simulation sees of a store from outside.

use std::path::PathBuf;

use crate::raft::{Entry, LogId, Vote};
use crate::store::Store;
pub(crate) use crate::store::layout::Database;
use crate::store::layout::LOG;
use crate::store::log::decode_at;
use crate::store::reader::LogReader;

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSeen {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) applied: Option<LogId>,
}

impl Store {
    pub(crate) fn log_seen(&self) -> LogSeen {
        let log = self.inner.log();
        let (vote, purged, last, committed) = (log.vote, log.purged, log.last_id(), log.committed);
        drop(log);
        LogSeen { vote, purged, last, committed, applied: self.view().position().applied }
    }

    /// Gives what was written to the operating system, which may keep it or not.
    pub(crate) fn hand_over_unsynced(&self) {
        self.inner.database.db.flush_wal(false).unwrap();
    }

    /// The entries of a range that are there.
    pub(crate) fn entries(&self, start: u64, end: u64) -> Vec<Entry> {
        LogReader::new(self.inner.clone()).everything(start, end).unwrap()
    }
}

/// The database's directory and its last entry: what is durable right after a sync.
pub(crate) fn written(database: &Database) -> (PathBuf, Option<LogId>) {
    let column = database.column(LOG).unwrap();
    let mut entries = database.db.raw_iterator_cf(&column);
    entries.seek_to_last();
    let last = entries.item().map(|(key, value)| decode_at(key, value).unwrap().log_id);
    (database.db.path().to_owned(), last)
}
