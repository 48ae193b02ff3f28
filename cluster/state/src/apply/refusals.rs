//! Refusals that nodes collected, written into the audit log.

use super::audit::{NewEntry, append};
use super::work::{Decided, Work, refuse};
use crate::command::{REFUSALS_PER_COMMAND_MAX, RecordRefusals};
use crate::outcome::{Outcome, RefusalKind, code};
use crate::query;
use crate::record::AuditAction;

/// Writes one entry per refusal, into its organisation's chain where that exists.
pub(super) fn record(work: &mut Work<'_>, command: RecordRefusals) -> Decided {
    let count = command.refusals.len();
    if count > REFUSALS_PER_COMMAND_MAX {
        return refuse(
            RefusalKind::Invalid,
            code::TOO_MANY_REFUSALS,
            format!("a command may record {REFUSALS_PER_COMMAND_MAX} refusals, not {count}"),
        );
    }
    for refusal in command.refusals {
        let chain = match refusal.org_id {
            Some(org) if query::organization(&work.rows, &org)?.is_some() => Some(org),
            _ => None,
        };
        let new = NewEntry {
            actor: &refusal.actor,
            action: AuditAction::Refused,
            target: &refusal.target,
            result: &refusal.code,
            count: refusal.count.max(1),
        };
        append(&mut work.rows, &work.entry, chain.as_ref(), new)?;
    }
    Ok(Outcome::Done)
}
