//! Two entries with the same index and term are the same, and so is all that is before them. (Raft §5.3)

use std::collections::BTreeMap;

use super::Invariant;
use crate::simulation::history::History;
use crate::simulation::observe::Seen;

#[derive(Default)]
pub(super) struct LogMatching {
    /// By index and term: what is in the entry, and the term of the entry before it. By induction
    /// that is all that is before.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for (place, index) in &seen.appeared {
            let node = &seen.nodes[*place];
            let Some(entry) = node.log.get(index) else { continue };
            let purged = node.purged.filter(|purged| purged.index + 1 == *index);
            let before = match index.checked_sub(1).and_then(|before| node.log.get(&before)) {
                Some(before) => Some(before.term),
                None => purged.map(|purged| purged.leader_id.term),
            };
            let found = (entry.digest, before);
            let known = *self.entries.entry((*index, entry.term)).or_insert(found);
            if known != found {
                return Err(format!(
                    "entry {index} of term {} differs on node {place}: {found:x?}, elsewhere \
                     {known:x?} (what is in it, the term before it)",
                    entry.term
                ));
            }
        }
        Ok(())
    }
}
