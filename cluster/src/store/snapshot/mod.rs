//! Snapshots: the whole state at one applied index, kept, sent and installed.
//!
//! ```text
//!  keep:     a view of the rows where they are: costs nothing, so the log can be purged often
//!  send:     view ──rows in key order──► <n>.tmp ──chunks──► the other node
//!  receive:  bytes ──► <n>.tmp ──every checksum, hash and key checked──► SnapshotData
//!  install:  SnapshotData ──► table files ──► column families of the next generation
//!                         ──► one synced write: generation, applied id, membership, hash
//! ```
//!
//! A node's own snapshot is its state: the WAL holds the applied rows before the purge that relies on
//! them, so no second copy is needed (ADR 0005). A file is written only for a node that is too far behind
//! for the log, and is gone when it has been sent.
//!
//! Until the one write of an install the old generation is the state, after it the new one; what a crash
//! leaves behind of the other is removed at the next start.

mod file;
mod format;
mod incoming;
mod install;
mod stream;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::RaftSnapshotBuilder;
use openraft::type_config::alias::SnapshotOf;

use super::Inner;
use super::error::StoreError;
use super::steps::step;
use super::view::View;
use crate::blocking::blocking;
#[cfg(test)]
use crate::raft::LogId;
use crate::raft::{SnapshotMeta, TypeConfig};

pub(crate) use file::SnapshotFile;
pub(crate) use format::SnapshotReader;
pub(crate) use incoming::IncomingSnapshot;
pub(crate) use install::AddRow;
pub(super) use install::{drop_generation, install, load_rows};
pub(super) use stream::stream;

/// A snapshot as consensus hands it around. Cheap to clone.
#[derive(Clone)]
pub(crate) enum SnapshotData {
    /// The state of this node, where it is. Holds back the deletion of old rows.
    Held(HeldSnapshot),
    /// A whole, checked file that another node sent.
    File(SnapshotFile),
}

/// A view of this node's state, and what it takes to write it down.
#[derive(Clone)]
pub(crate) struct HeldSnapshot {
    inner: Arc<Inner>,
    view: View,
}

impl SnapshotData {
    /// Takes the newest view.
    pub(super) fn held(inner: &Arc<Inner>) -> Self {
        Self::Held(HeldSnapshot { inner: inner.clone(), view: inner.view() })
    }

    /// openraft's words for it.
    pub(crate) fn meta(&self) -> Result<SnapshotMeta, StoreError> {
        match self {
            Self::Held(HeldSnapshot { view, .. }) => {
                let position = view.position();
                let last_membership = position.membership.clone();
                Ok(SnapshotMeta { last_log_id: position.applied, last_membership })
            }
            Self::File(file) => file.meta(),
        }
    }

    /// The snapshot as a file, which is removed with its last clone.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn into_file(self) -> Result<SnapshotFile, StoreError> {
        match self {
            Self::File(file) => Ok(file),
            Self::Held(HeldSnapshot { inner, view }) => {
                let written = blocking(move || SnapshotFile::write(&inner, &view));
                written.await.map_err(|_| StoreError::Panicked("the writer of a snapshot"))?
            }
        }
    }

    /// The last entry that it contains.
    #[cfg(test)]
    pub(super) fn applied(&self) -> Option<LogId> {
        self.meta().expect("its header can be read").last_log_id
    }
}

/// "Builds" a snapshot: the state as it was when the builder was created.
pub(crate) struct SnapshotBuilder(SnapshotData);

impl SnapshotBuilder {
    pub(super) fn create(inner: &Arc<Inner>) -> Self {
        Self(SnapshotData::held(inner))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        Ok(openraft::storage::Snapshot { meta: self.0.meta()?, snapshot: self.0.clone() })
    }
}

/// Removes what unfinished transfers left in the directory.
pub(super) fn remove_unfinished(directory: &Path) -> Result<(), StoreError> {
    let listed = fs::read_dir(directory).map_err(StoreError::file("list", directory))?;
    for entry in listed {
        let path = entry.map_err(StoreError::file("list", directory))?.path();
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(StoreError::file("remove", &path))?;
        step!(StrayFileRemoved);
    }
    Ok(())
}

impl Inner {
    /// A path for unfinished work that nothing else uses.
    fn temporary_path(&self) -> PathBuf {
        use std::sync::atomic::Ordering;
        let number = self.temporary_files.fetch_add(1, Ordering::Relaxed);
        self.directory.snapshots().join(format!("{number}.tmp"))
    }
}

/// A file that is removed when this is dropped. Failing leaves it to the next start.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "could not remove a file");
        }
    }
}
