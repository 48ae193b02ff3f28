//! Documents as the cluster holds them: bytes and an index, never a live Automerge document.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::ids::{DocumentKey, Hash32};

/// A document's head record. Its bytes are a base (saved form, in parts) and changes after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Document {
    /// Automerge heads of everything committed, sorted.
    #[n(0)]
    pub heads: Vec<Hash32>,
    /// Position of the newest event of this document; 0 before the first.
    #[n(1)]
    pub document_sequence: u64,
    /// Changes stored after the base.
    #[n(2)]
    pub changes: u64,
    /// Bytes of the base and of the changes after it.
    #[n(3)]
    pub bytes: u64,
    /// Parts of the base; 0 where there is none.
    #[n(4)]
    pub base_parts: u32,
    /// Whether a tombstone is the newest event. A tombstoned document refuses later changes.
    #[n(5)]
    pub deleted: bool,
    /// Unix time in ms of the newest event.
    #[n(6)]
    pub last_modified: u64,
    /// Document sequence up to which the base covers the changes.
    #[n(7)]
    pub base_sequence: u64,
}

/// One Automerge change after the base.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoredChange {
    /// Its hash.
    #[n(0)]
    pub hash: Hash32,
    /// Its raw bytes (an Automerge change chunk).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// A document in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentSummary {
    /// The document's key.
    pub doc_id: DocumentKey,
    /// Unix time in ms of its newest event.
    pub last_modified: u64,
    /// Whether it is deleted.
    pub deleted: bool,
}
