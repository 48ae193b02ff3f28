//! Leader work on the cluster's members: recorded here before consensus makes the change.

use minicbor::{Decode, Encode};

use super::Fence;
use crate::ids::NodeId;

/// Records a change of the cluster's members before it is made: without the entry there is no effect.
///
/// The membership itself belongs to consensus and is no row. What a removal decides is one: the id is
/// retired with this command, and a leader that finds a retired node among the members finishes the
/// removal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RecordMembership {
    /// Refused if stale.
    #[n(0)]
    pub fence: Fence,
    /// What is about to be done.
    #[n(1)]
    pub change: MembershipChange,
}

/// A change of the cluster's members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MembershipChange {
    /// A node becomes a learner: it gets the log and has no vote.
    #[n(0)]
    Add(#[n(0)] MemberRecord),
    /// A learner gets a vote.
    #[n(1)]
    Promote {
        /// The learner.
        #[n(0)]
        node: NodeId,
        /// The member whose place it takes; that one is removed in the same change.
        #[n(1)]
        replaces: Option<MemberRecord>,
    },
    /// A member is removed for good.
    #[n(2)]
    Remove {
        /// Who.
        #[n(0)]
        member: MemberRecord,
        /// Why it is removed although the voters that answer are too few without it.
        #[n(1)]
        forced: Option<String>,
    },
    /// A member has another address or name.
    #[n(3)]
    Update(#[n(0)] MemberRecord),
    /// A new leader finishes a change that an earlier one began.
    #[n(4)]
    Finish,
    /// Leadership is handed on.
    #[n(5)]
    Transfer {
        /// To whom; `None`: to whoever is closest.
        #[n(0)]
        to: Option<NodeId>,
    },
}

/// A member as it is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct MemberRecord {
    /// Its id.
    #[n(0)]
    pub node: NodeId,
    /// What the operator calls it.
    #[n(1)]
    pub name: String,
    /// `host:port` of its peer listener.
    #[n(2)]
    pub peer_address: String,
}
