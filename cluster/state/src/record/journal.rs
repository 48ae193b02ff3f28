//! The journal: every event of an organisation in one gapless sequence.

use minicbor::{Decode, Encode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::ids::{AppId, DocumentKey, Hash32, OrgId};

/// What happened to the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// One Automerge change.
    #[n(0)]
    Change,
    /// The whole document as a node sent it (collections of which only the latest state is kept).
    #[n(1)]
    Snapshot,
    /// The document was deleted.
    #[n(2)]
    Tombstone,
}

impl EventKind {
    /// The word used in event ids and in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            EventKind::Change => "change",
            EventKind::Snapshot => "snapshot",
            EventKind::Tombstone => "tombstone",
        }
    }
}

/// One event as it is journalled: what a redelivery needs to give the same bytes again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JournalEvent {
    /// See [`event_id`].
    #[n(0)]
    pub event_id: Hash32,
    /// The formation.
    #[n(1)]
    pub app_id: AppId,
    /// The document.
    #[n(2)]
    pub document: DocumentKey,
    /// What happened.
    #[n(3)]
    pub kind: EventKind,
    /// The Automerge change hash; for a snapshot the SHA-256 of its sorted heads, for a tombstone of its payload.
    #[n(4)]
    pub change_hash: Hash32,
    /// Position in the document's own order, from 1, without gaps.
    #[n(5)]
    pub document_sequence: u64,
    /// Unix time in ms when the leader observed it.
    #[n(6)]
    pub observed_at: u64,
    /// Automerge actor in hex; the deleting node for a tombstone; empty for a snapshot.
    #[n(7)]
    pub actor: String,
    /// What changed: a JSON text, made once by the observing leader.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub patches: Vec<u8>,
}

/// One journal row: the events of one command, in sequence.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JournalRow {
    /// Sequence of the first event; the others follow without gaps.
    #[n(0)]
    pub first_sequence: u64,
    /// At least one.
    #[n(1)]
    pub events: Vec<JournalEvent>,
}

/// Returns an event's identity: SHA-256 over formation, document key, kind and change hash.
///
/// `apply`, `Nats-Msg-Id` and `webhook-id` deduplicate by it. The formation is its organisation and
/// app id; each part is preceded by its length in 4 bytes, big-endian. (architecture.md §3)
pub fn event_id(
    org: &OrgId,
    app: &AppId,
    document: &DocumentKey,
    kind: EventKind,
    change_hash: &Hash32,
) -> Hash32 {
    let mut hasher = Sha256::new();
    for part in [
        org.as_str().as_bytes(),
        app.as_str().as_bytes(),
        document.as_str().as_bytes(),
        kind.word().as_bytes(),
        &change_hash.0,
    ] {
        hasher.update((part.len() as u32).to_be_bytes());
        hasher.update(part);
    }
    Hash32(hasher.finalize().into())
}
