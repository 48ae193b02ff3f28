//! A whole snapshot in one file, on its way between two nodes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use peat_gateway_proto::stored as proto;
use peat_gateway_state::command::FIRST_VERSION;
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::{Family, codec};

use super::Temporary;
use super::format::{SnapshotWriter, format_of};
use crate::blocking::blocking;
use crate::raft::{LogId, SnapshotMeta, StoredMembership};
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::open::cluster_version;
use crate::store::steps::step;
use crate::store::view::View;
use crate::wire::stored::{
    log_id_from_stored, log_id_to_stored, stored_membership_from_stored,
    stored_membership_to_stored,
};

/// A file that is whole and checked, or that this node wrote. Cheap to clone; the file goes with the last
/// clone.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    header: Arc<proto::SnapshotHeader>,
    file: Arc<File>,
    bytes: u64,
    path: Arc<Temporary>,
}

impl SnapshotFile {
    /// Takes over a file.
    pub(super) fn new(
        header: proto::SnapshotHeader,
        file: File,
        bytes: u64,
        path: Temporary,
    ) -> Self {
        Self { header: Arc::new(header), file: Arc::new(file), bytes, path: Arc::new(path) }
    }

    /// Writes a view down. Blocks for as long as reading all rows takes.
    pub(super) fn write(inner: &Inner, view: &View) -> Result<Self, StoreError> {
        let path = Temporary(inner.temporary_path());
        let mut writer = SnapshotWriter::create(&path.0)?;
        step!(SendCreated);
        for family in Family::ALL {
            view.each_row(family, |key, value| writer.add(family, key, value))?;
        }
        let (header, file, bytes) = writer.finish(header_of(inner, view)?)?;
        step!(SendSynced);
        Ok(Self::new(header, file, bytes, path))
    }

    /// What it is a snapshot of.
    pub(crate) fn header(&self) -> &proto::SnapshotHeader {
        &self.header
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path.0
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
        let read = blocking(move || {
            let mut chunk = BytesMut::zeroed(bytes);
            file.read_exact_at(&mut chunk, offset).map(|()| chunk.freeze())
        });
        read.await.map_err(io::Error::other)?
    }

    pub(super) fn meta(&self) -> Result<SnapshotMeta, StoreError> {
        Ok(SnapshotMeta { last_log_id: self.applied(), last_membership: self.membership()? })
    }

    /// The last entry that it contains.
    pub(super) fn applied(&self) -> Option<LogId> {
        self.header.last_applied.as_ref().map(log_id_from_stored)
    }

    pub(super) fn membership(&self) -> Result<StoredMembership, StoreError> {
        let stored = self.header.membership.clone().unwrap_or_default();
        stored_membership_from_stored(stored).map_err(StoreError::decode("snapshot membership"))
    }

    pub(super) fn hash(&self) -> Result<StateHash, StoreError> {
        codec::decode(&self.header.state_hash).map_err(StoreError::decode("snapshot state hash"))
    }
}

/// The header of a view's snapshot, without the number of rows.
pub(super) fn header_of(inner: &Inner, view: &View) -> Result<proto::SnapshotHeader, StoreError> {
    let position = view.position();
    let cluster_id = inner.identity().cluster_id.map_or(Vec::new(), |id| id.to_vec());
    let version = cluster_version(view)?;
    Ok(proto::SnapshotHeader {
        format: format_of(version),
        cluster_id: cluster_id.into(),
        last_applied: position.applied.as_ref().map(log_id_to_stored),
        membership: Some(stored_membership_to_stored(&position.membership)),
        state_hash: codec::encode(&position.hash).into(),
        rows: 0,
        cluster_version: if version > FIRST_VERSION { version.into() } else { 0 },
    })
}
