//! Keys of all rows; [`crate::space`] says which space holds which.
//!
//! ```text
//!   org 00 01 │ app 00 01 │ document 00 01 │ be64 document sequence
//!   └ everything of an organisation ┘
//! ```
//!
//! A key never contains its space's byte: the store puts that in front.

use crate::codec::{Key, take_text};
use crate::ids::{AppId, DocumentKey, Hash32, NodeId, OrgId, SinkId};
use crate::record::ClusterKey;

/// A half-open range of keys of one space: `start <= key < end`.
pub type KeyRange = (Vec<u8>, Vec<u8>);

/// Returns the key of a row of [`crate::Space::Cluster`].
pub fn cluster(key: ClusterKey) -> Vec<u8> {
    vec![key as u8]
}

/// Returns the key of a removed node.
pub fn removed_node(node: NodeId) -> Vec<u8> {
    Key::new().text(&node.to_string()).into_bytes()
}

/// Returns the key of an organisation and of its counters.
pub fn organization(org: &OrgId) -> Vec<u8> {
    of_organization(org).into_bytes()
}

/// Returns the key of a formation and of its genesis.
pub fn formation(org: &OrgId, app: &AppId) -> Vec<u8> {
    of_formation(org, app).into_bytes()
}

/// Returns the key of a mesh id.
pub fn mesh_id(mesh_id: &str) -> Vec<u8> {
    mesh_id.as_bytes().to_vec()
}

/// Returns the key of a mesh node of a formation.
pub fn peer(org: &OrgId, app: &AppId, peer_id: &str) -> Vec<u8> {
    of_formation(org, app).text(peer_id).into_bytes()
}

/// Returns the key of a sink, of its credentials and of its cursor.
pub fn sink(org: &OrgId, sink: &SinkId) -> Vec<u8> {
    of_organization(org).text(sink.as_str()).into_bytes()
}

/// Returns the key of a kept answer.
pub fn idempotency(principal: &str, key: &str) -> Vec<u8> {
    Key::new().text(principal).text(key).into_bytes()
}

/// Returns the key under which a kept answer's expiry stands; [`idempotency_of_expiry`] inverts it.
pub fn idempotency_expiry(expires_at: u64, principal: &str, key: &str) -> Vec<u8> {
    Key::new().number(expires_at).text(principal).text(key).into_bytes()
}

/// Splits a key of [`crate::Space::IdempotencyExpiry`] into the time and the kept answer's key.
///
/// `None` if it is none.
pub fn idempotency_of_expiry(key: &[u8]) -> Option<(u64, &[u8])> {
    let (time, answer) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), answer))
}

/// Returns the key of an audit chain's head; `None` names the cluster's chain.
pub fn audit_head(chain: Option<&OrgId>) -> Vec<u8> {
    of_chain(chain).into_bytes()
}

/// Returns the key of an audit entry.
pub fn audit(chain: Option<&OrgId>, number: u64) -> Vec<u8> {
    of_chain(chain).number(number).into_bytes()
}

/// Returns the key of the journal row whose last event has this sequence.
pub fn journal(org: &OrgId, last_sequence: u64) -> Vec<u8> {
    of_organization(org).number(last_sequence).into_bytes()
}

/// Returns the last sequence of a journal row from its key; `None` if it is none.
pub fn journal_last_sequence(key: &[u8]) -> Option<u64> {
    key.split_last_chunk::<8>().map(|(_, last)| u64::from_be_bytes(*last))
}

/// Returns the key of a document's head record.
pub fn document(org: &OrgId, app: &AppId, document: &DocumentKey) -> Vec<u8> {
    of_document(org, app, document).into_bytes()
}

/// Returns the document key within a key of [`crate::Space::Document`]; `None` if it is none.
pub fn document_key(key: &[u8]) -> Option<DocumentKey> {
    let (_org, rest) = take_text(key)?;
    let (_app, rest) = take_text(rest)?;
    let (document, _) = take_text(rest)?;
    Some(DocumentKey::from_trusted(document))
}

/// Returns the key of a change after the base.
pub fn document_change(org: &OrgId, app: &AppId, document: &DocumentKey, sequence: u64) -> Vec<u8> {
    of_document(org, app, document).number(sequence).into_bytes()
}

/// Returns the key of a part of a document's base.
pub fn document_base(org: &OrgId, app: &AppId, document: &DocumentKey, part: u32) -> Vec<u8> {
    of_document(org, app, document).part(part).into_bytes()
}

/// Returns the key that says that a document has a change.
pub fn change_index(org: &OrgId, app: &AppId, document: &DocumentKey, hash: &Hash32) -> Vec<u8> {
    of_document(org, app, document).fixed(&hash.0).into_bytes()
}

/// Returns the change hash at the end of a key of [`crate::Space::ChangeIndex`]; `None` if it is none.
pub fn change_hash(key: &[u8]) -> Option<Hash32> {
    key.split_last_chunk::<32>().map(|(_, hash)| Hash32(*hash))
}

/// Returns the key that says that a snapshot or tombstone is journalled.
pub fn event_index(org: &OrgId, app: &AppId, event_id: &Hash32) -> Vec<u8> {
    of_formation(org, app).fixed(&event_id.0).into_bytes()
}

/// Returns the key of a staged part.
pub fn change_part(
    org: &OrgId,
    app: &AppId,
    document: &DocumentKey,
    id: &Hash32,
    part: u32,
) -> Vec<u8> {
    of_document(org, app, document).fixed(&id.0).part(part).into_bytes()
}

/// Returns the range of all rows of a space whose keys begin with text or a small number: all but
/// [`crate::Space::IdempotencyExpiry`].
pub fn whole_space() -> KeyRange {
    // No UTF-8 text contains this byte.
    (Vec::new(), vec![0xff])
}

/// Returns the range of an organisation's rows.
pub fn organization_range(org: &OrgId) -> KeyRange {
    of_organization(org).range()
}

/// Returns the range of a formation's rows.
pub fn formation_range(org: &OrgId, app: &AppId) -> KeyRange {
    of_formation(org, app).range()
}

/// Returns the range of a document's rows.
pub fn document_range(org: &OrgId, app: &AppId, document: &DocumentKey) -> KeyRange {
    of_document(org, app, document).range()
}

/// Returns the range of an audit chain's entries.
pub fn audit_range(chain: Option<&OrgId>) -> KeyRange {
    of_chain(chain).range()
}

/// Returns the same range without the keys up to and including `last`.
pub fn after(range: KeyRange, last: &[u8]) -> KeyRange {
    let mut start = last.to_vec();
    start.push(0);
    (start.max(range.0), range.1)
}

fn of_organization(org: &OrgId) -> Key {
    Key::new().text(org.as_str())
}

fn of_formation(org: &OrgId, app: &AppId) -> Key {
    of_organization(org).text(app.as_str())
}

fn of_document(org: &OrgId, app: &AppId, document: &DocumentKey) -> Key {
    of_formation(org, app).text(document.as_str())
}

/// The cluster's chain is the empty component, which no organisation's id can be.
fn of_chain(chain: Option<&OrgId>) -> Key {
    Key::new().text(chain.map_or("", OrgId::as_str))
}
