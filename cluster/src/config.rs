//! What a node is told at start.

use std::path::PathBuf;
use std::time::Duration;

use crate::membership::MembershipConfig;

/// A node's part in a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The data directory. One process at a time; a second one is refused.
    pub data_dir: PathBuf,
    /// What the operator calls this node; shown in `cluster status`.
    pub name: String,
    /// Where the peer listener binds, `host:port`; `None` where this node is the only one.
    pub peer_bind: Option<String>,
    /// `host:port` at which the other nodes reach it; a name is resolved at each connect.
    pub peer_address: String,
    /// URL at which clients reach this node's HTTP API.
    pub http_address: String,
    /// Peer addresses of all first members, this node's included. Empty: a cluster of one.
    ///
    /// Used only while the data directory belongs to no cluster.
    pub initial_peers: Vec<String>,
    /// Secret that the nodes of one cluster share; keeps strangers from being adopted at bootstrap.
    pub cluster_token: String,
    /// Certificates of the peer listener; `None` only on loopback.
    pub peer_tls: Option<PeerTls>,
    /// Raft timing and limits.
    pub timing: Timing,
    /// How nodes come to be members.
    pub membership: MembershipConfig,
    /// Bounds of clients' writes.
    pub writes: WriteLimits,
}

/// Files of the mutual TLS between nodes, PEM.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// The authority that signs all nodes' certificates.
    pub ca: PathBuf,
    /// This node's certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Raft timing and limits. The defaults elect a new leader in about half a second.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// Shortest election timeout.
    pub election_timeout_min: Duration,
    /// Longest election timeout; also the leader's lease.
    pub election_timeout_max: Duration,
    /// A snapshot is made after this many entries, and the log behind it purged.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot, so that a slow follower needs no snapshot.
    pub entries_kept: u64,
    /// How long this node must have run before it agrees that the cluster's version is raised without
    /// an operator: so long can its build be exchanged for the one before.
    pub upgrade_delay: Duration,
    /// What is expected of the disk, and how its content is watched.
    pub storage: StorageLimits,
}

/// What is expected of the data directory's disk, and how its content is watched.
#[derive(Clone, Debug)]
pub struct StorageLimits {
    /// A sync that takes this long takes the node out of leadership until the disk moves again.
    pub stall: Duration,
    /// A sync that takes this long makes the process count as dead, so that its supervisor restarts it; 0
    /// for never.
    pub stall_restart: Duration,
    /// Free bytes below which no client's write is taken, on a large file system.
    pub free_bytes_min: u64,
    /// The same in percent of the file system; the lower of the two counts. 0 in either switches both
    /// and the ballast off.
    pub free_percent_min: u64,
    /// The ballast's size at most; it is given up before the disk is full.
    pub ballast_bytes_max: u64,
    /// Bytes of log entries; beyond, a snapshot is made and the log behind it purged, whatever
    /// `snapshot_entries` and `entries_kept` say.
    pub log_bytes_max: u64,
    /// Between two comparisons of the nodes' state hashes; 0 for none.
    pub comparison_interval: Duration,
    /// From the end of one pass over all stored bytes to the next; 0 for none.
    pub scrub_interval: Duration,
    /// How fast such a pass reads.
    pub scrub_bytes_per_second: u64,
}

impl Default for StorageLimits {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(2),
            stall_restart: Duration::from_secs(60),
            free_bytes_min: 512 << 20,
            free_percent_min: 5,
            ballast_bytes_max: 32 << 20,
            log_bytes_max: 256 << 20,
            comparison_interval: Duration::from_secs(10),
            scrub_interval: Duration::from_secs(3600),
            scrub_bytes_per_second: 32 << 20,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(250),
            election_timeout_max: Duration::from_millis(450),
            snapshot_entries: 20_000,
            entries_kept: 20_000,
            upgrade_delay: Duration::from_secs(24 * 3600),
            storage: StorageLimits::default(),
        }
    }
}

/// Bounds of clients' writes on one node; beyond each a write is refused and nothing happened.
#[derive(Clone, Copy, Debug)]
pub struct WriteLimits {
    /// Writes in consensus at once that came through this node. While several organisations write, one
    /// has three quarters of these at most.
    pub under_way_max: usize,
    /// Writes of one organisation that wait for a place.
    pub waiting_per_organization_max: usize,
    /// Writes of all that wait for a place.
    pub waiting_max: usize,
    /// Log entries that this node may have yet to apply while it takes writes.
    pub apply_lag_max: u64,
}

impl Default for WriteLimits {
    fn default() -> Self {
        Self {
            under_way_max: 256,
            waiting_per_organization_max: 1_024,
            waiting_max: 4_096,
            apply_lag_max: 20_000,
        }
    }
}
