//! Receiving a snapshot from another node.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use super::format::SnapshotReader;
use super::{SnapshotData, Temporary};
use crate::blocking::blocking;
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::steps::step;

/// Most bytes of a snapshot that is received; a sender that goes on is refused.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;

/// A snapshot that arrives. Dropping it removes what has arrived.
pub(crate) struct IncomingSnapshot {
    inner: Arc<Inner>,
    path: Temporary,
    file: BufWriter<File>,
    bytes: u64,
}

impl IncomingSnapshot {
    pub(in crate::store) fn create(inner: Arc<Inner>) -> Result<Self, StoreError> {
        let path = Temporary(inner.temporary_path());
        let file = File::create(&path.0).map_err(StoreError::file("create", &path.0))?;
        step!(ReceiveCreated);
        Ok(Self { inner, path, file: BufWriter::new(file), bytes: 0 })
    }

    /// Adds the next bytes of the file.
    ///
    /// # Errors
    /// The disk failed, or the snapshot is larger than any could be.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > SNAPSHOT_BYTES_MAX {
            return Err(StoreError::Snapshot(format!("it has over {SNAPSHOT_BYTES_MAX} bytes")));
        }
        self.file.write_all(bytes).map_err(StoreError::file("write", &self.path.0))?;
        step!(ReceiveWritten, self.file.flush());
        Ok(())
    }

    /// Checks all of it: format, cluster, every checksum, the order of rows, both hashes.
    ///
    /// # Errors
    /// `Snapshot` where anything is wrong: the state is as before, and the sender may try again.
    pub(crate) async fn finish(self) -> Result<SnapshotData, StoreError> {
        let checked = blocking(move || self.check());
        checked.await.map_err(|_| StoreError::Panicked("the check of a snapshot"))?
    }

    fn check(mut self) -> Result<SnapshotData, StoreError> {
        let path = self.path;
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(StoreError::file("write", &path.0))?;
        step!(ReceiveSynced);
        let reader = SnapshotReader::open(&path.0)?;
        let own = self.inner.identity().cluster_id;
        if own.is_some_and(|own| reader.header().cluster_id[..] != own) {
            return Err(StoreError::Snapshot("it belongs to another cluster".to_owned()));
        }
        reader.each_row(|_, _, _, _| Ok(()))?;
        let file = SnapshotReader::open(&path.0)?.into_file(path)?;
        // What the header says is used from here on, so it must be readable.
        file.meta()?;
        file.hash()?;
        step!(ReceiveChecked);
        Ok(SnapshotData::File(file))
    }
}
