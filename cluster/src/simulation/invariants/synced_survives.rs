//! A node starts with every entry that its disk had synced before it crashed.

use std::collections::BTreeMap;

use super::Invariant;
use crate::raft::LogId;
use crate::simulation::history::History;
use crate::simulation::observe::Seen;

#[derive(Default)]
pub(super) struct SyncedSurvives {
    /// By node id: the start that was looked at last, and what was durable at the last look. A log that
    /// was cut back since its last sync is no longer known to keep anything.
    before: BTreeMap<u64, (u64, Option<LogId>)>,
}

impl Invariant for SyncedSurvives {
    fn name(&self) -> &'static str {
        "synced entries survive"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for node in seen.running() {
            let held = node.durable.filter(|id| node.holds(id.index, id.leader_id.term));
            let before = self.before.insert(node.node_id, (node.starts, held));
            let Some((starts, Some(durable))) = before else { continue };
            let (index, term) = (durable.index, durable.leader_id.term);
            // A newer leader may have had it replaced between the last look and the crash. Nothing but that puts
            // an entry of a higher term there: a node that has just started was sent none.
            if starts != node.starts && !node.holds(index, term) && !node.replaced(index, term) {
                return Err(format!(
                    "node {} had synced {durable} before it crashed, and starts with a log that \
                     ends at {}",
                    node.place,
                    node.end()
                ));
            }
        }
        Ok(())
    }
}
