//! Leader work: fenced by term and epoch.

use minicbor::{Decode, Encode};

use crate::ids::{AppId, Epoch, NodeId, OrgId, SinkId};
use crate::record::Peer;

/// What a leader believes about itself. `apply` refuses the command when it isn't so any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fence {
    /// The Raft term in which the command was proposed; must be its entry's term.
    #[n(0)]
    pub term: u64,
    /// The epoch that the leader claimed; must be the newest. `None` only before there is one.
    #[n(1)]
    pub epoch: Option<Epoch>,
}

/// The first entry of a new leader. Its log index becomes the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClaimEpoch {
    /// The Raft term of the proposer.
    #[n(0)]
    pub term: u64,
    /// The proposer.
    #[n(1)]
    pub node: NodeId,
}

/// Moves cursors forward, for several sinks at once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommitCursors {
    /// Refused if stale.
    #[n(0)]
    pub fence: Fence,
    /// One per sink. A single one that would move backwards, or past the journal, is dropped; the others count.
    #[n(1)]
    pub advances: Vec<CursorAdvance>,
}

/// How far one sink has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CursorAdvance {
    /// The sink's organisation.
    #[n(0)]
    pub org_id: OrgId,
    /// The sink.
    #[n(1)]
    pub sink_id: SinkId,
    /// Everything up to and including this sequence is acknowledged.
    #[n(2)]
    pub acknowledged: u64,
    /// Acknowledged ranges above it: inclusive, ascending, disjoint, at most 256.
    #[n(3)]
    pub ahead: Vec<(u64, u64)>,
}

/// Deletes journal rows whose last event is at or below `through`.
///
/// Refused where an enabled sink's cursor is below `through`. One command deletes at most 256 rows
/// and 8 MiB (at least one row); the leader asks again while
/// [`crate::record::OrganizationCounters::journal_trimmed`] moves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TrimJournal {
    /// Refused if stale.
    #[n(0)]
    pub fence: Fence,
    /// The organisation.
    #[n(1)]
    pub org_id: OrgId,
    /// The last sequence that may go.
    #[n(2)]
    pub through: u64,
}

/// Most peers in one [`RememberPeers`]; more are refused with `too_many_peers`.
pub const PEERS_PER_COMMAND_MAX: usize = 64;

/// Remembers where mesh nodes were reached, so that the next leader dials them at once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RememberPeers {
    /// Refused if stale.
    #[n(0)]
    pub fence: Fence,
    /// The organisation.
    #[n(1)]
    pub org_id: OrgId,
    /// The formation.
    #[n(2)]
    pub app_id: AppId,
    /// At most 64; each replaces the record of its `peer_id`.
    #[n(3)]
    pub peers: Vec<Peer>,
}

/// Raises the cluster's version: from here on commands up to it are used, and older builds can't come
/// back. To a version that the cluster has, or has passed, it changes nothing.
///
/// Proposed only when every member has said that it understands the version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RaiseVersion {
    /// Refused if stale.
    #[n(0)]
    pub fence: Fence,
    /// The new version.
    #[n(1)]
    pub version: u16,
}
