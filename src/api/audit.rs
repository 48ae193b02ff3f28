//! The audit log of an organisation.

use axum::extract::State;
use axum::http::HeaderMap;
use peat_gateway_state::ids::AppId;
use peat_gateway_state::record::AuditEntry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::request::{Ask, Ids, Pairs, Parameters, invalid_parameter, limit};
use super::response::{Answer, Shown};
use crate::service::Error;
use crate::service::audit::{AuditPage, AuditReport};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_audit)).routes(routes!(verify_audit))
}

/// An entry of an audit chain. `hash` = SHA-256(previous hash ‖ CBOR of all other fields).
#[derive(Serialize, ToSchema)]
pub(super) struct AuditEntryView {
    /// Position in the chain, from 1, without gaps.
    number: u64,
    /// Unix time in ms.
    timestamp_ms: u64,
    /// Log index of the command.
    index: u64,
    /// Who asked.
    actor: ActorView,
    /// What, in snake_case: `create_organization`.
    #[schema(value_type = String)]
    action: Value,
    /// On what: `formation/acme/alpha`.
    target: String,
    /// `done`, or the code of the refusal.
    result: String,
    /// How many refusals this entry counts; 1 for everything else.
    count: u32,
    /// Hash of the entry before, hexadecimal; zeros for the first.
    previous: String,
    /// Hash of this entry, hexadecimal.
    hash: String,
}

/// Who asked for something.
#[derive(Serialize, ToSchema)]
struct ActorView {
    /// `admin`, `loopback`, `anonymous`, `node:<id>`.
    principal: String,
    /// The client's address; empty for nodes.
    source: String,
    /// The request's id; empty for nodes.
    request_id: String,
}

impl From<AuditEntry> for AuditEntryView {
    fn from(entry: AuditEntry) -> Self {
        Self {
            number: entry.number,
            timestamp_ms: entry.time,
            index: entry.index,
            actor: ActorView {
                principal: entry.actor.principal,
                source: entry.actor.source,
                request_id: entry.actor.request_id,
            },
            action: serde_json::to_value(entry.action).expect("an action is a word"),
            target: entry.target,
            result: entry.result,
            count: entry.count,
            previous: entry.previous.to_string(),
            hash: entry.hash.to_string(),
        }
    }
}

/// What walking a chain found.
#[derive(Serialize, ToSchema)]
struct ReportView {
    /// Whether every entry is there and untouched.
    intact: bool,
    /// Entries from the first on that are as they must be.
    entries: u64,
    /// Hash of the newest entry, hexadecimal. Keep it: a chain that was rewritten has another.
    #[serde(skip_serializing_if = "String::is_empty")]
    head: String,
    /// Number of the first entry that isn't as it must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at: Option<u64>,
    /// `missing`, `unlinked`, `altered` or `wrong_head`.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
}

impl From<AuditReport> for ReportView {
    fn from(report: AuditReport) -> Self {
        Self {
            intact: report.broken.is_none(),
            entries: report.entries,
            head: report.head,
            broken_at: report.broken.map(|(number, _)| number),
            fault: report.broken.map(|(_, fault)| fault),
        }
    }
}

/// Which part of a chain is asked for.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ChainQuery {
    /// Entries with numbers below this one.
    pub(super) before: Option<u64>,
    /// Most entries: 1 to 1000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    pub(super) limit: usize,
}

impl Parameters for ChainQuery {
    fn take(pairs: &mut Pairs, _: &HeaderMap) -> Result<Self, Error> {
        Ok(Self { before: pairs.number("before")?, limit: limit(pairs)? })
    }
}

/// Which entries of a chain are asked for.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only entries about this formation. One request looks through 10 000 entries; where an answer
    /// has fewer than asked for, its header `Link` goes on.
    app_id: Option<String>,
    /// Entries with numbers below this one.
    before: Option<u64>,
    /// Most entries: 1 to 1000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: usize,
}

impl Parameters for AuditQuery {
    fn take(pairs: &mut Pairs, headers: &HeaderMap) -> Result<Self, Error> {
        let app_id = pairs.take("app_id");
        if app_id.as_deref().is_some_and(|app| AppId::parse(app).is_err()) {
            return Err(invalid_parameter("app_id", "is no formation's id"));
        }
        let ChainQuery { before, limit } = ChainQuery::take(pairs, headers)?;
        Ok(Self { app_id, before, limit })
    }
}

/// Where a chain goes on.
pub(super) fn next_page(
    path: &str,
    app: Option<&str>,
    limit: usize,
    page: &AuditPage,
) -> Option<String> {
    let app = app.map(|app| format!("&app_id={app}")).unwrap_or_default();
    page.next_before.map(|before| format!("{path}?limit={limit}&before={before}{app}"))
}

/// Shows an organisation's audit chain, the newest entry first. It outlives the organisation.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/audit",
    tag = "audit",
    params(AuditQuery),
    responses((status = 200, body = [AuditEntryView]))
)]
async fn get_audit(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    ask: Ask<AuditQuery>,
) -> Answer<Vec<AuditEntryView>> {
    let AuditQuery { app_id, before, limit } = ask.parameters;
    let app = app_id.as_deref();
    let reply = api.service.audit(&ask.call, &org, app, before, limit).await?;
    let next = next_page(&format!("/orgs/{org}/audit"), app, limit, &reply.value);
    Ok(Shown::of(reply, |page| page.entries.into_iter().map(AuditEntryView::from).collect())
        .followed_by(next))
}

/// Walks an organisation's audit chain from its first entry to its head.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/audit/verify",
    tag = "audit",
    responses((status = 200, body = ReportView))
)]
async fn verify_audit(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    ask: Ask<()>,
) -> Answer<ReportView> {
    Ok(Shown::of(api.service.verify_audit(&ask.call, &org).await?, ReportView::from))
}
