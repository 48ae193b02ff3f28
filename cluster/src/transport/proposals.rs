//! Streams on which other nodes forward proposals, and how a leaving node ends them.
//!
//! ```text
//!  other node ── 7 8 9 10 11 ──►  read: 7 8 9 │ leaving: 10 and 11 stay unread
//!             ◄── answers to 7 9 8, then "closing, 9 was the last" ── end of the stream
//!  other node: nothing happened to 10 and 11, so they go to the next leader; it closes its side, and
//!              only then is the connection cut
//! ```
//!
//! Without the last message the other side would have to call 10 and 11 unknown. A build that doesn't
//! know the message passes it over and does just that.

use std::sync::Arc;
use std::time::Duration;

use peat_gateway_proto::cluster as proto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::node::forward;
use crate::node::inner::Inner;

/// Answers between the state and one node's connection; proposals wait while it is full.
const ANSWER_BUFFER: usize = 1_024;
/// Most time that a forwarded proposal may ask for; more is cut to this.
const PROPOSE_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Answers on their way to another node.
pub(crate) type ProposalAnswers = ReceiverStream<Result<proto::ProposeResponse, Status>>;

/// All streams of forwarded proposals that this node serves.
#[derive(Clone, Default)]
pub(crate) struct ProposalStreams {
    leaving: CancellationToken,
    open: TaskTracker,
}

impl ProposalStreams {
    /// Serves one stream. It ends with the connection, or when this node leaves.
    ///
    /// How many proposals are under way is bounded by the sender, and by the lane to consensus.
    ///
    /// # Errors
    /// `Unavailable` where this node is leaving: nothing was read.
    pub(crate) fn serve<S>(
        &self,
        inner: &Arc<Inner>,
        proposals: S,
    ) -> Result<ProposalAnswers, Status>
    where
        S: Stream<Item = Result<proto::ProposeRequest, Status>> + Send + Unpin + 'static,
    {
        if self.leaving.is_cancelled() {
            return Err(Status::unavailable("this node is leaving and takes no more proposals"));
        }
        let (answers, outgoing) = mpsc::channel(ANSWER_BUFFER);
        self.open.spawn(run(inner.clone(), proposals, answers, self.leaving.clone()));
        Ok(ReceiverStream::new(outgoing))
    }

    /// Reads no more proposals, answers those that were read, and ends the streams. Resolves when all
    /// have ended; dropping it leaves them ending.
    pub(crate) async fn leave(&self) {
        self.leaving.cancel();
        self.open.close();
        self.open.wait().await;
    }
}

async fn run<S>(
    inner: Arc<Inner>,
    mut proposals: S,
    answers: mpsc::Sender<Result<proto::ProposeResponse, Status>>,
    leaving: CancellationToken,
) where
    S: Stream<Item = Result<proto::ProposeRequest, Status>> + Unpin,
{
    let under_way = TaskTracker::new();
    let mut last_read = 0;
    let left = loop {
        let next = tokio::select! {
            biased;
            () = leaving.cancelled() => break true,
            next = proposals.next() => next,
        };
        let Some(Ok(proposal)) = next else { break false };
        last_read = proposal.number;
        let (inner, answers) = (inner.clone(), answers.clone());
        under_way.spawn(async move {
            let timeout = Duration::from_millis(proposal.timeout_ms).min(PROPOSE_TIMEOUT_MAX);
            let attempt = inner.propose_here(proposal.envelope, timeout).await;
            // The other side may be gone; it then counts the outcome as unknown.
            answers.send(Ok(forward::answer(proposal.number, attempt))).await.ok();
        });
    };
    if left {
        under_way.close();
        under_way.wait().await;
        answers.send(Ok(forward::closing(last_read))).await.ok();
        drop(answers);
        // A connection that were cut now could take the last message with it. Whoever got it, or saw the
        // stream end, closes its side; what still comes before that is not looked at.
        while let Some(Ok(_)) = proposals.next().await {}
    }
}
