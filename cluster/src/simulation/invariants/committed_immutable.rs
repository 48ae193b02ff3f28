//! What is committed stays what it is, on every node. (Raft §5.4)

use super::Invariant;
use crate::simulation::history::History;
use crate::simulation::observe::Seen;

pub(super) struct CommittedImmutable;

impl Invariant for CommittedImmutable {
    fn name(&self) -> &'static str {
        "committed immutable"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        let Some((index, place)) = seen.conflicts.first() else { return Ok(()) };
        let committed = &seen.committed[index];
        Err(format!(
            "entry {index} is committed on node {} as {:?} and on node {place} as {:?}",
            committed.seen_at,
            committed.logged,
            seen.nodes[*place].log.get(index)
        ))
    }
}
