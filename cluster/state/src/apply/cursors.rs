//! Cursors: how far each sink has acknowledged. They never move backwards.

use super::work::{Decided, Work};
use crate::command::{CommitCursors, CursorAdvance};
use crate::ids::{OrgId, SinkId};
use crate::keys;
use crate::outcome::Outcome;
use crate::query;
use crate::record::{CURSOR_RANGES_MAX, Cursor};
use crate::space::Space;

/// Moves cursors; an advance that isn't one is dropped, the others count.
pub(super) fn commit(work: &mut Work<'_>, command: CommitCursors) -> Decided {
    for advance in command.advances {
        let CursorAdvance { org_id, sink_id, acknowledged, ahead } = advance;
        let Some(stored) = query::cursor(&work.rows, &org_id, &sink_id)? else {
            continue;
        };
        let last = query::counters(&work.rows, &org_id)?.journal_last;
        if !is_within_journal(acknowledged, &ahead, last)
            || !is_forward(&stored, acknowledged, &ahead)
        {
            continue;
        }
        let cursor = Cursor {
            acknowledged,
            ahead,
            epoch: command.fence.epoch.unwrap_or(stored.epoch),
            updated_at: work.entry.now,
        };
        work.rows.put_record(Space::Cursor, keys::sink(&org_id, &sink_id), &cursor)?;
        work.effects.cursors = true;
    }
    Ok(Outcome::Done)
}

/// Moves the cursor of a sink that is enabled again to the oldest event that is left.
pub(super) fn catch_up_with_trimming(
    work: &mut Work<'_>,
    org: &OrgId,
    sink: &SinkId,
) -> Decided<()> {
    let trimmed = query::counters(&work.rows, org)?.journal_trimmed;
    let Some(mut cursor) = query::cursor(&work.rows, org, sink)? else {
        return Ok(());
    };
    if cursor.acknowledged < trimmed {
        cursor.acknowledged = trimmed;
        // Ranges that the watermark reached are part of it now.
        cursor.ahead.retain(|&(first, last)| {
            if first <= cursor.acknowledged.saturating_add(1) {
                cursor.acknowledged = cursor.acknowledged.max(last);
                return false;
            }
            true
        });
        cursor.updated_at = work.entry.now;
        work.rows.put_record(Space::Cursor, keys::sink(org, sink), &cursor)?;
        work.effects.cursors = true;
    }
    Ok(())
}

/// Whether an advance is well-formed: ranges ascending, disjoint, apart from the watermark, and
/// nothing beyond the newest event.
fn is_within_journal(acknowledged: u64, ahead: &[(u64, u64)], journal_last: u64) -> bool {
    if acknowledged > journal_last || ahead.len() > CURSOR_RANGES_MAX {
        return false;
    }
    // The event right above the watermark isn't acknowledged, else the watermark would be higher.
    let mut above = acknowledged.saturating_add(1);
    ahead.iter().all(|&(first, last)| {
        let good = above < first && first <= last && last <= journal_last;
        above = last;
        good
    })
}

/// Whether nothing that counted as acknowledged is taken back at the same watermark. A higher
/// watermark may come with fewer ranges: a cursor holds a limited number of them.
fn is_forward(stored: &Cursor, acknowledged: u64, ahead: &[(u64, u64)]) -> bool {
    match acknowledged.cmp(&stored.acknowledged) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => stored.ahead.iter().all(|&(first, last)| {
            // Ranges that touch each other cover what one long range covered.
            let mut next = first;
            for &(new_first, new_last) in ahead {
                if new_first <= next && next <= new_last {
                    if new_last >= last {
                        return true;
                    }
                    next = new_last.saturating_add(1);
                }
            }
            false
        }),
    }
}
