//! What a leader does by itself: it finishes what an earlier one began, and promotes learners.
//!
//! A joint membership needs two quorums for everything, so none may stay: whoever leads and finds one
//! that is committed makes it uniform. A removal counts as decided with its record; a leader that finds
//! a removed node among the members makes the change. (Raft §6)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use peat_gateway_state::command::MembershipChange;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::query;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Answer;
use super::change::{Changes, Plan, Standing};
use super::plan::removing;
use crate::handle::Leadership;
use crate::membership::CAUGHT_UP_ENTRIES_MAX;
use crate::node::inner::Inner;

/// How often a leader looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// Pause after something that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// How long one change may take before it is looked at again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// A learner that answered no heartbeat for this many election timeouts is not caught up.
const SILENT_TIMEOUTS: u32 = 4;

/// Since when each learner has been caught up.
type CaughtUp = BTreeMap<u64, Instant>;

/// Looks after the members while this node leads, until `shutdown`.
pub(super) async fn run(inner: Arc<Inner>, shutdown: CancellationToken) {
    let mut caught_up = CaughtUp::new();
    loop {
        let pause = match inner.look_after(&mut caught_up).await {
            Ok(()) => INTERVAL,
            Err(answer) => {
                tracing::info!(?answer, "could not finish a change of members yet");
                FAILURE_PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Inner {
    async fn look_after(&self, caught_up: &mut CaughtUp) -> Result<(), Answer> {
        if !matches!(*self.leadership.borrow(), Leadership::Leader { .. }) {
            caught_up.clear();
            return Ok(());
        }
        self.note_caught_up(caught_up);
        // Somebody's order is under way; its end is seen next time.
        let Ok(_one) = self.changing.try_lock() else { return Ok(()) };
        let Ok(standing) = self.standing().await else { return Ok(()) };
        let plan = match self.unfinished(&standing).await {
            Some(plan) => plan,
            None => match self.ripe(&standing, caught_up) {
                Some(plan) => plan,
                None => return Ok(()),
            },
        };
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        self.make(&standing, &self.own_actor(), plan, deadline).await.map(drop)
    }

    /// What an earlier leader left. A removal waits until the voters that stay are a quorum: begun
    /// without one it would stop the cluster.
    async fn unfinished(&self, standing: &Standing) -> Option<Plan> {
        if standing.is_joint() {
            let changes = Changes::AddVoterIds(BTreeSet::new());
            return Some(Plan { record: MembershipChange::Finish, changes, node: 0 });
        }
        let removed = query::removed_nodes(&self.store.view()).ok()?;
        let left = removed.into_iter().find(|node| standing.member(node.node.0).is_some())?;
        let node = left.node.0;
        let mut voters = standing.voters();
        if voters.remove(&node) && self.check_quorum(standing, &voters).await.is_err() {
            return None;
        }
        let changes = removing(standing, node);
        Some(Plan { record: MembershipChange::Finish, changes, node })
    }

    /// A learner whose time has come.
    fn ripe(&self, standing: &Standing, caught_up: &CaughtUp) -> Option<Plan> {
        if !self.promotion.auto_promote {
            return None;
        }
        let ripe =
            caught_up.iter().find(|(_, since)| since.elapsed() >= self.promotion.promote_after);
        let node = *ripe?.0;
        standing.is_learner(node).then(|| Plan {
            record: MembershipChange::Promote { node: NodeId(node), replaces: None },
            changes: Changes::AddVoterIds(BTreeSet::from([node])),
            node,
        })
    }

    /// Notes since when each learner that may be promoted has lacked little.
    fn note_caught_up(&self, caught_up: &mut CaughtUp) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let (Some(replication), Some(heartbeat)) = (metrics.replication, metrics.heartbeat) else {
            caught_up.clear();
            return;
        };
        let membership = &metrics.membership_config;
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or_default();
        let silent = self.timing.election_timeout_max * SILENT_TIMEOUTS;
        let mut now = CaughtUp::new();
        for (node, member) in membership.nodes() {
            let matched = replication.get(node).copied().flatten();
            let answered = heartbeat.get(node).copied().flatten();
            let lacks_little =
                matched.is_some_and(|id| last.saturating_sub(id.index) < CAUGHT_UP_ENTRIES_MAX);
            let answers = answered.is_some_and(|at| at.into_inner().elapsed() < silent);
            // One that took a lost member's address stands in for it until an operator says so.
            let stands_in = membership
                .nodes()
                .any(|(other, at)| other != node && at.peer_address == member.peer_address);
            let may = !voters.contains(node) && !member.learner_only && !stands_in;
            if may && lacks_little && answers {
                let since = caught_up.get(node).copied().unwrap_or_else(Instant::now);
                now.insert(*node, since);
            }
        }
        *caught_up = now;
    }
}
