//! Documents: bytes in the state, made into JSON when they are read.

use automerge::{Automerge, Change};
use peat_gateway_state::ids::DocumentKey;
use peat_gateway_state::query::{self, DocumentContent};
use peat_gateway_state::record::DocumentSummary;
use serde_json::Value;

use super::access::{Operation, authorize};
use super::{Call, Error, Page, Reply, Service, app_id, org_id};

/// A document with its content.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentView {
    /// Its key.
    pub doc_id: DocumentKey,
    /// Automerge heads, hexadecimal, sorted.
    pub heads: Vec<String>,
    /// Position of its newest event.
    pub document_sequence: u64,
    /// Unix time in ms of its newest event.
    pub last_modified: u64,
    /// Whether it is deleted; then it has no content.
    pub deleted: bool,
    /// The document as a JSON object; null where it is deleted.
    pub content: Value,
}

impl Service {
    /// Returns a formation's documents by key, those after `after`; deleted ones too.
    ///
    /// # Errors
    /// `not_found` where there is no such formation.
    pub async fn documents(
        &self,
        call: &Call,
        org: &str,
        app: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Reply<Page<DocumentSummary>>, Error> {
        authorize(call.principal, Operation::ReadDocument)?;
        let (org, app_key) = (org_id(org)?, app_id(app)?);
        let after = after.map(DocumentKey::from_trusted);
        let snapshot = self.read(call).await?;
        if query::formation(snapshot.reader(), &org, &app_key)?.is_none() {
            return Err(Error::not_found("formation", app));
        }
        let found = query::documents(snapshot.reader(), &org, &app_key, after.as_ref(), limit + 1)?;
        Ok(Reply { value: Page::cut(found, limit), index: snapshot.index() })
    }

    /// Returns a document with its content.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn document(
        &self,
        call: &Call,
        org: &str,
        app: &str,
        key: &str,
    ) -> Result<Reply<DocumentView>, Error> {
        authorize(call.principal, Operation::ReadDocument)?;
        let (org, app) = (org_id(org)?, app_id(app)?);
        let doc_id = DocumentKey::parse(key).map_err(|_| Error::not_found("document", key))?;
        let snapshot = self.read(call).await?;
        // Loading a large document takes long enough to hold up other requests on this thread.
        let made = tokio::task::spawn_blocking(move || {
            let content = query::document_content(snapshot.reader(), &org, &app, &doc_id)?
                .ok_or_else(|| Error::not_found("document", doc_id.as_str()))?;
            let index = snapshot.index();
            drop(snapshot);
            Ok(Reply { value: materialize(doc_id, &content)?, index })
        });
        made.await.map_err(Error::internal)?
    }
}

fn materialize(doc_id: DocumentKey, stored: &DocumentContent) -> Result<DocumentView, Error> {
    let head = &stored.document;
    let content = if head.deleted { Value::Null } else { content(stored)? };
    Ok(DocumentView {
        doc_id,
        heads: head.heads.iter().map(ToString::to_string).collect(),
        document_sequence: head.document_sequence,
        last_modified: head.last_modified,
        deleted: head.deleted,
        content,
    })
}

fn content(stored: &DocumentContent) -> Result<Value, Error> {
    let mut document = match stored.base.as_slice() {
        [] => Automerge::new(),
        base => Automerge::load(base).map_err(Error::internal)?,
    };
    let changes: Result<Vec<_>, _> =
        stored.changes.iter().map(|change| Change::from_bytes(change.bytes.clone())).collect();
    document.apply_changes(changes.map_err(Error::internal)?).map_err(Error::internal)?;
    Ok(peat_gateway_mesh::json::document(&document))
}
