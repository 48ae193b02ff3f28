//! A formation's copy of one document: what is committed, and what is on its way there.

use std::collections::{HashMap, HashSet, VecDeque};

use automerge::sync::Have;
use automerge::{Automerge, Change, ChangeHash, PatchLog};
use peat_gateway_state::command::NewEvent;
use peat_gateway_state::ids::Hash32;
use thiserror::Error;

use super::event;
use super::exchange::summary;
use super::journal::StoredDocument;

/// Memory that a replica is counted with besides its bytes.
const REPLICA_BYTES_FIXED: usize = 4 << 10;
/// How many bytes of memory a stored byte becomes, roughly: columns, indexes, hashes.
const MEMORY_PER_STORED_BYTE: usize = 4;
/// Largest change or saved form that can be journalled.
pub(super) const EVENT_BYTES_MAX: usize = 16 << 20;

/// Something that a node sent can't become part of the document.
#[derive(Debug, Error)]
pub(super) enum AbsorbError {
    /// It is larger than the journal takes.
    #[error(
        "a {what} of {bytes} bytes is larger than the {EVENT_BYTES_MAX} bytes that are journalled"
    )]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// Automerge refuses it.
    #[error("could not apply what the node sent: {0}")]
    Invalid(String),
}

/// One document.
#[derive(Default)]
pub(super) struct Replica {
    document: Automerge,
    /// Hashes of the changes in `document`.
    held: HashSet<ChangeHash>,
    /// Hashes that were committed but aren't in `document` any more: a snapshot replaced them.
    replaced: HashSet<ChangeHash>,
    /// Ids of snapshots and tombstones that were taken since it was loaded.
    events: HashSet<Hash32>,
    deleted: bool,
    /// The newest position in the pipeline that holds something of this document.
    pub(super) newest_ticket: u64,
    bytes: usize,
}

impl Replica {
    /// Builds the replica of what is committed.
    ///
    /// # Errors
    /// The stored bytes are no Automerge document: nothing is sent or taken for it.
    pub(super) fn load(stored: Option<StoredDocument>) -> Result<Self, AbsorbError> {
        let Some(stored) = stored else {
            return Ok(Self::default());
        };
        let document = materialize(&stored)?;
        let held: HashSet<ChangeHash> =
            document.get_changes_meta(&[]).iter().map(|change| change.hash).collect();
        let replaced = stored
            .hashes
            .iter()
            .map(|hash| ChangeHash(hash.0))
            .filter(|hash| !held.contains(hash))
            .collect();
        Ok(Self {
            document,
            held,
            replaced,
            deleted: stored.deleted,
            bytes: stored.bytes as usize,
            ..Self::default()
        })
    }

    /// Whether the change is part of the document.
    pub(super) fn holds(&self, hash: &ChangeHash) -> bool {
        self.held.contains(hash)
    }

    /// Whether the change is part of the document or of a history that was replaced.
    pub(super) fn knows(&self, hash: &ChangeHash) -> bool {
        self.held.contains(hash) || self.replaced.contains(hash)
    }

    /// Hashes that only the index knows.
    pub(super) fn replaced(&self) -> &HashSet<ChangeHash> {
        &self.replaced
    }

    /// Whether a tombstone deleted it.
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Memory that it is counted with.
    pub(super) fn memory_bytes(&self) -> usize {
        REPLICA_BYTES_FIXED + self.bytes * MEMORY_PER_STORED_BYTE
    }

    /// The document.
    #[cfg(test)]
    pub(super) fn document(&self) -> &Automerge {
        &self.document
    }

    /// Summarises what is held and not an ancestor of `since`; `besides` is summarised too.
    pub(super) fn filter_since(
        &self,
        since: &[ChangeHash],
        besides: Option<&HashSet<ChangeHash>>,
    ) -> Have {
        let mut hashes: Vec<ChangeHash> = if since == self.document.get_heads() {
            Vec::new()
        } else if since.is_empty() {
            self.held.iter().copied().collect()
        } else {
            self.document.get_changes_meta(since).iter().map(|change| change.hash).collect()
        };
        hashes.extend(besides.into_iter().flatten());
        summary(since.to_vec(), &hashes)
    }

    /// Takes changes that are in causal order and whose ancestors are held, and returns their events.
    ///
    /// Those that are held already give none. An error comes with the events of those before it.
    pub(super) fn absorb(&mut self, changes: Vec<Change>) -> (Vec<NewEvent>, Option<AbsorbError>) {
        let mut events = Vec::new();
        let mut rejoined = false;
        let mut failure = None;
        for change in changes {
            let hash = change.hash();
            if self.holds(&hash) {
                continue;
            }
            let bytes = change.raw_bytes().len();
            if bytes > EVENT_BYTES_MAX {
                failure = Some(AbsorbError::TooLarge { what: "change", bytes });
                break;
            }
            let mut log = PatchLog::active();
            let applied = self.document.apply_changes_log_patches([change.clone()], &mut log);
            if let Err(error) = applied {
                failure = Some(AbsorbError::Invalid(error.to_string()));
                break;
            }
            self.held.insert(hash);
            self.bytes += bytes;
            if self.replaced.remove(&hash) {
                rejoined = true;
                continue;
            }
            let patches = self.document.make_patches(&mut log);
            events.push(event::of_change(&change, &patches));
        }
        if rejoined {
            // A history that a snapshot had replaced came back because something builds on it. The
            // changes that came back are known, so only a snapshot brings the merged document to
            // the state and to the sinks; it stands for the new changes too.
            match self.snapshot_event(&self.document.get_heads()) {
                Ok(snapshot) => events = vec![snapshot],
                Err(error) => failure = Some(error),
            }
        }
        (events, failure)
    }

    /// Takes a whole document, and returns its event; `None` where it adds nothing.
    ///
    /// Contained in ours: ignored. Contains ours: taken. Shares changes: merged. Shares none: it
    /// replaces ours, because a merge would let chance pick the winner of every key (protocol f.5).
    pub(super) fn absorb_snapshot(
        &mut self,
        mut received: Automerge,
    ) -> Result<Option<NewEvent>, AbsorbError> {
        let theirs: HashSet<ChangeHash> =
            received.get_changes_meta(&[]).iter().map(|change| change.hash).collect();
        let received_heads = received.get_heads();
        if theirs.is_empty() || received_heads.iter().all(|head| self.holds(head)) {
            return Ok(None);
        }
        if self.held.iter().all(|hash| theirs.contains(hash)) {
            self.document = received;
            self.held = theirs;
        } else if theirs.iter().any(|hash| self.held.contains(hash)) {
            self.document
                .merge(&mut received)
                .map_err(|error| AbsorbError::Invalid(error.to_string()))?;
            self.held.extend(theirs);
        } else {
            self.document = received;
            self.replaced.extend(self.held.drain());
            self.held = theirs;
        }
        let Replica { held, replaced, .. } = self;
        replaced.retain(|hash| !held.contains(hash));
        self.snapshot_event(&received_heads).map(Some)
    }

    /// Marks it deleted; later changes are refused.
    pub(super) fn delete(&mut self) {
        self.document = Automerge::new();
        self.replaced.extend(self.held.drain());
        self.deleted = true;
        self.bytes = 0;
    }

    /// Notes the id of a snapshot or tombstone; returns whether it is new to this replica.
    pub(super) fn note_event(&mut self, id: Hash32) -> bool {
        self.events.insert(id)
    }

    /// Whether a snapshot or tombstone of this id was taken since the replica was loaded.
    pub(super) fn has_event(&self, id: &Hash32) -> bool {
        self.events.contains(id)
    }

    fn snapshot_event(&mut self, received_heads: &[ChangeHash]) -> Result<NewEvent, AbsorbError> {
        let saved = self.document.save();
        if saved.len() > EVENT_BYTES_MAX {
            return Err(AbsorbError::TooLarge { what: "snapshot", bytes: saved.len() });
        }
        self.bytes = saved.len();
        let hashes = self.document.get_changes_meta(&[]).iter().map(|change| change.hash).collect();
        Ok(event::of_snapshot(&self.document, received_heads, hashes, saved))
    }
}

/// Builds the Automerge document of what is stored.
pub(super) fn materialize(stored: &StoredDocument) -> Result<Automerge, AbsorbError> {
    let invalid = |error: &dyn std::fmt::Display| AbsorbError::Invalid(error.to_string());
    let mut document = if stored.base.is_empty() {
        Automerge::new()
    } else {
        Automerge::load(&stored.base).map_err(|error| invalid(&error))?
    };
    let changes = stored
        .changes
        .iter()
        .map(|bytes| Change::try_from(bytes.as_slice()).map_err(|error| invalid(&error)))
        .collect::<Result<Vec<_>, _>>()?;
    document.apply_changes(changes).map_err(|error| invalid(&error))?;
    Ok(document)
}

/// Splits changes into those that can be applied in the returned order, and those that miss ancestors.
pub(super) fn causal_order(
    changes: Vec<Change>,
    holds: impl Fn(&ChangeHash) -> bool,
) -> (Vec<Change>, Vec<Change>) {
    let mut slots: Vec<Option<Change>> = Vec::with_capacity(changes.len());
    let mut seen = HashSet::new();
    slots.extend(changes.into_iter().filter(|change| seen.insert(change.hash())).map(Some));
    let mut missing = vec![0_usize; slots.len()];
    let mut dependents: HashMap<ChangeHash, Vec<usize>> = HashMap::new();
    let mut next = VecDeque::new();
    for (at, change) in slots.iter().flatten().enumerate() {
        for dep in change.deps().iter().filter(|dep| !holds(dep)) {
            dependents.entry(*dep).or_default().push(at);
            missing[at] += 1;
        }
        if missing[at] == 0 {
            next.push_back(at);
        }
    }
    let mut ready = Vec::with_capacity(slots.len());
    while let Some(at) = next.pop_front() {
        let Some(change) = slots[at].take() else { continue };
        for dependent in dependents.remove(&change.hash()).into_iter().flatten() {
            missing[dependent] -= 1;
            if missing[dependent] == 0 {
                next.push_back(dependent);
            }
        }
        ready.push(change);
    }
    (ready, slots.into_iter().flatten().collect())
}
