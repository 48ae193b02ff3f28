//! The leader's questions to the other voters: a kept stream to each, one question under way on each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peat_gateway_proto::cluster as proto;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

use crate::raft::Vote;
use crate::transport::peers::{Peer, Peers};
use crate::wire::stored::vote_from_stored;

/// How long a voter may take to open a stream or to answer; then its stream is opened again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a failure. Whoever waits for a confirmation has turned to consensus by then.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);
/// How long a voter whose build doesn't know the question is left alone.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(10);
/// Answers that wait to be looked at; a voter's task waits while it is full.
const ANSWERS_MAX: usize = 64;

/// What a voter said.
pub(super) enum Confirmed {
    /// This is its vote, as it is promised.
    Vote(u64, Vote),
    /// Its build doesn't know the question.
    CannotSay,
}

/// The voters that this leader asks.
pub(super) struct Voters {
    peers: Arc<Peers>,
    /// The number of the newest question.
    asked: watch::Sender<u64>,
    answers: mpsc::Receiver<(u64, Confirmed)>,
    answered: mpsc::Sender<(u64, Confirmed)>,
    tasks: BTreeMap<u64, (String, AbortOnDropHandle<()>)>,
}

impl Voters {
    pub(super) fn new(peers: Arc<Peers>) -> Self {
        let (answered, answers) = mpsc::channel(ANSWERS_MAX);
        Self { peers, asked: watch::Sender::new(0), answers, answered, tasks: BTreeMap::new() }
    }

    /// Asks these nodes, and no others any more; returns the question's number.
    pub(super) fn ask(&mut self, voters: &[(u64, String)]) -> u64 {
        self.tasks.retain(|node, (address, task)| {
            !task.is_finished() && voters.iter().any(|(n, a)| n == node && a == address)
        });
        for (node, address) in voters {
            self.tasks.entry(*node).or_insert_with(|| {
                let peer = self.peers.peer(*node, address);
                let task = run(peer, self.asked.subscribe(), self.answered.clone());
                (address.clone(), AbortOnDropHandle::new(tokio::spawn(task)))
            });
        }
        self.asked.send_modify(|number| *number += 1);
        *self.asked.borrow()
    }

    /// The next answer to this question.
    pub(super) async fn next(&mut self, number: u64) -> Option<Confirmed> {
        loop {
            let (answers, confirmed) = self.answers.recv().await?;
            // A vote that was promised before the question says nothing.
            if answers == number {
                return Some(confirmed);
            }
        }
    }
}

struct Stream {
    questions: mpsc::Sender<proto::ConfirmQuestion>,
    answers: Streaming<proto::ConfirmAnswer>,
}

/// Asks one voter whenever there is a new question, the newest one.
async fn run(
    peer: Arc<Peer>,
    mut asked: watch::Receiver<u64>,
    answered: mpsc::Sender<(u64, Confirmed)>,
) {
    // The question for whose sake this voter's task was started.
    asked.mark_changed();
    let mut stream = None;
    while asked.changed().await.is_ok() {
        let number = *asked.borrow_and_update();
        let question = tokio::time::timeout(ANSWER_TIMEOUT, ask(&peer, &mut stream, number)).await;
        let status = match question {
            Ok(Ok(vote)) => {
                let vote = Confirmed::Vote(peer.node_id(), vote);
                if answered.send((number, vote)).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("the voter didn't answer"),
        };
        stream = None;
        tracing::debug!(node = format!("{:016x}", peer.node_id()), %status, "a voter can't be asked");
        let pause = if status.code() == Code::Unimplemented {
            answered.send((number, Confirmed::CannotSay)).await.ok();
            UNKNOWN_PAUSE
        } else {
            FAILURE_PAUSE
        };
        tokio::time::sleep(pause).await;
    }
}

async fn ask(peer: &Peer, kept: &mut Option<Stream>, number: u64) -> Result<Vote, Status> {
    let stream = match kept {
        Some(stream) => stream,
        None => {
            let (questions, outgoing) = mpsc::channel(1);
            let call = peer.request(ReceiverStream::new(outgoing))?;
            let answers = peer.cluster()?.confirm(call).await?.into_inner();
            kept.insert(Stream { questions, answers })
        }
    };
    let question = proto::ConfirmQuestion { number };
    let closed = || Status::unavailable("the stream has ended");
    stream.questions.send(question).await.map_err(|_| closed())?;
    loop {
        let answer = stream.answers.next().await.ok_or_else(closed)??;
        if answer.number == number {
            let vote = answer.vote.ok_or_else(|| Status::internal("the answer has no vote"))?;
            return Ok(vote_from_stored(&vote));
        }
    }
}
