//! Organisations, their quotas and the counters that quotas are checked against.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::ids::OrgId;

/// An organisation: a tenant whose data no other organisation sees.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Organization {
    /// Chosen by the user, never changed.
    #[n(0)]
    pub org_id: OrgId,
    /// Shown to people; 1–1024 bytes.
    #[n(1)]
    pub display_name: String,
    /// What the organisation may hold.
    #[n(2)]
    pub quotas: OrganizationQuotas,
    /// Unix time in ms, stamped by the leader.
    #[n(3)]
    pub created_at: u64,
    /// Log index of the command that wrote this version; the `ETag`.
    #[n(4)]
    pub revision: u64,
}

/// What an organisation may hold. Exceeding one refuses the command with `quota_exceeded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct OrganizationQuotas {
    /// Formations.
    #[n(0)]
    pub max_formations: u32,
    /// Certificates that are valid in one formation.
    #[n(1)]
    pub max_peers_per_formation: u32,
    /// Documents in one formation; a further one is left unanswered with an alarm.
    #[n(2)]
    pub max_documents_per_formation: u32,
    /// Sinks.
    #[n(3)]
    pub max_cdc_sinks: u32,
    /// Enrolments in one hour.
    #[n(4)]
    pub max_enrollments_per_hour: u32,
    /// Bytes of undelivered journal; when full, answers to the mesh wait.
    #[n(5)]
    pub max_journal_bytes: u64,
}

impl Default for OrganizationQuotas {
    /// The defaults of `reference/upstream-gateway.md` §1.4, and 4 GiB of journal.
    fn default() -> Self {
        Self {
            max_formations: 10,
            max_peers_per_formation: 100,
            max_documents_per_formation: 10_000,
            max_cdc_sinks: 5,
            max_enrollments_per_hour: 1000,
            max_journal_bytes: 4 << 30,
        }
    }
}

/// Running totals of an organisation: quotas are checked without scanning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct OrganizationCounters {
    /// Formations that exist.
    #[n(0)]
    pub formations: u32,
    /// Sinks that exist.
    #[n(1)]
    pub sinks: u32,
    /// Sequence of the newest journalled event; 0 before the first.
    #[n(2)]
    pub journal_last: u64,
    /// Sequence of the newest event that was trimmed; rows up to it are gone.
    #[n(3)]
    pub journal_trimmed: u64,
    /// Bytes of the journal rows that are left.
    #[n(4)]
    pub journal_bytes: u64,
}
