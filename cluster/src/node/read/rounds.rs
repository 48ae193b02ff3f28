//! One question at a time for all who ask.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::node::joining::join_waiting;

/// Reads, or questions of nodes, that may wait for a round; a further one is refused.
const READS_MAX: usize = 65_536;
/// How long one round may take; its reads then try again until their own time is up.
pub(super) const ROUND_TIMEOUT: Duration = Duration::from_millis(700);

type Answer = oneshot::Sender<Result<u64, String>>;

/// What a round asks.
pub(super) trait Question: Send + 'static {
    /// Asks for an index that contains every write acknowledged before this call. It is dropped where it takes
    /// longer than [`ROUND_TIMEOUT`].
    fn ask(&mut self) -> impl Future<Output = Result<u64, String>> + Send;
}

/// One question at a time for all who ask; who comes while one is under way gets the next one's answer.
#[derive(Clone)]
pub(super) struct Rounds {
    waiting: mpsc::Sender<Answer>,
}

impl Rounds {
    /// Starts the rounds; they end when all clones are gone.
    pub(super) fn start(mut question: impl Question) -> Self {
        let (sender, mut waiting) = mpsc::channel::<Answer>(READS_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, READS_MAX).await > 0 {
                // Who doesn't join this round waits for the next one.
                join_waiting(&mut waiting, &mut batch, READS_MAX).await;
                let round = tokio::time::timeout(ROUND_TIMEOUT, question.ask());
                let index = round.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                for read in batch.drain(..) {
                    read.send(index.clone()).ok();
                }
            }
        });
        Self { waiting: sender }
    }

    /// Returns the index of a round that began after this call.
    ///
    /// # Errors
    /// Why there is none. The caller may try again.
    pub(super) async fn index(&self, deadline: Instant) -> Result<u64, String> {
        let (answer, index) = oneshot::channel();
        self.waiting.try_send(answer).map_err(|_| "too many reads are waiting".to_owned())?;
        match tokio::time::timeout_at(deadline, index).await {
            Ok(Ok(index)) => index,
            Ok(Err(_)) => Err("this node is ending".to_owned()),
            Err(_) => Err("the time ran out".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::{Semaphore, watch};
    use tokio::time::Instant;

    use super::{Question, Rounds};

    /// Answers with the question's number, when it may.
    struct Numbered {
        answers: Arc<Semaphore>,
        asked: watch::Sender<u64>,
    }

    impl Question for Numbered {
        async fn ask(&mut self) -> Result<u64, String> {
            self.asked.send_modify(|asked| *asked += 1);
            self.answers.acquire().await.unwrap().forget();
            Ok(*self.asked.borrow())
        }
    }

    #[tokio::test]
    async fn who_asks_while_a_question_is_under_way_gets_the_answer_of_the_next_and_all_of_them_the_same()
     {
        let (answers, mut asked) = (Arc::new(Semaphore::new(0)), watch::channel(0));
        let rounds = Rounds::start(Numbered { answers: answers.clone(), asked: asked.0 });
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
