//! Electing early: who sees the leader's connection close needn't wait out the election timeout.
//!
//! ```text
//!  append stream of the leader ends ──► its lease ends here ──► pre-vote, again every 25 ms, until
//!                                       (nobody may vote         another leads, the old one is heard
//!                                        before that)            again, or the usual timeout takes over
//! ```
//!
//! A killed process closes its connections at once; a lost machine or a cut cable doesn't, and is left to
//! the election timeout. Nothing is risked: a pre-vote changes no term, and whoever still hears the leader
//! refuses it. The followers take turns, so that they don't split the vote.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inner::Inner;

/// Leaders whose connection was lost and that nobody has looked at yet; further ones are the same.
const LOST_MAX: usize = 4;
/// Each follower waits this much longer than the one before it.
const TURN: Duration = Duration::from_millis(30);
/// Pause between two tries: the others' leases end a little earlier or later than this node's.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// After this many leases the usual timeout has taken over.
const LEASES_MAX: u32 = 2;

/// Tells that a leader's connection was lost.
#[derive(Clone)]
pub(crate) struct LostLeader {
    sender: mpsc::Sender<u64>,
}

/// What [`LostLeader`] told.
pub(crate) struct LostLeaders(mpsc::Receiver<u64>);

/// Tells when it is dropped: it goes with a leader's append stream.
pub(crate) struct StreamOfLeader {
    leader: u64,
    lost: LostLeader,
}

impl LostLeader {
    /// Makes both ends.
    pub(crate) fn channel() -> (Self, LostLeaders) {
        let (sender, receiver) = mpsc::channel(LOST_MAX);
        (Self { sender }, LostLeaders(receiver))
    }

    /// Watches a stream of `leader`.
    pub(crate) fn watch(&self, leader: u64) -> StreamOfLeader {
        StreamOfLeader { leader, lost: self.clone() }
    }
}

impl Drop for StreamOfLeader {
    fn drop(&mut self) {
        // A full queue means that somebody looks already.
        self.lost.sender.try_send(self.leader).ok();
    }
}

/// Campaigns when a leader's connection was lost, until `shutdown`.
pub(super) async fn run(inner: Arc<Inner>, mut lost: LostLeaders, shutdown: CancellationToken) {
    loop {
        let leader = tokio::select! {
            () = shutdown.cancelled() => return,
            leader = lost.0.recv() => leader,
        };
        let Some(leader) = leader else { return };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = campaign(&inner, leader) => {}
        }
    }
}

async fn campaign(inner: &Inner, leader: u64) {
    let lease = inner.timing.election_timeout_max;
    let give_up_at = Instant::now() + lease * LEASES_MAX;
    let Some(turn) = turn(inner, leader) else { return };
    // A leader that was never heard may just begin: it has a lease from now on.
    let begun = Instant::now();
    let mut said = false;
    // A node that isn't fit leaves it to the others.
    while inner.health.unfit().is_none()
        && still_leads(inner, leader)
        && Instant::now() < give_up_at
    {
        let heard = inner.contact.age().unwrap_or_else(|| begun.elapsed());
        let left = (lease + turn).saturating_sub(heard);
        if !left.is_zero() {
            // It may be heard again meanwhile: only its append stream has ended.
            tokio::time::sleep(left).await;
            continue;
        }
        if !std::mem::replace(&mut said, true) {
            let leader = format!("{leader:016x}");
            tracing::info!(
                leader,
                "the leader's connection is gone and its lease over: campaigning"
            );
        }
        if inner.raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// How much longer than the first follower this one waits; `None` without a vote.
fn turn(inner: &Inner, leader: u64) -> Option<Duration> {
    let metrics = inner.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let own = inner.node_id().0;
    let mut others: Vec<u64> =
        metrics.membership_config.voter_ids().filter(|voter| *voter != leader).collect();
    others.sort_unstable();
    let place = others.iter().position(|voter| *voter == own)?;
    Some(TURN * u32::try_from(place).unwrap_or(u32::MAX))
}

fn still_leads(inner: &Inner, leader: u64) -> bool {
    let metrics = inner.raft.server_metrics();
    let current = metrics.borrow_watched().current_leader;
    current == Some(leader)
}
