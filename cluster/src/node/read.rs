//! Linearizable reads: one question to the leader for all reads that wait.
//!
//! ```text
//!  reads a b c ──► round 1 ──► leader: index 90 ──► a b c wait for 90 here, then read
//!  reads   d e ──────────────► wait ──► round 2 …
//! ```
//!
//! A read may use only a round that began after the read arrived: an older round's index may lack a
//! write that was acknowledged before the read. (Raft §6.4)

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

/// Reads that may wait for a round; a further one is refused.
const READS_MAX: usize = 65_536;
/// How long one round may take; its reads then try again until their own time is up.
const ROUND_TIMEOUT: Duration = Duration::from_millis(700);

type Answer = oneshot::Sender<Result<u64, String>>;

/// Asks for the newest index, in rounds.
#[derive(Clone)]
pub(crate) struct ReadRounds {
    reads: mpsc::Sender<Answer>,
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
        let (reads, mut waiting) = mpsc::channel::<Answer>(READS_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, READS_MAX).await > 0 {
                let round = tokio::time::timeout(ROUND_TIMEOUT, newest_index(&raft, &leader));
                let index = round.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                for read in batch.drain(..) {
                    read.send(index.clone()).ok();
                }
            }
        });
        Self { reads }
    }

    /// Returns an index that contains every write acknowledged before this call.
    ///
    /// # Errors
    /// Why no leader confirmed one. The caller may try again.
    pub(crate) async fn index(&self, deadline: Instant) -> Result<u64, String> {
        let (answer, index) = oneshot::channel();
        self.reads.try_send(answer).map_err(|_| "too many reads are waiting".to_owned())?;
        match tokio::time::timeout_at(deadline, index).await {
            Ok(Ok(index)) => index,
            Ok(Err(_)) => Err("this node is ending".to_owned()),
            Err(_) => Err("the time ran out".to_owned()),
        }
    }
}

async fn newest_index(
    raft: &openraft::Raft<TypeConfig, Machine>,
    leader: &impl FindLeader,
) -> Result<u64, String> {
    match leader.find()? {
        None => confirmed_index(raft).await,
        Some(peer) => ask(&peer).await,
    }
}

/// Confirms with a quorum that this node leads, and returns what a read must have applied.
///
/// # Errors
/// This node doesn't lead, or no quorum confirmed it.
pub(crate) async fn confirmed_index(
    raft: &openraft::Raft<TypeConfig, Machine>,
) -> Result<u64, String> {
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
