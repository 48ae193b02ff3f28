//! Handing leadership on: one place, whoever asks for it.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use peat_gateway_state::ids::NodeId;
use thiserror::Error;

use super::inner::Inner;
use crate::raft::TypeConfig;

/// Why leadership was not handed on. This node leads on, or another one does already.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TransferError {
    /// This node doesn't lead.
    #[error("this node is not the leader")]
    NotLeader,
    /// The node that was named has no vote, or is this one.
    #[error("node {0} is no other voter of this cluster")]
    NotAVoter(NodeId),
    /// There is no other voter.
    #[error("no other node has a vote")]
    NoOther,
    /// No other node took over in time: it may be down, or too far behind.
    #[error("node {0} did not take over in time; is it up, and close to the leader's log?")]
    TimedOut(NodeId),
    /// Consensus ended on this node.
    #[error("consensus ended on this node")]
    Ended,
}

impl Inner {
    /// Hands leadership to `to`, or to the voter that is closest to this leader's log, and waits until
    /// another node leads.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub(crate) async fn transfer_leadership(
        &self,
        to: Option<NodeId>,
        timeout: Duration,
    ) -> Result<NodeId, TransferError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let own = self.node_id().0;
        if metrics.current_leader != Some(own) {
            return Err(TransferError::NotLeader);
        }
        let replication = metrics.replication.ok_or(TransferError::NotLeader)?;
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let target = match to {
            Some(to) if to.0 == own || !voters.contains(&to.0) => {
                return Err(TransferError::NotAVoter(to));
            }
            Some(to) => to.0,
            None => replication
                .into_iter()
                .filter(|(node, _)| *node != own && voters.contains(node))
                .max_by_key(|(_, matched)| matched.as_ref().map(|position| position.index))
                .map(|(node, _)| node)
                .ok_or(TransferError::NoOther)?,
        };
        let handed = self.raft.trigger().transfer_leader(target).await;
        handed.map_err(|_| TransferError::Ended)?;
        let others_lead = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.current_leader.is_some_and(|leader| leader != own)
        };
        let wait = self.raft.wait(Some(timeout));
        let metrics = wait.metrics(others_lead, "leadership handed on").await;
        let leader = metrics.ok().and_then(|metrics| metrics.current_leader);
        leader.map(NodeId).ok_or(TransferError::TimedOut(NodeId(target)))
    }
}
