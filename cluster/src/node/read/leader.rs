//! What the leader knows of its own standing, and how it has the other voters confirm it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use super::rounds::Question;
use super::voters::{Confirmed, Voters};
use crate::handle::Leadership;
use crate::node::inner::Raft;
use crate::raft::Vote;
#[cfg(test)]
use crate::simulation::{Bug, planted};
use crate::store::Store;
use crate::transport::network::Told;
use crate::transport::peers::Peers;

/// How long the voters may be silent before consensus itself is asked to confirm, which takes a heartbeat.
const PATIENCE: Duration = Duration::from_millis(50);

/// The parts that say whether this node leads, and how far it is.
pub(crate) struct Standing {
    pub(crate) node_id: u64,
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// What this node has told others to be committed.
    pub(crate) told: Told,
}

/// A leader that has applied an entry of its own term, and to which this node itself stands.
#[derive(Clone, Copy)]
pub(super) struct Position {
    term: u64,
    node_id: u64,
    /// What a read must have applied, if a quorum confirms the term from now on.
    pub(super) index: u64,
}

impl Position {
    /// Whether who has this vote has promised it to no later leader.
    pub(super) fn stands(&self, vote: &Vote) -> bool {
        vote.leader_id.term == self.term && vote.leader_id.voted_for == self.node_id
    }
}

impl Standing {
    /// This node's vote, as it is promised or about to be.
    pub(super) fn vote(&self) -> Option<Vote> {
        self.store.promised_vote()
    }

    /// Where this leader is; `None` where it isn't one, has applied nothing of its term yet, or has promised its
    /// own vote to a later one.
    pub(super) fn position(&self) -> Option<Position> {
        let Leadership::Leader { term, .. } = *self.leadership.borrow() else { return None };
        let index = self.store.applied_index().max(self.told.index());
        let position = Position { term, node_id: self.node_id, index };
        self.vote().is_some_and(|vote| position.stands(&vote)).then_some(position)
    }

    /// The index for a node that has this vote, if it and this leader are a quorum.
    pub(super) fn index_with(&self, node: u64, vote: &Vote) -> Option<u64> {
        let position = self.position()?;
        let confirmed = BTreeSet::from([self.node_id, node]);
        (position.stands(vote) && self.is_quorum(&confirmed)).then_some(position.index)
    }

    /// Whether these nodes are a majority of the voters; of both sets, while they are being changed.
    pub(super) fn is_quorum(&self, nodes: &BTreeSet<u64>) -> bool {
        #[cfg(test)]
        if planted(Bug::LeaderUnconfirmed) {
            return true;
        }
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let sets = metrics.membership_config.membership().get_joint_config();
        let majority =
            |voters: &BTreeSet<u64>| voters.intersection(nodes).count() > voters.len() / 2;
        !sets.is_empty() && sets.iter().all(majority)
    }

    /// The other voters, and where they are.
    pub(super) fn others(&self) -> Vec<(u64, String)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let others = membership.voter_ids().filter(|node| *node != self.node_id);
        others
            .filter_map(|node| Some((node, membership.get_node(&node)?.peer_address.clone())))
            .collect()
    }
}

/// Has a quorum confirm that this node leads.
pub(super) struct Confirm {
    standing: Arc<Standing>,
    voters: Voters,
}

impl Confirm {
    pub(super) fn new(standing: Arc<Standing>) -> Self {
        Self { voters: Voters::new(standing.peers.clone()), standing }
    }

    /// Asks the other voters until a quorum has confirmed; `None` where one of them is of a build that can't say.
    async fn by_votes(standing: &Standing, voters: &mut Voters) -> Option<u64> {
        let position = standing.position()?;
        let mut confirmed = BTreeSet::from([standing.node_id]);
        if standing.is_quorum(&confirmed) {
            return Some(position.index);
        }
        let number = voters.ask(&standing.others());
        loop {
            match voters.next(number).await? {
                Confirmed::Vote(node, vote) if position.stands(&vote) => {
                    confirmed.insert(node);
                }
                Confirmed::Vote(..) => {}
                Confirmed::CannotSay => return None,
            }
            if standing.is_quorum(&confirmed) {
                return Some(position.index);
            }
        }
    }
}

impl Question for Confirm {
    async fn ask(&mut self) -> Result<u64, String> {
        let Self { standing, voters } = self;
        let by_votes = tokio::time::timeout(PATIENCE, Self::by_votes(standing, voters));
        if let Ok(Some(index)) = by_votes.await {
            return Ok(index);
        }
        let linearizer = standing.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        linearizer.map(|linearizer| linearizer.read_log_id().index()).map_err(|e| e.to_string())
    }
}
