//! Reads of documents.

use super::{damaged, record, records, scan_records};
use crate::ids::{AppId, DocumentKey, Hash32, OrgId};
use crate::keys;
use crate::record::{Document, DocumentSummary, StoredChange};
use crate::space::{ReadError, Reader, Space};

/// All bytes of a document: load the base, then apply the changes in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentContent {
    /// Its head record.
    pub document: Document,
    /// The saved form; empty where there is no base.
    pub base: Vec<u8>,
    /// The changes after the base, in document order.
    pub changes: Vec<StoredChange>,
}

/// Returns a document's head record.
pub fn document(
    reader: &dyn Reader,
    org: &OrgId,
    app: &AppId,
    document: &DocumentKey,
) -> Result<Option<Document>, ReadError> {
    record(reader, Space::Document, &keys::document(org, app, document))
}

/// Returns at most `limit` documents of a formation by key, those after `after`; deleted ones too.
pub fn documents(
    reader: &dyn Reader,
    org: &OrgId,
    app: &AppId,
    after: Option<&DocumentKey>,
    limit: usize,
) -> Result<Vec<DocumentSummary>, ReadError> {
    let mut range = keys::formation_range(org, app);
    if let Some(last) = after {
        range = keys::after(range, &keys::document(org, app, last));
    }
    let mut found: Vec<DocumentSummary> = Vec::new();
    let mut bad_key = false;
    if limit > 0 {
        scan_records(reader, Space::Document, &range, false, &mut |key, record: Document| {
            let Some(doc_id) = keys::document_key(key) else {
                bad_key = true;
                return false;
            };
            let Document { last_modified, deleted, .. } = record;
            found.push(DocumentSummary { doc_id, last_modified, deleted });
            found.len() < limit
        })?;
    }
    if bad_key {
        return Err(damaged(Space::Document, "the key is no document's key"));
    }
    Ok(found)
}

/// Returns all bytes of a document, `None` where there is none. A deleted one has no bytes.
pub fn document_content(
    reader: &dyn Reader,
    org: &OrgId,
    app: &AppId,
    document: &DocumentKey,
) -> Result<Option<DocumentContent>, ReadError> {
    let Some(head) = self::document(reader, org, app, document)? else {
        return Ok(None);
    };
    let range = keys::document_range(org, app, document);
    let mut base = Vec::new();
    reader.scan(Space::DocumentBase, &range.0, &range.1, false, &mut |_, part| {
        base.extend_from_slice(part);
        true
    })?;
    let changes = records(reader, Space::DocumentChange, &range, usize::MAX)?;
    Ok(Some(DocumentContent { document: head, base, changes }))
}

/// Whether a change of this document is committed, be it stored, compacted or replaced.
pub fn has_change(
    reader: &dyn Reader,
    org: &OrgId,
    app: &AppId,
    document: &DocumentKey,
    hash: &Hash32,
) -> Result<bool, ReadError> {
    let key = keys::change_index(org, app, document, hash);
    Ok(reader.get(Space::ChangeIndex, &key)?.is_some())
}

/// Returns the hashes of all committed changes of a document, sorted.
pub fn change_hashes(
    reader: &dyn Reader,
    org: &OrgId,
    app: &AppId,
    document: &DocumentKey,
) -> Result<Vec<Hash32>, ReadError> {
    let range = keys::document_range(org, app, document);
    let mut hashes = Vec::new();
    reader.scan(Space::ChangeIndex, &range.0, &range.1, false, &mut |key, _| {
        hashes.extend(keys::change_hash(key));
        true
    })?;
    Ok(hashes)
}
