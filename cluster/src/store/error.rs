//! Why the store failed.

use std::io;
use std::path::PathBuf;

use peat_gateway_state::ReadError;
use peat_gateway_state::apply::ApplyError;
use thiserror::Error;

/// The store failed. Whatever the kind, the node must end: going on could break a promise.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// RocksDB refused.
    #[error("could not {doing}")]
    Database {
        /// What was attempted.
        doing: &'static str,
        /// What RocksDB said.
        #[source]
        source: rocksdb::Error,
    },
    /// A file refused.
    #[error("could not {doing} {path}")]
    File {
        /// What was attempted.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Stored bytes are not what this build writes.
    #[error("could not decode the stored {what}: {reason}")]
    Decode {
        /// What they should be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Entries that were asked for are not in the log.
    #[error("could not read log entries {start}..{end}: entry {missing} is not in the log")]
    MissingEntry {
        /// First index asked for.
        start: u64,
        /// The index after the last one asked for.
        end: u64,
        /// The first that is missing.
        missing: u64,
    },
    /// Entries were given that don't follow the last one.
    #[error("could not {doing} entry {found}: {expected} is the next index")]
    NotConsecutive {
        /// What was attempted.
        doing: &'static str,
        /// The index given.
        found: u64,
        /// The index needed.
        expected: u64,
    },
    /// A write could not be made durable. It isn't tried again: after a failed sync nobody knows
    /// which pages the kernel threw away.
    #[error("could not make a write durable: {0}")]
    Flush(String),
    /// A snapshot is damaged, foreign or of another version. The state is as before.
    #[error("could not use the snapshot: {0}")]
    Snapshot(String),
    /// The directory belongs to another cluster.
    #[error("could not join cluster {wanted}: this data directory belongs to cluster {own}")]
    OtherCluster {
        /// The cluster it belongs to, hex.
        own: String,
        /// The cluster that was asked for, hex.
        wanted: String,
    },
    /// An entry could not be applied.
    #[error("could not apply log entry {index}")]
    Apply {
        /// Its index.
        index: u64,
        /// Why.
        #[source]
        source: ApplyError,
    },
    /// A thread of this process panicked.
    #[error("could not go on: {0} panicked")]
    Panicked(&'static str),
}

impl StoreError {
    /// Whether it says that what is stored isn't what was written: the data is damaged, not only the disk
    /// unwilling. A row that can't be decoded isn't counted: a newer version may have written it.
    pub(super) fn is_damage(&self) -> bool {
        let corrupt = |error: &rocksdb::Error| error.kind() == rocksdb::ErrorKind::Corruption;
        match self {
            StoreError::Database { source, .. } => corrupt(source),
            StoreError::Decode { what, .. } => *what == "log entry",
            StoreError::MissingEntry { .. } => true,
            StoreError::Apply {
                source: ApplyError::Read(ReadError::Store { source, .. }), ..
            } => source.downcast_ref::<rocksdb::Error>().is_some_and(corrupt),
            _ => false,
        }
    }

    /// For `map_err` on RocksDB calls.
    pub(crate) fn database(doing: &'static str) -> impl FnOnce(rocksdb::Error) -> StoreError {
        move |source| StoreError::Database { doing, source }
    }

    /// For `map_err` on file calls.
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::File { doing, path: path.into(), source }
    }

    /// For `map_err` on decoders.
    pub(crate) fn decode<E: ToString>(what: &'static str) -> impl FnOnce(E) -> StoreError {
        move |error| StoreError::Decode { what, reason: error.to_string() }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        io::Error::other(error)
    }
}

/// An error with all its causes on one line, for a log or a watch.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
