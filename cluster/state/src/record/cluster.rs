//! What belongs to the cluster as a whole.

use minicbor::{Decode, Encode};

use crate::ids::{Epoch, Hash32, NodeId};

/// The rows of [`crate::Space::Cluster`]; the byte is the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ClusterKey {
    /// [`ClusterSettings`].
    Settings = 1,
    /// [`ClusterEpoch`].
    Epoch = 2,
    /// [`ClusterClock`].
    Clock = 3,
    /// [`ClusterOrigin`].
    Origin = 16,
}

/// Settings that all nodes share.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterSettings {
    /// Made at initialisation; every message between nodes carries it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// Bound into every sealed secret; a restore keeps it while the cluster id changes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub seal_domain: [u8; 16],
    /// Commands up to this version may be proposed.
    #[n(2)]
    pub version: u16,
    /// How long answers are kept for retries, ms.
    #[n(3)]
    pub idempotency_retention_ms: u64,
    /// How long delivered journal rows are kept, ms; 0 trims at once behind the slowest cursor.
    #[n(4)]
    pub journal_retention_ms: u64,
    /// A known plaintext, sealed at initialisation: a node with a wrong key fails to open it and ends its start.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub key_check: Vec<u8>,
    /// Who finishes an upgrade; `None` is [`Upgrade::Auto`]. Never written below version 2.
    #[n(6)]
    pub upgrade: Option<Upgrade>,
}

/// Who raises the cluster's version when every member supports a newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Upgrade {
    /// The leader, when every member has run the newer build for a while.
    #[default]
    #[n(0)]
    Auto,
    /// An operator.
    #[n(1)]
    Manual,
}

/// Who may do leader work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ClusterEpoch {
    /// Log index of the `ClaimEpoch` entry.
    #[n(0)]
    pub epoch: Epoch,
    /// The node that claimed it.
    #[n(1)]
    pub node: NodeId,
    /// The Raft term of that entry.
    #[n(2)]
    pub term: u64,
}

/// The cluster's clock: the newest stamp applied. Expiry uses nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ClusterClock {
    /// Unix time in ms.
    #[n(0)]
    pub now: u64,
    /// All answers that expire before this time are forgotten already: the next look for expired
    /// ones begins here, not at the front of a range full of deleted rows.
    #[n(1)]
    pub forgotten_before: u64,
}

/// Where the state came from. No row: the cluster was made empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ClusterOrigin {
    /// The cluster whose state it was.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub cluster_id: [u8; 16],
    /// That cluster's last entry that is contained.
    #[n(1)]
    pub index: u64,
    /// Hash of its state at that entry.
    #[n(2)]
    pub state_hash: Hash32,
    /// How often the state has changed its cluster, this time included.
    #[n(3)]
    pub generation: u32,
    /// Unix time in ms.
    #[n(4)]
    pub restored_at: u64,
}
