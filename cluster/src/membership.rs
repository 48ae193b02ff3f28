//! Who belongs to the cluster: what an operator may order, and what comes of it.
//!
//! ```text
//!  new data directory ──join, add──► learner ──caught up──► voter ──remove──► removed, for ever
//!                                       └── stays one where an operator said so
//! ```
//!
//! Every order is checked, recorded in the cluster's audit chain and then made by the leader; any node
//! takes it and passes it on. An order may name the membership that it was decided on
//! ([`MembershipView::index`]): it is refused where that isn't the newest any more. ADR 0006 says why
//! it is so.

use peat_gateway_state::ids::NodeId;
use peat_gateway_state::outcome::{Refusal, RefusalKind};
use peat_gateway_state::record::RemovedNode;
use std::time::Duration;
use thiserror::Error;

/// Entries that a learner may lack to count as caught up.
pub const CAUGHT_UP_ENTRIES_MAX: u64 = 1_000;

/// How nodes come to be members.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// Addresses of members; a new node asks them to be taken in instead of making a cluster.
    pub join: Vec<String>,
    /// With `join`: stays a learner until an operator promotes it.
    pub learner_only: bool,
    /// Names, as `host:port`, whose addresses are all first members, this node's included.
    pub discover: Vec<String>,
    /// With `discover`: how many first members there are; all must say that they are new.
    pub expect: usize,
    /// A new node waits for [`crate::Handle::found`], [`crate::Handle::join`], or to be added.
    pub wait: bool,
    /// The leader promotes learners that have caught up.
    pub auto_promote: bool,
    /// For how long a learner must have been caught up before it is promoted by itself.
    pub promote_after: Duration,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            join: Vec::new(),
            learner_only: false,
            discover: Vec::new(),
            expect: 0,
            wait: false,
            auto_promote: true,
            promote_after: Duration::from_secs(10),
        }
    }
}

/// What an operator may order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipOrder {
    /// Take in the node that waits at an address, as a learner.
    Add {
        /// `host:port` of its peer listener.
        peer_address: String,
        /// It stays a learner until an operator promotes it.
        learner_only: bool,
    },
    /// Give a learner that has caught up a vote.
    Promote {
        /// The learner.
        node: NodeId,
        /// The member whose place it takes, removed in the same change.
        replaces: Option<NodeId>,
    },
    /// Remove a member for good.
    Remove {
        /// Who.
        node: NodeId,
        /// Why it is to be removed although the voters that answer are too few without it.
        forced: Option<String>,
    },
    /// Hand leadership on.
    Transfer {
        /// To whom; `None`: to whoever is closest.
        to: Option<NodeId>,
    },
}

/// An order that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipChanged {
    /// Log index of the membership afterwards.
    pub membership: u64,
    /// The node that it was about; after a transfer the one that leads.
    pub node: NodeId,
    /// A log index that contains the audit entry.
    pub index: u64,
}

/// An order that was not carried out.
#[derive(Clone, Debug, Error)]
pub enum MembershipError {
    /// Nothing happened: it contradicts the rules or what is there.
    #[error("{}", .0.detail)]
    Refused(Refusal),
    /// Nothing happened: try again.
    #[error("could not change the membership: {0}")]
    Unavailable(String),
    /// It may have happened; what was begun is finished by the next leader.
    #[error("the outcome of the change of members is unknown: {0}")]
    Unknown(String),
}

impl MembershipError {
    pub(crate) fn refused(kind: RefusalKind, code: &str, detail: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(kind, code, detail))
    }
}

/// The members as a node knows them.
#[derive(Clone, Debug, Default)]
pub struct MembershipView {
    /// Log index of the membership: what an order may name as its condition. 0 before there is one.
    pub index: u64,
    /// Whether a change is under way: two voter sets must agree.
    pub joint: bool,
    /// Nodes that were removed.
    pub removed: Vec<RemovedNode>,
}

/// Why a node is no part of its cluster any more. The process must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It was removed; its data directory says so from now on.
    Removed,
    /// Another process runs with a copy of this node's data directory.
    Duplicate(String),
}

/// Codes of refusals that orders give. Scripts compare them: a code is never renamed.
pub mod code {
    /// The node is a member already.
    pub const ALREADY_MEMBER: &str = "already_member";
    /// The node belongs to another cluster.
    pub const FOREIGN_CLUSTER: &str = "foreign_cluster";
    /// The voters that answer would be no quorum.
    pub const WOULD_LOSE_QUORUM: &str = "would_lose_quorum";
    /// The cluster would have no voter left.
    pub const LAST_VOTER: &str = "last_voter";
    /// The learner lacks too many entries.
    pub const NOT_CAUGHT_UP: &str = "not_caught_up";
    /// The node has a vote already, or is to lead without one.
    pub const NOT_A_LEARNER: &str = "not_a_learner";
    /// The node that is to lead has no vote.
    pub const NOT_A_VOTER: &str = "not_a_voter";
    /// The node's build is too old for the cluster, or too new.
    pub const UNSUPPORTED_VERSION: &str = "unsupported_version";
    /// The node at the address can't be reached or isn't the one that is meant.
    pub const UNREACHABLE_NODE: &str = "unreachable_node";
    /// Two processes run with copies of one data directory.
    pub const DUPLICATE_NODE: &str = "duplicate_node";
    /// The node is no member.
    pub const NOT_A_MEMBER: &str = "not_a_member";
    /// This node belongs to a cluster already.
    pub const ALREADY_IN_A_CLUSTER: &str = "already_in_a_cluster";
    /// The reason of a forced removal is missing or too long.
    pub const INVALID_REASON: &str = "invalid_reason";
}
