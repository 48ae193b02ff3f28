//! A node's questions to the leader: a kept stream, one question under way.

use std::sync::Arc;
use std::time::Duration;

use peat_gateway_proto::cluster as proto;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use super::FindLeader;
use super::leader::Standing;
use super::rounds::{Question, ROUND_TIMEOUT, Rounds};
use crate::transport::peers::Peer;
use crate::wire::stored::vote_to_stored;

/// How long a leader whose build knows no such stream is asked by single calls.
const SINGLE_CALLS: Duration = Duration::from_secs(10);

/// Asks whoever leads.
pub(super) struct Ask<L> {
    leader: L,
    standing: Arc<Standing>,
    /// The questions where this node leads.
    here: Rounds,
    stream: Option<Stream>,
    single_calls_until: Option<Instant>,
    number: u64,
}

struct Stream {
    peer: Arc<Peer>,
    questions: mpsc::Sender<proto::ReadQuestion>,
    answers: Streaming<proto::ReadAnswer>,
}

impl<L> Ask<L> {
    pub(super) fn new(leader: L, standing: Arc<Standing>, here: Rounds) -> Self {
        Self { leader, standing, here, stream: None, single_calls_until: None, number: 0 }
    }

    /// Asks on the kept stream, or on a new one.
    async fn on_stream(&mut self, leader: Arc<Peer>) -> Result<Result<u64, String>, Status> {
        let kept = self.stream.take().filter(|stream| Arc::ptr_eq(&stream.peer, &leader));
        let mut stream = match kept {
            Some(stream) => stream,
            None => {
                let (questions, outgoing) = mpsc::channel(1);
                let call = leader.request(ReceiverStream::new(outgoing))?;
                let answers = leader.cluster()?.read_indexes(call).await?.into_inner();
                Stream { peer: leader, questions, answers }
            }
        };
        self.number += 1;
        // Taken now, after all reads of this round have come: it is what makes the answer new enough.
        let vote = self.standing.vote().as_ref().map(vote_to_stored);
        let question = proto::ReadQuestion { number: self.number, vote };
        let closed = || Status::unavailable("the leader closed the stream");
        stream.questions.send(question).await.map_err(|_| closed())?;
        let answer = loop {
            let answer = stream.answers.next().await.ok_or_else(closed)??;
            if answer.number == self.number {
                break answer;
            }
        };
        self.stream = Some(stream);
        Ok(answer.answer.map_or_else(|| Err("the leader's answer is empty".to_owned()), index))
    }
}

impl<L: FindLeader> Question for Ask<L> {
    async fn ask(&mut self) -> Result<u64, String> {
        let Some(leader) = self.leader.find()? else {
            return self.here.index(Instant::now() + ROUND_TIMEOUT).await;
        };
        if self.single_calls_until.is_some_and(|until| Instant::now() < until) {
            return single_call(&leader).await;
        }
        let had_stream = self.stream.is_some();
        let answer = match self.on_stream(leader.clone()).await {
            // The old stream may have ended long ago; that says nothing of the leader.
            Err(status) if had_stream && status.code() != Code::Unimplemented => {
                self.on_stream(leader.clone()).await
            }
            answer => answer,
        };
        match answer {
            Ok(index) => index,
            Err(status) if status.code() == Code::Unimplemented => {
                self.single_calls_until = Some(Instant::now() + SINGLE_CALLS);
                single_call(&leader).await
            }
            Err(status) => Err(status.message().to_owned()),
        }
    }
}

/// Asks a leader whose build knows no streams.
async fn single_call(leader: &Peer) -> Result<u64, String> {
    let call = async {
        let mut client = leader.cluster()?;
        let call = leader.request(proto::ReadIndexRequest {})?;
        client.read_index(call).await.map(Response::into_inner)
    };
    let answer = call.await.map_err(|status: Status| status.message().to_owned())?;
    index(answer)
}

fn index(answer: proto::ReadIndexResponse) -> Result<u64, String> {
    match answer.result {
        Some(proto::read_index_response::Result::Index(index)) => Ok(index),
        Some(proto::read_index_response::Result::NotLeader(_)) => {
            Err("the node asked leads no more".to_owned())
        }
        Some(proto::read_index_response::Result::Unavailable(reason)) => Err(reason),
        None => Err("the leader's answer is empty".to_owned()),
    }
}
