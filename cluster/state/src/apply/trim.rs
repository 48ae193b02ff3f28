//! Trimming the journal behind the slowest enabled sink.

use super::work::{Decided, Work, refuse};
use crate::command::TrimJournal;
use crate::keys;
use crate::outcome::{Outcome, RefusalKind, code};
use crate::query;
use crate::space::Space;

/// Most rows that one command deletes.
const TRIMMED_ROWS_MAX: u64 = 256;
/// Most bytes of rows that one command deletes, the last row excepted: deleted rows are held in
/// memory until the batch is written.
const TRIMMED_BYTES_MAX: u64 = 8 << 20;

/// Deletes the oldest rows up to `through`.
pub(super) fn trim(work: &mut Work<'_>, command: &TrimJournal) -> Decided {
    let TrimJournal { org_id, through, .. } = command;
    work.parent_organization(org_id)?;
    let mut sinks = query::sinks(&work.rows, org_id, None, usize::MAX)?;
    sinks.retain(|sink| sink.enabled);
    for sink in sinks {
        let acknowledged =
            query::cursor(&work.rows, org_id, &sink.sink_id)?.map_or(0, |c| c.acknowledged);
        if acknowledged < *through {
            let detail = format!(
                "the sink '{}' has acknowledged up to {acknowledged}, not {through}",
                sink.sink_id
            );
            return refuse(RefusalKind::Conflict, code::JOURNAL_IN_USE, detail);
        }
    }
    let mut counters = query::counters(&work.rows, org_id)?;
    let Some(oldest) = counters.journal_trimmed.checked_add(1) else {
        return Ok(Outcome::Done);
    };
    let end = match through.checked_add(1) {
        Some(end) => keys::journal(org_id, end),
        None => keys::organization_range(org_id).1,
    };
    let range = (keys::journal(org_id, oldest), end);
    let deleted = work.rows.delete_range(Space::Journal, &range, &|so_far| {
        so_far.rows < TRIMMED_ROWS_MAX && so_far.bytes < TRIMMED_BYTES_MAX
    })?;
    if let Some(key) = deleted.last_key {
        counters.journal_trimmed = keys::journal_last_sequence(&key).unwrap_or(*through);
        counters.journal_bytes = counters.journal_bytes.saturating_sub(deleted.bytes);
        work.rows.put_record(Space::OrganizationCounters, keys::organization(org_id), &counters)?;
    }
    Ok(Outcome::Done)
}
