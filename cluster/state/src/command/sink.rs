//! Requests on sinks.

use minicbor::{Decode, Encode};

use crate::ids::{OrgId, SinkId};
use crate::record::{SealedSecret, SinkFilter, SinkKind, SinkStart};

/// Creates a sink with its cursor. Refused: `organization_not_found`, `quota_exceeded`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateSink {
    /// The organisation.
    #[n(0)]
    pub org_id: OrgId,
    /// Made by the proposer.
    #[n(1)]
    pub sink_id: SinkId,
    /// Where and how.
    #[n(2)]
    pub sink_type: SinkKind,
    /// Which events.
    #[n(3)]
    pub filter: SinkFilter,
    /// Where it begins.
    #[n(4)]
    pub start: SinkStart,
    /// Its credentials, sealed before they were proposed; record version 1.
    #[n(5)]
    pub credentials: Option<SealedSecret>,
}

/// Changes a sink; fields that are `None` stay. Refused: `not_found`, `precondition_failed`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UpdateSink {
    /// The organisation.
    #[n(0)]
    pub org_id: OrgId,
    /// Which.
    #[n(1)]
    pub sink_id: SinkId,
    /// The revision that the client saw (`If-Match`).
    #[n(2)]
    pub expected_revision: Option<u64>,
    /// Starts or stops delivery.
    ///
    /// A disabled sink doesn't hold the journal; enabled again it goes on from its cursor, or from
    /// the oldest row where that has been trimmed.
    #[n(3)]
    pub enabled: Option<bool>,
    /// Where and how; the kind itself can't change.
    #[n(4)]
    pub sink_type: Option<SinkKind>,
    /// Which events, from now on.
    #[n(5)]
    pub filter: Option<SinkFilter>,
    /// New credentials; the record version is one above the stored one, else the command is refused.
    #[n(6)]
    pub credentials: Option<SealedSecret>,
}

/// Deletes a sink with its credentials and cursor.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteSink {
    /// The organisation.
    #[n(0)]
    pub org_id: OrgId,
    /// Which.
    #[n(1)]
    pub sink_id: SinkId,
    /// The revision that the client saw (`If-Match`).
    #[n(2)]
    pub expected_revision: Option<u64>,
}
