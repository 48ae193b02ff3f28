//! HTTP: routes, bodies, problem documents. Translates, decides nothing.
//!
//! ```text
//!   connection ─► request id ─► who asks? ─► room? time? ─► handler ─► Service
//!                     │                                        │
//!     problem+json ◄──┴── every failure, whoever found it ◄────┘ index, metrics
//! ```
//!
//! * [`auth`]: who asks. * [`problem`]: failures as RFC 9457 documents.
//! * [`request`], [`response`]: what all routes read and answer alike.
//! * [`connections`]: accepting, serving and draining connections.
//! * [`layers`]: what surrounds every request. * [`refusals`]: 401 and 403, counted for the audit log.
//! * [`openapi`]: the document at `/openapi.json`, also in `docs/reference/openapi.json`.
//! * A file per resource: its routes, and the JSON they take and give.

mod audit;
mod auth;
mod cluster;
mod connections;
mod documents;
mod formations;
mod health;
mod journal;
mod layers;
mod members;
mod metrics;
mod openapi;
mod organizations;
mod problem;
mod refusals;
mod request;
mod response;
mod sinks;
mod snapshot;
mod storage_metrics;
#[cfg(test)]
mod tests;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::middleware::from_fn_with_state;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

pub use auth::{Access, Tokens};
pub use health::Notices;

use crate::service::Service;
use metrics::Metrics;
use refusals::Refusals;

/// Most bytes of a request's body; a larger one is answered with 413.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a request may take; then a read is answered with 503, and a write, whose outcome is
/// unknown then, with 504.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Most requests that are worked on at once; a further one is answered with 429.
pub const REQUESTS_MAX: usize = 4096;
/// Most live streams at once; a further one is answered with 429.
pub const STREAMS_MAX: usize = 256;
/// Most snapshots that are read from this node at once; a further one is answered with 429.
pub const SNAPSHOTS_MAX: usize = 2;
/// How long requests may go on once the node drains; then their connections are closed.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the API is told by the node's configuration.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Who is let in.
    pub access: Access,
    /// Where this API's metrics are registered, and what `/metrics` shows. One per node.
    pub registry: Registry,
    /// Cancelled when a planned stop begins: `/readyz` answers 503 and connections are asked to close,
    /// while everything is served on.
    pub draining: CancellationToken,
    /// What `/health` says besides.
    pub notices: Notices,
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
struct Api {
    service: Service,
    shared: Arc<Shared>,
}

struct Shared {
    access: Access,
    metrics: Metrics,
    refusals: Refusals,
    requests: Semaphore,
    streams: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    /// A planned stop has begun; requests are served on.
    draining: CancellationToken,
    notices: Notices,
    /// No more connections, and live streams end.
    shutdown: CancellationToken,
    openapi: Bytes,
}

/// Returns all routes. Requests need `ConnectInfo<SocketAddr>`, else they count as remote.
///
/// Refusals are counted but written into the audit log only by [`serve`].
pub fn router(service: Service, settings: ApiSettings) -> Router {
    build(service, settings, CancellationToken::new()).0
}

/// Serves the API until `shutdown` is cancelled, then drains: accepts no more, ends live streams, and
/// lets requests finish for up to [`DRAIN_TIMEOUT`].
pub async fn serve(
    listener: TcpListener,
    service: Service,
    settings: ApiSettings,
    shutdown: CancellationToken,
) {
    let (router, api) = build(service, settings, shutdown.clone());
    let recorder = tokio::spawn(refusals::record(api, shutdown.clone()));
    connections::serve(listener, router, shutdown).await;
    if let Err(error) = recorder.await
        && error.is_panic()
    {
        tracing::error!(%error, "the recorder of refusals ended early");
    }
}

fn build(service: Service, settings: ApiSettings, shutdown: CancellationToken) -> (Router, Api) {
    let (router, document) = routes().split_for_parts();
    let shared = Shared {
        access: settings.access,
        metrics: Metrics::register(&settings.registry),
        refusals: Refusals::default(),
        requests: Semaphore::new(REQUESTS_MAX),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        draining: settings.draining,
        notices: settings.notices,
        shutdown,
        openapi: openapi::render(&document).into(),
    };
    let api = Api { service, shared: Arc::new(shared) };
    let router = router
        .fallback(problem::unknown_path)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(from_fn_with_state(api.clone(), layers::surround))
        .with_state(api.clone());
    (router, api)
}

/// All routes with their documentation. A route that isn't here isn't served.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(health::routes())
        .merge(cluster::routes())
        .merge(snapshot::routes())
        .merge(upgrade::routes())
        .merge(members::routes())
        .merge(organizations::routes())
        .merge(formations::routes())
        .merge(documents::routes())
        .merge(sinks::routes())
        .merge(journal::routes())
        .merge(audit::routes())
}
