//! gRPC between nodes, with mutual TLS.
//!
//! ```text
//!  openraft ──► network ──► peers: one set of channels per node ──────► another node's listener
//!  forward ───┘             urgent   heartbeats, votes, transfer             │ admission: cluster id,
//!  read ──────┘             log      append streams                         │ from, to
//!                           snapshot snapshots                              ▼
//!                           requests proposals, read index, status   raft_service, cluster_service
//! ```
//!
//! Each kind of traffic has a connection of its own, so that a heartbeat never waits behind a
//! snapshot. Every call names the cluster and both nodes; a node of another cluster, or one that took
//! over an address, is refused before its message counts for anything.

pub(crate) mod admission;
pub(crate) mod cluster_service;
pub(crate) mod connection;
pub(crate) mod listener;
pub(crate) mod network;
pub(crate) mod peers;
pub(crate) mod proposals;
pub(crate) mod questions;
pub(crate) mod raft_service;
pub(crate) mod snapshot;
pub(crate) mod tls;
pub(crate) mod token;

/// Most bytes of one gRPC message; a larger one is refused by the receiver.
///
/// Appends are cut to about 1 MiB of entries by the log reader, and an entry has at most 1 MiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 << 20;
