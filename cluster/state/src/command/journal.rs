//! Commands that write documents and the journal.

use minicbor::{Decode, Encode};

use super::leader::Fence;
use crate::ids::{AppId, DocumentKey, Hash32, OrgId};
use crate::record::EventKind;

/// Most bytes of one part of an event or saved form that is too large for one command.
pub const PART_BYTES_MAX: usize = 900 << 10;
/// Most bytes of an event that is staged in parts: a change of 16 MiB and as much of patches.
pub const STAGED_BYTES_MAX: usize = 36 << 20;

/// Most parts of one staged event or saved form.
pub const STAGED_PARTS_MAX: u32 = 64;

/// Journals a batch of observed events: one log entry, one journal row.
///
/// Events that are known already (by change hash, or by event id for snapshots and tombstones) are
/// skipped: a mesh node that syncs again after a failover adds nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppendChanges {
    /// Refused if stale.
    #[n(0)]
    pub fence: Fence,
    /// The organisation whose journal it is.
    #[n(1)]
    pub org_id: OrgId,
    /// In the order in which they were observed; a document may occur more than once.
    #[n(2)]
    pub batches: Vec<DocumentBatch>,
}

/// Events of one document, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DocumentBatch {
    /// The formation.
    #[n(0)]
    pub app_id: AppId,
    /// The document.
    #[n(1)]
    pub document: DocumentKey,
    /// At least one.
    #[n(2)]
    pub events: Vec<SequencedEvent>,
}

/// An event, or where its parts are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SequencedEvent {
    /// The event itself.
    #[n(0)]
    Inline(#[n(0)] NewEvent),
    /// An event that was staged before; its CBOR bytes are the parts in order.
    ///
    /// The command deletes the parts it uses; a leader that doesn't know the outcome stages them
    /// again before it proposes again.
    #[n(1)]
    Staged {
        /// The id under which the parts were staged.
        #[n(0)]
        id: Hash32,
        /// How many there are.
        #[n(1)]
        parts: u32,
    },
}

/// An event as the leader observed it. `apply` gives it its id and its sequences.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewEvent {
    /// Automerge change hash; SHA-256 of sorted heads (snapshot) or of the payload (tombstone).
    #[n(0)]
    pub change_hash: Hash32,
    /// Automerge actor in hex; the deleting node for a tombstone; empty for a snapshot.
    #[n(1)]
    pub actor: String,
    /// What changed, as JSON text.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub patches: Vec<u8>,
    /// What is stored.
    #[n(3)]
    pub body: EventBody,
}

impl NewEvent {
    /// Returns the kind that goes into the event's id.
    pub fn kind(&self) -> EventKind {
        match self.body {
            EventBody::Change { .. } => EventKind::Change,
            EventBody::Snapshot { .. } => EventKind::Snapshot,
            EventBody::Tombstone => EventKind::Tombstone,
        }
    }
}

/// What an event leaves in the document.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EventBody {
    /// One change. All of `deps` must be committed or earlier in the same batch, else the command is refused.
    #[n(0)]
    Change {
        /// Hashes that it builds on.
        #[n(0)]
        deps: Vec<Hash32>,
        /// Its raw Automerge chunk.
        #[cbor(n(1), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// The whole document as it is now (after the merge or replacement that the observer decided).
    #[n(1)]
    Snapshot {
        /// Its heads, sorted.
        #[n(0)]
        heads: Vec<Hash32>,
        /// Hashes of changes in it that the index may not have.
        #[n(1)]
        hashes: Vec<Hash32>,
        /// Its saved form; replaces base and changes.
        #[cbor(n(2), with = "minicbor::bytes")]
        saved: Vec<u8>,
    },
    /// The document is deleted: base and changes go, the index stays, later changes are refused.
    #[n(2)]
    Tombstone,
}

/// Stores one part of something too large for one command. Parts of an id that is never used are
/// dropped when the next epoch is claimed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StagePart {
    /// Refused if stale.
    #[n(0)]
    pub fence: Fence,
    /// The organisation.
    #[n(1)]
    pub org_id: OrgId,
    /// The formation.
    #[n(2)]
    pub app_id: AppId,
    /// The document.
    #[n(3)]
    pub document: DocumentKey,
    /// SHA-256 of all parts together; checked when they are used.
    #[n(4)]
    pub id: Hash32,
    /// This part's number, from 0.
    #[n(5)]
    pub part: u32,
    /// Its bytes, at most [`PART_BYTES_MAX`].
    #[cbor(n(6), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// Replaces a document's base and the changes that it covers by one saved form. No event.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CompactDocument {
    /// Refused if stale.
    #[n(0)]
    pub fence: Fence,
    /// The organisation.
    #[n(1)]
    pub org_id: OrgId,
    /// The formation.
    #[n(2)]
    pub app_id: AppId,
    /// The document.
    #[n(3)]
    pub document: DocumentKey,
    /// The document sequence up to which the saved form covers everything; later changes stay.
    #[n(4)]
    pub through: u64,
    /// The saved form: inline, or staged parts.
    #[n(5)]
    pub saved: SavedForm,
}

/// A saved form in a command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SavedForm {
    /// The bytes.
    #[n(0)]
    Inline(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Where they were staged.
    #[n(1)]
    Staged {
        /// The id under which the parts were staged.
        #[n(0)]
        id: Hash32,
        /// How many there are.
        #[n(1)]
        parts: u32,
    },
}
