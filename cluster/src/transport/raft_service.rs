//! Raft's calls as a node receives them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use openraft::raft::StreamAppendResult;
use peat_gateway_proto::cluster as proto;
use peat_gateway_proto::cluster::raft_server::Raft;
use tonic::{Request, Response, Status, Streaming};

use super::{admission, snapshot};
use crate::node::contact::LeaderContact;
use crate::node::early_election::LostLeader;
use crate::raft::TypeConfig;
use crate::store::{Machine, Store};
use crate::wire::rpc;
use crate::wire::stored::InvalidMessage;

/// Hands calls to openraft. Callers were admitted by the interceptor.
pub(crate) struct RaftService {
    pub(crate) raft: openraft::Raft<TypeConfig, Machine>,
    pub(crate) store: Store,
    pub(crate) contact: Arc<LeaderContact>,
    pub(crate) lost_leader: LostLeader,
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn append(
        &self,
        request: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendResponse>, Status> {
        let arrived = Instant::now();
        let append = rpc::append_from_wire(request.get_ref()).map_err(invalid)?;
        let (previous, last) = rpc::append_range(&append);
        let answer = self.raft.append_entries(append).await.map_err(ended)?;
        let result: StreamAppendResult<TypeConfig> = answer.into_stream_result(previous, last);
        if !matches!(result, Err(openraft::raft::StreamAppendError::HigherVote(_))) {
            // Heartbeats come this way, so this is where a leader's sign of life is seen.
            self.contact.heard(arrived);
        }
        Ok(Response::new(rpc::append_result_to_wire(&result)))
    }

    type StreamAppendStream =
        Pin<Box<dyn Stream<Item = Result<proto::AppendResponse, Status>> + Send>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let watched =
            admission::caller(request.metadata()).map(|node| self.lost_leader.watch(node));
        // A message that can't be read ends the stream; the leader opens another and tries again.
        let appends = request
            .into_inner()
            .map(|message| message.and_then(|m| rpc::append_from_wire(&m).map_err(invalid)))
            .scan(watched, |_goes_with_the_stream, append| {
                let append = append
                    .inspect_err(|status| tracing::debug!(%status, "an append stream ended"))
                    .ok();
                std::future::ready(append)
            });
        let answers = self.raft.stream_append(appends).map(|answer| match answer {
            Ok(result) => Ok(rpc::append_result_to_wire(&result)),
            Err(fatal) => Err(ended(fatal)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let vote = rpc::vote_request_from_wire(request.get_ref()).map_err(invalid)?;
        let answer = self.raft.vote(vote).await.map_err(ended)?;
        Ok(Response::new(rpc::vote_response_to_wire(&answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let vote = rpc::vote_request_from_wire(request.get_ref()).map_err(invalid)?;
        let answer = self.raft.pre_vote(vote).await.map_err(ended)?;
        Ok(Response::new(rpc::vote_response_to_wire(&answer)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        snapshot::receive(&self.raft, &self.store, request.into_inner()).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let transfer = rpc::transfer_from_wire(request.get_ref()).map_err(invalid)?;
        let answer = self.raft.handle_transfer_leader(transfer).await.map_err(ended)?;
        let reason = answer.err().map(|error| error.to_string());
        Ok(Response::new(proto::TransferLeaderResponse {
            accepted: reason.is_none(),
            reason: reason.unwrap_or_default(),
        }))
    }
}

fn invalid(error: InvalidMessage) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Consensus has ended on this node; the process is about to.
fn ended(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("consensus ended on this node: {error}"))
}
