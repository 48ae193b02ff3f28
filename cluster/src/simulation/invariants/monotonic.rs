//! Terms and votes never go back, not even by a restart; what is applied and committed never goes back
//! while the node runs.

use std::collections::BTreeMap;

use super::Invariant;
use crate::raft::Vote;
use crate::simulation::history::History;
use crate::simulation::observe::{NodeSeen, Seen};

#[derive(Default)]
pub(super) struct Monotonic {
    /// By node id.
    before: BTreeMap<u64, Positions>,
}

#[derive(Clone, Copy, Debug)]
struct Positions {
    starts: u64,
    vote: Option<Vote>,
    committed: u64,
    applied: u64,
}

impl Positions {
    fn of(node: &NodeSeen) -> Self {
        Self {
            starts: node.starts,
            vote: node.vote,
            committed: node.committed.map_or(0, |id| id.index),
            applied: node.applied,
        }
    }
}

impl Invariant for Monotonic {
    fn name(&self) -> &'static str {
        "monotonic positions"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for node in seen.running() {
            let now = Positions::of(node);
            let Some(before) = self.before.insert(node.node_id, now) else { continue };
            let order = |vote: Vote| (vote.leader_id.term, vote.committed);
            let vote_went_back = before.vote.map(order) > now.vote.map(order);
            let same_start = before.starts == now.starts;
            if vote_went_back
                || same_start && (before.committed > now.committed || before.applied > now.applied)
            {
                return Err(format!("node {} went back from {before:?} to {now:?}", node.place));
            }
        }
        Ok(())
    }
}
