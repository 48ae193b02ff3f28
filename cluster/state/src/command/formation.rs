//! Requests on formations.

use minicbor::{Decode, Encode};

use crate::ids::{AppId, OrgId};
use crate::record::{EnrollmentPolicy, FormationStatus, SealedSecret};

/// Creates a formation and its genesis in one step.
///
/// Refused: `organization_not_found`, `already_exists`, `mesh_id_taken`, `quota_exceeded`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateFormation {
    /// The organisation.
    #[n(0)]
    pub org_id: OrgId,
    /// The formation's id.
    #[n(1)]
    pub app_id: AppId,
    /// Derived from the genesis by the proposer: 8 upper-case hex characters.
    #[n(2)]
    pub mesh_id: String,
    /// Who may enrol.
    #[n(3)]
    pub enrollment_policy: EnrollmentPolicy,
    /// The genesis, sealed before it was proposed; record version 1.
    #[n(4)]
    pub genesis: SealedSecret,
    /// Addresses of mesh nodes to dial.
    #[n(5)]
    pub static_peers: Vec<String>,
}

/// Changes a formation; fields that are `None` stay. Refused: `not_found`, `precondition_failed`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UpdateFormation {
    /// The organisation.
    #[n(0)]
    pub org_id: OrgId,
    /// Which.
    #[n(1)]
    pub app_id: AppId,
    /// The revision that the client saw (`If-Match`).
    #[n(2)]
    pub expected_revision: Option<u64>,
    /// Who may enrol.
    #[n(3)]
    pub enrollment_policy: Option<EnrollmentPolicy>,
    /// Suspends or resumes.
    #[n(4)]
    pub status: Option<FormationStatus>,
    /// Addresses of mesh nodes to dial.
    #[n(5)]
    pub static_peers: Option<Vec<String>>,
}

/// Deletes a formation with its genesis, peers and documents. Its events stay in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteFormation {
    /// The organisation.
    #[n(0)]
    pub org_id: OrgId,
    /// Which.
    #[n(1)]
    pub app_id: AppId,
    /// The revision that the client saw (`If-Match`).
    #[n(2)]
    pub expected_revision: Option<u64>,
}
