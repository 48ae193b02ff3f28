//! The life of a node: open, bootstrap or rejoin, run, stop.
//!
//! ```text
//!  Node::start   store opened ─► listener bound ─► consensus built ─► peers served ─► consensus runs
//!                                                              └─► bootstrap, in the background
//!  Node::stop    leadership handed on ─► forwarded proposals answered ─► connections cut
//!                ─► consensus ended ─► store closed
//!  drop          connections cut, consensus ended: what a crash does, but for the process
//! ```

mod bootstrap;
mod clock;
pub(crate) mod consistency;
pub(crate) mod contact;
mod departure;
pub(crate) mod early_election;
pub(crate) mod fairness;
pub(crate) mod forward;
mod founding;
pub(crate) mod identity;
pub(crate) mod inner;
pub(crate) mod introduce;
mod joining;
mod leadership;
mod log_bound;
pub(crate) mod membership;
pub(crate) mod propose;
pub(crate) mod raise;
pub(crate) mod read;
mod renewal;
mod scrub;
pub(crate) mod service;
mod space;
mod start;
pub(crate) mod status;
#[cfg(test)]
mod tests;
mod transfer;
pub(crate) mod versions;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::ClusterConfig;
use crate::error::StartError;
use crate::handle::Handle;
use crate::membership::Departure;
pub use fairness::WriteCounts;
use inner::Inner;
pub use transfer::TransferError;

/// How long a stopping leader waits for another one; then it stops anyway.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stopping node waits for its connections to end.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a node looks whether its consensus still runs.
const CONSENSUS_LOOK: Duration = Duration::from_millis(100);
/// How long a stopping node goes on for the sake of proposals that other nodes forwarded to it; what
/// is unanswered then has an unknown outcome there.
const FORWARDED_TIMEOUT: Duration = Duration::from_secs(5);

/// A running node. Dropping it without [`Node::stop`] is like pulling the plug.
///
/// The data directory is free again when the node and all clones of its handle are dropped.
pub struct Node {
    inner: Arc<Inner>,
    /// Ends all tasks of this node and cuts its connections.
    shutdown: CancellationToken,
    listener: Option<JoinHandle<()>>,
    /// Why the bootstrap can't succeed.
    bootstrap_failure: watch::Receiver<Option<String>>,
}

impl Node {
    /// Opens the data directory, starts transport and consensus, and bootstraps or rejoins.
    ///
    /// Returns when the node runs; a leader may not be known yet, and a bootstrap that waits for
    /// other nodes goes on: [`Handle::ready`] says what it waits for, [`Node::failed`] if it can't
    /// succeed.
    ///
    /// # Errors
    /// See [`StartError`]; each says what to do.
    pub async fn start(config: ClusterConfig) -> Result<Node, StartError> {
        start::start(config).await
    }

    /// The handle for the rest of the gateway.
    pub fn handle(&self) -> Handle {
        Handle { inner: self.inner.clone() }
    }

    /// Resolves when the node can't go on: a storage error, consensus ended, or the first members
    /// belong to different clusters. The process must end.
    pub async fn failed(&mut self) -> String {
        let mut storage = self.inner.store.failure();
        let consensus = self.inner.raft.metrics();
        let mut departure = self.inner.departure.subscribe();
        loop {
            if let Some(reason) = storage.borrow_and_update().clone() {
                return reason;
            }
            if let Some(reason) = self.bootstrap_failure.borrow_and_update().clone() {
                return reason;
            }
            if let Some(Departure::Duplicate(reason)) = departure.borrow_and_update().clone() {
                return reason;
            }
            let running = consensus.borrow_watched().running_state.clone();
            if let Err(fatal) = running {
                return format!("consensus ended: {fatal}");
            }
            // Consensus changes its metrics several times for each write, which is no reason to wake up.
            // A channel that closed has said its last; the others go on.
            tokio::select! {
                Ok(()) = storage.changed() => {}
                Ok(()) = self.bootstrap_failure.changed() => {}
                () = tokio::time::sleep(CONSENSUS_LOOK) => {}
                Ok(()) = departure.changed() => {}
            }
        }
    }

    /// Resolves when this node was removed from its cluster, and its data directory says so. The process
    /// must end; starting it again on that directory is refused.
    pub fn removed(&self) -> impl Future<Output = ()> + use<> {
        let mut departure = self.inner.departure.subscribe();
        async move {
            // The sender lives as long as the node; without it nothing more can happen.
            if departure.wait_for(|left| *left == Some(Departure::Removed)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Hands leadership on, answers what other nodes forwarded, stops serving peers, and closes the
    /// store.
    ///
    /// The data directory is free once all clones of the handle are dropped too.
    pub async fn stop(mut self) {
        self.hand_on_leadership().await;
        // As a follower it still learns what became of entries that it proposed as the leader.
        let left = tokio::time::timeout(FORWARDED_TIMEOUT, self.inner.forwarded.leave()).await;
        if left.is_err() {
            tracing::warn!(
                "proposals of other nodes were still unanswered after {} s",
                FORWARDED_TIMEOUT.as_secs()
            );
        }
        self.shutdown.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not end cleanly");
        }
        if let Some(listener) = self.listener.take()
            && tokio::time::timeout(LISTENER_TIMEOUT, listener).await.is_err()
        {
            tracing::warn!("the peer listener did not end in time");
        }
    }

    /// Has the follower that is closest to this leader take over, if there is one, and waits for it.
    /// This node goes on as a follower. Without effect where another node leads.
    pub async fn hand_on_leadership(&self) {
        match self.inner.transfer_leadership(None, TRANSFER_TIMEOUT).await {
            Ok(node) => tracing::info!(%node, "leadership is handed on"),
            Err(TransferError::NotLeader | TransferError::NoOther) => {}
            Err(error) => tracing::warn!(%error, "could not hand on leadership"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // Consensus ends by itself only when nobody holds it any more; handles may live longer.
        let raft = self.inner.raft.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { raft.shutdown().await.ok() });
        }
    }
}
