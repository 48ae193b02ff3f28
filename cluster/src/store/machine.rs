//! Applying committed entries: a batch of them becomes one overlay, one write, one view.
//!
//! ```text
//!  entries ──► Overlay over the newest view ──► rows, applied id, membership, state hash
//!                                                      │ one batch, unsynced
//!              answers ◄── Changes ◄── new view ◄──────┘
//! ```
//!
//! The batch isn't synced: its entries are durable on a quorum, and a crash loses only the last
//! applied batches, together with their applied id, so they are applied again.

use std::io;
use std::sync::{Arc, PoisonError};

use futures_util::stream::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend};
use peat_gateway_state::apply::{Effects, Overlay};
use peat_gateway_state::{Applied, EntryPosition, Family, codec};
use prost::Message;
use rocksdb::WriteBatch;

use super::Inner;
use super::checkpoints::is_checkpoint;
use super::error::StoreError;
use super::flusher::Counters;
use super::layout::{META, key, state_column};
use super::rows::CachedView;
use super::snapshot::{SnapshotBuilder, SnapshotData, install};
use super::steps::step;
use super::view::{Position, View, full_key};
use crate::raft::{Answer, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::wire::entry::encoded_bytes;
use crate::wire::stored::{log_id_to_stored, stored_membership_to_stored};

/// Entries applied in one batch at most.
const BATCH_ENTRIES_MAX: usize = 512;
/// Bytes of entries applied in one batch; the batch ends with the entry that reaches it.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The state machine as openraft drives it. One at a time: openraft holds the only one.
pub(crate) struct Machine {
    inner: Arc<Inner>,
}

impl Machine {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    fn apply_batch(&self, batch: Vec<EntryResponder<TypeConfig>>) -> Result<(), StoreError> {
        let (entries, responders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let answers = self.inner.apply_entries(&entries)?;
        for (responder, answer) in responders.into_iter().zip(answers) {
            if let Some(responder) = responder {
                responder.send(Answer(answer));
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Applies entries, and returns their answers once they are visible to new views.
    pub(super) fn apply_entries(
        &self,
        entries: &[Entry],
    ) -> Result<Vec<Option<Applied>>, StoreError> {
        let view = self.view();
        let mut position = view.position().clone();
        let mut kept = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = CachedView::new(&view, &mut kept);
        let mut overlay = Overlay::new(&reader);
        let mut answers = Vec::with_capacity(entries.len());
        let mut changed_membership = None;
        for entry in entries {
            let id = entry.log_id;
            check_order(position.applied, id)?;
            answers.push(match &entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(command) => {
                    let at = EntryPosition {
                        index: id.index,
                        term: id.leader_id.term,
                        time_ms: command.time_ms,
                    };
                    #[cfg(test)]
                    let command = &crate::simulation::unfenced(command, &overlay, at.term);
                    let applied =
                        peat_gateway_state::apply(&mut overlay, &at, &command.envelope)
                            .map_err(|source| StoreError::Apply { index: id.index, source })?;
                    Some(applied)
                }
                EntryPayload::Membership(membership) => {
                    changed_membership = Some(StoredMembership::new(Some(id), membership.clone()));
                    None
                }
            });
            position.applied = Some(id);
        }
        let rows = overlay.finish(&mut position.hash);
        let rows_changed = !rows.is_empty();

        let database = &self.database;
        let meta = database.column(META)?;
        let mut batch = WriteBatch::default();
        let [records, journal, documents] =
            Family::ALL.map(|family| database.column(&state_column(family, position.generation)));
        let (records, journal, documents) = (records?, journal?, documents?);
        for (space, key, value) in rows {
            let column = match space.family() {
                Family::Records => &records,
                Family::Journal => &journal,
                Family::Documents => &documents,
            };
            let key = full_key(space, &key);
            match &value {
                Some(value) => batch.put_cf(column, &key, value),
                None => batch.delete_cf(column, &key),
            }
            kept.keep(key, value);
        }
        if let Some(id) = &position.applied {
            batch.put_cf(&meta, key::APPLIED, log_id_to_stored(id).encode_to_vec());
        }
        if rows_changed {
            batch.put_cf(&meta, key::STATE_HASH, codec::encode(&position.hash));
        }
        if let Some(membership) = changed_membership {
            let stored = stored_membership_to_stored(&membership).encode_to_vec();
            batch.put_cf(&meta, key::MEMBERSHIP, stored);
            position.membership = membership;
        }
        database.write(batch, "apply entries")?;
        step!(ApplyWritten);
        Counters::add(&self.counters.apply_batches, 1);
        Counters::add(&self.counters.applied_entries, entries.len() as u64);
        drop(kept);
        self.publish(position)?;
        step!(ApplyPublished);
        self.announce(entries, &answers);
        step!(ApplyAnnounced);
        Ok(answers)
    }

    /// Forgets the rows that are kept in memory: others have taken their places.
    pub(super) fn forget_rows(&self) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Makes what is in the database the newest view.
    pub(super) fn publish(&self, position: Position) -> Result<(), StoreError> {
        self.checkpoints.note(&position);
        let view = View::take(&self.database, position)?;
        // The old view is dropped after the lock: releasing a snapshot takes RocksDB's mutex.
        let old = std::mem::replace(
            &mut *self.newest.write().unwrap_or_else(PoisonError::into_inner),
            view,
        );
        drop(old);
        Ok(())
    }

    fn announce(&self, entries: &[Entry], answers: &[Option<Applied>]) {
        self.changes.send_modify(|changes| {
            for (entry, answer) in entries.iter().zip(answers) {
                let index = entry.log_id.index;
                let effects = answer.as_ref().map_or_else(Effects::default, |a| a.effects);
                changes.applied = index;
                if effects.configuration {
                    changes.configuration = index;
                }
                if effects.journal {
                    changes.journal = index;
                }
                if effects.cursors {
                    changes.cursors = index;
                }
            }
        });
    }
}

/// Refuses to apply an entry twice, or one of the past: the nodes would differ.
fn check_order(applied: Option<LogId>, next: LogId) -> Result<(), StoreError> {
    match applied {
        Some(applied) if next.index <= applied.index => Err(StoreError::NotConsecutive {
            doing: "apply",
            found: next.index,
            expected: applied.index + 1,
        }),
        _ => Ok(()),
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let view = self.inner.view();
        let position = view.position();
        Ok((position.applied, position.membership.clone()))
    }

    /// Applies in batches; what was applied is visible before it is answered.
    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch: Vec<EntryResponder<TypeConfig>> = Vec::new();
        let mut bytes = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            if let Some((last, _)) = batch.last()
                && last.log_id.index + 1 != entry.log_id.index
            {
                let expected = last.log_id.index + 1;
                let found = entry.log_id.index;
                let doing = "apply";
                return Err(StoreError::NotConsecutive { doing, found, expected }.into());
            }
            bytes += encoded_bytes(&entry);
            let ends_here = is_checkpoint(entry.log_id.index);
            batch.push((entry, responder));
            if ends_here || batch.len() == BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                bytes = 0;
                self.inner.check(self.apply_batch(std::mem::take(&mut batch)))?;
            }
        }
        if !batch.is_empty() {
            self.inner.check(self.apply_batch(batch))?;
        }
        Ok(())
    }

    /// The builder sees the state as it is now.
    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        Some(SnapshotBuilder::create(&self.inner))
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::create(&self.inner)
    }

    /// The old state or the new one is there after a crash, never a mix.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        self.inner.check(install(&self.inner, meta, snapshot).await)?;
        Ok(())
    }

    /// The state as it is now, which is never older than the last snapshot that was built or installed.
    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        let snapshot = SnapshotData::held(&self.inner);
        let meta = snapshot.meta()?;
        let exists = meta.last_log_id.is_some();
        Ok(exists.then_some(openraft::storage::Snapshot { meta, snapshot }))
    }
}
