//! Members say that they run, and where. This finds out who was removed, copied, or moved.
//!
//! ```text
//!  member ──"I am 7, started as b1, at host:7400"──► leader ─┬─ removed?  told so; writes it down, ends
//!                                                            ├─ 7 runs as b0 elsewhere?  refused, ends
//!                                                            └─ other address?  the membership follows
//! ```
//!
//! The leader doesn't guess from times: it asks at the address that it knows. Who answers there with
//! the same id and another start is a second process with a copy of the data directory.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use peat_gateway_state::command::MembershipChange;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::outcome::{RefusalKind, code as state_code};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::change::{Changes, Plan, Standing};
use super::plan::{duplicate, record_of, refused};
use super::{Announced, Answer, Order, Request, message};
use crate::membership::{Departure, code};
use crate::node::inner::Inner;
use crate::raft::Member;

/// Between two announcements while the leader is heard of.
const INTERVAL: Duration = Duration::from_secs(2);
/// And while it isn't: this node may have been removed.
const INTERVAL_ALONE: Duration = Duration::from_millis(500);
/// How long one announcement may take.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Inner {
    /// Hears a member's announcement; a plan where the membership must follow.
    pub(super) async fn hear(
        &self,
        standing: &Standing,
        announced: Announced,
    ) -> Result<Option<Plan>, Answer> {
        let node = announced.node_id;
        let Some(known) = standing.member(node) else {
            self.check_not_removed(node)?;
            return Err(refused(
                RefusalKind::Conflict,
                code::NOT_A_MEMBER,
                format!(
                    "node {} is no member of this cluster; let it join: peat-gateway cluster join",
                    NodeId(node)
                ),
            ));
        };
        self.check_not_copied(&announced, known).await?;
        let member = Member { learner_only: known.learner_only, ..announced.member.clone() };
        if member == *known {
            return Ok(None);
        }
        if node != self.node_id().0 {
            self.check_reachable(&announced).await?;
        }
        Ok(Some(Plan {
            record: MembershipChange::Update(record_of(node, &member)),
            changes: Changes::SetNodes(BTreeMap::from([(node, member)])),
            node,
        }))
    }

    /// Refuses the later of two processes with one id.
    async fn check_not_copied(&self, announced: &Announced, known: &Member) -> Result<(), Answer> {
        let node = announced.node_id;
        if node == self.node_id().0 {
            return match announced.boot_id == self.boot_id {
                true => Ok(()),
                false => Err(duplicate(node, &self.member.peer_address)),
            };
        }
        let seen = self.boots.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        if seen == Some(announced.boot_id) {
            return Ok(());
        }
        // Where nobody answers, or another node does, the earlier process is gone.
        if let Ok(found) = self.introductions.identify(&known.peer_address).await
            && found.node_id == node
            && found.boot_id != announced.boot_id
        {
            tracing::error!(
                node = %NodeId(node),
                known = known.peer_address,
                other = announced.member.peer_address,
                "two processes run with copies of one data directory; the later one is refused"
            );
            return Err(duplicate(node, &known.peer_address));
        }
        let mut boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
        boots.insert(node, announced.boot_id);
        Ok(())
    }

    async fn announce(self: &Arc<Self>, turn: usize) {
        let membership = self.membership();
        let own = self.node_id().0;
        let others: Vec<_> = membership.nodes().filter(|(node, _)| **node != own).collect();
        let leader = self.leader().map(|leader| leader.0);
        let request = Request {
            order: Order::Announce(self.announced()),
            actor: self.own_actor(),
            expected: None,
        };
        let known = membership.membership().get_node(&own);
        let target = others.iter().find(|(node, _)| Some(**node) == leader);
        let answer = if leader == Some(own) {
            // Nobody else tells it; what it was told itself can only differ after a start.
            let same = known.is_some_and(|known| {
                Member { learner_only: known.learner_only, ..self.member.clone() } == *known
            });
            if same {
                return;
            }
            self.change_here(request, Instant::now() + TIMEOUT).await
        } else {
            let any = || others.get(turn % others.len().max(1));
            let heard = self.leader_age().is_some_and(|age| age < INTERVAL);
            let Some((node, member)) = target.filter(|_| heard).or_else(any) else { return };
            let peer = self.peers.peer(**node, &member.peer_address);
            let ask = async {
                let mut client = peer.cluster()?;
                let call = peer.request(message::to_wire(&request, TIMEOUT))?;
                client.change_membership(call).await
            };
            match tokio::time::timeout(TIMEOUT, ask).await {
                Ok(Ok(answer)) => message::answer_from_wire(answer.into_inner()),
                Ok(Err(status)) => return self.refused_by_member(&status).await,
                Err(_) => return,
            }
        };
        self.answered(answer).await;
    }

    async fn refused_by_member(&self, status: &Status) {
        if !self.note_removal(status).await {
            tracing::debug!(%status, "could not announce this node");
        }
    }

    async fn answered(&self, answer: Answer) {
        let Answer::Refused(refusal) = answer else { return };
        match refusal.code.as_str() {
            state_code::NODE_REMOVED => self.leave().await,
            code::DUPLICATE_NODE => {
                self.departure.send_replace(Some(Departure::Duplicate(refusal.detail)));
            }
            _ => tracing::warn!(reason = refusal.detail, "the leader refuses this node"),
        }
    }
}

/// Announces this node as long as it runs.
pub(super) async fn run(inner: Arc<Inner>, shutdown: CancellationToken) {
    let mut turn = 0;
    loop {
        let initialized = inner.raft.is_initialized().await.unwrap_or(false);
        if initialized {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = inner.announce(turn) => {}
            }
            turn = turn.wrapping_add(1);
        }
        let heard = inner.leader_age().is_some_and(|age| age < INTERVAL);
        let pause = if heard && initialized { INTERVAL } else { INTERVAL_ALONE };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
