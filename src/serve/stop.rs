//! A planned stop, in an order in which no client's request fails.
//!
//! ```text
//!  signal ─► /readyz 503, answers say `connection: close`; everything is served as before
//!         ─► lead time: whoever follows /readyz sends its requests elsewhere
//!         ─► leader work ends, its last cursors committed
//!         ─► leadership is handed on; requests that come now are forwarded to the new leader
//!         ─► HTTP drains: live streams end, no more connections, GOAWAY
//!         ─► Node::stop: other nodes' forwarded proposals are answered, then connections are cut
//! ```

use std::time::Duration;

use peat_gateway_cluster::Node;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::ServeError;
use super::leadership::LeadershipError;
use crate::api;

/// How long the HTTP server may take to end: its own drain time, and a little more. Then it is cut.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(api::DRAIN_TIMEOUT.as_secs() + 2);

/// The HTTP server's task.
pub(super) type Http = JoinHandle<()>;
/// The leadership loop's task.
pub(super) type LeaderLoop = JoinHandle<Result<(), LeadershipError>>;

/// What runs beside the node, and how each part is told to end.
pub(super) struct Running {
    pub(super) leadership: LeaderLoop,
    pub(super) leadership_shutdown: CancellationToken,
    pub(super) http: Http,
    pub(super) http_shutdown: CancellationToken,
}

/// Says by `/readyz` that this node leaves, and waits until whoever follows it has seen that.
pub(super) async fn announce(draining: &CancellationToken, lead: Duration) {
    draining.cancel();
    info!(
        lead_ms = lead.as_millis(),
        "this node is not ready any more; it serves on for the lead time"
    );
    tokio::time::sleep(lead).await;
}

/// Ends everything in order. `hand_on` is whether the node is well enough to hand its leadership on and
/// to be stopped; else only what runs beside it is ended.
///
/// # Errors
/// Leader work didn't end, or panicked.
pub(super) async fn end(node: Node, running: Running, hand_on: bool) -> Result<(), ServeError> {
    running.leadership_shutdown.cancel();
    let leader_work = running.leadership.await;
    if hand_on {
        // Before HTTP drains: what is under way is retried at the new leader while this node serves.
        node.hand_on_leadership().await;
    }
    running.http_shutdown.cancel();
    drain(running.http).await;
    if hand_on {
        node.stop().await;
        info!("the node has stopped");
    }
    leader_work_ended(leader_work)
}

fn leader_work_ended(
    ended: Result<Result<(), LeadershipError>, JoinError>,
) -> Result<(), ServeError> {
    match ended {
        Ok(result) => Ok(result?),
        Err(panic) => Err(ServeError::Failed(format!("leader work panicked: {panic}"))),
    }
}

async fn drain(mut http: Http) {
    match tokio::time::timeout(DRAIN_TIMEOUT, &mut http).await {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => error!(%panic, "the HTTP server panicked"),
        Err(_) => {
            error!("requests were still open after {} s and are cut", DRAIN_TIMEOUT.as_secs());
            http.abort();
        }
    }
}
