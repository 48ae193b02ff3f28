//! Linearizable reads: one question to the leader for all reads that wait, answered at once where the asker
//! and the leader are a quorum.
//!
//! ```text
//!  reads a b c ──► round 1: "the index? I stand by your term" ──► leader: so do I, that is a quorum: 90
//!  reads   d e ─── wait ─► round 2 …          a b c wait for 90, then read ◄──┘
//!
//!  the leader's own reads, and larger clusters: the leader asks the other voters which term they stand by
//! ```
//!
//! A read may use only a round that began after the read arrived: an older round's index may lack a
//! write that was acknowledged before the read (Raft §6.4). The same holds for the questions of nodes.
//!
//! *Why that is enough.* A voter that stands by term 7 after the read arrived has promised its vote to no
//! later candidate before. Where a quorum does, no later leader was elected before the read arrived, so
//! every write that was acknowledged by then was committed under term 7 or an older one. The leader of term
//! 7 has applied an entry of its own term, and with it all older ones; and of its own term it knows more
//! than anybody. The index is what it has applied, or has told others to be committed if that is more: a
//! follower may be ahead in applying, and what was read there counts as known.
//!
//! Never a lease: a restarted follower forgets that it granted one. A vote it doesn't forget.

mod leader;
mod leaders_stream;
mod rounds;
mod voters;

use std::sync::Arc;

use peat_gateway_proto::cluster as proto;
use tokio::time::Instant;

use leader::Confirm;
pub(crate) use leader::Standing;
use leaders_stream::Ask;
use rounds::{ROUND_TIMEOUT, Rounds};

use crate::transport::peers::Peer;
use crate::wire::stored::vote_from_stored;

/// Asks for the newest index, in rounds.
#[derive(Clone)]
pub(crate) struct ReadRounds {
    reads: Rounds,
    confirmations: Rounds,
    standing: Arc<Standing>,
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
    pub(crate) fn start(standing: Standing, leader: impl FindLeader) -> Self {
        let standing = Arc::new(standing);
        let confirmations = Rounds::start(Confirm::new(standing.clone()));
        let reads = Rounds::start(Ask::new(leader, standing.clone(), confirmations.clone()));
        Self { reads, confirmations, standing }
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

    /// Answers another node's question where this node leads; its vote counts.
    ///
    /// # Errors
    /// This node doesn't lead, or no quorum confirmed it.
    pub(crate) async fn index_for(
        &self,
        asker: Option<u64>,
        question: &proto::ReadQuestion,
    ) -> Result<u64, String> {
        if let (Some(asker), Some(vote)) = (asker, &question.vote)
            && let Some(index) = self.standing.index_with(asker, &vote_from_stored(vote))
        {
            return Ok(index);
        }
        self.index_as_leader().await
    }
}
