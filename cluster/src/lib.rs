//! A peat-gateway cluster: consensus, storage and the transport between nodes.
//!
//! ```text
//!  propose ──► Handle ──► leader here? ──no──► transport ──► the leader's Handle (one hop)
//!                              │yes: stamp the time
//!                              ▼
//!                        openraft ──► store::log ──┐            one RocksDB, one WAL,
//!                              │                   ├──► flusher ── fdatasync ──► callbacks
//!                              └──► store::vote ───┘
//!                              ▼ committed
//!                        store::machine ──► state::apply ──► one write batch per batch of entries
//!                              ▼
//!                        Outcome and log index, to the caller; Changes, to who watches
//! ```
//!
//! Only this crate names openraft or RocksDB. Others hold a [`Handle`]: propose, read, watch.
//!
//! * [`backup`]: snapshots inspected and restored, clusters recovered; offline.
//! * [`config`]: what a node is told at start.
//! * [`node`]: the life of a node: open, bootstrap or rejoin, run, stop.
//! * [`membership`]: who belongs to the cluster.
//! * [`handle`]: what the rest of the gateway sees.
//! * [`health`]: what is wrong with a node.
//! * [`store`]: the RocksDB layout, group commit, recovery, snapshots.
//! * [`wire`]: our own encodings, on disk and between nodes.
//! * [`transport`]: gRPC with mTLS.

pub mod backup;
mod blocking;
pub mod config;
pub mod error;
pub mod handle;
pub mod health;
pub mod membership;
pub mod node;
mod raft;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod transport;
mod wire;

#[cfg(test)]
extern crate self as peat_gateway_cluster;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
pub(crate) mod support;

pub use config::{ClusterConfig, PeerTls, StorageLimits, WriteLimits};
pub use error::{ProposeError, RaiseError, ReadIndexError, StartError};
pub use handle::{
    Changes, Committed, Consistency, Handle, Leadership, NodeHealth, NodeStatus, NodeVersions,
    Raised, Role, StorageCounts, Upgrade, View,
};
pub use health::{Alarm, AlarmCode};
pub use membership::{
    Departure, MembershipChanged, MembershipConfig, MembershipError, MembershipOrder,
    MembershipView,
};
pub use node::{Node, WriteCounts};
