//! At most one leader per term, and at most one vote per node and term, restarts included. (Raft §5.2)

use std::collections::BTreeMap;

use openraft::ServerState;

use super::Invariant;
use crate::simulation::history::History;
use crate::simulation::observe::Seen;

#[derive(Default)]
pub(super) struct ElectionSafety {
    /// Leader by term.
    leaders: BTreeMap<u64, u64>,
    /// Whom a node voted for in a term.
    votes: BTreeMap<(u64, u64), u64>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for node in seen.running() {
            let own = (node.state == Some(ServerState::Leader)).then_some(node.node_id);
            if let Some(leader) = own.or(node.leader) {
                let known = *self.leaders.entry(node.term).or_insert(leader);
                if known != leader {
                    return Err(format!(
                        "{known:016x} and {leader:016x} lead in term {}",
                        node.term
                    ));
                }
            }
            // A committed vote is no vote of this node: it knows that a quorum has elected.
            if let Some(vote) = node.vote.filter(|vote| !vote.committed) {
                let (term, candidate) = (vote.leader_id.term, vote.leader_id.voted_for);
                let known = *self.votes.entry((node.node_id, term)).or_insert(candidate);
                if known != candidate {
                    return Err(format!(
                        "node {} voted for {known:016x} and for {candidate:016x} in term {term}",
                        node.place
                    ));
                }
            }
        }
        Ok(())
    }
}
