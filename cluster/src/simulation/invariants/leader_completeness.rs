//! A leader's log holds every entry that was committed in an earlier term. (Raft §5.4)

use std::collections::BTreeSet;

use openraft::ServerState;

use super::Invariant;
use crate::simulation::history::History;
use crate::simulation::observe::Seen;

#[derive(Default)]
pub(super) struct LeaderCompleteness {
    /// Terms whose leader was looked at.
    looked_at: BTreeSet<u64>,
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for node in seen.running().filter(|node| node.state == Some(ServerState::Leader)) {
            if !self.looked_at.insert(node.term) {
                continue;
            }
            let earlier = seen.committed.iter().filter(|(_, c)| c.logged.term < node.term);
            for (index, committed) in earlier {
                if !node.holds(*index, committed.logged.term) {
                    return Err(format!(
                        "node {} leads in term {} without entry {index} of term {}, which was \
                         committed; its log ends at {}",
                        node.place,
                        node.term,
                        committed.logged.term,
                        node.end()
                    ));
                }
            }
        }
        Ok(())
    }
}
