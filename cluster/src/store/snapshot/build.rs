//! Building a snapshot from a view.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::RaftSnapshotBuilder;
use openraft::type_config::alias::SnapshotOf;
use peat_gateway_proto::stored as proto;
use peat_gateway_state::{Family, codec};
use rocksdb::WriteBatch;

use super::format::{FORMAT, SnapshotWriter};
use super::{SnapshotData, final_path, put_current, remove};
use crate::raft::TypeConfig;
use crate::store::Inner;
use crate::store::directory::sync_directory;
use crate::store::error::StoreError;
use crate::store::flusher::MarkChange;
use crate::store::layout::META;
use crate::store::view::View;
use crate::wire::stored::{log_id_to_stored, stored_membership_to_stored};

/// Builds a snapshot of the state as it was when the builder was created.
pub(crate) struct SnapshotBuilder {
    inner: Arc<Inner>,
    view: View,
    _building: Building,
}

/// Counts the builders that are there.
struct Building(Arc<AtomicU64>);

impl Drop for Building {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SnapshotBuilder {
    /// Creates a builder; `None` where one is there already and `force` doesn't insist.
    pub(in crate::store) fn create(inner: &Arc<Inner>, force: bool) -> Option<Self> {
        let count = inner.builders.clone();
        let others = count.fetch_add(1, Ordering::AcqRel);
        let building = Building(count);
        if others > 0 && !force {
            return None;
        }
        Some(Self { inner: inner.clone(), view: inner.view(), _building: building })
    }

    async fn build(&self) -> Result<SnapshotData, StoreError> {
        let inner = self.inner.clone();
        let view = self.view.clone();
        let written = tokio::task::spawn_blocking(move || write(&inner, &view));
        let data = written.await.map_err(|_| StoreError::Panicked("the snapshot builder"))??;
        let old = match self.inner.replace_snapshot(data.clone()) {
            Ok(old) => old,
            // A newer one was installed meanwhile; this one serves whoever asked for it.
            Err(own) => {
                remove(&own.path);
                return Ok(own);
            }
        };
        let mut batch = WriteBatch::default();
        put_current(&mut batch, &self.inner.database.column(META)?, &data);
        self.inner.database.write(batch, "register the snapshot")?;
        self.inner.flusher.flush(MarkChange::None).await?;
        if let Some(old) = old.filter(|old| old.path != data.path) {
            remove(&old.path);
        }
        Ok(data)
    }
}

fn write(inner: &Inner, view: &View) -> Result<SnapshotData, StoreError> {
    let directory = inner.directory.snapshots();
    let temporary = inner.temporary_path();
    let result = write_file(inner, view, &temporary).and_then(|mut data| {
        let path = final_path(&directory, data.applied());
        std::fs::rename(&temporary, &path)
            .and_then(|()| sync_directory(&directory))
            .map_err(StoreError::file("rename", &temporary))?;
        data.path = path;
        Ok(data)
    });
    if result.is_err() {
        remove(&temporary);
    }
    result
}

fn write_file(
    inner: &Inner,
    view: &View,
    path: &std::path::Path,
) -> Result<SnapshotData, StoreError> {
    let position = view.position();
    let mut writer = SnapshotWriter::create(path)?;
    for family in Family::ALL {
        view.each_row(family, |key, value| writer.add(family, key, value))?;
    }
    let cluster_id = inner.identity().cluster_id.map_or(Vec::new(), |id| id.to_vec());
    writer.finish(proto::SnapshotHeader {
        format: FORMAT,
        cluster_id: cluster_id.into(),
        last_applied: position.applied.as_ref().map(log_id_to_stored),
        membership: Some(stored_membership_to_stored(&position.membership)),
        state_hash: codec::encode(&position.hash).into(),
        rows: 0,
    })
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        let data = self.inner.check(self.build().await)?;
        let meta = self.inner.check(data.meta())?;
        Ok(openraft::storage::Snapshot { meta, snapshot: data })
    }
}
