//! Proposing on the leader: one lane stamps the time and hands commands to consensus, in order.
//!
//! ```text
//!  propose ─────────┐                     ┌─ stamp ─► openraft (merges what waits into one append)
//!  leader work ─────┼─► lane (bounded) ───┤
//!  other nodes' ────┘                     └─ each caller waits for its own answer
//! ```

use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::{CommittedLeaderIdOf, WriteResponderOf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clock::StampClock;
use super::joining::join_waiting;
use crate::handle::Committed;
use crate::raft::{LogCommand, TypeConfig};
use crate::store::Machine;

/// Commands that may wait for consensus to take them; `propose` holds a place for each, so the lane
/// is never fuller than this.
pub(crate) const LANE_COMMANDS_MAX: usize = 16_384;
/// Commands that get one stamp.
const STAMP_BATCH: usize = 512;

/// What came of handing a command to a leader.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The state answered.
    Decided(Committed),
    /// Nothing happened: this is not the leader. The leader as it is known there.
    NotLeader(Option<u64>),
    /// Nothing happened: the disks are nearly full.
    NoSpace(String),
    /// Nothing happened, for another reason.
    Nothing(String),
    /// It may have happened.
    Unknown(String),
}

struct Waiting {
    envelope: Bytes,
    /// The leadership that it must be proposed under; `None` where any will do.
    leader: Option<CommittedLeaderIdOf<TypeConfig>>,
    responder: WriteResponderOf<TypeConfig>,
}

/// The way to consensus on this node.
#[derive(Clone)]
pub(crate) struct ProposalLane {
    commands: mpsc::Sender<Waiting>,
}

impl ProposalLane {
    /// Opens the lane; it closes when all its clones are gone or consensus ends.
    pub(crate) fn open(raft: openraft::Raft<TypeConfig, Machine>) -> Self {
        let (commands, waiting) = mpsc::channel(LANE_COMMANDS_MAX);
        tokio::spawn(run(raft, waiting));
        Self { commands }
    }

    /// Proposes on this node and waits until the command is applied here.
    pub(crate) async fn propose(
        &self,
        envelope: Bytes,
        leader: Option<CommittedLeaderIdOf<TypeConfig>>,
        deadline: Instant,
    ) -> Attempt {
        let (responder, answer) = ProgressResponder::complete_only();
        if self.commands.try_send(Waiting { envelope, leader, responder }).is_err() {
            return Attempt::Nothing("this node's proposal lane is full or closed".to_owned());
        }
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(result)) => attempt(result),
            Ok(Err(_)) => Attempt::Unknown("consensus ended before it answered".to_owned()),
            Err(_) => Attempt::Unknown("the time ran out after proposing".to_owned()),
        }
    }
}

async fn run(raft: openraft::Raft<TypeConfig, Machine>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut clock = StampClock::default();
    let mut batch = Vec::with_capacity(STAMP_BATCH);
    while waiting.recv_many(&mut batch, STAMP_BATCH).await > 0 {
        // What consensus gets at once it writes, syncs and sends at once.
        join_waiting(&mut waiting, &mut batch, STAMP_BATCH).await;
        let time_ms = clock.stamp();
        for command in batch.drain(..) {
            let data = LogCommand { time_ms, envelope: command.envelope };
            let mut write = raft.write(data).responder(command.responder);
            if let Some(leader) = command.leader {
                write = write.with_leader(leader);
            }
            if write.await.is_err() {
                // The responders are dropped with the lane; callers see that consensus ended.
                return;
            }
        }
    }
}

fn attempt(result: ClientWriteResult<TypeConfig>) -> Attempt {
    match result {
        Ok(response) => {
            let applied_index = response.log_id.index;
            match response.data.into_outcome() {
                Some((outcome, index)) => {
                    Attempt::Decided(Committed { outcome, index, applied_index })
                }
                None => Attempt::Unknown("the command was applied without an answer".to_owned()),
            }
        }
        Err(ClientWriteError::ForwardToLeader(forward)) => refused(&forward),
        Err(ClientWriteError::LogEntryDiscarded(_)) => {
            Attempt::Unknown("another leader took over while the command was under way".to_owned())
        }
        Err(error) => Attempt::Unknown(error.to_string()),
    }
}

/// Consensus refused the command before it wrote it anywhere.
fn refused(forward: &ForwardToLeader<TypeConfig>) -> Attempt {
    match forward.reason {
        ForwardReason::NotLeader => Attempt::NotLeader(forward.leader_id),
        reason => Attempt::Nothing(format!("the leader takes no commands now: {reason:?}")),
    }
}

/// The time left until `deadline`, in whole ms, for the other side of a wire.
pub(crate) fn remaining_ms(deadline: Instant) -> u64 {
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    left.as_millis() as u64
}
