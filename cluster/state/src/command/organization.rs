//! Requests on organisations.

use minicbor::{Decode, Encode};

use crate::ids::OrgId;
use crate::record::OrganizationQuotas;

/// Creates an organisation. Refused: `already_exists`, `invalid_display_name`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateOrganization {
    /// Its id.
    #[n(0)]
    pub org_id: OrgId,
    /// 1–1024 bytes.
    #[n(1)]
    pub display_name: String,
    /// What it may hold.
    #[n(2)]
    pub quotas: OrganizationQuotas,
}

/// Changes an organisation; fields that are `None` stay. Refused: `not_found`, `precondition_failed`, `invalid_display_name`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UpdateOrganization {
    /// Which.
    #[n(0)]
    pub org_id: OrgId,
    /// The revision that the client saw (`If-Match`).
    #[n(1)]
    pub expected_revision: Option<u64>,
    /// 1–1024 bytes.
    #[n(2)]
    pub display_name: Option<String>,
    /// Quotas to change.
    #[n(3)]
    pub quotas: QuotaChanges,
}

/// Quotas to change; `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[allow(missing_docs, reason = "named and explained in OrganizationQuotas")]
pub struct QuotaChanges {
    #[n(0)]
    pub max_formations: Option<u32>,
    #[n(1)]
    pub max_peers_per_formation: Option<u32>,
    #[n(2)]
    pub max_documents_per_formation: Option<u32>,
    #[n(3)]
    pub max_cdc_sinks: Option<u32>,
    #[n(4)]
    pub max_enrollments_per_hour: Option<u32>,
    #[n(5)]
    pub max_journal_bytes: Option<u64>,
}

/// Deletes an organisation with its formations, sinks, documents and journal. Its audit chain stays.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteOrganization {
    /// Which.
    #[n(0)]
    pub org_id: OrgId,
    /// The revision that the client saw (`If-Match`).
    #[n(1)]
    pub expected_revision: Option<u64>,
}
