//! Backups: snapshots inspected, restored into a new cluster, and clusters that lost their quorum
//! recovered from what one node still has.
//!
//! ```text
//!   snapshot file ──inspect──► every checksum, every row
//!        │
//!        └──restore──► data directory of a new cluster's only node ◄──recover── a stopped node's disk
//!                       new cluster id, new node id, numbers raised
//! ```
//!
//! All of this is offline: no node runs on the directories while it happens. Everything here blocks.

mod inspect;
mod recover;
mod restore;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use peat_gateway_state::ids::{Hash32, NodeId};
use peat_gateway_state::record::ClusterOrigin;
use thiserror::Error;

use crate::error::StartError;
use crate::store::StoreError;
use crate::store::restore::BuildError;

pub use inspect::{inspect, inspect_stream};
pub use recover::{RecoverOptions, recover, survey};
pub use restore::{Operator, restore};

/// Why a snapshot, a restore or a recovery came to nothing.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file or the directory can't be used for this, or the request was not accepted. Nothing was
    /// changed, and doing it again changes nothing.
    #[error("{0}")]
    Refused(String),
    /// A disk, a database or a connection failed.
    #[error("{0}")]
    Failed(String),
}

impl SnapshotError {
    pub(crate) fn of(error: &StoreError) -> Self {
        let text = chain(error);
        match error {
            StoreError::Snapshot(_) => SnapshotError::Refused(text),
            StoreError::File { doing: "open", .. } => SnapshotError::Refused(text),
            _ => SnapshotError::Failed(text),
        }
    }

    fn of_directory(error: &StartError) -> Self {
        SnapshotError::Refused(chain(error))
    }

    fn of_build(error: BuildError) -> Self {
        match error {
            BuildError::Store(error) => Self::of(&error),
            BuildError::Start(error) => Self::of_directory(&error),
        }
    }
}

/// How far a pass over a snapshot or a disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows seen.
    pub rows: u64,
    /// Rows that there are; 0 where that isn't known.
    pub rows_total: u64,
}

/// What a snapshot says of itself, checked.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Format of the file.
    pub format: u32,
    /// The cluster whose state it is; `None` for one that has no id.
    pub cluster_id: Option<[u8; 16]>,
    /// Index of the last entry that it contains; 0 for an empty state.
    pub applied_index: u64,
    /// That entry's term.
    pub applied_term: u64,
    /// The members at that entry.
    pub members: Vec<SnapshotMember>,
    /// Hash of the state.
    pub state_hash: Hash32,
    /// Newest version of commands that the cluster had agreed on; `None` before it was initialised.
    pub command_version: Option<u16>,
    /// Bound into every sealed secret; a restore keeps it.
    pub seal_domain: Option<[u8; 16]>,
    /// Where the state came from, if its cluster was restored itself.
    pub origin: Option<ClusterOrigin>,
    /// The cluster's clock at that entry, Unix ms.
    pub clock_ms: u64,
    /// All rows.
    pub rows: u64,
    /// Rows and bytes by key space, empty ones left out, in key order.
    pub spaces: Vec<SpaceUse>,
    /// Bytes of the snapshot.
    pub bytes: u64,
}

/// A member of the cluster whose state it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMember {
    /// Its id.
    pub node_id: NodeId,
    /// What the operator calls it.
    pub name: String,
    /// `host:port` of its peer listener.
    pub peer_address: String,
    /// Whether it votes.
    pub voter: bool,
}

/// What a key space holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceUse {
    /// Its name.
    pub space: &'static str,
    /// Rows.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// A new cluster, not started yet.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// Its id.
    pub cluster_id: [u8; 16],
    /// Its only node.
    pub node_id: NodeId,
    /// The log index of its first state.
    pub index: u64,
    /// Hash of that state.
    pub state_hash: Hash32,
    /// The cluster that it comes from.
    pub from_cluster: [u8; 16],
    /// That cluster's last entry that is contained.
    pub from_index: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Where the data that was there is now; `None` where there was none.
    pub retired: Option<PathBuf>,
}

/// What became of a restore or a recovery.
#[derive(Clone, Debug)]
pub enum Made {
    /// A new cluster's data directory.
    New(NewCluster),
    /// An earlier attempt that was interrupted at its end is now at its end; nothing else was done.
    Completed,
}

/// What a stopped node's disk holds.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The cluster that it belonged to.
    pub cluster_id: [u8; 16],
    /// The node.
    pub node_id: NodeId,
    /// The members as far as it had applied.
    pub members: Vec<SnapshotMember>,
    /// The last applied entry on the disk.
    pub applied_index: u64,
    /// Hash of the state at that entry, recomputed from all rows.
    pub applied_hash: Hash32,
    /// The last entry that the node knew to be committed.
    pub committed_index: u64,
    /// The end of its log.
    pub last_log_index: u64,
    /// Entries that the node had promised to keep and that are gone from its disk.
    pub lost_entries: u64,
    /// The entries above the applied ones.
    pub pending: Vec<PendingEntry>,
    /// The last entry that the new cluster will contain.
    pub kept_index: u64,
    /// Hash of the state at that entry: what has to be typed.
    pub kept_hash: Hash32,
}

/// An entry above the applied ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEntry {
    /// Its log index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Whether the node knew that a quorum has it.
    pub committed: bool,
    /// Whether it becomes part of the new cluster's state.
    pub kept: bool,
    /// What it is, without its content.
    pub what: String,
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
