//! Questions about linearizable reads, as a node answers them.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use peat_gateway_proto::cluster as proto;
use tokio_stream::StreamExt;
use tonic::Status;

use super::cluster_service::out_of_service;
use crate::node::inner::Inner;
use crate::wire::stored::vote_to_stored;

/// Answers on their way to another node, in the order of its questions.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers one question for the index, where this node leads.
///
/// # Errors
/// This node is out of service.
pub(crate) async fn read_index(
    inner: &Inner,
    asker: Option<u64>,
    question: &proto::ReadQuestion,
) -> Result<proto::ReadIndexResponse, Status> {
    use proto::read_index_response::Result as Wire;
    if let Some(reason) = inner.damaged() {
        return Err(out_of_service(&reason));
    }
    let leader = inner.leader();
    let result = if leader == Some(inner.node_id()) {
        match inner.reads().index_for(asker, question).await {
            Ok(index) => Wire::Index(index),
            Err(reason) => Wire::Unavailable(reason),
        }
    } else {
        let leader = leader.map(|leader| leader.0).unwrap_or_default();
        Wire::NotLeader(proto::NotLeader { leader })
    };
    Ok(proto::ReadIndexResponse { result: Some(result) })
}

/// Answers a node's questions for the index.
pub(crate) fn read_indexes<S>(
    inner: Arc<Inner>,
    from: u64,
    questions: S,
) -> Answers<proto::ReadAnswer>
where
    S: Stream<Item = Result<proto::ReadQuestion, Status>> + Send + 'static,
{
    Box::pin(questions.then(move |question| {
        let inner = inner.clone();
        async move {
            let question = question?;
            let answer = read_index(&inner, Some(from), &question).await?;
            Ok(proto::ReadAnswer { number: question.number, answer: Some(answer) })
        }
    }))
}

/// Answers a leader's questions whom this voter stands by.
pub(crate) fn confirm<S>(inner: Arc<Inner>, questions: S) -> Answers<proto::ConfirmAnswer>
where
    S: Stream<Item = Result<proto::ConfirmQuestion, Status>> + Send + 'static,
{
    Box::pin(questions.map(move |question| {
        let proto::ConfirmQuestion { number } = question?;
        if let Some(reason) = inner.damaged() {
            // Its word would count against nodes that are right.
            return Err(out_of_service(&reason));
        }
        let vote = inner.store().promised_vote();
        Ok(proto::ConfirmAnswer { number, vote: vote.as_ref().map(vote_to_stored) })
    }))
}
