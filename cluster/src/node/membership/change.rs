//! What every change has in common: one at a time, recorded first, made on the membership it was
//! checked against.

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::type_config::alias::CommittedLeaderIdOf;
use peat_gateway_state::command::{Fence, MembershipChange, RecordMembership};
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::outcome::{Refusal, RefusalKind, code};
use peat_gateway_state::{Actor, Command, Envelope, Outcome};
use tokio::time::{Duration, Instant};

use super::{Answer, Request};
use crate::error::ProposeError;
use crate::handle::Leadership;
use crate::membership::MembershipChanged;
use crate::node::inner::Inner;
use crate::raft::{Member, StoredMembership, TypeConfig};

/// How long recording a change may take before its outcome counts as unknown.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// What changes a membership.
pub(super) type Changes = ChangeMembers<u64, Member>;

/// A change that was checked.
pub(super) struct Plan {
    /// What is recorded first.
    pub(super) record: MembershipChange,
    /// What consensus then does.
    pub(super) changes: Changes,
    /// The node that it is about.
    pub(super) node: u64,
}

/// The leadership and the membership that a change is checked against.
pub(super) struct Standing {
    pub(super) fence: Fence,
    pub(super) leader: CommittedLeaderIdOf<TypeConfig>,
    pub(super) membership: Arc<StoredMembership>,
}

impl Standing {
    pub(super) fn index(&self) -> u64 {
        self.membership.log_id().as_ref().map_or(0, |id| id.index)
    }

    pub(super) fn is_joint(&self) -> bool {
        self.membership.membership().get_joint_config().len() > 1
    }

    pub(super) fn voters(&self) -> BTreeSet<u64> {
        self.membership.voter_ids().collect()
    }

    pub(super) fn member(&self, node: u64) -> Option<&Member> {
        self.membership.membership().get_node(&node)
    }

    pub(super) fn is_learner(&self, node: u64) -> bool {
        self.member(node).is_some() && !self.voters().contains(&node)
    }
}

impl Inner {
    /// The membership that this node uses, committed or not.
    pub(crate) fn membership(&self) -> Arc<StoredMembership> {
        self.raft.server_metrics().borrow_watched().membership_config.clone()
    }

    /// Carries an order out if this node leads. Goes on when the caller is gone.
    pub(super) async fn change_here(
        self: &Arc<Self>,
        request: Request,
        deadline: Instant,
    ) -> Answer {
        let inner = self.clone();
        let changing = tokio::spawn(async move { inner.change_alone(request, deadline).await });
        match changing.await {
            Ok(Ok(changed)) => Answer::Changed(changed),
            Ok(Err(answer)) => answer,
            Err(error) => Answer::Unknown(format!("the change ended early: {error}")),
        }
    }

    async fn change_alone(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<MembershipChanged, Answer> {
        let one = tokio::time::timeout_at(deadline, self.changing.lock()).await;
        let _one = one.map_err(|_| Answer::Nothing("another change is under way".to_owned()))?;
        let standing = self.standing().await?;
        if let Some(expected) = request.expected
            && expected != standing.index()
        {
            return Err(Answer::Refused(Refusal::new(
                RefusalKind::PreconditionFailed,
                code::PRECONDITION_FAILED,
                format!(
                    "the membership is {}, not {expected}; look at it again: peat-gateway cluster \
                     status",
                    standing.index()
                ),
            )));
        }
        if standing.is_joint() {
            return Err(Answer::Nothing("an earlier change is being finished".to_owned()));
        }
        self.carry_out(request.order, &standing, &request.actor, deadline).await
    }

    /// What a change is checked against; an answer where this node can't change anything now.
    pub(super) async fn standing(&self) -> Result<Standing, Answer> {
        let not_leader = || Answer::NotLeader(self.leader().map(|leader| leader.0));
        let Leadership::Leader { term, epoch } = *self.leadership.borrow() else {
            return Err(match self.leader() {
                Some(leader) if leader == self.node_id() => {
                    Answer::Nothing("the leader has just been elected".to_owned())
                }
                _ => not_leader(),
            });
        };
        let leader = self.raft.as_leader().map_err(|_| not_leader())?;
        if leader.term() != term {
            return Err(not_leader());
        }
        let state = self.raft.with_raft_state(|state| {
            let memberships = &state.membership_state;
            (memberships.effective().clone(), *memberships.committed().log_id())
        });
        let (membership, committed) =
            state.await.map_err(|error| Answer::Nothing(error.to_string()))?;
        if *membership.log_id() != committed {
            return Err(Answer::Nothing("an earlier change is not committed yet".to_owned()));
        }
        let fence = Fence { term, epoch: Some(epoch) };
        Ok(Standing { fence, leader: leader.to_committed_leader_id(), membership })
    }

    /// Records a change, without which there is no effect; returns the entry's index.
    pub(super) async fn record(
        &self,
        standing: &Standing,
        actor: &Actor,
        change: MembershipChange,
    ) -> Result<u64, Answer> {
        let command = RecordMembership { fence: standing.fence, change };
        let envelope = Envelope::new(actor.clone(), Command::RecordMembership(command));
        match self.propose_leader_work(&envelope, RECORD_TIMEOUT).await {
            Ok(committed) => match committed.outcome {
                Outcome::Refused(refusal) if refusal.kind == RefusalKind::Fenced => {
                    Err(Answer::NotLeader(None))
                }
                Outcome::Refused(refusal) => Err(Answer::Refused(refusal)),
                _ => Ok(committed.applied_index),
            },
            Err(ProposeError::Unknown(reason)) => Err(Answer::Unknown(reason)),
            Err(ProposeError::NotLeader) => Err(Answer::NotLeader(None)),
            Err(error) => Err(Answer::Nothing(error.to_string())),
        }
    }

    /// Records a plan and makes the change, on the membership that it was checked against only.
    pub(super) async fn make(
        &self,
        standing: &Standing,
        actor: &Actor,
        plan: Plan,
        deadline: Instant,
    ) -> Result<MembershipChanged, Answer> {
        tracing::info!(change = ?plan.record, by = actor.principal, "the members change");
        let index = self.record(standing, actor, plan.record).await?;
        let conditions = [
            Precondition::CommittedLeaderId { committed_leader_id: standing.leader },
            Precondition::LastMembershipLogId {
                last_membership_log_id: *standing.membership.log_id(),
            },
        ];
        let changing = self.raft.change_membership_if(plan.changes, false, conditions);
        match tokio::time::timeout_at(deadline, changing).await {
            Ok(Ok(done)) => Ok(MembershipChanged {
                membership: done.log_id.index,
                node: NodeId(plan.node),
                index: index.max(done.log_id.index),
            }),
            Ok(Err(error)) => Err(after_recording(error)),
            Err(_) => Err(Answer::Unknown(
                "the time ran out before a quorum agreed; the change may still be made".to_owned(),
            )),
        }
    }
}

/// What a failure means after the change was recorded.
fn after_recording(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Answer {
    match error {
        // Consensus wrote nothing. A removal is decided all the same, and made by the next leader.
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            error @ ChangeMembershipError::InProgress(_),
        )) => Answer::Nothing(error.to_string()),
        error => Answer::Unknown(format!("the change was recorded, then: {error}")),
    }
}
