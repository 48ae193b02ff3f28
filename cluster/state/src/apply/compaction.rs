//! Compacting a document: the leader saved it, here it replaces what it covers.

use super::documents::{OpenDocument, check_saved_form};
use super::staging;
use super::work::{Decided, Work, refuse, shown};
use crate::command::{CompactDocument, SavedForm};
use crate::outcome::{Outcome, RefusalKind, code};

/// Replaces the base and the changes that a saved form covers.
pub(super) fn compact(work: &mut Work<'_>, command: CompactDocument) -> Decided {
    let CompactDocument { org_id, app_id, document, through, saved, .. } = command;
    let saved = match saved {
        SavedForm::Inline(bytes) => bytes,
        SavedForm::Staged { id, parts } => {
            staging::take(work, (&org_id, &app_id, &document), &id, parts)?
        }
    };
    check_saved_form(&saved)?;
    let mut open = OpenDocument::open(work, &org_id, &app_id, &document)?;
    if !open.existed {
        let detail = format!("there is no document '{}'", shown(document.as_str()));
        return refuse(RefusalKind::NotFound, code::DOCUMENT_NOT_FOUND, detail);
    }
    if open.record.deleted {
        let detail = format!("the document '{document}' is deleted");
        return refuse(RefusalKind::Conflict, code::DOCUMENT_DELETED, detail);
    }
    let (base, last) = (open.record.base_sequence, open.record.document_sequence);
    if through <= base || through > last {
        let detail =
            format!("the saved form ends with {through}, it must end in {base}+1..={last}");
        return refuse(RefusalKind::Conflict, code::STALE_COMPACTION, detail);
    }
    open.compact(work, through, &saved)?;
    open.close(work)?;
    Ok(Outcome::Done)
}
