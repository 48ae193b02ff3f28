//! Leader work counts only in the newest epoch, and a node takes up an epoch only if its claim is
//! committed.

use std::collections::BTreeSet;

use super::Invariant;
use crate::handle::Leadership;
use crate::simulation::history::History;
use crate::simulation::observe::{Meaning, Seen};

#[derive(Default)]
pub(super) struct OneEpoch {
    /// Indexes of committed claims: the epochs.
    claims: BTreeSet<u64>,
    /// Committed entries below were looked at.
    end: u64,
    /// Leader work below was looked at.
    looked_at: usize,
}

impl Invariant for OneEpoch {
    fn name(&self) -> &'static str {
        "one epoch counts"
    }

    fn check(&mut self, seen: &Seen, history: &History) -> Result<(), String> {
        let known_end = seen.known_end;
        for (index, committed) in seen.committed.range(self.end..known_end) {
            if matches!(committed.meaning, Meaning::Claim) {
                self.claims.insert(*index);
            }
        }
        self.end = known_end;
        for node in seen.running() {
            if let Leadership::Leader { epoch, .. } = node.leadership
                && !self.claims.contains(&epoch.0)
            {
                return Err(format!(
                    "node {} leads with epoch {}, which nobody claimed",
                    node.place, epoch.0
                ));
            }
        }
        for work in &history.leader_work[self.looked_at..] {
            let newest = self.claims.range(..work.index).next_back();
            if work.counted && newest != Some(&work.epoch.0) {
                return Err(format!(
                    "work of epoch {} by node {} counted at index {}, where the epoch is {newest:?}",
                    work.epoch.0, work.place, work.index
                ));
            }
        }
        self.looked_at = history.leader_work.len();
        Ok(())
    }
}
