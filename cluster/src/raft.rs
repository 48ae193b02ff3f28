//! openraft's types, chosen: one leader per term, our own command type, nothing of serde.

use std::fmt;

use bytes::Bytes;
use peat_gateway_state::{Applied, Outcome};

/// A member as openraft carries it in the membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// `host:port` of the peer listener.
    pub peer_address: String,
    /// URL of the HTTP API.
    pub http_address: String,
    /// What the operator calls it.
    pub name: String,
    /// A learner that only an operator promotes.
    pub learner_only: bool,
}

/// A command in the log: the leader's stamp and the encoded envelope, never decoded on the way.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LogCommand {
    /// Unix time in ms by the leader's clock.
    pub time_ms: u64,
    /// CBOR envelope of crate `state`.
    pub envelope: Bytes,
}

impl fmt::Debug for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogCommand({} bytes at {})", self.envelope.len(), self.time_ms)
    }
}

impl fmt::Display for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The answer of `apply` on its way back to the proposer; blank and membership entries have none.
#[derive(Clone, Debug)]
pub(crate) struct Answer(pub Option<Applied>);

impl Answer {
    /// The outcome and the index that made it.
    pub(crate) fn into_outcome(self) -> Option<(Outcome, u64)> {
        self.0.map(|applied| (applied.outcome, applied.index))
    }
}

openraft::declare_raft_types!(
    /// The cluster's Raft types.
    pub(crate) TypeConfig:
        D = LogCommand,
        R = Answer,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        Vote = openraft::impls::Vote<Self::LeaderId>,
        Entry = openraft::impls::Entry<
            <Self::LeaderId as openraft::vote::RaftLeaderId>::Committed,
            Self::Payload,
        >,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

pub(crate) type Entry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
pub(crate) type Vote = <TypeConfig as openraft::RaftTypeConfig>::Vote;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
