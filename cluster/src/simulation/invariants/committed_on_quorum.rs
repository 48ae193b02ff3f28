//! What a leader calls committed is on the disks of a quorum, of both of them while membership changes.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ServerState;

use super::Invariant;
use crate::simulation::history::History;
use crate::simulation::observe::{NodeSeen, Seen};

#[derive(Default)]
pub(super) struct CommittedOnQuorum {
    /// By place: the term in which the node led at the last look, and what it called committed.
    led: BTreeMap<usize, (u64, u64)>,
    /// By place: the voters at the last look. A commit may have been decided by them.
    voters: BTreeMap<usize, Vec<BTreeSet<u64>>>,
}

impl Invariant for CommittedOnQuorum {
    fn name(&self) -> &'static str {
        "committed on quorum"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for node in seen.running() {
            let before = self.voters.insert(node.place, node.voters.clone());
            let (Some(ServerState::Leader), Some(committed)) = (node.state, node.committed) else {
                self.led.remove(&node.place);
                continue;
            };
            let led = self.led.insert(node.place, (node.term, committed.index));
            // What an earlier leader committed was looked at then.
            if committed.leader_id.term != node.term || led == Some((node.term, committed.index)) {
                continue;
            }
            let (index, term) = (committed.index, committed.leader_id.term);
            let on_disk: BTreeSet<u64> = seen
                .nodes
                .iter()
                .filter(|other| has_on_disk(other, index, term))
                .map(|other| other.node_id)
                .collect();
            let quorum = |voters: &Vec<BTreeSet<u64>>| {
                voters.iter().all(|set| 2 * set.intersection(&on_disk).count() > set.len())
            };
            if !quorum(&node.voters) && !before.as_ref().is_some_and(quorum) {
                return Err(format!(
                    "node {} leads in term {term} and calls entry {index} committed, which is on \
                     the disks of {on_disk:x?} only, of voters {:x?}",
                    node.place, node.voters
                ));
            }
        }
        Ok(())
    }
}

/// A node that stopped since the last look may have got the entry in that time: then its disk tells, as
/// one that ends with an entry of the same term has all that the term's leader has before.
fn has_on_disk(node: &NodeSeen, index: u64, term: u64) -> bool {
    let same_term = node.durable.is_some_and(|durable| durable.leader_id.term == term);
    node.is_durable(index) && (same_term || node.holds(index, term))
}
