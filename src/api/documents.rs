//! Documents of a formation.

use axum::extract::State;
use peat_gateway_state::record::DocumentSummary;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::request::{Ask, Ids, PageQuery, cursor_after};
use super::response::{Answer, Shown};
use crate::service::documents::DocumentView as Document;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_documents)).routes(routes!(get_document))
}

/// A document in a listing.
#[derive(Serialize, ToSchema)]
struct SummaryView {
    /// Its key: `<collection>:<id>`.
    doc_id: String,
    /// Unix time in ms of its newest event.
    last_modified: u64,
    /// Whether it is deleted.
    deleted: bool,
}

impl From<DocumentSummary> for SummaryView {
    fn from(summary: DocumentSummary) -> Self {
        Self {
            doc_id: summary.doc_id.as_str().to_owned(),
            last_modified: summary.last_modified,
            deleted: summary.deleted,
        }
    }
}

/// A document with its content.
#[derive(Serialize, ToSchema)]
struct DocumentView {
    /// Its key: `<collection>:<id>`.
    doc_id: String,
    /// Automerge heads of what the gateway has, hexadecimal.
    heads: Vec<String>,
    /// Position of its newest event.
    document_sequence: u64,
    /// Unix time in ms of its newest event.
    last_modified: u64,
    /// Whether it is deleted.
    deleted: bool,
    /// The document as a JSON object; null where it is deleted.
    #[schema(value_type = Object, nullable)]
    content: Value,
}

/// Lists a formation's documents by key, deleted ones too.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/formations/{app_id}/documents",
    tag = "documents",
    params(PageQuery),
    responses((status = 200, body = [SummaryView]))
)]
async fn list_documents(
    State(api): State<Api>,
    Ids((org, app)): Ids<(String, String)>,
    ask: Ask<PageQuery>,
) -> Answer<Vec<SummaryView>> {
    let PageQuery { limit, cursor } = ask.parameters;
    let reply = api.service.documents(&ask.call, &org, &app, cursor.as_deref(), limit).await?;
    let page = &reply.value;
    let next = page.items.last().filter(|_| page.more).map(|last| {
        let cursor = cursor_after(last.doc_id.as_str());
        format!("/orgs/{org}/formations/{app}/documents?limit={limit}&cursor={cursor}")
    });
    Ok(Shown::of(reply, |page| page.items.into_iter().map(SummaryView::from).collect())
        .followed_by(next))
}

/// Shows a document with its content. Percent-encode the key; a `/` in it is `%2F`.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/formations/{app_id}/documents/{document_id}",
    tag = "documents",
    responses((status = 200, body = DocumentView))
)]
async fn get_document(
    State(api): State<Api>,
    Ids((org, app, key)): Ids<(String, String, String)>,
    ask: Ask<()>,
) -> Answer<DocumentView> {
    let reply = api.service.document(&ask.call, &org, &app, &key).await?;
    Ok(Shown::of(reply, |document: Document| DocumentView {
        doc_id: document.doc_id.as_str().to_owned(),
        heads: document.heads,
        document_sequence: document.document_sequence,
        last_modified: document.last_modified,
        deleted: document.deleted,
        content: document.content,
    }))
}
