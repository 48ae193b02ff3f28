//! Changing who belongs to the cluster: ordered at any node, done by the leader, one at a time.
//!
//! ```text
//!  order ──► any node ──► leader: check ─► record (audit, retired ids) ─► consensus: joint ─► uniform
//!                            │                                                 ▲
//!                            └── reconcile: finishes what a leader left ───────┘
//!                                           promotes learners that have caught up
//!  every member ──announce──► leader: removed? copied? moved?
//! ```
//!
//! * [`change`]: what every change has in common. * [`plan`]: what each order checks and does.
//! * [`announce`]: members say that they run, and where. * [`reconcile`]: what a leader does by itself.
//! * [`watch`]: keeps addresses and removed ids at hand. * [`message`]: orders between nodes.

mod announce;
mod change;
mod message;
mod plan;
mod quorum;
mod reconcile;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use message::{announced, answer_from_wire};

use std::sync::Arc;
use std::time::Duration;

use peat_gateway_proto::cluster as proto;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::outcome::Refusal;
use peat_gateway_state::{Actor, query};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inner::{Inner, LeaderFinder};
use super::read::FindLeader;
use crate::membership::{MembershipChanged, MembershipError, MembershipOrder, MembershipView};
use crate::raft::Member;

/// Most time that another node's order may ask for; more is cut to this.
const ORDER_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Pause before an order that did nothing is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the leader is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// An operator's order.
    Asked(MembershipOrder),
    /// A new node asks to be taken in.
    Join(Announced),
    /// A member says that it runs, and where.
    Announce(Announced),
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) node_id: u64,
    pub(crate) member: Member,
    pub(crate) boot_id: u64,
}

/// An order with who gives it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) order: Order,
    pub(crate) actor: Actor,
    /// Refuse unless this is the log index of the membership.
    pub(crate) expected: Option<u64>,
}

/// What came of giving an order to a leader.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Changed(MembershipChanged),
    /// Nothing happened: it isn't the leader. The leader as it is known there.
    NotLeader(Option<u64>),
    /// Nothing happened: it never will.
    Refused(Refusal),
    /// Nothing happened, for now.
    Nothing(String),
    /// It may have happened.
    Unknown(String),
}

impl Inner {
    /// Carries an order out: here if this node leads, else at the leader.
    pub(crate) async fn change_members(
        self: &Arc<Self>,
        request: Request,
        timeout: Duration,
    ) -> Result<MembershipChanged, MembershipError> {
        let deadline = Instant::now() + timeout;
        loop {
            let nothing = match self.try_change(&request, deadline).await {
                Answer::Changed(changed) => return Ok(changed),
                Answer::Refused(refusal) => return Err(MembershipError::Refused(refusal)),
                Answer::Unknown(reason) => return Err(MembershipError::Unknown(reason)),
                Answer::NotLeader(_) => "the node asked leads no more".to_owned(),
                Answer::Nothing(reason) => reason,
            };
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(MembershipError::Unavailable(nothing));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_change(self: &Arc<Self>, request: &Request, deadline: Instant) -> Answer {
        let finder = LeaderFinder { raft: self.raft.clone(), peers: self.peers.clone() };
        let peer = match finder.find() {
            Ok(None) => return self.change_here(request.clone(), deadline).await,
            Ok(Some(peer)) => peer,
            Err(reason) => return Answer::Nothing(reason),
        };
        let timeout = deadline.saturating_duration_since(Instant::now());
        let ask = async {
            let mut client = peer.cluster()?;
            let call = peer.request(message::to_wire(request, timeout))?;
            client.change_membership(call).await
        };
        match tokio::time::timeout_at(deadline, ask).await {
            Ok(Ok(answer)) => answer_from_wire(answer.into_inner()),
            // These say that the call never counted; any other failure may hide an answer.
            Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                Answer::Nothing(status.message().to_owned())
            }
            Ok(Err(status)) => Answer::Unknown(format!("the leader's answer was lost: {status}")),
            Err(_) => Answer::Unknown("the time ran out before the leader answered".to_owned()),
        }
    }

    /// Carries out what another node passed on: here or nowhere.
    pub(crate) async fn change_members_here(
        self: &Arc<Self>,
        message: proto::MembershipRequest,
        from: u64,
    ) -> Result<proto::MembershipResponse, String> {
        let timeout = Duration::from_millis(message.timeout_ms).min(ORDER_TIMEOUT_MAX);
        let request = message::from_wire(message)?;
        if let Order::Announce(announced) = &request.order
            && announced.node_id != from
        {
            return Err("a node announces itself only".to_owned());
        }
        let answer = self.change_here(request, Instant::now() + timeout).await;
        Ok(message::answer_to_wire(answer))
    }

    /// Passes a new node's wish to join on to the leader.
    pub(crate) async fn join_here(
        self: &Arc<Self>,
        joins: Announced,
        source: String,
    ) -> proto::MembershipResponse {
        let actor = Actor {
            principal: format!("node:{}", NodeId(joins.node_id)),
            source,
            request_id: String::new(),
        };
        let request = Request { order: Order::Join(joins), actor, expected: None };
        let answer = match self.change_members(request, JOIN_TIMEOUT).await {
            Ok(changed) => Answer::Changed(changed),
            Err(MembershipError::Refused(refusal)) => Answer::Refused(refusal),
            Err(MembershipError::Unavailable(reason)) => Answer::Nothing(reason),
            Err(MembershipError::Unknown(reason)) => Answer::Unknown(reason),
        };
        message::answer_to_wire(answer)
    }

    /// The members as this node knows them.
    pub(crate) fn membership_view(&self) -> MembershipView {
        let membership = self.membership();
        let removed = query::removed_nodes(&self.store.view());
        MembershipView {
            index: membership.log_id().as_ref().map_or(0, |id| id.index),
            joint: membership.membership().get_joint_config().len() > 1,
            removed: removed.unwrap_or_else(|error| {
                tracing::error!(%error, "could not read the removed nodes");
                Vec::new()
            }),
        }
    }

    /// Who this node acts as when nobody asked.
    pub(super) fn own_actor(&self) -> Actor {
        Actor {
            principal: format!("node:{}", self.node_id()),
            source: String::new(),
            request_id: String::new(),
        }
    }

    /// What this node says of itself.
    pub(super) fn announced(&self) -> Announced {
        Announced { node_id: self.node_id().0, member: self.member.clone(), boot_id: self.boot_id }
    }
}

/// How long the leader may take to take a new node in.
const JOIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Starts what runs as long as the node.
pub(super) fn start(inner: &Arc<Inner>, shutdown: &CancellationToken) {
    tokio::spawn(watch::run(inner.clone(), shutdown.clone()));
    tokio::spawn(reconcile::run(inner.clone(), shutdown.clone()));
    tokio::spawn(announce::run(inner.clone(), shutdown.clone()));
}
