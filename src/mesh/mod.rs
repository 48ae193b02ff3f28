//! The observer: turns what mesh nodes send into journalled events, and answers only what is committed.
//!
//! ```text
//!  active formations ──► organization ──┬─► pipeline ──► journal (one ordered way per organisation)
//!                                       ├─► compaction
//!                                       └─► formation ──► endpoint, dialing ──► connection per link
//!                                              │
//!                             frame ─► sighting ─► observation ─┬─► events, in order ──► pipeline
//!                                                               └─► answer, held until committed ──► link
//! ```
//!
//! Only the leader observes, under its epoch. The observer never writes into a mesh: no change, no
//! tombstone, no snapshot, no question about a document that a node hasn't mentioned. What it answers
//! is built from the committed state (ADR 0003), so the next leader goes on where this one ended.

mod chunks;
mod compaction;
mod connection;
mod dialing;
mod event;
mod exchange;
mod formation;
mod journal;
mod leader_journal;
mod metrics;
mod observation;
mod organization;
mod outbox;
mod peers;
mod pipeline;
mod proposer;
mod replica;
mod replicas;
mod sighting;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use peat_gateway_state::ids::OrgId;
use peat_gateway_state::query;
use peat_gateway_state::record::Formation;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::leader::LeaderWork;
use leader_journal::LeaderJournal;
use organization::Organization;
use proposer::Proposer;

pub use metrics::Metrics;
pub use peers::{ConnectedPeer, Peers};

/// How long closing may take after shutdown; what is left is dropped.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before the formations are read again after that failed.
const REREAD_DELAY: Duration = Duration::from_millis(500);

/// What the observer is told by the node's configuration, and where it shows what it does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// UDP address on which formations' endpoints bind; port 0 chooses one per formation. Another port
    /// serves the first formation that takes it; further ones choose their own.
    pub bind: std::net::SocketAddr,
    /// The gateway's node name in every mesh; its endpoint id is derived from it.
    pub node_name: String,
    /// What is counted; registered once per process.
    pub metrics: Metrics,
    /// Filled with who is connected, while this node leads.
    pub peers: Peers,
}

/// Observes every active formation until `work.shutdown` is cancelled; returns when all connections closed.
///
/// A formation that can't be observed (its genesis can't be opened, no UDP port is free) is tried again and
/// holds up no other. Returns within two seconds after shutdown.
pub async fn run(work: LeaderWork, settings: Settings) {
    let mut changes = work.handle.changes();
    let mut organizations: BTreeMap<OrgId, Observed> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut seen = None;
    loop {
        let configuration = changes.borrow_and_update().configuration;
        let mut reread = false;
        if seen != Some(configuration) {
            match query::active_formations(&work.handle.local_view()) {
                Ok(formations) => {
                    reconcile(&mut organizations, &mut tasks, formations, &work, &settings);
                    seen = Some(configuration);
                }
                Err(error) => {
                    tracing::error!(%error, "could not read which formations to observe; trying on");
                    reread = true;
                }
            }
        }
        tokio::select! {
            () = work.shutdown.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(REREAD_DELAY), if reread => {}
            Some(_) = tasks.join_next() => {}
        }
    }
    for observed in organizations.values() {
        observed.close.cancel();
    }
    let closed = timeout(SHUTDOWN_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
    if closed.await.is_err() {
        tracing::warn!("closing the connections to mesh nodes took too long; dropping them");
        tasks.abort_all();
    }
}

struct Observed {
    formations: watch::Sender<Vec<Formation>>,
    close: CancellationToken,
}

/// Tells each organisation its active formations; begins and ends organisations.
fn reconcile(
    organizations: &mut BTreeMap<OrgId, Observed>,
    tasks: &mut JoinSet<()>,
    formations: Vec<Formation>,
    work: &LeaderWork,
    settings: &Settings,
) {
    let mut wanted: BTreeMap<OrgId, Vec<Formation>> = BTreeMap::new();
    for formation in formations {
        wanted.entry(formation.org_id.clone()).or_default().push(formation);
    }
    organizations.retain(|org, observed| {
        let kept = wanted.contains_key(org);
        if !kept {
            observed.close.cancel();
        }
        kept
    });
    for (org, formations) in wanted {
        if let Some(observed) = organizations.get(&org) {
            observed.formations.send_replace(formations);
            continue;
        }
        let (sender, receiver) = watch::channel(formations);
        let close = work.shutdown.child_token();
        let organization = Organization {
            proposer: Proposer {
                org: org.clone(),
                journal: LeaderJournal { work: work.clone() },
                metrics: settings.metrics.clone(),
            },
            bind: settings.bind,
            node_name: settings.node_name.clone(),
            peers: settings.peers.clone(),
        };
        tasks.spawn(organization.run(receiver, close.clone()));
        organizations.insert(org, Observed { formations: sender, close });
    }
}
