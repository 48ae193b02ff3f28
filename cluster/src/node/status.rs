//! What a node says of itself, and of the others.

use std::time::Duration;

use futures_util::future::join_all;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use peat_gateway_proto::cluster as proto;
use peat_gateway_state::ids::{Hash32, NodeId};
use tonic::{Response, Status};

use super::inner::Inner;
use super::versions::{versions_from_wire, versions_to_wire};
use crate::handle::{NodeStatus, Role};
use crate::raft::Member;
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
        NodeStatus {
            node_id: self.node_id(),
            name: self.member.name.clone(),
            http_address: self.member.http_address.clone(),
            peer_address: self.member.peer_address.clone(),
            role,
            term,
            applied_index,
            last_log_index: self.store.last_log_index(),
            state_hash: Some(state_hash),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            versions: Some(self.versions()),
        }
    }

    pub(crate) async fn members(&self, timeout: Duration) -> Vec<NodeStatus> {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let asked = membership.nodes().map(|(node_id, member)| async move {
            if *node_id == self.identity.node_id() {
                return self.local_status();
            }
            let peer = self.peers.peer(*node_id, &member.peer_address);
            let answer = tokio::time::timeout(timeout, ask(&peer)).await;
            status(*node_id, member, answer.ok().and_then(Result::ok))
        });
        join_all(asked).await
    }
}

async fn ask(peer: &Peer) -> Result<proto::StatusResponse, Status> {
    let mut client = peer.cluster()?;
    let call = peer.request(proto::StatusRequest {})?;
    client.status(call).await.map(Response::into_inner)
}

fn status(node_id: u64, member: &Member, answer: Option<proto::StatusResponse>) -> NodeStatus {
    let versions = answer.as_ref().map(|answer| versions_from_wire(answer.versions));
    let answer = answer.unwrap_or_default();
    NodeStatus {
        node_id: NodeId(node_id),
        name: member.name.clone(),
        http_address: member.http_address.clone(),
        peer_address: member.peer_address.clone(),
        role: role(&answer.role),
        term: answer.term,
        applied_index: answer.applied_index,
        last_log_index: answer.last_log_index,
        state_hash: <[u8; 32]>::try_from(answer.state_hash.as_ref()).ok().map(Hash32),
        build_version: answer.build_version,
        versions,
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
    }
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
