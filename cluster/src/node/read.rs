//! Linearizable reads: one question to the leader for all reads that wait, and one to the quorum for all
//! questions that wait at the leader.
//!
//! ```text
//!  reads a b c ──► round 1 ──► leader ─┐
//!  reads   d e ─── wait ─► round 2 …   ├─► one heartbeat to all: index 90 ──► a b c f wait for 90, then read
//!  another node's read f ──► leader ───┘
//! ```
//!
//! A read may use only a round that began after the read arrived: an older round's index may lack a
//! write that was acknowledged before the read (Raft §6.4). The same holds for the questions of nodes.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use peat_gateway_proto::cluster as proto;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::Response;

use crate::raft::TypeConfig;
use crate::store::Machine;
use crate::transport::peers::Peer;

/// Reads, or questions of nodes, that may wait for a round; a further one is refused.
const READS_MAX: usize = 65_536;
/// How long one round may take; its reads then try again until their own time is up.
const ROUND_TIMEOUT: Duration = Duration::from_millis(700);

type Answer = oneshot::Sender<Result<u64, String>>;

/// Asks for the newest index, in rounds.
#[derive(Clone)]
pub(crate) struct ReadRounds {
    reads: Rounds,
    confirmations: Rounds,
}

/// Where rounds find the leader.
pub(crate) trait FindLeader: Send + Sync + 'static {
    /// The leader: `Ok(None)` is this node.
    ///
    /// # Errors
    /// None is known.
    fn find(&self) -> Result<Option<Arc<Peer>>, String>;
}

impl ReadRounds {
    /// Starts the rounds; they end when all clones are gone.
    pub(crate) fn start(
        raft: openraft::Raft<TypeConfig, Machine>,
        leader: impl FindLeader,
    ) -> Self {
        let confirmations = Rounds::start(move || {
            let raft = raft.clone();
            async move { confirmed_index(&raft).await }
        });
        let leader = Arc::new(leader);
        let here = confirmations.clone();
        let reads = Rounds::start(move || {
            let (leader, here) = (leader.clone(), here.clone());
            async move {
                match leader.find()? {
                    None => here.index(Instant::now() + ROUND_TIMEOUT).await,
                    Some(peer) => ask(&peer).await,
                }
            }
        });
        Self { reads, confirmations }
    }

    /// Returns an index that contains every write acknowledged before this call.
    ///
    /// # Errors
    /// Why no leader confirmed one. The caller may try again.
    pub(crate) async fn index(&self, deadline: Instant) -> Result<u64, String> {
        self.reads.index(deadline).await
    }

    /// The same where this node leads; it asks nobody else who might.
    ///
    /// # Errors
    /// This node doesn't lead, or no quorum confirmed it.
    pub(crate) async fn index_as_leader(&self) -> Result<u64, String> {
        self.confirmations.index(Instant::now() + ROUND_TIMEOUT).await
    }
}

/// One question at a time for all who ask; who comes while one is under way gets the next one's answer.
#[derive(Clone)]
struct Rounds {
    waiting: mpsc::Sender<Answer>,
}

impl Rounds {
    fn start<F>(mut question: impl FnMut() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<u64, String>> + Send,
    {
        let (sender, mut waiting) = mpsc::channel::<Answer>(READS_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, READS_MAX).await > 0 {
                let round = tokio::time::timeout(ROUND_TIMEOUT, question());
                let index = round.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                for read in batch.drain(..) {
                    read.send(index.clone()).ok();
                }
            }
        });
        Self { waiting: sender }
    }

    async fn index(&self, deadline: Instant) -> Result<u64, String> {
        let (answer, index) = oneshot::channel();
        self.waiting.try_send(answer).map_err(|_| "too many reads are waiting".to_owned())?;
        match tokio::time::timeout_at(deadline, index).await {
            Ok(Ok(index)) => index,
            Ok(Err(_)) => Err("this node is ending".to_owned()),
            Err(_) => Err("the time ran out".to_owned()),
        }
    }
}

/// Confirms with a quorum that this node leads, and returns what a read must have applied.
///
/// # Errors
/// This node doesn't lead, or no quorum confirmed it.
async fn confirmed_index(raft: &openraft::Raft<TypeConfig, Machine>) -> Result<u64, String> {
    // Never a lease: a restarted follower forgets that it granted one.
    let linearizer = raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
    linearizer.map(|linearizer| linearizer.read_log_id().index()).map_err(|e| e.to_string())
}

async fn ask(leader: &Peer) -> Result<u64, String> {
    let call = async {
        let mut client = leader.cluster()?;
        let call = leader.request(proto::ReadIndexRequest {})?;
        client.read_index(call).await.map(Response::into_inner)
    };
    let answer = call.await.map_err(|status| status.message().to_owned())?;
    match answer.result {
        Some(proto::read_index_response::Result::Index(index)) => Ok(index),
        Some(proto::read_index_response::Result::NotLeader(_)) => {
            Err("the node asked leads no more".to_owned())
        }
        Some(proto::read_index_response::Result::Unavailable(reason)) => Err(reason),
        None => Err("the leader's answer is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::time::Instant;

    use super::Rounds;

    #[tokio::test]
    async fn who_asks_while_a_question_is_under_way_gets_the_answer_of_the_next_and_all_of_them_the_same()
     {
        let (answers, mut asked) = (Arc::new(Semaphore::new(0)), tokio::sync::watch::channel(0));
        let rounds = Rounds::start({
            let answers = answers.clone();
            move || {
                let answers = answers.clone();
                asked.0.send_modify(|asked| *asked += 1);
                let number = *asked.0.borrow();
                async move {
                    answers.acquire().await.unwrap().forget();
                    Ok(number)
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let ask = || {
            tokio::spawn({
                let rounds = rounds.clone();
                async move { rounds.index(deadline).await }
            })
        };
        let first = ask();
        asked.1.wait_for(|asked| *asked == 1).await.unwrap();
        // The first question is under way: its answer may be too old for whoever comes now.
        let later: Vec<_> = (0..50).map(|_| ask()).collect();
        while rounds.waiting.max_capacity() - rounds.waiting.capacity() < later.len() {
            tokio::task::yield_now().await;
        }
        answers.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(1));
        for read in later {
            assert_eq!(read.await.unwrap(), Ok(2));
        }
    }
}
