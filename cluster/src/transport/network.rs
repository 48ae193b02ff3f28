//! What openraft sends with: one client per node and kind of traffic.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftNetworkFactory};
use peat_gateway_proto::cluster as proto;
use tonic::{Response, Status, Streaming};

use super::peers::{Lane, Peer, Peers};
use super::snapshot;
use crate::raft::{Member, TypeConfig, Vote};
use crate::store::SnapshotData;
use crate::wire::rpc;

/// How long an append stream may take to open, the connection included.
const STREAM_OPEN_TIMEOUT: Duration = Duration::from_millis(1500);
/// The pause before an append stream is opened to a node that could not be reached.
///
/// Short, because a node that is back needs entries before its election timeout ends.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
/// How long a follower may owe an answer to an append before the stream counts as broken.
///
/// Longer than a slow disk needs; a dead connection is noticed sooner, by its keep-alive.
const APPEND_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an append stream checks that.
const APPEND_ANSWER_CHECK: Duration = Duration::from_secs(1);

type StreamAppendStream<'s> =
    BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

/// The newest log index that this node has told another to be committed: what others may have applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(Arc<AtomicU64>);

impl Told {
    pub(crate) fn index(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Notes what a request says, before it leaves.
    fn note(&self, request: &AppendEntriesRequest<TypeConfig>) {
        if let Some(committed) = &request.leader_commit {
            self.0.fetch_max(committed.index, Ordering::SeqCst);
        }
    }
}

/// Makes clients.
pub(crate) struct Network {
    peers: Arc<Peers>,
    told: Told,
}

impl Network {
    pub(crate) fn new(peers: Arc<Peers>) -> Self {
        Self { peers, told: Told::default() }
    }

    /// What its clients will have told the other nodes.
    pub(crate) fn told(&self) -> Told {
        self.told.clone()
    }

    fn client(&self, node_id: u64, node: &Member, heartbeats: bool) -> PeerClient {
        self.peers.peer(node_id, &node.peer_address);
        let address = node.peer_address.clone();
        let (peers, told) = (self.peers.clone(), self.told.clone());
        PeerClient { peers, told, node_id, address, heartbeats, refused: false }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &Member) -> PeerClient {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> PeerClient {
        self.client(target, node, true)
    }
}

/// Sends to one node.
pub(crate) struct PeerClient {
    peers: Arc<Peers>,
    told: Told,
    node_id: u64,
    /// Where the node was when openraft made this client. It keeps the client while the node moves, so
    /// each call looks for the newest address.
    address: String,
    /// Heartbeats are streams of one message to openraft; they go as single calls, which are cheaper.
    heartbeats: bool,
    /// The last append stream could not be opened.
    refused: bool,
}

impl PeerClient {
    fn peer(&self) -> Arc<Peer> {
        self.peers.current(self.node_id, &self.address)
    }

    /// Opens an append stream: requests go out as they come, answers come back in order.
    async fn open_append_stream<S>(&self, input: S) -> Result<StreamAppendStream<'static>, Status>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let unanswered = Arc::new(AtomicU64::new(0));
        let (sent, told) = (unanswered.clone(), self.told.clone());
        let messages = input.map(move |request| {
            told.note(&request);
            sent.fetch_add(1, Ordering::Relaxed);
            rpc::append_to_wire(&request)
        });
        let peer = self.peer();
        let mut client = peer.raft(Lane::Log)?;
        let request = peer.request(messages)?;
        let answers = within(STREAM_OPEN_TIMEOUT, client.stream_append(request)).await?;
        Ok(Box::pin(append_answers(answers, unanswered)))
    }

    async fn heartbeat(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, Status> {
        let peer = self.peer();
        let mut client = peer.raft(Lane::Urgent)?;
        self.told.note(request);
        let call = peer.request(rpc::append_to_wire(request))?;
        let answer = within(timeout, client.append(call)).await?;
        rpc::append_result_from_wire(&answer).map_err(invalid)
    }

    async fn ask_for_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        before_campaign: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let peer = self.peer();
        let ask = async {
            let mut client = peer.raft(Lane::Urgent)?;
            let call = peer.request(rpc::vote_request_to_wire(request))?;
            let answer = if before_campaign {
                within(option.soft_ttl(), client.pre_vote(call)).await?
            } else {
                within(option.soft_ttl(), client.vote(call)).await?
            };
            rpc::vote_response_from_wire(&answer).map_err(invalid)
        };
        ask.await.map_err(|status: Status| unreachable(&peer, &status))
    }
}

impl NetBackoff<TypeConfig> for PeerClient {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetStreamAppend<TypeConfig> for PeerClient {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<StreamAppendStream<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if !self.heartbeats {
                // openraft pauses when it is asked for a request, which happens once the stream is open.
                // A node that refuses connections would be tried without end.
                if self.refused {
                    tokio::time::sleep(REOPEN_PAUSE).await;
                }
                let opened = self.open_append_stream(input).await;
                self.refused = opened.is_err();
                return opened.map_err(|status| unreachable(&self.peer(), &status));
            }
            let Some(request) = input.next().await else {
                return Ok(Box::pin(futures_util::stream::empty()) as StreamAppendStream<'s>);
            };
            let answer = self
                .heartbeat(&request, option.soft_ttl())
                .await
                .map_err(|status| unreachable(&self.peer(), &status));
            Ok(Box::pin(futures_util::stream::once(ready(answer))) as StreamAppendStream<'s>)
        })
    }
}

impl NetVote<TypeConfig> for PeerClient {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(&request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        // A node that can't be reached grants nothing: an isolated node must not raise its term.
        self.ask_for_vote(&request, true, &option).await
    }
}

impl NetSnapshot<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let peer = self.peer();
        let sending = snapshot::send(&peer, &vote, snapshot, option.hard_ttl());
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => sent.map_err(|status| {
                StreamingError::Unreachable(Unreachable::from_string(describe(&peer, &status)))
            }),
        }
    }
}

impl NetTransferLeader<TypeConfig> for PeerClient {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let peer = self.peer();
        let tell = async {
            let mut client = peer.raft(Lane::Urgent)?;
            let call = peer.request(rpc::transfer_to_wire(&request))?;
            within(option.soft_ttl(), client.transfer_leader(call)).await
        };
        let answer = tell.await.map_err(|status| unreachable(&peer, &status))?;
        if answer.accepted {
            return Ok(Ok(()));
        }
        // openraft only logs it; the next election settles it either way.
        Err(RPCError::Network(NetworkError::from_string(answer.reason)))
    }
}

/// Turns a follower's answers into openraft's, and a stalled stream into an error.
fn append_answers(
    answers: Streaming<proto::AppendResponse>,
    unanswered: Arc<AtomicU64>,
) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
    futures_util::stream::unfold(Some((answers, unanswered)), |state| async move {
        let (mut answers, unanswered) = state?;
        let mut owed_since = Instant::now();
        let next = loop {
            match tokio::time::timeout(APPEND_ANSWER_CHECK, answers.next()).await {
                Ok(next) => break next?,
                Err(_) if unanswered.load(Ordering::Relaxed) == 0 => owed_since = Instant::now(),
                Err(_) if owed_since.elapsed() < APPEND_ANSWER_TIMEOUT => {}
                Err(_) => break Err(Status::deadline_exceeded("appends stay unanswered")),
            }
        };
        let answer = next.and_then(|answer| rpc::append_result_from_wire(&answer).map_err(invalid));
        match answer {
            Ok(answer) => {
                unanswered.fetch_sub(1, Ordering::Relaxed);
                Some((Ok(answer), Some((answers, unanswered))))
            }
            Err(status) => {
                let error = Unreachable::from_string(format!("an append stream ended: {status}"));
                Some((Err(RPCError::Unreachable(error)), None))
            }
        }
    })
}

/// Waits for a call, no longer than `timeout`.
async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {timeout:?}"))),
    }
}

fn invalid(error: crate::wire::stored::InvalidMessage) -> Status {
    Status::internal(error.to_string())
}

fn describe(peer: &Peer, status: &Status) -> String {
    format!("node {:016x}: {:?}: {}", peer.node_id(), status.code(), status.message())
}

/// Every failure makes openraft wait before it tries again: none is cured by haste.
fn unreachable(peer: &Peer, status: &Status) -> RPCError<TypeConfig> {
    peer.note_refusal(status);
    RPCError::Unreachable(Unreachable::from_string(describe(peer, status)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use openraft::RaftNetworkFactory;
    use openraft::network::{NetStreamAppend, RPCOption};

    use super::{Network, REOPEN_PAUSE};
    use crate::node::identity::Identity;
    use crate::raft::Member;
    use crate::transport::peers::Peers;

    #[tokio::test]
    async fn a_node_that_refuses_connections_is_tried_again_only_after_a_pause() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let peers = Peers::new(Arc::new(Identity::new(1, Some([7; 16]))), None);
        let member = Member { peer_address: closed.to_string(), ..Member::default() };
        let mut client = Network::new(Arc::new(peers)).new_client(2, &member).await;
        // openraft pauses inside of the stream of requests: here for ever, and nobody asks.
        let requests = futures_util::stream::pending;
        let option = || RPCOption::new(Duration::from_millis(100));
        assert!(client.stream_append(requests(), option()).await.is_err());
        let begin = Instant::now();
        assert!(client.stream_append(requests(), option()).await.is_err());
        assert!(begin.elapsed() >= REOPEN_PAUSE, "{:?}", begin.elapsed());
    }
}
