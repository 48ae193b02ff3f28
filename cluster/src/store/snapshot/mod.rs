//! Snapshots: the whole state at one applied index as one file, built, kept, sent and installed.
//!
//! ```text
//!  build:    view ──rows in key order──► <n>.tmp ──sync, rename──► snapshots/<index>-<term>.snapshot
//!  receive:  bytes ──► <n>.tmp ──every checksum, hash and key checked──► SnapshotData
//!  install:  SnapshotData ──► table files ──► column families of the next generation
//!                         ──► one synced write: generation, applied id, membership, hash, snapshot
//! ```
//!
//! Until that one write the old generation is the state, after it the new one; what a crash leaves
//! behind of the other is removed at the next start.

mod build;
mod format;
mod incoming;
mod install;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use peat_gateway_proto::stored as proto;
use peat_gateway_state::codec;
use peat_gateway_state::hash::StateHash;
use prost::Message;

use super::Inner;
use super::error::StoreError;
use super::layout::key;
use crate::raft::{LogId, SnapshotMeta, StoredMembership};
use crate::wire::stored::{log_id_from_stored, stored_membership_from_stored};

pub(crate) use build::SnapshotBuilder;
pub(crate) use incoming::IncomingSnapshot;
pub(super) use install::{drop_generation, install};

/// Extension of finished snapshots.
const EXTENSION: &str = "snapshot";

/// A whole, checked snapshot on this node's disk. Cheap to clone; it stays readable when a newer
/// one has replaced it.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotData {
    header: Arc<proto::SnapshotHeader>,
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
}

impl SnapshotData {
    /// What it is a snapshot of.
    pub(crate) fn header(&self) -> &proto::SnapshotHeader {
        &self.header
    }

    /// The size of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads up to `bytes_max` bytes of the file at an offset; empty at its end.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn read_chunk(&self, offset: u64, bytes_max: usize) -> io::Result<Bytes> {
        let file = self.file.clone();
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = left.min(bytes_max);
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = BytesMut::zeroed(bytes);
            file.read_exact_at(&mut chunk, offset).map(|()| chunk.freeze())
        });
        read.await.map_err(io::Error::other)?
    }

    /// openraft's words for it.
    pub(crate) fn meta(&self) -> Result<SnapshotMeta, StoreError> {
        Ok(SnapshotMeta { last_log_id: self.applied(), last_membership: self.membership()? })
    }

    /// The last entry that it contains.
    pub(super) fn applied(&self) -> Option<LogId> {
        self.header.last_applied.as_ref().map(log_id_from_stored)
    }

    fn membership(&self) -> Result<StoredMembership, StoreError> {
        let stored = self.header.membership.clone().unwrap_or_default();
        stored_membership_from_stored(stored).map_err(StoreError::decode("snapshot membership"))
    }

    fn hash(&self) -> Result<StateHash, StoreError> {
        codec::decode(&self.header.state_hash).map_err(StoreError::decode("snapshot state hash"))
    }
}

/// The path of a finished snapshot.
fn final_path(directory: &Path, applied: Option<LogId>) -> PathBuf {
    let (index, term) = applied.map_or((0, 0), |id| (id.index, id.leader_id.term));
    directory.join(format!("{index:020}-{term}.{EXTENSION}"))
}

/// Opens the current snapshot, and removes every other file of the directory.
///
/// A missing or replaced file is no error: openraft builds a new snapshot when it needs one.
pub(super) fn open_current(
    directory: &Path,
    stored: Option<&[u8]>,
) -> Result<Option<SnapshotData>, StoreError> {
    let current = match stored {
        None => None,
        Some(bytes) => {
            let header = proto::SnapshotHeader::decode(bytes)
                .map_err(StoreError::decode("snapshot header"))?;
            let path = final_path(directory, header.last_applied.as_ref().map(log_id_from_stored));
            match format::SnapshotReader::open(&path) {
                Ok(reader) if *reader.header() == header => Some(reader.into_data(path)),
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "the current snapshot can't be used");
                    None
                }
            }
        }
    };
    let listed = fs::read_dir(directory).map_err(StoreError::file("list", directory))?;
    for entry in listed {
        let path = entry.map_err(StoreError::file("list", directory))?.path();
        if current.as_ref().is_some_and(|data| data.path == path) {
            continue;
        }
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(StoreError::file("remove", &path))?;
    }
    Ok(current)
}

impl Inner {
    /// The last snapshot that was built or installed.
    pub(super) fn current_snapshot(&self) -> Option<SnapshotData> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a snapshot the current one in memory; returns the one it replaces, `Err` with itself
    /// where the current one is newer.
    fn replace_snapshot(&self, data: SnapshotData) -> Result<Option<SnapshotData>, SnapshotData> {
        let mut current = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(newer) if newer.applied() > data.applied() => Err(data),
            _ => Ok(current.replace(data)),
        }
    }

    /// A path for unfinished work that nothing else uses.
    fn temporary_path(&self) -> PathBuf {
        use std::sync::atomic::Ordering;
        let number = self.temporary_files.fetch_add(1, Ordering::Relaxed);
        self.directory.snapshots().join(format!("{number}.tmp"))
    }
}

/// Removes a file that has no more use. Failing leaves it to the next start.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "could not remove a file");
    }
}

/// Puts the header of the current snapshot into a batch.
fn put_current(
    batch: &mut rocksdb::WriteBatch,
    meta: &impl rocksdb::AsColumnFamilyRef,
    data: &SnapshotData,
) {
    batch.put_cf(meta, key::SNAPSHOT, data.header.encode_to_vec());
}
