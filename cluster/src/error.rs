//! What callers must tell apart.

use thiserror::Error;

/// A proposal that was not answered by the state.
///
/// The difference matters: after *unavailable* nothing happened and the caller may try again; after
/// *unknown* it may have happened, and only a retry with the same idempotency key is safe.
#[derive(Clone, Debug, Error)]
pub enum ProposeError {
    /// Nothing happened: no leader is known, or it could not take the command.
    #[error("could not propose: {0}")]
    Unavailable(String),
    /// It may have happened: the connection or the time ran out after proposing.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Nothing happened: this is leader work, and this node isn't the leader that may do it.
    #[error("this node is not the leader")]
    NotLeader,
    /// Nothing happened: the queue of proposals is full.
    #[error("too many proposals are waiting")]
    Overloaded,
    /// Nothing happened: the command is newer than the cluster, whose upgrade isn't finished.
    #[error("this needs cluster version {needed}, the cluster has {version}: {held_back}")]
    TooNew {
        /// What the command needs.
        needed: u16,
        /// What the cluster has.
        version: u16,
        /// Who holds it back, or what finishes the upgrade.
        held_back: String,
    },
    /// Nothing happened: the disks are nearly full. The text says whose, and what to do.
    #[error("no space for writes: {0}")]
    NoSpace(String),
    /// Nothing happened: the command's organisation has too many of them waiting.
    #[error("{limit} writes of this organization are waiting on this node")]
    OverShare {
        /// How many may wait.
        limit: usize,
    },
    /// Nothing happened: this node must first apply what is committed.
    #[error(
        "this node has {lag} log entries to apply before it takes writes, the limit is {limit}"
    )]
    Behind {
        /// How many it has to apply.
        lag: u64,
        /// How many it may have.
        limit: u64,
    },
    /// Nothing happened: the envelope is larger than an entry may be.
    #[error("the command has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
}

/// The cluster's version was not raised.
#[derive(Clone, Debug, Error)]
pub enum RaiseError {
    /// Nothing happened: a member doesn't support the version, or doesn't say.
    #[error("could not raise the cluster's version: {0}")]
    HeldBack(String),
    /// Nothing happened: there is no leader, or it can't now.
    #[error("could not raise the cluster's version: {0}")]
    Unavailable(String),
    /// It may have happened. Asking again is safe.
    #[error("whether the cluster's version was raised is unknown: {0}")]
    Unknown(String),
}

/// A read that can't be served as demanded.
#[derive(Clone, Debug, Error)]
pub enum ReadIndexError {
    /// No leader confirmed the index in time.
    #[error("could not confirm the newest index: {0}")]
    Unavailable(String),
    /// This node's data is damaged or differs from the majority's; another node must be asked.
    #[error("this node is out of service: {0}")]
    OutOfService(String),
    /// This node hasn't applied the demanded index in time.
    #[error("this node has applied index {applied}, {demanded} was demanded")]
    Behind {
        /// What it has.
        applied: u64,
        /// What was demanded.
        demanded: u64,
    },
    /// This node hasn't heard of a leader within the demanded staleness.
    #[error("this node last heard of a leader {age_ms} ms ago, {limit_ms} ms were allowed")]
    Stale {
        /// Milliseconds since.
        age_ms: u64,
        /// Milliseconds allowed.
        limit_ms: u64,
    },
}

/// Why a node could not start. The message says what to do.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory can't be used.
    #[error("could not open the data directory {path}: {reason}")]
    DataDirectory {
        /// Which.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A record that was synced is gone: going on would break the promise to the other nodes.
    #[error(
        "the log ends at index {found}, but index {synced} was synced: acknowledged data is missing \
         from this disk. This node must not vote; remove it from the cluster and join again with an \
         empty data directory"
    )]
    LostSyncedRecords {
        /// The last index that is there.
        found: u64,
        /// The last index that was synced.
        synced: u64,
    },
    /// The node of this data directory was removed from its cluster.
    #[error(
        "{reason}: the data directory {path} is never used again. To bring this machine back, start \
         with an empty data directory and PEAT_JOIN, or peat-gateway cluster join"
    )]
    Removed {
        /// Which.
        path: String,
        /// What it says.
        reason: String,
    },
    /// The peer listener could not start.
    #[error("could not listen for peers on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Certificates could not be used.
    #[error("could not use the peer certificates: {0}")]
    Tls(String),
    /// The first members could not agree.
    #[error("could not bootstrap: {0}")]
    Bootstrap(String),
    /// Consensus could not start.
    #[error("could not start consensus: {0}")]
    Consensus(String),
}
