//! The RocksDB layout, group commit, recovery and snapshots.
//!
//! ```text
//!   openraft ──append, vote, truncate, purge──► LogStore ──┐ write           ┌─ flusher thread:
//!            ──entries────────────────────────► LogReader  ├──► RocksDB ◄────┤  one sync for all
//!            ──committed entries──────────────► Machine ───┘    one WAL      └─ that wait, callbacks
//!                                                  │ after each batch
//!   handle   ◄──View, Changes──────────────────────┘
//! ```
//!
//! One WAL carries log, vote and state, so its order is the order of everything: a crash keeps a
//! beginning of it, never a state without the log positions that belong to it. What must survive
//! waits for a sync; applied rows don't, because they can be applied again.
//!
//! * [`Store`]: opens a data directory and hands out the parts.
//! * [`View`]: the state at one applied index.
//! * `layout`, `directory`, `synced`: what is on the disk.
//! * `space`, `stall`: the disk's free space and its pace. `checkpoints`, `scrub`, `quarantine`: damage is
//!   found, and the directory is taken out of service.
//! * `flusher`: group commit. `log`, `reader`, `cache`: the log. `machine`, `rows`: apply.
//! * `snapshot`: send, receive, install. `restore`: a new cluster's directory out of an old one's state.

mod cache;
mod checkpoints;
mod directory;
mod error;
mod flusher;
mod layout;
mod log;
mod log_size;
mod machine;
mod manifest;
mod open;
mod quarantine;
mod reader;
pub(crate) mod restore;
mod rows;
pub(crate) mod scrub;
mod snapshot;
pub(crate) mod space;
pub(crate) mod stall;
mod steps;
mod synced;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use openraft::Membership;
use peat_gateway_proto::stored as proto;
use peat_gateway_state::ids::Hash32;
use prost::Message;
use rocksdb::WriteBatch;
use tokio::sync::watch;

use crate::error::StartError;
use crate::handle::Changes;
use crate::raft::{Member, StoredMembership};
use crate::wire::stored::stored_membership_to_stored;

pub(crate) use error::StoreError;
pub use flusher::StorageCounts;
pub(crate) use log::LogStore;
pub(crate) use machine::Machine;
pub(crate) use snapshot::{IncomingSnapshot, SnapshotData, SnapshotFile};
use steps::step;
pub use view::View;

/// The format of the stored identity.
const IDENTITY_FORMAT: u32 = 1;

/// A node's storage. Cheap to clone; the database closes when the last clone, view and part is gone.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

/// What [`Store::open`] gives.
pub(crate) struct Opened {
    /// The store.
    pub store: Store,
    /// Whether the directory was empty: this node has just got its id.
    pub was_new: bool,
}

/// Who a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeIdentity {
    /// Random, made once, never 0 and never used again for another directory.
    pub node_id: u64,
    /// `None` until the node belongs to a cluster.
    pub cluster_id: Option<[u8; 16]>,
}

/// What the parts share. Fields drop in order: the flusher's last sync needs the database.
pub(super) struct Inner {
    flusher: flusher::Flusher,
    log: Mutex<log::Log>,
    newest: RwLock<View>,
    rows: Mutex<rows::RowCache>,
    identity: Mutex<NodeIdentity>,
    changes: watch::Sender<Changes>,
    checkpoints: checkpoints::Checkpoints,
    failure: flusher::Failure,
    counters: Arc<flusher::Counters>,
    columns: layout::ColumnOptions,
    directory: directory::Directory,
    temporary_files: AtomicU64,
    database: Arc<layout::Database>,
}

impl Store {
    /// Opens a data directory, or makes a new one, and recovers what is in it.
    ///
    /// Blocks for as long as the WAL takes to read, a second or two at most.
    ///
    /// # Errors
    /// Another process uses the directory, it isn't ours, a newer version wrote it, it is damaged,
    /// or records that were synced are gone. Each says what to do.
    pub(crate) fn open(data_dir: &Path) -> Result<Opened, StartError> {
        open::open(data_dir)
    }

    /// Who this directory belongs to.
    pub(crate) fn identity(&self) -> NodeIdentity {
        self.inner.identity()
    }

    /// Makes this directory one of a cluster, for good; durable when it returns.
    ///
    /// # Errors
    /// It belongs to another cluster, or the disk failed.
    pub(crate) fn adopt(&self, cluster_id: [u8; 16]) -> Result<(), StoreError> {
        let mut identity = self.inner.identity.lock().unwrap_or_else(PoisonError::into_inner);
        match identity.cluster_id {
            Some(own) if own == cluster_id => return Ok(()),
            Some(own) => {
                let (own, wanted) = (hex::encode(own), hex::encode(cluster_id));
                return Err(StoreError::OtherCluster { own, wanted });
            }
            None => {}
        }
        let adopted = NodeIdentity { cluster_id: Some(cluster_id), ..*identity };
        let mut batch = WriteBatch::default();
        let meta = self.inner.database.column(layout::META)?;
        batch.put_cf(&meta, layout::key::IDENTITY, adopted.to_stored().encode_to_vec());
        self.inner.check(self.inner.database.write(batch, "write the identity"))?;
        step!(AdoptWritten);
        self.inner.check(self.inner.flusher.flush_blocking())?;
        step!(AdoptSynced);
        *identity = adopted;
        Ok(())
    }

    /// Marks this directory as one whose node was removed: it is never opened again. Blocks.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn mark_removed(&self, reason: &str) -> io::Result<()> {
        self.inner.directory.mark_removed(reason)
    }

    /// The log, for openraft. Take it once.
    pub(crate) fn log(&self) -> LogStore {
        LogStore::new(self.inner.clone())
    }

    /// The state machine, for openraft. Take it once.
    pub(crate) fn machine(&self) -> Machine {
        Machine::new(self.inner.clone())
    }

    /// The newest view of the state.
    pub(crate) fn view(&self) -> View {
        self.inner.view()
    }

    /// Watches what was applied; it moves once new views show it.
    pub(crate) fn changes(&self) -> watch::Receiver<Changes> {
        self.inner.changes.subscribe()
    }

    /// What is applied, and shown by new views.
    /// This node's vote, from the moment on at which it may be given to somebody.
    pub(crate) fn promised_vote(&self) -> Option<crate::raft::Vote> {
        self.inner.log().promised
    }

    /// The newest applied index.
    pub(crate) fn applied_index(&self) -> u64 {
        self.inner.changes.borrow().applied
    }

    /// The hash of the newest view's state, and the applied index it belongs to.
    pub(crate) fn state_hash(&self) -> (u64, Hash32) {
        let view = self.inner.view();
        (view.applied_index(), view.position().hash.digest())
    }

    /// Watches for a failure of the storage: once it has a reason, the process must end.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.inner.failure.watch()
    }

    /// The index of the last entry, purged ones included; 0 for an empty log.
    pub(crate) fn last_log_index(&self) -> u64 {
        self.inner.log().last_id().map_or(0, |id| id.index)
    }

    /// What the store has done since it was opened.
    pub(crate) fn counts(&self) -> StorageCounts {
        self.inner.counters.read()
    }

    /// Notes the cluster's version where a build that is too old for it looks first; durable when it
    /// returns. Blocks on the disk.
    ///
    /// # Errors
    /// The disk failed; the state knows the version all the same.
    pub(crate) fn mark_version(&self, version: u16) -> io::Result<()> {
        self.inner.directory.mark_version(version)
    }

    /// What the flusher is at, and how long syncs take.
    pub(crate) fn syncs(&self) -> &stall::SyncWatch {
        &self.inner.counters.syncs
    }

    /// The data directory's paths.
    pub(crate) fn directory(&self) -> &directory::Directory {
        &self.inner.directory
    }

    /// Fills this node's addresses into the membership that a restore wrote, which knows only its id.
    ///
    /// Does nothing once the node has run: from its first entry on, the log says who the members are.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn name_restored_member(&self, member: &Member) -> Result<(), StoreError> {
        let mut position = self.inner.view().position().clone();
        let node_id = self.identity().node_id;
        let alone = position.membership.membership();
        let unnamed = alone.get_node(&node_id) == Some(&Member::default());
        if !unnamed || alone.nodes().count() != 1 || self.inner.log().last_id() != position.applied
        {
            return Ok(());
        }
        let named = BTreeMap::from([(node_id, member.clone())]);
        let named = Membership::new(vec![BTreeSet::from([node_id])], named)
            .map_err(StoreError::decode("membership"))?;
        position.membership = StoredMembership::new(*position.membership.log_id(), named);
        let stored = stored_membership_to_stored(&position.membership).encode_to_vec();
        let mut batch = WriteBatch::default();
        batch.put_cf(&self.inner.database.column(layout::META)?, layout::key::MEMBERSHIP, stored);
        self.inner.check(self.inner.database.write(batch, "name the only member"))?;
        self.inner.check(self.inner.flusher.flush_blocking())?;
        self.inner.publish(position)
    }

    /// Writes a snapshot of a view into a stream. Blocks.
    ///
    /// # Errors
    /// The disk failed, or `to` refuses; what was written is no snapshot then.
    pub(crate) fn stream_snapshot(
        &self,
        view: &View,
        to: &mut dyn Write,
    ) -> Result<(), StoreError> {
        snapshot::stream(&self.inner, view, to)
    }

    /// Begins to receive a snapshot from another node.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn receive_snapshot(&self) -> Result<IncomingSnapshot, StoreError> {
        IncomingSnapshot::create(self.inner.clone())
    }
}

impl Inner {
    fn identity(&self) -> NodeIdentity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> View {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Passes a result on, and tells who watches when it is an error: the process must end.
    fn check<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.consider_damage(error);
            self.failure.set(&error::chain(error));
        }
        result
    }
}

impl NodeIdentity {
    fn to_stored(self) -> proto::NodeIdentity {
        proto::NodeIdentity {
            format: IDENTITY_FORMAT,
            node_id: self.node_id,
            cluster_id: self.cluster_id.map_or(Vec::new(), |id| id.to_vec()).into(),
        }
    }

    fn from_stored(bytes: &[u8]) -> Result<Self, StoreError> {
        let invalid =
            |reason: &str| StoreError::Decode { what: "identity", reason: reason.to_owned() };
        let stored = proto::NodeIdentity::decode(bytes).map_err(StoreError::decode("identity"))?;
        if stored.node_id == 0 || stored.format != IDENTITY_FORMAT {
            return Err(invalid("it has no node id, or another format"));
        }
        let cluster_id = match stored.cluster_id.len() {
            0 => None,
            16 => stored.cluster_id[..].try_into().ok(),
            _ => return Err(invalid("its cluster id has not 16 bytes")),
        };
        Ok(Self { node_id: stored.node_id, cluster_id })
    }
}
