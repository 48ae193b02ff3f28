//! What the state answers. A refusal is a value, not an error: nothing happened, and why.

use minicbor::{Decode, Encode};

use crate::ids::Epoch;
use crate::record::{Formation, Organization, Sink};

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(missing_docs, reason = "the variants carry what the command's struct promises")]
pub enum Outcome {
    /// Done; there is nothing to show.
    #[n(0)]
    Done,
    #[n(1)]
    Organization(#[n(0)] Organization),
    #[n(2)]
    Formation(#[n(0)] Formation),
    #[n(3)]
    Sink(#[n(0)] Sink),
    #[n(4)]
    EpochClaimed(#[n(0)] Epoch),
    /// Events were journalled: sequences `first..=last` (0, 0 if all were known already).
    #[n(5)]
    Appended {
        #[n(0)]
        first: u64,
        #[n(1)]
        last: u64,
        /// Events that were known already.
        #[n(2)]
        known: u32,
    },
    /// Nothing happened.
    #[n(6)]
    Refused(#[n(0)] Refusal),
}

/// Why nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// Maps to HTTP and gRPC status.
    #[n(0)]
    pub kind: RefusalKind,
    /// Stable, snake_case; one of [`code::ALL`].
    #[n(1)]
    pub code: String,
    /// For people: what was attempted and what is in the way.
    #[n(2)]
    pub detail: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalKind {
    /// The request can never succeed as it is.
    #[n(0)]
    Invalid,
    /// What it names doesn't exist.
    #[n(1)]
    NotFound,
    /// It contradicts what is there.
    #[n(2)]
    Conflict,
    /// `If-Match` named another revision.
    #[n(3)]
    PreconditionFailed,
    /// A quota or limit is reached.
    #[n(4)]
    TooMany,
    /// The proposer isn't the leader that it believed to be.
    #[n(5)]
    Fenced,
    /// Not now: the cluster isn't initialised, or the journal is full.
    #[n(6)]
    Unavailable,
}

impl Refusal {
    /// Builds a refusal.
    pub fn new(kind: RefusalKind, code: &str, detail: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), detail: detail.into() }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Outcome::Refused(refusal)
    }
}

/// The stable codes of all refusals. Scripts compare them: a code is never renamed.
pub mod code {
    macro_rules! codes {
        ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
            $($(#[$doc])* pub const $name: &str = $text;)*

            /// All codes in alphabetical order.
            pub const ALL: &[&str] = &[$($name,)*];
        };
    }

    codes! {
        /// The id is in use.
        ALREADY_EXISTS = "already_exists";
        /// The document has a tombstone.
        DOCUMENT_DELETED = "document_deleted";
        /// There is no such document.
        DOCUMENT_NOT_FOUND = "document_not_found";
        /// The formation holds as many documents as its organisation allows.
        DOCUMENT_QUOTA_EXCEEDED = "document_quota_exceeded";
        /// Leader work names a formation that doesn't exist.
        FORMATION_NOT_FOUND = "formation_not_found";
        /// Events of a suspended formation aren't journalled.
        FORMATION_SUSPENDED = "formation_suspended";
        /// The idempotency key belongs to another request.
        IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused";
        /// The formation's id breaks the rules of [`crate::ids::AppId`].
        INVALID_APP_ID = "invalid_app_id";
        /// The display name is empty or too long.
        INVALID_DISPLAY_NAME = "invalid_display_name";
        /// The document key is empty or too long.
        INVALID_DOCUMENT_KEY = "invalid_document_key";
        /// The sink's filter has too many or malformed entries.
        INVALID_FILTER = "invalid_filter";
        /// The idempotency key is empty or too long.
        INVALID_IDEMPOTENCY_KEY = "invalid_idempotency_key";
        /// The mesh id isn't 8 upper-case hex characters.
        INVALID_MESH_ID = "invalid_mesh_id";
        /// The organisation's id breaks the rules of [`crate::ids::OrgId`].
        INVALID_ORG_ID = "invalid_org_id";
        /// A staged part is empty, too large or numbered too high.
        INVALID_PART = "invalid_part";
        /// A peer's id, or one of its addresses, is malformed.
        INVALID_PEER = "invalid_peer";
        /// A saved form is empty.
        INVALID_SAVED_FORM = "invalid_saved_form";
        /// A setting is out of its range.
        INVALID_SETTINGS = "invalid_settings";
        /// The sink's id breaks the rules of [`crate::ids::SinkId`].
        INVALID_SINK_ID = "invalid_sink_id";
        /// The sink's destination is malformed.
        INVALID_SINK_TYPE = "invalid_sink_type";
        /// Staged parts together are too large, have another hash, or aren't what they should be.
        INVALID_STAGED_BYTES = "invalid_staged_bytes";
        /// There are too many static peers, or one is empty or too long.
        INVALID_STATIC_PEERS = "invalid_static_peers";
        /// The organisation's journal has no room; the mesh waits.
        JOURNAL_FULL = "journal_full";
        /// An enabled sink hasn't acknowledged what would be trimmed.
        JOURNAL_IN_USE = "journal_in_use";
        /// Another formation has the mesh id.
        MESH_ID_TAKEN = "mesh_id_taken";
        /// A change builds on one that isn't committed.
        MISSING_ANCESTOR = "missing_ancestor";
        /// A staged part isn't there; it must be staged again.
        MISSING_PART = "missing_part";
        /// A node that was removed can't come back under its id.
        NODE_REMOVED = "node_removed";
        /// What the request names doesn't exist.
        NOT_FOUND = "not_found";
        /// The cluster has no settings yet.
        NOT_INITIALIZED = "not_initialized";
        /// The organisation in which to act doesn't exist.
        ORGANIZATION_NOT_FOUND = "organization_not_found";
        /// The revision isn't the one that the client saw.
        PRECONDITION_FAILED = "precondition_failed";
        /// The organisation holds as many as it may.
        QUOTA_EXCEEDED = "quota_exceeded";
        /// A sealed secret isn't bound to the next record version.
        RECORD_VERSION_CONFLICT = "record_version_conflict";
        /// A sink can't become one of another kind.
        SINK_TYPE_IMMUTABLE = "sink_type_immutable";
        /// The saved form covers nothing new, or more than is committed.
        STALE_COMPACTION = "stale_compaction";
        /// Another leader has claimed a newer epoch.
        STALE_EPOCH = "stale_epoch";
        /// The proposer's term isn't its entry's.
        STALE_TERM = "stale_term";
        /// One command remembers too many peers.
        TOO_MANY_PEERS = "too_many_peers";
        /// One command records too many refusals.
        TOO_MANY_REFUSALS = "too_many_refusals";
        /// The command needs a newer cluster version: an upgrade isn't finished yet.
        VERSION_NOT_ENABLED = "version_not_enabled";
    }
}
