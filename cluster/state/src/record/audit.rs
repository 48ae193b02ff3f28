//! The audit log: one hash chain per organisation, one for the cluster.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::command::Actor;
use crate::ids::Hash32;

/// What was decided or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum AuditAction {
    /// The cluster was initialised.
    #[n(0)]
    InitializeCluster,
    /// A node became leader and claimed its epoch.
    #[n(1)]
    ClaimEpoch,
    /// An organisation was created.
    #[n(2)]
    CreateOrganization,
    /// An organisation was changed.
    #[n(3)]
    UpdateOrganization,
    /// An organisation was deleted with all it held.
    #[n(4)]
    DeleteOrganization,
    /// A formation was created with its genesis.
    #[n(5)]
    CreateFormation,
    /// A formation was changed, suspended or resumed.
    #[n(6)]
    UpdateFormation,
    /// A formation was deleted.
    #[n(7)]
    DeleteFormation,
    /// A sink was created.
    #[n(8)]
    CreateSink,
    /// A sink was changed.
    #[n(9)]
    UpdateSink,
    /// A sink was deleted.
    #[n(10)]
    DeleteSink,
    /// A cluster setting was changed.
    #[n(11)]
    UpdateSettings,
    /// Requests were refused before they became commands; counted per source and minute.
    #[n(12)]
    Refused,
    /// The cluster's version was raised.
    #[n(13)]
    RaiseVersion,
    /// A node became a learner.
    #[n(24)]
    AddMember,
    /// A learner got a vote.
    #[n(25)]
    PromoteMember,
    /// A member was removed for good.
    #[n(26)]
    RemoveMember,
    /// A member has another address or name.
    #[n(27)]
    UpdateMember,
    /// A new leader finished a change of members that an earlier one began.
    #[n(28)]
    FinishMembership,
    /// Leadership was handed on.
    #[n(29)]
    TransferLeadership,
    /// The cluster was made from another one's state: by a restore or by a recovery.
    #[n(20)]
    RestoreCluster,
}

/// One entry. `hash` = SHA-256(previous hash ‖ CBOR of all other fields).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct AuditEntry {
    /// Position in the chain, from 1, without gaps.
    #[n(0)]
    pub number: u64,
    /// Unix time in ms, stamped by the leader.
    #[n(1)]
    pub time: u64,
    /// Log index of the command.
    #[n(2)]
    pub index: u64,
    /// Who asked.
    #[n(3)]
    pub actor: Actor,
    /// What.
    #[n(4)]
    pub action: AuditAction,
    /// On what: `formation/acme/alpha`, `sink/acme/01J…`.
    #[n(5)]
    pub target: String,
    /// `done`, `decided` for a change of members (it follows), or the refusal's code.
    #[n(6)]
    pub result: String,
    /// How many refusals this entry counts; 1 for everything else.
    #[n(7)]
    pub count: u32,
    /// Hash of the entry before, zeros for the first.
    #[n(8)]
    #[serde(serialize_with = "crate::record::audit::as_hex")]
    pub previous: Hash32,
    /// Hash of this entry.
    #[n(9)]
    #[serde(serialize_with = "crate::record::audit::as_hex")]
    pub hash: Hash32,
}

/// The end of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AuditHead {
    /// Number of the newest entry; 0 before the first.
    #[n(0)]
    pub number: u64,
    /// Its hash.
    #[n(1)]
    pub hash: Hash32,
}

pub(crate) fn as_hex<S: serde::Serializer>(hash: &Hash32, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(hash)
}
