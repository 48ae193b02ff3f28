//! What one link and the gateway have said to each other about one document, and what to answer.
//!
//! ```text
//!  node: heads, what it has, changes ──► Exchange::answer ──► heads  ⊆ what this node announced and we have
//!                                            ▲                need   ⊆ what this node announced or built on
//!                                            │                have   = Bloom filter of what we have
//!                                         Replica             changes: never any
//! ```
//!
//! An answer differs from Automerge's own in three points, so that the gateway relays nothing and a
//! failover costs only what is missing (ADR 0003):
//!
//! * Its heads are the node's, not ours: a head of another node would make this one ask for it.
//! * It carries no flags. A node that sees flags takes us for one that speaks V2, and then answers
//!   empty heads with the whole document; without them it sends the changes that our filter lacks.
//!   The read-only flag is among them, and would make the node send nothing at all.
//! * It asks for what it needs at most a few times in a row: Automerge assumes that nothing is lost, and
//!   two peers of which one has lost something answer each other for ever.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use automerge::sync::{BloomFilter, ChunkList, Have, Message, MessageVersion};
use automerge::{Change, ChangeHash};

use super::replica::Replica;

/// After as many answers in a row that brought nothing, the next one asks the node to start over.
const FRUITLESS_BEFORE_RESET: u32 = 2;
/// Once starting over brought nothing either, how long the document is left alone on this link.
pub(super) const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Most bytes of changes kept on one link and document until what they build on arrives. At the limit
/// they are dropped; the node is asked for them again.
const ORPHAN_BYTES_MAX: usize = 32 << 20;

/// What a node said in one message, without the changes.
pub(super) struct Announcement {
    /// Its heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// What it says it has.
    pub have: Vec<Have>,
    /// Whether it carried changes.
    pub carried_changes: bool,
    /// How many of them this link hadn't brought before.
    pub brought: usize,
}

/// One link's side of one document.
#[derive(Default)]
pub(super) struct Exchange {
    /// Announced by this node and held here; sorted.
    shared: Vec<ChangeHash>,
    /// Changes of this node that build on something that is missing.
    orphans: HashMap<ChangeHash, Change>,
    orphan_bytes: usize,
    /// The heads that the newest answer named.
    answered: Option<Vec<ChangeHash>>,
    /// What the newest answer asked for.
    asked: Vec<ChangeHash>,
    asked_at: Option<Instant>,
    fruitless: u32,
}

impl Exchange {
    /// Takes the waiting changes out, to be tried again together with new ones.
    pub(super) fn take_orphans(&mut self) -> Vec<Change> {
        self.orphan_bytes = 0;
        self.orphans.drain().map(|(_, change)| change).collect()
    }

    /// Keeps changes whose ancestors are missing.
    pub(super) fn keep_orphans(&mut self, orphans: Vec<Change>) {
        for change in orphans {
            let bytes = change.raw_bytes().len();
            if self.orphan_bytes + bytes <= ORPHAN_BYTES_MAX {
                self.orphan_bytes += bytes;
                self.orphans.insert(change.hash(), change);
            }
        }
    }

    /// Whether this link waits for the ancestors of `hash`.
    pub(super) fn has_orphan(&self, hash: &ChangeHash) -> bool {
        self.orphans.contains_key(hash)
    }

    /// Returns what to answer, `None` where the node knows already or asking again is of no use yet.
    ///
    /// `replica` holds all that the message brought. The answer is true once everything that the
    /// replica holds now is committed; it must not be sent before.
    pub(super) fn answer(
        &mut self,
        replica: &Replica,
        said: &Announcement,
        now: Instant,
    ) -> Option<Message> {
        self.note_shared(replica, said);
        let needs = self.needs(replica, &said.heads);
        if needs.hashes.is_empty() {
            return self.confirm(replica, said);
        }
        let mut start_over = needs.replaced;
        if said.brought == 0 && self.asked == needs.hashes {
            self.fruitless += 1;
        } else {
            self.fruitless = 0;
        }
        if self.fruitless > FRUITLESS_BEFORE_RESET {
            if self.asked_at.is_some_and(|at| now.duration_since(at) < ASK_AGAIN_AFTER) {
                return None;
            }
            start_over = true;
        } else if self.fruitless == FRUITLESS_BEFORE_RESET {
            start_over = true;
        }
        self.asked.clone_from(&needs.hashes);
        self.asked_at = Some(now);
        self.answered = None;
        if start_over {
            // Empty heads make the node forget what it believes to have sent.
            let known = (!needs.replaced).then_some(replica.replaced());
            let have = replica.filter_since(&[], known);
            return Some(message(Vec::new(), needs.hashes, vec![have]));
        }
        // As in Automerge: a node that is asked for ancestors by hash need not compare filters.
        let only_heads = needs.hashes.iter().all(|hash| said.heads.binary_search(hash).is_ok());
        let have = if only_heads { vec![self.have(replica)] } else { Vec::new() };
        Some(message(self.shared.clone(), needs.hashes, have))
    }

    /// Corrects what both have by what the node said.
    fn note_shared(&mut self, replica: &Replica, said: &Announcement) {
        // A node that doesn't know what we named as shared has lost it, and says so with an empty
        // summary; naming it again would be answered the same way for ever.
        if !said.heads.is_empty() && said.have == [Have::default()] && !said.carried_changes {
            self.shared.clear();
        }
        let known: Vec<ChangeHash> =
            said.heads.iter().filter(|hash| replica.knows(hash)).copied().collect();
        if known.len() == said.heads.len() {
            self.shared = known;
        } else {
            self.shared =
                self.shared.drain(..).chain(known).collect::<BTreeSet<_>>().into_iter().collect();
        }
    }

    /// Answers a node that has nothing that we lack.
    fn confirm(&mut self, replica: &Replica, said: &Announcement) -> Option<Message> {
        self.asked.clear();
        self.fruitless = 0;
        self.orphans.clear();
        self.orphan_bytes = 0;
        let told = self.answered.as_ref() == Some(&said.heads);
        let understood = said.have.first().is_some_and(|have| have.last_sync == said.heads);
        if told && understood && !said.carried_changes {
            return None;
        }
        self.answered = Some(said.heads.clone());
        Some(message(self.shared.clone(), Vec::new(), vec![self.have(replica)]))
    }

    fn have(&self, replica: &Replica) -> Have {
        // Only what the replica holds can stand for its ancestors.
        let since: Vec<ChangeHash> =
            self.shared.iter().filter(|hash| replica.holds(hash)).copied().collect();
        replica.filter_since(&since, Some(replica.replaced()))
    }

    /// The first missing hash on each path back from the node's heads.
    fn needs(&self, replica: &Replica, heads: &[ChangeHash]) -> Needs {
        let mut hashes = BTreeSet::new();
        let mut replaced = false;
        let mut visited = BTreeSet::new();
        let mut path: Vec<(ChangeHash, bool)> = heads.iter().map(|head| (*head, true)).collect();
        while let Some((hash, is_head)) = path.pop() {
            if !visited.insert(hash) || replica.holds(&hash) {
                continue;
            }
            if let Some(orphan) = self.orphans.get(&hash) {
                path.extend(orphan.deps().iter().map(|dep| (*dep, false)));
            } else if !replica.knows(&hash) {
                hashes.insert(hash);
            } else if !is_head {
                // It was replaced by a snapshot, and now something builds on it.
                replaced = true;
                hashes.insert(hash);
            }
        }
        Needs { hashes: hashes.into_iter().collect(), replaced }
    }
}

/// What is missing.
struct Needs {
    /// Sorted.
    hashes: Vec<ChangeHash>,
    /// Whether a history that was replaced is needed again.
    replaced: bool,
}

fn message(heads: Vec<ChangeHash>, need: Vec<ChangeHash>, have: Vec<Have>) -> Message {
    Message {
        heads,
        need,
        have,
        changes: ChunkList::empty(),
        flags: None,
        version: MessageVersion::V1,
    }
}

/// Builds the summary of `hashes` since `last_sync`.
pub(super) fn summary(last_sync: Vec<ChangeHash>, hashes: &[ChangeHash]) -> Have {
    Have { last_sync, bloom: BloomFilter::from_hashes(hashes.iter()) }
}
