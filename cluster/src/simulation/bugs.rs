//! Bugs that can be planted, to show that they are found. Nothing of this is in a built gateway.

use std::cell::Cell;

use peat_gateway_state::command::Fence;
use peat_gateway_state::{Command, Envelope, Reader, codec, query};

use crate::raft::LogCommand;

/// A mistake that an implementation of consensus could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// An append counts as durable before it is synced.
    AcknowledgedBeforeSync,
    /// A vote is given before it is synced.
    VoteNotSynced,
    /// A linearizable read is answered from what this node has.
    StaleReadAsLinearizable,
    /// A leader takes its own word for a quorum's when it answers reads.
    LeaderUnconfirmed,
    /// Work of an older epoch is taken.
    OldEpochAccepted,
    /// A proposal whose outcome is unknown is made again without the client's asking.
    UnknownTriedAgain,
}

impl Bug {
    pub(super) const ALL: [Self; 6] = [
        Self::AcknowledgedBeforeSync,
        Self::VoteNotSynced,
        Self::StaleReadAsLinearizable,
        Self::LeaderUnconfirmed,
        Self::OldEpochAccepted,
        Self::UnknownTriedAgain,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug on this thread.
pub(super) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread has the bug.
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Leader work as it is applied: with [`Bug::OldEpochAccepted`] its fence is the newest one.
pub(crate) fn unfenced(command: &LogCommand, rows: &dyn Reader, term: u64) -> LogCommand {
    if !planted(Bug::OldEpochAccepted) {
        return command.clone();
    }
    let decoded = codec::decode(&command.envelope);
    let mut decoded: Envelope = decoded.expect("an envelope can be read");
    let epoch = query::epoch(rows).expect("a view can be read").map(|newest| newest.epoch);
    match &mut decoded.command {
        Command::AppendChanges(work) => work.fence = Fence { term, epoch },
        Command::CommitCursors(work) => work.fence = Fence { term, epoch },
        _ => return command.clone(),
    }
    LogCommand { time_ms: command.time_ms, envelope: codec::encode(&decoded).into() }
}
