//! Raising the cluster's version, by an operator's word or because every member agrees.
//!
//! ```text
//!  every member says [min, max] of its build ──► lowest max above the cluster's version?
//!     an operator asks, or every member agrees ──► RaiseVersion, leader work, at that version
//!     applied ──► commands up to it are proposed; FORMAT is marked: older builds don't start any more
//! ```
//!
//! What a build says can be out of date by a moment: a member may be exchanged for an older build
//! between its answer and the raise. That build stops at the raise, which it can't read; it never
//! misreads what follows.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use peat_gateway_proto::cluster as proto;
use peat_gateway_state::command::{FIRST_VERSION, Fence, RaiseVersion};
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::record::Upgrade as Who;
use peat_gateway_state::{Actor, Command, Envelope, Outcome, VERSION};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::inner::Inner;
use super::versions::{ASK_TIMEOUT, upgrade};
use crate::error::{ProposeError, RaiseError};
use crate::handle::{Leadership, Raised, Upgrade};

/// How long a raise may take.
const RAISE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a leader asks whether all agree to raise the version without an operator.
const AGREEMENT_PAUSE: Duration = Duration::from_secs(2);

impl Inner {
    /// Raises the version here, or has the leader do it.
    pub(crate) async fn raise_version(
        &self,
        actor: Actor,
        without: Vec<NodeId>,
        timeout: Duration,
    ) -> Result<Raised, RaiseError> {
        let raised = async {
            match self.leader() {
                None => Err(RaiseError::Unavailable("no leader is known".to_owned())),
                Some(leader) if leader == self.node_id() => self.raise_here(actor, &without).await,
                Some(leader) => self.ask_leader(leader.0, actor, &without).await,
            }
        };
        match tokio::time::timeout(timeout, raised).await {
            Ok(raised) => raised,
            Err(_) => Err(RaiseError::Unknown("the time ran out".to_owned())),
        }
    }

    async fn ask_leader(
        &self,
        leader: u64,
        actor: Actor,
        without: &[NodeId],
    ) -> Result<Raised, RaiseError> {
        let unavailable = |reason: &dyn std::fmt::Display| {
            RaiseError::Unavailable(format!("could not ask the leader {leader:016x}: {reason}"))
        };
        let address = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let member = metrics.membership_config.get_node(&leader);
            member.map(|member| member.peer_address.clone())
        };
        let address = address.ok_or_else(|| unavailable(&"it is no member"))?;
        let peer = self.peers.peer(leader, &address);
        let mut client = peer.cluster().map_err(|status| unavailable(&status.message()))?;
        let request = proto::RaiseVersionRequest {
            principal: actor.principal,
            source: actor.source,
            request_id: actor.request_id,
            without: without.iter().map(|node| node.0).collect(),
        };
        let call = peer.request(request).map_err(|status| unavailable(&status.message()))?;
        match client.raise_version(call).await {
            Ok(answer) => raised_from_wire(answer.into_inner()),
            Err(status) if status.code() == Code::Unimplemented => {
                Err(RaiseError::HeldBack(format!(
                    "the leader {leader:016x} runs a build that supports version {FIRST_VERSION} \
                     only; upgrade it"
                )))
            }
            Err(status) => Err(RaiseError::Unknown(status.message().to_owned())),
        }
    }

    /// Raises the version by this leader, to the newest that every member supports.
    ///
    /// Members in `without` count only if they answer. One that comes back with an older build stops
    /// at the raise, so that it can do no harm; it only isn't there.
    async fn raise_here(&self, actor: Actor, without: &[NodeId]) -> Result<Raised, RaiseError> {
        let leadership = *self.leadership.borrow();
        let Leadership::Leader { term, epoch } = leadership else {
            return Err(RaiseError::Unavailable("this node doesn't lead yet".to_owned()));
        };
        let from = self.cluster_version();
        let mut members = self.members(ASK_TIMEOUT).await;
        members.retain(|member| member.versions.is_some() || !without.contains(&member.node_id));
        let Some(Upgrade { to, held_back_by, .. }) = upgrade(from, Who::Manual, &members) else {
            let applied_index = self.store.view().applied_index();
            return Ok(Raised { from, to: from, applied_index });
        };
        // This node is a member: what nobody holds back, its own build supports.
        if !held_back_by.is_empty() {
            return Err(RaiseError::HeldBack(held_back_by.join("; ")));
        }
        let fence = Fence { term, epoch: Some(epoch) };
        let command = Command::RaiseVersion(RaiseVersion { fence, version: to });
        let envelope = Envelope::new(actor, command);
        let committed = match self.propose_leader_work(&envelope, RAISE_TIMEOUT).await {
            Ok(committed) => committed,
            Err(ProposeError::Unknown(reason)) => return Err(RaiseError::Unknown(reason)),
            Err(error) => return Err(RaiseError::Unavailable(error.to_string())),
        };
        match committed.outcome {
            Outcome::Refused(refusal) => Err(RaiseError::Unavailable(refusal.detail)),
            _ => {
                tracing::info!(from, to, "raised the cluster's version");
                Ok(Raised { from, to, applied_index: committed.applied_index })
            }
        }
    }

    /// Raises the version where an upgrade is complete and everybody agrees.
    async fn raise_if_all_agree(&self) {
        if self.cluster_version() >= VERSION {
            return;
        }
        let upgrade = self.upgrade(&self.members(ASK_TIMEOUT).await);
        let Some(Upgrade { automatic_in: Some(Duration::ZERO), .. }) = upgrade else {
            return;
        };
        let principal = format!("node:{}", self.node_id());
        let actor = Actor { principal, source: String::new(), request_id: String::new() };
        if let Err(error) = self.raise_here(actor, &[]).await {
            tracing::warn!(%error, "could not finish the upgrade");
        }
    }
}

/// Finishes upgrades without an operator while this node leads, until `shutdown`.
pub(super) async fn raise_when_all_agree(inner: Arc<Inner>, shutdown: CancellationToken) {
    let mut leadership = inner.leadership();
    loop {
        let leads = matches!(*leadership.borrow_and_update(), Leadership::Leader { .. });
        if leads {
            inner.raise_if_all_agree().await;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGREEMENT_PAUSE), if leads => {}
        }
    }
}

/// Raises the version for another node: here or nowhere.
pub(crate) async fn answer_raise(
    inner: &Inner,
    asked: proto::RaiseVersionRequest,
) -> proto::RaiseVersionResponse {
    use proto::raise_version_response::Result as Wire;
    let leader = inner.leader();
    let result = if leader != Some(inner.node_id()) {
        Wire::NotLeader(proto::NotLeader { leader: leader.map_or(0, |leader| leader.0) })
    } else {
        let actor = Actor {
            principal: asked.principal,
            source: asked.source,
            request_id: asked.request_id,
        };
        let without: Vec<NodeId> = asked.without.into_iter().map(NodeId).collect();
        match inner.raise_here(actor, &without).await {
            Ok(raised) => Wire::Raised(proto::VersionRaised {
                from: raised.from.into(),
                to: raised.to.into(),
                applied_index: raised.applied_index,
            }),
            Err(RaiseError::HeldBack(reason)) => Wire::HeldBack(reason),
            Err(RaiseError::Unavailable(reason)) => Wire::Unavailable(reason),
            Err(RaiseError::Unknown(reason)) => Wire::Unknown(reason),
        }
    };
    proto::RaiseVersionResponse { result: Some(result) }
}

fn raised_from_wire(answer: proto::RaiseVersionResponse) -> Result<Raised, RaiseError> {
    use proto::raise_version_response::Result as Wire;
    let number = |wide: u32| u16::try_from(wide).unwrap_or(u16::MAX);
    match answer.result {
        Some(Wire::Raised(raised)) => Ok(Raised {
            from: number(raised.from),
            to: number(raised.to),
            applied_index: raised.applied_index,
        }),
        Some(Wire::HeldBack(reason)) => Err(RaiseError::HeldBack(reason)),
        Some(Wire::Unavailable(reason)) => Err(RaiseError::Unavailable(reason)),
        Some(Wire::NotLeader(_)) => {
            Err(RaiseError::Unavailable("the node asked leads no more".to_owned()))
        }
        Some(Wire::Unknown(reason)) => Err(RaiseError::Unknown(reason)),
        None => Err(RaiseError::Unknown("the leader's answer is empty".to_owned())),
    }
}
