//! What a node says of itself, and of the others.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use peat_gateway_proto::cluster as proto;
use peat_gateway_proto::stored::VoterSet;
use peat_gateway_state::ids::{Hash32, NodeId};
use tonic::{Response, Status};

use super::inner::Inner;
use super::versions::{versions_from_wire, versions_to_wire};
use crate::handle::{NodeStatus, Role};
use crate::health::Alarm;
use crate::raft::Member;
use crate::transport::admission;
use crate::transport::peers::Peer;

impl Inner {
    pub(crate) fn local_status(&self) -> NodeStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let role = match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Down,
        };
        let term = metrics.current_term;
        // The watched value blocks consensus while it is borrowed.
        drop(metrics);
        let (applied_index, state_hash) = self.store.state_hash();
        let voter = self.membership().voter_ids().any(|voter| voter == self.identity.node_id());
        NodeStatus {
            node_id: self.node_id(),
            name: self.member.name.clone(),
            http_address: self.member.http_address.clone(),
            peer_address: self.member.peer_address.clone(),
            role,
            voter,
            reachable: true,
            term,
            applied_index,
            last_log_index: self.store.last_log_index(),
            matched_index: None,
            lag: None,
            last_contact_ms: None,
            state_hash: Some(state_hash),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            versions: Some(self.versions()),
            problem: None,
            alarms: self.health.alarms(),
        }
    }

    pub(crate) async fn members(&self, timeout: Duration) -> Vec<NodeStatus> {
        let membership = self.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let asked = membership.nodes().map(|(node_id, member)| async move {
            if *node_id == self.identity.node_id() {
                let mut own = proto::StatusResponse::default();
                self.tell_membership(&mut own);
                return (self.local_status(), own.replication);
            }
            let peer = self.peers.peer(*node_id, &member.peer_address);
            let answer = tokio::time::timeout(timeout, ask(&peer)).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
            status(*node_id, member, answer)
        });
        let (mut nodes, told): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().unzip();
        let leader = nodes.iter().position(|node| node.role == Role::Leader);
        let end = leader.map_or(0, |leader| nodes[leader].last_log_index);
        let replication = leader.map(|leader| &told[leader]);
        for node in &mut nodes {
            node.voter = voters.contains(&node.node_id.0);
            if node.role == Role::Leader {
                (node.matched_index, node.lag) = (Some(node.last_log_index), Some(0));
            }
            let known = replication.into_iter().flatten().find(|r| r.node_id == node.node_id.0);
            if let Some(known) = known {
                node.matched_index = Some(known.matched_index);
                node.lag = Some(end.saturating_sub(known.matched_index));
                node.last_contact_ms = known.last_contact_ms;
            }
        }
        nodes
    }

    /// Adds to this node's status what it knows of the membership and, as leader, of the others.
    pub(crate) fn tell_membership(&self, status: &mut proto::StatusResponse) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = &metrics.membership_config;
        status.membership_index = membership.log_id().as_ref().map_or(0, |id| id.index);
        let sets = membership.get_joint_config().iter();
        status.voter_sets =
            sets.map(|set| VoterSet { node_ids: set.iter().copied().collect() }).collect();
        let (Some(replication), Some(heartbeat)) = (metrics.replication, metrics.heartbeat) else {
            return;
        };
        let others = replication.into_iter().filter(|(node, _)| *node != metrics.id);
        status.replication = others
            .map(|(node_id, matched)| proto::Replication {
                node_id,
                matched_index: matched.map_or(0, |id| id.index),
                last_contact_ms: heartbeat
                    .get(&node_id)
                    .copied()
                    .flatten()
                    .map(|at| at.into_inner().elapsed().as_millis() as u64),
            })
            .collect();
    }
}

/// Asks a node for its status.
pub(super) async fn ask(peer: &Peer) -> Result<proto::StatusResponse, Status> {
    let mut client = peer.cluster()?;
    let call = peer.request(proto::StatusRequest {})?;
    client.status(call).await.map(Response::into_inner)
}

/// A member's status with what it tells of the others.
fn status(
    node_id: u64,
    member: &Member,
    answer: Result<proto::StatusResponse, Status>,
) -> (NodeStatus, Vec<proto::Replication>) {
    let reachable = answer.is_ok();
    let versions = answer.as_ref().ok().map(|answer| versions_from_wire(answer.versions));
    let problem = answer.as_ref().err().map(|status| problem(node_id, member, status));
    let answer = answer.unwrap_or_default();
    let status = NodeStatus {
        node_id: NodeId(node_id),
        name: member.name.clone(),
        http_address: member.http_address.clone(),
        peer_address: member.peer_address.clone(),
        role: role(&answer.role),
        voter: false,
        reachable,
        term: answer.term,
        applied_index: answer.applied_index,
        last_log_index: answer.last_log_index,
        matched_index: None,
        lag: None,
        last_contact_ms: None,
        state_hash: <[u8; 32]>::try_from(answer.state_hash.as_ref()).ok().map(Hash32),
        build_version: answer.build_version,
        versions,
        problem,
        alarms: answer
            .alarms
            .into_iter()
            .map(|a| Alarm { code: a.code, detail: a.detail })
            .collect(),
    };
    (status, answer.replication)
}

/// What is wrong with a member that doesn't answer as itself, and what to do.
fn problem(node_id: u64, member: &Member, status: &Status) -> String {
    match admission::reached_node(status) {
        Some(reached) => format!(
            "its address {} answers as node {reached:016x}: its disk was lost or exchanged. When that \
             one has caught up: peat-gateway cluster promote {reached:016x} --replaces {node_id:016x}",
            member.peer_address
        ),
        None => status.message().to_owned(),
    }
}

/// Writes a node's own status as its answer.
pub(crate) fn to_wire(status: NodeStatus, leader: Option<NodeId>) -> proto::StatusResponse {
    proto::StatusResponse {
        node_id: status.node_id.0,
        role: role_name(status.role).to_owned(),
        term: status.term,
        applied_index: status.applied_index,
        last_log_index: status.last_log_index,
        state_hash: status.state_hash.map(|hash| hash.0.to_vec().into()).unwrap_or_default(),
        leader: leader.map(|leader| leader.0).unwrap_or_default(),
        build_version: status.build_version,
        versions: status.versions.map(versions_to_wire),
        alarms: status.alarms.into_iter().map(alarm_to_wire).collect(),
        ..proto::StatusResponse::default()
    }
}

fn alarm_to_wire(alarm: Alarm) -> proto::Alarm {
    proto::Alarm { code: alarm.code, detail: alarm.detail }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Down => "down",
    }
}

fn role(name: &str) -> Role {
    match name {
        "leader" => Role::Leader,
        "follower" => Role::Follower,
        "candidate" => Role::Candidate,
        "learner" => Role::Learner,
        _ => Role::Down,
    }
}
