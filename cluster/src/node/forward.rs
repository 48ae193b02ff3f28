//! Proposing at the leader from another node: one stream carries everybody's commands.
//!
//! A command counts as sent once the stream is open and the command is in it. Whatever fails before
//! changed nothing; whatever fails after has an unknown outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use peat_gateway_proto::cluster as proto;
use peat_gateway_state::codec;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::propose::{Attempt, remaining_ms};
use crate::handle::Committed;
use crate::transport::peers::Peer;

/// Commands that wait for a stream to open; `propose` holds a place for each.
const QUEUE_MAX: usize = 8_192;
/// Commands under way in one stream; a further one is refused, and nothing happened.
const UNANSWERED_MAX: usize = 16_384;
/// Encoded messages between the forwarder and its connection.
const SEND_BUFFER: usize = 256;
/// The code of a refusal for want of space.
const NO_SPACE: &str = "no_space";
/// How long opening the stream may take, the connection included.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1500);

struct Forwarded {
    envelope: Bytes,
    deadline: Instant,
    answer: oneshot::Sender<Attempt>,
}

/// Sends commands to the leader.
pub(crate) struct Forwarder {
    current: Mutex<Option<Stream>>,
    shutdown: CancellationToken,
}

/// The queue of the stream to one node.
struct Stream {
    peer: Arc<Peer>,
    queue: mpsc::Sender<Forwarded>,
}

impl Forwarder {
    /// Ends with `shutdown`; what is under way then has an unknown outcome.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self { current: Mutex::new(None), shutdown }
    }

    /// Proposes at another node.
    pub(crate) async fn propose(
        &self,
        leader: &Arc<Peer>,
        envelope: Bytes,
        deadline: Instant,
    ) -> Attempt {
        let (answer, result) = oneshot::channel();
        let command = Forwarded { envelope, deadline, answer };
        if self.queue(leader).try_send(command).is_err() {
            return Attempt::Nothing("the queue to the leader is full".to_owned());
        }
        match tokio::time::timeout_at(deadline, result).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(_)) => Attempt::Unknown("this node is ending".to_owned()),
            Err(_) => Attempt::Unknown("the time ran out after forwarding".to_owned()),
        }
    }

    /// The queue to `leader`; a new stream where there is none, or it goes elsewhere.
    fn queue(&self, leader: &Arc<Peer>) -> mpsc::Sender<Forwarded> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = &*current
            && Arc::ptr_eq(&stream.peer, leader)
            && !stream.queue.is_closed()
        {
            return stream.queue.clone();
        }
        // The old stream, if any, ends when its last answer has come.
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(leader.clone(), waiting, self.shutdown.clone()));
        *current = Some(Stream { peer: leader.clone(), queue: queue.clone() });
        queue
    }
}

/// How a stream ended.
struct End {
    reason: String,
    /// Proposals above this number were not read by the leader, so nothing happened to them.
    last_read: u64,
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self { reason, last_read: u64::MAX }
    }
}

/// Serves one stream until it fails, or nobody uses it any more.
async fn run(peer: Arc<Peer>, mut waiting: mpsc::Receiver<Forwarded>, shutdown: CancellationToken) {
    let (requests, outgoing) = mpsc::channel(SEND_BUFFER);
    let opened = tokio::select! {
        () = shutdown.cancelled() => return,
        opened = open(&peer, outgoing) => opened,
    };
    let mut unanswered = HashMap::new();
    let end = match opened {
        Ok(answers) => tokio::select! {
            () = shutdown.cancelled() => return,
            end = pump(&mut waiting, &requests, answers, &mut unanswered) => end,
        },
        Err(status) => End { reason: describe(&peer, &status), last_read: 0 },
    };
    let End { reason, last_read } = end;
    for (number, answer) in unanswered {
        let attempt = if number > last_read {
            Attempt::Nothing(reason.clone())
        } else {
            Attempt::Unknown(reason.clone())
        };
        answer.send(attempt).ok();
    }
    // What still waits was never sent.
    waiting.close();
    while let Some(command) = waiting.recv().await {
        command.answer.send(Attempt::Nothing(reason.clone())).ok();
    }
}

async fn open(
    peer: &Peer,
    outgoing: mpsc::Receiver<proto::ProposeRequest>,
) -> Result<Streaming<proto::ProposeResponse>, Status> {
    let mut client = peer.cluster()?;
    let call = peer.request(ReceiverStream::new(outgoing))?;
    match tokio::time::timeout(OPEN_TIMEOUT, client.propose(call)).await {
        Ok(answers) => answers.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no stream within {OPEN_TIMEOUT:?}"))),
    }
}

/// Moves commands out and answers back; returns why it ended.
async fn pump(
    waiting: &mut mpsc::Receiver<Forwarded>,
    requests: &mpsc::Sender<proto::ProposeRequest>,
    mut answers: Streaming<proto::ProposeResponse>,
    unanswered: &mut HashMap<u64, oneshot::Sender<Attempt>>,
) -> End {
    let mut next_number = 0;
    let mut open = true;
    loop {
        tokio::select! {
            answer = answers.next() => match answer {
                Some(Ok(answer)) if answer.closing => {
                    let reason = "the node asked is leaving".to_owned();
                    return End { reason, last_read: answer.number };
                }
                Some(Ok(answer)) => {
                    if let Some(caller) = unanswered.remove(&answer.number) {
                        caller.send(attempt(answer)).ok();
                    }
                }
                Some(Err(status)) => return format!("the stream to the leader ended: {status}").into(),
                None => return "the leader closed the stream".to_owned().into(),
            },
            next = next_to_send(waiting, requests), if open => {
                let Some((room, command)) = next else {
                    open = false;
                    continue;
                };
                if unanswered.len() >= UNANSWERED_MAX {
                    let full = Attempt::Nothing("too many commands are under way".to_owned());
                    command.answer.send(full).ok();
                    continue;
                }
                next_number += 1;
                room.send(proto::ProposeRequest {
                    envelope: command.envelope,
                    timeout_ms: remaining_ms(command.deadline),
                    number: next_number,
                });
                unanswered.insert(next_number, command.answer);
            }
            else => return "the stream is no longer used".to_owned().into(),
        }
        if !open && unanswered.is_empty() {
            return "the stream is no longer used".to_owned().into();
        }
    }
}

/// Waits for room in the connection, then for a command; `None` where no more can be sent. Answers to
/// what was sent may still come then, the last one of a leader that leaves among them. Cancel-safe.
async fn next_to_send<'r>(
    waiting: &mut mpsc::Receiver<Forwarded>,
    requests: &'r mpsc::Sender<proto::ProposeRequest>,
) -> Option<(mpsc::Permit<'r, proto::ProposeRequest>, Forwarded)> {
    let room = requests.reserve().await.ok()?;
    let command = waiting.recv().await?;
    Some((room, command))
}

fn attempt(response: proto::ProposeResponse) -> Attempt {
    use proto::propose_response::Result as Wire;
    match response.result {
        Some(Wire::Committed(committed)) => match codec::decode(&committed.outcome) {
            Ok(outcome) => Attempt::Decided(Committed {
                outcome,
                index: committed.index,
                applied_index: committed.applied_index,
            }),
            Err(error) => Attempt::Unknown(format!("could not read the leader's answer: {error}")),
        },
        Some(Wire::NotLeader(other)) => {
            Attempt::NotLeader((other.leader != 0).then_some(other.leader))
        }
        Some(Wire::Unavailable(reason)) if response.code == NO_SPACE => Attempt::NoSpace(reason),
        Some(Wire::Unavailable(reason)) => Attempt::Nothing(reason),
        Some(Wire::Unknown(reason)) => Attempt::Unknown(reason),
        None => Attempt::Unknown("the leader's answer is empty".to_owned()),
    }
}

/// Writes what came of a forwarded command as its answer.
pub(crate) fn answer(number: u64, attempt: Attempt) -> proto::ProposeResponse {
    use proto::propose_response::Result as Wire;
    let code = if matches!(attempt, Attempt::NoSpace(_)) { NO_SPACE } else { "" };
    let result = match attempt {
        Attempt::Decided(committed) => Wire::Committed(proto::Committed {
            outcome: codec::encode(&committed.outcome).into(),
            index: committed.index,
            applied_index: committed.applied_index,
        }),
        Attempt::NotLeader(leader) => {
            Wire::NotLeader(proto::NotLeader { leader: leader.unwrap_or_default() })
        }
        // A node of an older build sees only that nothing happened.
        Attempt::NoSpace(reason) | Attempt::Nothing(reason) => Wire::Unavailable(reason),
        Attempt::Unknown(reason) => Wire::Unknown(reason),
    };
    proto::ProposeResponse { number, code: code.to_owned(), closing: false, result: Some(result) }
}

/// Writes that this node leaves, and has read and answered everything up to `last_read`.
pub(crate) fn closing(last_read: u64) -> proto::ProposeResponse {
    proto::ProposeResponse { number: last_read, code: String::new(), closing: true, result: None }
}

fn describe(peer: &Peer, status: &Status) -> String {
    format!("could not reach the leader {:016x}: {}", peer.node_id(), status.message())
}
