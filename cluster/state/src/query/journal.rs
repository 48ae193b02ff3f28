//! Reads of the journal.

use super::{counters, scan_records};
use crate::ids::OrgId;
use crate::keys;
use crate::record::{JournalEvent, JournalRow};
use crate::space::{ReadError, Reader, Space};

/// What an organisation's journal holds: the events above `trimmed`, up to and including `last`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalBounds {
    /// Sequence of the newest event that was trimmed; 0 where none was.
    pub trimmed: u64,
    /// Sequence of the newest event; 0 before the first.
    pub last: u64,
    /// Bytes of the rows that are left.
    pub bytes: u64,
}

/// An event with its place in the organisation's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalledEvent {
    /// Its sequence.
    pub sequence: u64,
    /// The event.
    pub event: JournalEvent,
}

/// Returns what an organisation's journal holds.
pub fn journal_bounds(reader: &dyn Reader, org: &OrgId) -> Result<JournalBounds, ReadError> {
    let counters = counters(reader, org)?;
    Ok(JournalBounds {
        trimmed: counters.journal_trimmed,
        last: counters.journal_last,
        bytes: counters.journal_bytes,
    })
}

/// Returns events above sequence `after`, in sequence.
///
/// At most `events_max`; about `bytes_max` bytes of payload (patches), but at least one event where
/// there is one. Where `after` is below what was trimmed, the first event returned is the oldest
/// that is left.
pub fn journal_events(
    reader: &dyn Reader,
    org: &OrgId,
    after: u64,
    events_max: usize,
    bytes_max: usize,
) -> Result<Vec<JournalledEvent>, ReadError> {
    let mut found: Vec<JournalledEvent> = Vec::new();
    let Some(from) = after.checked_add(1).filter(|_| events_max > 0) else {
        return Ok(found);
    };
    let mut bytes = 0usize;
    // Rows are named by their last sequence: the first row at or above `from` contains it.
    let range = (keys::journal(org, from), keys::organization_range(org).1);
    scan_records(reader, Space::Journal, &range, false, &mut |_, row: JournalRow| {
        for (sequence, event) in (row.first_sequence..).zip(row.events) {
            if sequence < from {
                continue;
            }
            bytes = bytes.saturating_add(event.patches.len());
            if found.len() >= events_max || (bytes > bytes_max && !found.is_empty()) {
                return false;
            }
            found.push(JournalledEvent { sequence, event });
        }
        found.len() < events_max && bytes < bytes_max
    })?;
    Ok(found)
}
