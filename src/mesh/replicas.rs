//! The replicas of one formation that are in memory: least recently used ones go.

use std::collections::{BTreeMap, HashMap};

use peat_gateway_state::ids::DocumentKey;

use super::replica::Replica;

/// Most replicas of one formation in memory. Others are built again from the committed state when a node
/// mentions them.
const REPLICAS_MAX: usize = 4096;
/// Most memory of one formation's replicas, in bytes, by their own estimate.
const REPLICA_BYTES_MAX: usize = 128 << 20;

/// Replicas by document.
#[derive(Default)]
pub(super) struct Replicas {
    slots: HashMap<DocumentKey, Slot>,
    by_use: BTreeMap<u64, DocumentKey>,
    bytes: usize,
    uses: u64,
}

struct Slot {
    replica: Replica,
    used: u64,
    counted_bytes: usize,
}

impl Replicas {
    /// Takes a replica out to work on it; put it back with [`Replicas::put`].
    pub(super) fn take(&mut self, document: &DocumentKey) -> Option<Replica> {
        let slot = self.slots.remove(document)?;
        self.by_use.remove(&slot.used);
        self.bytes -= slot.counted_bytes;
        Some(slot.replica)
    }

    /// Puts a replica in as the most recently used one, and drops the least recently used ones over the limits.
    ///
    /// A replica that holds something uncommitted is never dropped: the committed state couldn't rebuild it.
    pub(super) fn put(&mut self, document: DocumentKey, replica: Replica, committed: u64) {
        self.uses += 1;
        let counted_bytes = replica.memory_bytes();
        self.bytes += counted_bytes;
        self.by_use.insert(self.uses, document.clone());
        self.slots.insert(document, Slot { replica, used: self.uses, counted_bytes });
        while self.slots.len() > REPLICAS_MAX || self.bytes > REPLICA_BYTES_MAX {
            let oldest = self.by_use.iter().find_map(|(_, document)| {
                let slot = self.slots.get(document)?;
                (slot.replica.newest_ticket <= committed && slot.used != self.uses)
                    .then(|| document.clone())
            });
            match oldest {
                Some(document) => drop(self.take(&document)),
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_replicas_go_and_uncommitted_ones_stay() {
        let mut replicas = Replicas::default();
        let key = |number: usize| DocumentKey::from_trusted(format!("docs:{number}"));
        let mut uncommitted = Replica::default();
        uncommitted.newest_ticket = 9;
        replicas.put(key(0), uncommitted, 8);
        for number in 1..=REPLICAS_MAX + 10 {
            replicas.put(key(number), Replica::default(), 8);
        }
        assert_eq!(replicas.slots.len(), REPLICAS_MAX);
        assert!(replicas.take(&key(0)).is_some(), "it holds something uncommitted");
        assert!(replicas.take(&key(1)).is_none(), "it was used longest ago");
        assert!(replicas.take(&key(REPLICAS_MAX)).is_some());
    }
}
