//! From "openraft says this node leads" to "leader work may run": the epoch.
//!
//! ```text
//!  elected in term 7 ──► ClaimEpoch{term 7} committed at index 90 and applied here
//!                    ──► Leader{term 7, epoch 90} ──► leader work runs, fenced by 90
//!  deposed           ──► Follower, at once
//! ```

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use peat_gateway_state::command::ClaimEpoch;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::{Actor, Command, Envelope, Outcome};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::inner::Inner;
use crate::handle::Leadership;
use crate::raft::TypeConfig;

/// How long one claim may take before it is tried again.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed claim; doubles up to the maximum.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);
const CLAIM_PAUSE_MAX: Duration = Duration::from_secs(1);

type ServerMetrics = openraft::type_config::alias::WatchReceiverOf<
    TypeConfig,
    openraft::metrics::RaftServerMetrics<TypeConfig>,
>;

/// Keeps `leadership` true to what consensus says, until `shutdown`.
pub(crate) async fn run(
    inner: std::sync::Arc<Inner>,
    leadership: watch::Sender<Leadership>,
    shutdown: CancellationToken,
) {
    let mut metrics = inner.raft().server_metrics();
    let mut health = inner.health.changes();
    loop {
        health.mark_unchanged();
        // A node that isn't fit does no leader work, whatever consensus makes of it.
        let term =
            leading_term(&metrics, inner.node_id()).filter(|_| inner.health.unfit().is_none());
        let held = match *leadership.borrow() {
            Leadership::Leader { term, .. } => Some(term),
            Leadership::Follower => None,
        };
        if held.is_some() && held != term {
            tracing::info!(term = held, "this node leads no more");
            leadership.send_replace(Leadership::Follower);
        }
        let lost_or_done = async {
            if let Some(term) = term.filter(|term| held != Some(*term)) {
                claim(&inner, term, &leadership).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = metrics.changed() => if changed.is_err() { break },
            Ok(()) = health.changed() => {}
            () = lost_or_done => {}
        }
    }
    leadership.send_replace(Leadership::Follower);
}

fn leading_term(metrics: &ServerMetrics, node: NodeId) -> Option<u64> {
    let metrics = metrics.borrow_watched();
    let leads = metrics.state == ServerState::Leader && metrics.current_leader == Some(node.0);
    leads.then_some(metrics.vote.leader_id.term)
}

/// Commits the epoch and publishes it. Ends when it is published; the caller drops it when the
/// leadership is lost.
async fn claim(inner: &Inner, term: u64, leadership: &watch::Sender<Leadership>) {
    let node = inner.node_id();
    let actor = Actor {
        principal: format!("node:{node}"),
        source: String::new(),
        request_id: String::new(),
    };
    let claim = Envelope::new(actor, Command::ClaimEpoch(ClaimEpoch { term, node }));
    let mut pause = CLAIM_PAUSE;
    loop {
        match inner.propose_leader_work(&claim, CLAIM_TIMEOUT).await {
            Ok(committed) => match committed.outcome {
                Outcome::EpochClaimed(epoch) => {
                    tracing::info!(term, epoch = epoch.0, "this node leads");
                    leadership.send_replace(Leadership::Leader { term, epoch });
                    return;
                }
                outcome => tracing::warn!(term, ?outcome, "the claim of an epoch was refused"),
            },
            Err(error) => tracing::info!(term, %error, "could not claim an epoch yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(CLAIM_PAUSE_MAX);
    }
}
