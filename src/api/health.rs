//! What probes and scrapers ask. Public.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use peat_gateway_cluster::Alarm;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::cluster::AlarmView;
use super::problem::Failure;
use crate::service::{Error, Kind};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(health))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
}

/// What is wrong with this node and doesn't keep it from serving, by a name each. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Notices {
    /// Notes what is wrong under a name, or that nothing is any more; `false` where that was known.
    pub fn note(&self, name: &'static str, problem: Option<String>) -> bool {
        let mut notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => notices.insert(name, problem.clone()) != Some(problem),
            None => notices.remove(name).is_some(),
        }
    }

    /// Everything that is wrong, a sentence each.
    fn all(&self) -> Vec<String> {
        let notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notices.iter().map(|(name, problem)| format!("{name}: {problem}")).collect()
    }
}

/// How a node is.
#[derive(Serialize, ToSchema)]
struct HealthView {
    /// `ok`, or `degraded` while the node waits for something or has a problem.
    status: &'static str,
    /// The version of the gateway.
    version: &'static str,
    /// What the node waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What is wrong with the node, whether or not it can serve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alarms: Vec<AlarmView>,
    /// What is wrong and doesn't keep it from serving.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

impl HealthView {
    fn of(ready: Result<(), String>, alarms: Vec<Alarm>) -> Self {
        let status = if ready.is_ok() { "ok" } else { "degraded" };
        let alarms = alarms.into_iter().map(AlarmView::from).collect();
        let version = env!("CARGO_PKG_VERSION");
        Self { status, version, reason: ready.err(), alarms, problems: Vec::new() }
    }
}

/// Says that the process works, whatever the cluster does; 503 when its disk has been stuck for so long that
/// only a restart could help. Restart it where this fails.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, body = HealthView)))]
async fn livez(State(api): State<Api>) -> Result<Json<HealthView>, Failure> {
    match api.service.alive() {
        Ok(()) => Ok(Json(HealthView::of(Ok(()), Vec::new()))),
        Err(reason) => Err(Failure(Error::new(Kind::Unavailable, "stuck", reason))),
    }
}

/// Says whether this node can serve; 503 while it can't. Route requests elsewhere then.
#[utoipa::path(get, path = "/readyz", tag = "health", responses((status = 200, body = HealthView)))]
async fn readyz(State(api): State<Api>) -> Result<Json<HealthView>, Failure> {
    match api.ready() {
        Ok(()) => Ok(Json(HealthView::of(Ok(()), api.service.node_health().alarms))),
        Err(reason) => Err(Failure(Error::new(Kind::Unavailable, "not_ready", reason))),
    }
}

impl Api {
    /// Whether requests should be sent here; else what the node waits for.
    fn ready(&self) -> Result<(), String> {
        if self.shared.draining.is_cancelled() || self.shared.shutdown.is_cancelled() {
            return Err("the node is draining".to_owned());
        }
        self.service.ready()
    }
}

/// Says how the node is; always 200, as scripts for earlier gateways expect.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = HealthView)))]
async fn health(State(api): State<Api>) -> Json<HealthView> {
    let mut health = HealthView::of(api.ready(), api.service.node_health().alarms);
    health.problems = api.shared.notices.all();
    if !health.problems.is_empty() {
        health.status = "degraded";
    }
    Json(health)
}

/// Shows this node's metrics as Prometheus text.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn metrics(State(api): State<Api>) -> Result<Response, Failure> {
    let node = api.service.local_status();
    let ready = api.ready().is_ok();
    let version = api.service.cluster_version();
    let health = api.service.node_health();
    let rendered = api.shared.metrics.render(&node, &health, version, ready);
    let text = rendered.map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

/// Shows this document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "health",
    responses((status = 200, body = Object, content_type = "application/json"))
)]
async fn openapi(State(api): State<Api>) -> Response {
    let document = api.shared.openapi.clone();
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
