//! Getting to know a node by its address: who it is, and that both know the cluster token.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use peat_gateway_proto::cluster as proto;
use tonic::{Code, Status};

use super::versions::versions_from_wire;
use crate::handle::NodeVersions;
use crate::raft::Member;
use crate::transport::peers::Peers;
use crate::transport::token::{TokenKey, proves};

/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks nodes that are known by address only.
#[derive(Clone)]
pub(crate) struct Introductions {
    pub(crate) peers: Arc<Peers>,
    pub(crate) token: TokenKey,
}

/// A node, as it answered.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The address that led to it.
    pub(crate) address: String,
    pub(crate) node_id: u64,
    /// Made at its start; 0 where an older build answered.
    pub(crate) boot_id: u64,
    /// `None` while it belongs to no cluster.
    pub(crate) cluster_id: Option<[u8; 16]>,
    /// What its build understands.
    pub(crate) versions: NodeVersions,
    /// What it says of itself.
    pub(crate) member: Member,
    /// The members of its cluster by id; none before that is initialised.
    pub(crate) members: Vec<(u64, Member)>,
}

impl Introductions {
    /// Asks a node who it is; the error says what is missing.
    pub(crate) async fn identify(&self, address: &str) -> Result<Found, String> {
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge).map_err(|error| error.to_string())?;
        let mut client = self.peers.stranger(address)?;
        let call = client.identify(proto::IdentifyRequest {
            token_proof: self.token.identify(&challenge).as_bytes().to_vec().into(),
            challenge: challenge.to_vec().into(),
        });
        let answer = answer(call).await.map_err(|status| describe(address, &status))?;
        if !proves(&self.token.identified(&challenge, answer.node_id), &answer.token_proof) {
            return Err(format!("{address}: it doesn't know the cluster token"));
        }
        let member = answer.member.ok_or_else(|| format!("{address}: its answer is incomplete"))?;
        let members = answer.members.into_iter().map(|member| (member.node_id, member.into()));
        Ok(Found {
            address: address.to_owned(),
            node_id: answer.node_id,
            boot_id: answer.boot_id,
            cluster_id: answer.cluster_id.as_ref().try_into().ok(),
            versions: versions_from_wire(answer.versions),
            member: member.into(),
            members: members.collect(),
        })
    }

    /// Has a node write the cluster id down; returns the cluster that it belongs to.
    pub(crate) async fn adopt(
        &self,
        address: &str,
        node_id: u64,
        cluster_id: [u8; 16],
    ) -> Result<[u8; 16], Status> {
        let mut client = self.peers.stranger(address).map_err(Status::internal)?;
        let call = client.adopt(proto::AdoptRequest {
            token_proof: self.token.adopt(&cluster_id, node_id).as_bytes().to_vec().into(),
            cluster_id: cluster_id.to_vec().into(),
            node_id,
        });
        let answer = answer(call).await?;
        <[u8; 16]>::try_from(answer.cluster_id.as_ref())
            .map_err(|_| Status::internal("its answer has no cluster id"))
    }

    /// Asks a member to have this node taken in.
    pub(crate) async fn join(
        &self,
        address: &str,
        cluster_id: [u8; 16],
        member: peat_gateway_proto::stored::Member,
        boot_id: u64,
    ) -> Result<proto::MembershipResponse, Status> {
        let mut client = self.peers.stranger(address).map_err(Status::internal)?;
        let proof = self.token.join(&cluster_id, member.node_id, &member.peer_address);
        let call = client.join(proto::JoinRequest {
            token_proof: proof.as_bytes().to_vec().into(),
            cluster_id: cluster_id.to_vec().into(),
            member: Some(member),
            boot_id,
        });
        match tokio::time::timeout(ASK_TIMEOUT * 4, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

async fn answer<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(ASK_TIMEOUT, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Says what is wrong with the node at an address.
pub(crate) fn describe(address: &str, status: &Status) -> String {
    // A status that the node itself sent has no cause on this side.
    let mut cause = std::error::Error::source(status);
    let mut why = match status.code() {
        Code::DeadlineExceeded => "it can't be reached in time".to_owned(),
        _ if cause.is_some() => "it can't be reached".to_owned(),
        _ => status.message().to_owned(),
    };
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    format!("{address}: {why}")
}
