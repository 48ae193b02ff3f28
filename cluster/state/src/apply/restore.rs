//! Restoring: the rows of one cluster become the first state of another.
//!
//! ```text
//!   rows of the old cluster ──raise, one by one──► rows ──Restoration::step, until done──► new cluster
//!     a snapshot, or a             counters,                cursors, page by page; then settings,
//!     surviving disk               documents                origin and the audit entry
//! ```
//!
//! Whatever the old cluster did after the moment that is restored is lost, but not unseen: sinks have
//! got its events, clients hold its indexes. So nothing that comes later may be taken for it: the log
//! index, and with it every epoch and revision, every organisation's `sequence` and every document's
//! `document_sequence` go on [`RAISE`] higher. Rows that are in the journal keep the sequences under
//! which they may have been delivered. Answers that are kept for retries stay: they are about what is
//! contained. The seal domain stays, so that secrets open with the same key.

use std::borrow::Cow;

use super::audit::{self, NewEntry};
use super::overlay::Overlay;
use super::work::Entry;
use crate::codec::{self, take_text};
use crate::command::Actor;
use crate::ids::{Hash32, OrgId};
use crate::keys;
use crate::query;
use crate::record::{
    AuditAction, ClusterKey, ClusterOrigin, Cursor, Document, OrganizationCounters,
};
use crate::space::{ReadError, Reader, Space};

/// By how much a restore raises the log index and all sequences: more than a cluster writes between a
/// backup and its loss.
pub const RAISE: u64 = 1_000_000_000;
/// Cursors that one step looks at.
const CURSORS_PER_STEP: usize = 1_024;

/// What the new cluster is, and what it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The new cluster's id.
    pub cluster_id: [u8; 16],
    /// The old cluster's id.
    pub from_cluster: [u8; 16],
    /// The old cluster's last entry that is contained.
    pub from_index: u64,
    /// Hash of the old cluster's state at that entry.
    pub from_state_hash: Hash32,
    /// What was read, for the audit log: `snapshot <file>` or `disk of node <id>`.
    pub source: String,
    /// Who restores.
    pub actor: Actor,
    /// Unix time in ms by the clock of who restores.
    pub time_ms: u64,
    /// Term of the new cluster's first position.
    pub term: u64,
}

/// Returns a log index or sequence as it is after a restore.
///
/// `None` where no number is left; that takes eighteen billion restores.
pub fn raised(number: u64) -> Option<u64> {
    number.checked_add(RAISE)
}

/// Returns what a row of the old cluster becomes. Every row goes through here, in any order, before
/// the first [`Restoration::step`].
///
/// # Errors
/// The row is no such record.
pub fn raise(space: Space, value: &[u8]) -> Result<Cow<'_, [u8]>, ReadError> {
    let wrong = |reason: String| ReadError::Decode { space: space.name(), reason };
    let next = |number| raised(number).ok_or_else(|| wrong("a sequence has no room".to_owned()));
    Ok(Cow::Owned(match space {
        Space::OrganizationCounters => {
            let mut counters: OrganizationCounters = codec::decode(value).map_err(wrong)?;
            let last = next(counters.journal_last)?;
            if counters.journal_trimmed == counters.journal_last {
                counters.journal_trimmed = last;
            }
            counters.journal_last = last;
            codec::encode(&counters)
        }
        Space::Document => {
            let mut document: Document = codec::decode(value).map_err(wrong)?;
            document.document_sequence = next(document.document_sequence)?;
            codec::encode(&document)
        }
        _ => return Ok(Cow::Borrowed(value)),
    }))
}

/// What is left to do once all rows are raised; in steps, so that no step holds much.
#[derive(Debug)]
pub struct Restoration {
    facts: Facts,
    /// The last cursor that was looked at.
    after: Vec<u8>,
}

impl Restoration {
    /// Begins.
    pub fn new(facts: Facts) -> Self {
        Self { facts, after: Vec::new() }
    }

    /// The log index of the new cluster's first state: no entry of it is at or below.
    pub fn index(&self) -> u64 {
        raised(self.facts.from_index).unwrap_or(u64::MAX)
    }

    /// Does the next part on an overlay over the rows as they are now. Returns whether more is left;
    /// write what changed before the next call.
    ///
    /// # Errors
    /// The rows can't be read.
    pub fn step(&mut self, overlay: &mut Overlay<'_>) -> Result<bool, ReadError> {
        if self.raise_cursors(overlay)? {
            return Ok(true);
        }
        self.finish(overlay)?;
        Ok(false)
    }

    /// Moves the cursors that had everything to the raised end: there is nothing between for them.
    /// The others pass the gap when they get there.
    fn raise_cursors(&mut self, overlay: &mut Overlay<'_>) -> Result<bool, ReadError> {
        let (start, end) = keys::after(keys::whole_space(), &self.after);
        let mut page: Vec<(Vec<u8>, Cursor)> = Vec::new();
        query::scan_records(overlay, Space::Cursor, &(start, end), false, &mut |key, cursor| {
            page.push((key.to_vec(), cursor));
            page.len() < CURSORS_PER_STEP
        })?;
        let more = page.len() == CURSORS_PER_STEP;
        if let Some((last, _)) = page.last() {
            self.after.clone_from(last);
        }
        for (key, mut cursor) in page {
            let (org, _) = take_text(&key).ok_or_else(|| ReadError::Decode {
                space: Space::Cursor.name(),
                reason: "its key names no organisation".to_owned(),
            })?;
            let last = query::counters(overlay, &OrgId::from_trusted(org))?.journal_last;
            if raised(cursor.acknowledged).is_some_and(|acknowledged| acknowledged >= last) {
                cursor.acknowledged = last;
                cursor.ahead.clear();
                overlay.put_record(Space::Cursor, key, &cursor)?;
            }
        }
        Ok(more)
    }

    fn finish(&self, overlay: &mut Overlay<'_>) -> Result<(), ReadError> {
        let facts = &self.facts;
        if let Some(mut settings) = query::settings(overlay)? {
            settings.cluster_id = facts.cluster_id;
            let key = keys::cluster(ClusterKey::Settings);
            overlay.put_record(Space::Cluster, key, &settings)?;
        }
        let now = query::clock(overlay)?.now.max(facts.time_ms);
        let before = query::origin(overlay)?;
        let origin = ClusterOrigin {
            cluster_id: facts.from_cluster,
            index: facts.from_index,
            state_hash: facts.from_state_hash,
            generation: before.map_or(0, |origin| origin.generation).saturating_add(1),
            restored_at: now,
        };
        overlay.put_record(Space::Cluster, keys::cluster(ClusterKey::Origin), &origin)?;
        let entry = Entry { index: self.index(), term: facts.term, now };
        let from: String = facts.from_cluster.iter().map(|byte| format!("{byte:02x}")).collect();
        let target = format!("cluster/{from} at index {} by {}", facts.from_index, facts.source);
        let new = NewEntry {
            actor: &facts.actor,
            action: AuditAction::RestoreCluster,
            target: &target,
            result: "done",
            count: 1,
        };
        audit::append(overlay, &entry, None, new)
    }
}

/// What is done with a row: its space, key and value.
pub type Visit<'v, E> = dyn FnMut(Space, &[u8], &[u8]) -> Result<(), E> + 'v;

/// Visits every row of a state in the order in which a store wants them: family by family, by key.
///
/// # Errors
/// The rows can't be read, or what `visit` says.
pub fn each_row<E: From<ReadError>>(
    reader: &dyn Reader,
    visit: &mut Visit<'_, E>,
) -> Result<(), E> {
    // Above every key: text holds no 0xff, and a number has eight of them at most.
    let end = [0xff; 16];
    for family in crate::space::Family::ALL {
        for space in Space::ALL.iter().copied().filter(|space| space.family() == family) {
            let mut failed = None;
            reader.scan(space, &[], &end, false, &mut |key, value| {
                failed = visit(space, key, value).err();
                failed.is_none()
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }
    Ok(())
}
