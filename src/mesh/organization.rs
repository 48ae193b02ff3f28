//! The observed formations of one organisation: one pipeline, one compactor, a task per formation.
//!
//! When an outcome is unknown, all of it is closed and begun again from the committed state: the nodes
//! then send again what the cluster lacks, and nothing was answered that isn't committed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use peat_gateway_state::ids::AppId;
use peat_gateway_state::record::Formation;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::compaction;
use super::formation::{self, Surroundings};
use super::journal::Journal;
use super::peers::Peers;
use super::pipeline::{self, QUEUE_ITEMS_MAX};
use super::proposer::{Broken, Proposer};

/// First wait before everything begins again; doubles while it keeps breaking.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(200);
/// Longest such wait.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);
/// How long all tasks may take to close before they are dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1500);

/// What an organisation's observation needs besides its formations.
#[derive(Clone)]
pub(super) struct Organization<J> {
    pub proposer: Proposer<J>,
    pub bind: SocketAddr,
    pub node_name: String,
    pub peers: Peers,
}

impl<J: Journal> Organization<J> {
    /// Observes the formations that `formations` names, until `shutdown` or until the sender is gone.
    pub(super) async fn run(
        self,
        mut formations: watch::Receiver<Vec<Formation>>,
        shutdown: CancellationToken,
    ) {
        let mut delay = RESTART_DELAY_MIN;
        loop {
            let began = tokio::time::Instant::now();
            match self.observe(&mut formations, shutdown.child_token()).await {
                Ok(()) => return,
                Err(error) => {
                    if shutdown.is_cancelled() {
                        return;
                    }
                    tracing::warn!(
                        org = %self.proposer.org, %error,
                        "the outcome of a batch isn't known; closing all connections and beginning again"
                    );
                    self.proposer.metrics.restarts.inc();
                }
            }
            if began.elapsed() > RESTART_DELAY_MAX * 2 {
                delay = RESTART_DELAY_MIN;
            }
            if shutdown.run_until_cancelled(sleep(delay)).await.is_none() {
                return;
            }
            delay = (delay * 2).min(RESTART_DELAY_MAX);
        }
    }

    /// One life of all tasks.
    async fn observe(
        &self,
        formations: &mut watch::Receiver<Vec<Formation>>,
        shutdown: CancellationToken,
    ) -> Result<(), Broken> {
        let (jobs, queue) = mpsc::channel(QUEUE_ITEMS_MAX);
        let (compactions, due) = mpsc::channel(compaction::QUEUE_MAX);
        let mut tasks: JoinSet<Result<(), Broken>> = JoinSet::new();
        tasks.spawn(pipeline::run(self.proposer.clone(), queue, shutdown.clone()));
        let compactor = compaction::run(self.proposer.clone(), due, shutdown.clone());
        tasks.spawn(async move {
            compactor.await;
            Ok(())
        });
        let around = Surroundings {
            proposer: self.proposer.clone(),
            jobs,
            compactions,
            bind: self.bind,
            node_name: self.node_name.clone(),
            peers: self.peers.clone(),
            shutdown: shutdown.clone(),
        };
        let mut observed: BTreeMap<AppId, Observed> = BTreeMap::new();
        let outcome = loop {
            let wanted = formations.borrow_and_update().clone();
            self.reconcile(&mut observed, wanted, &around, &mut tasks);
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                changed = formations.changed() => if changed.is_err() { break Ok(()) },
                Some(ended) = tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(broken)) => break Err(broken),
                    Err(error) => break Err(Broken(error.to_string())),
                },
            }
        };
        shutdown.cancel();
        let all_closed =
            timeout(CLOSE_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
        if all_closed.await.is_err() {
            tasks.abort_all();
        }
        outcome
    }

    /// Closes what isn't wanted any more or has other peers, and begins what is new.
    fn reconcile(
        &self,
        observed: &mut BTreeMap<AppId, Observed>,
        wanted: Vec<Formation>,
        around: &Surroundings<J>,
        tasks: &mut JoinSet<Result<(), Broken>>,
    ) {
        observed.retain(|app, running| {
            let same = wanted.iter().any(|formation| {
                formation.app_id == *app && running.identity == Identity::of(formation)
            });
            if !same {
                running.close.cancel();
            }
            same
        });
        for formation in wanted {
            if observed.contains_key(&formation.app_id) {
                continue;
            }
            let close = around.shutdown.child_token();
            let running = Observed { identity: Identity::of(&formation), close: close.clone() };
            observed.insert(formation.app_id.clone(), running);
            let around = Surroundings { shutdown: close, ..around.clone() };
            tasks.spawn(formation::run(around, formation));
        }
    }
}

struct Observed {
    identity: Identity,
    close: CancellationToken,
}

/// What makes a formation begin again when it changes: another genesis, or other peers.
#[derive(PartialEq, Eq)]
struct Identity {
    mesh_id: String,
    created_at: u64,
    static_peers: Vec<String>,
}

impl Identity {
    fn of(formation: &Formation) -> Self {
        Self {
            mesh_id: formation.mesh_id.clone(),
            created_at: formation.created_at,
            static_peers: formation.static_peers.clone(),
        }
    }
}
