//! What happened, step by step: compared between runs, and printed when an invariant fails.

use std::hash::{DefaultHasher, Hasher};

use super::observe::{NodeSeen, Seen};

/// Everything that was noted, with the simulated time.
#[derive(Default)]
pub(super) struct Trace {
    pub(super) lines: Vec<String>,
    hasher: DefaultHasher,
    nodes: Vec<String>,
}

impl Trace {
    pub(super) fn note(&mut self, at_ms: u64, what: &str) {
        let line = format!("{at_ms:>6} {what}");
        self.hasher.write(line.as_bytes());
        self.lines.push(line);
    }

    /// Notes what changed on the nodes.
    pub(super) fn note_nodes(&mut self, at_ms: u64, seen: &Seen) {
        self.nodes.resize(seen.nodes.len(), String::new());
        for (place, node) in seen.nodes.iter().enumerate() {
            let line = describe(node);
            if self.nodes[place] != line {
                self.note(at_ms, &line);
                self.nodes[place] = line;
            }
        }
    }

    /// Differs where anything differs.
    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

fn describe(node: &NodeSeen) -> String {
    let place = node.place;
    if !node.runs {
        return format!("node {place} is down");
    }
    let index = |id: Option<crate::raft::LogId>| id.map_or(0, |id| id.index);
    format!(
        "node {place} {:?} term {} leader {:x?} vote {:?} log {}..{} snapshot {} committed {} applied \
         {} cursor {} state {}",
        node.state.unwrap_or_default(),
        node.term,
        node.leader.unwrap_or_default(),
        node.vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for, vote.committed)),
        index(node.purged),
        index(node.last),
        index(node.snapshot),
        index(node.committed),
        node.applied,
        node.cursor,
        node.state_hash.map(|hash| hash.to_string()).unwrap_or_default(),
    )
}
