//! Requests on the cluster's settings, and refusals to be audited.

use minicbor::{Decode, Encode};

use super::Actor;
use crate::ids::OrgId;
use crate::record::{ClusterSettings, Upgrade};

/// Writes the cluster's settings once, by its first leader. Done again it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InitializeCluster {
    /// The Raft term of the proposer.
    #[n(0)]
    pub term: u64,
    /// The first settings.
    #[n(1)]
    pub settings: ClusterSettings,
}

/// Changes settings; fields that are `None` stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct UpdateSettings {
    /// How long answers are kept for retries, ms: 60 000 to 86 400 000.
    #[n(0)]
    pub idempotency_retention_ms: Option<u64>,
    /// How long delivered journal rows are kept, ms.
    #[n(1)]
    pub journal_retention_ms: Option<u64>,
    /// Who finishes an upgrade. Needs version 2.
    #[n(2)]
    pub upgrade: Option<Upgrade>,
}

/// Most refusals in one [`RecordRefusals`]; more are refused with `too_many_refusals`.
pub const REFUSALS_PER_COMMAND_MAX: usize = 256;
/// The shortest and the longest time for which answers may be kept for retries, ms.
pub const IDEMPOTENCY_RETENTION_MS: std::ops::RangeInclusive<u64> = 60_000..=86_400_000;

/// Writes refusals into the audit log that a node collected for at most one minute.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RecordRefusals {
    /// At most 256.
    #[n(0)]
    pub refusals: Vec<RefusalRecord>,
}

/// Refusals of one source, of one kind, in one minute.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RefusalRecord {
    /// The organisation whose chain it belongs to, where it exists; else the cluster's.
    #[n(0)]
    pub org_id: Option<OrgId>,
    /// Who was refused.
    #[n(1)]
    pub actor: Actor,
    /// What was asked: method and route.
    #[n(2)]
    pub target: String,
    /// The problem's code.
    #[n(3)]
    pub code: String,
    /// How often, at least 1.
    #[n(4)]
    pub count: u32,
}
