//! On every node: purged ≤ snapshot ≤ applied ≤ committed ≤ end of the log.

use super::Invariant;
use crate::simulation::history::History;
use crate::simulation::observe::Seen;

pub(super) struct StateOrdering;

impl Invariant for StateOrdering {
    fn name(&self) -> &'static str {
        "state ordering"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for node in seen.running() {
            let index = |id: Option<crate::raft::LogId>| id.map_or(0, |id| id.index);
            let positions = [
                ("purged", index(node.purged)),
                ("snapshot", index(node.snapshot)),
                ("applied", node.applied),
                ("committed", index(node.committed)),
                ("last", index(node.last).max(node.last_counted)),
            ];
            for pair in positions.windows(2) {
                if pair[0].1 > pair[1].1 {
                    return Err(format!("node {}: {positions:?}", node.place));
                }
            }
        }
        Ok(())
    }
}
