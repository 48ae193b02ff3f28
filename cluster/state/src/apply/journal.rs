//! Journalling observed events: one command, one row.
//!
//! ```text
//!   batches ─► per document: known? ─► ancestors? ─► document rows, index
//!                                                └─► journal row, counters
//! ```

use std::collections::BTreeMap;

use super::documents::OpenDocument;
use super::staging;
use super::work::{Decided, Work, refuse};
use crate::codec;
use crate::command::{AppendChanges, DocumentBatch, EventBody, NewEvent, SequencedEvent};
use crate::ids::{AppId, OrgId};
use crate::keys;
use crate::outcome::{Outcome, RefusalKind, code};
use crate::query;
use crate::record::{Formation, FormationStatus, JournalEvent, JournalRow, Organization, event_id};
use crate::space::Space;

/// What one command adds to the journal.
struct Batch {
    organization: Organization,
    /// Formations that the command names.
    formations: BTreeMap<AppId, NamedFormation>,
    events: Vec<JournalEvent>,
    known: u32,
}

/// A formation, and whether its record must be written.
struct NamedFormation {
    formation: Formation,
    changed: bool,
}

/// Journals the events that are new.
pub(super) fn append(work: &mut Work<'_>, command: AppendChanges) -> Decided {
    let AppendChanges { org_id, batches, .. } = command;
    let organization = work.parent_organization(&org_id)?;
    let mut batch =
        Batch { organization, formations: BTreeMap::new(), events: Vec::new(), known: 0 };
    for events in batches {
        append_document(work, &mut batch, &org_id, events)?;
    }
    for (app_id, named) in batch.formations {
        // The revision stays: a client's `If-Match` is about what clients write.
        if named.changed {
            let key = keys::formation(&org_id, &app_id);
            work.rows.put_record(Space::Formation, key, &named.formation)?;
        }
    }
    let quota = batch.organization.quotas.max_journal_bytes;
    write_row(work, &org_id, quota, batch.events, batch.known)
}

/// Adds the events of one document.
fn append_document(
    work: &mut Work<'_>,
    batch: &mut Batch,
    org: &OrgId,
    events: DocumentBatch,
) -> Decided<()> {
    let DocumentBatch { app_id, document, events } = events;
    staging::check_document_key(&document)?;
    if !batch.formations.contains_key(&app_id) {
        let formation = active_formation(work, org, &app_id)?;
        batch.formations.insert(app_id.clone(), NamedFormation { formation, changed: false });
    }
    let events_before = batch.events.len();
    let mut open = OpenDocument::open(work, org, &app_id, &document)?;
    for event in events {
        let event = match event {
            SequencedEvent::Inline(event) => event,
            SequencedEvent::Staged { id, parts } => {
                let bytes = staging::take(work, (org, &app_id, &document), &id, parts)?;
                match codec::decode::<NewEvent>(&bytes) {
                    Ok(event) => event,
                    Err(reason) => {
                        let detail = format!("what is staged as {id} is no event: {reason}");
                        return refuse(RefusalKind::Invalid, code::INVALID_STAGED_BYTES, detail);
                    }
                }
            }
        };
        let kind = event.kind();
        let NewEvent { change_hash, actor, patches, body } = event;
        let id = event_id(org, &app_id, &document, kind, &change_hash);
        let added = match body {
            EventBody::Change { deps, bytes } => {
                open.add_change(work, change_hash, &deps, bytes)?
            }
            EventBody::Snapshot { heads, hashes, saved } => {
                open.replace(work, &id, heads, &hashes, &saved)?
            }
            EventBody::Tombstone => open.bury(work, &id)?,
        };
        let Some(document_sequence) = added else {
            batch.known = batch.known.saturating_add(1);
            continue;
        };
        batch.events.push(JournalEvent {
            event_id: id,
            app_id: app_id.clone(),
            document: document.clone(),
            kind,
            change_hash,
            document_sequence,
            observed_at: work.entry.now,
            actor,
            patches,
        });
    }
    if batch.events.len() == events_before {
        return Ok(());
    }
    if !open.existed {
        count_document(batch, &app_id)?;
    }
    open.close(work)
}

/// Counts a new document against the quota.
fn count_document(batch: &mut Batch, app: &AppId) -> Decided<()> {
    let max = batch.organization.quotas.max_documents_per_formation;
    let Some(named) = batch.formations.get_mut(app) else {
        return Ok(());
    };
    if named.formation.documents >= max {
        let detail = format!("the formation '{app}' may have {max} documents");
        return refuse(RefusalKind::TooMany, code::DOCUMENT_QUOTA_EXCEEDED, detail);
    }
    named.formation.documents += 1;
    named.changed = true;
    Ok(())
}

fn active_formation(work: &Work<'_>, org: &OrgId, app: &AppId) -> Decided<Formation> {
    let formation = work.parent_formation(org, app)?;
    match formation.status {
        FormationStatus::Active => Ok(formation),
        FormationStatus::Suspended => refuse(
            RefusalKind::Conflict,
            code::FORMATION_SUSPENDED,
            format!("the formation '{org}/{app}' is suspended"),
        ),
    }
}

/// Writes the journal row and gives the events their sequences.
fn write_row(
    work: &mut Work<'_>,
    org: &OrgId,
    bytes_max: u64,
    events: Vec<JournalEvent>,
    known: u32,
) -> Decided {
    if events.is_empty() {
        return Ok(Outcome::Appended { first: 0, last: 0, known });
    }
    let mut counters = query::counters(&work.rows, org)?;
    let first = counters.journal_last + 1;
    let last = counters.journal_last + events.len() as u64;
    let row = codec::encode(&JournalRow { first_sequence: first, events });
    let bytes = counters.journal_bytes.saturating_add(row.len() as u64);
    if bytes > bytes_max {
        let detail = format!(
            "the journal of '{org}' holds {} of {bytes_max} bytes, {} more don't fit",
            counters.journal_bytes,
            row.len()
        );
        return refuse(RefusalKind::Unavailable, code::JOURNAL_FULL, detail);
    }
    counters.journal_last = last;
    counters.journal_bytes = bytes;
    // Sequences only grow, even where an organisation is created again.
    work.rows.put_fresh(Space::Journal, keys::journal(org, last), row);
    work.rows.put_record(Space::OrganizationCounters, keys::organization(org), &counters)?;
    work.effects.journal = true;
    Ok(Outcome::Appended { first, last, known })
}
