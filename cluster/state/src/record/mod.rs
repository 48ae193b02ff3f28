//! What is stored. One file per subject; every type here has golden bytes in `tests/golden`.

mod audit;
mod cluster;
mod document;
mod formation;
mod idempotency;
mod journal;
mod membership;
mod organization;
mod secret;
mod sink;

pub use audit::{AuditAction, AuditEntry, AuditHead};
pub use cluster::{
    ClusterClock, ClusterEpoch, ClusterKey, ClusterOrigin, ClusterSettings, Upgrade,
};
pub use document::{Document, DocumentSummary, StoredChange};
pub use formation::{
    EnrollmentPolicy, Formation, FormationStatus, MeshIdOwner, PEER_ADDRESS_BYTES_MAX,
    PEER_ADDRESSES_MAX, PEERS_PER_FORMATION_MAX, Peer, STATIC_PEERS_MAX,
};
pub use idempotency::IdempotencyRecord;
pub use journal::{EventKind, JournalEvent, JournalRow, event_id};
pub use membership::RemovedNode;
pub use organization::{Organization, OrganizationCounters, OrganizationQuotas};
pub use secret::SealedSecret;
pub use sink::{
    CURSOR_RANGES_MAX, Cursor, FILTER_ENTRIES_MAX, SINK_TEXT_BYTES_MAX, Sink, SinkFilter, SinkKind,
    SinkStart,
};
