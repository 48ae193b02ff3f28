//! A cursor never moves backwards from one index to the next, and never passes the journal.

use std::collections::BTreeMap;

use super::Invariant;
use crate::simulation::history::History;
use crate::simulation::observe::Seen;

#[derive(Default)]
pub(super) struct Cursors {
    /// By applied index.
    cursors: BTreeMap<u64, u64>,
}

impl Invariant for Cursors {
    fn name(&self) -> &'static str {
        "cursors move forward"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for node in seen.running() {
            let (applied, cursor) = (node.applied, node.cursor);
            if cursor > node.journal_last {
                return Err(format!(
                    "node {} at index {applied}: the cursor is {cursor}, the journal ends at {}",
                    node.place, node.journal_last
                ));
            }
            let earlier = self.cursors.range(..=applied).next_back().map(|(i, c)| (*i, *c));
            let later = self.cursors.range(applied..).next().map(|(i, c)| (*i, *c));
            for (index, known) in earlier.into_iter().chain(later) {
                if (index <= applied && known > cursor) || (index >= applied && known < cursor) {
                    return Err(format!(
                        "node {}: the cursor is {cursor} at index {applied} and {known} at {index}",
                        node.place
                    ));
                }
            }
            self.cursors.insert(applied, cursor);
        }
        Ok(())
    }
}
