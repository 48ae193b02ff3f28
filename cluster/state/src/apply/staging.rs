//! Parts of what is too large for one command.

use sha2::{Digest, Sha256};

use super::work::{Decided, Work, refuse};
use crate::command::{PART_BYTES_MAX, STAGED_BYTES_MAX, STAGED_PARTS_MAX, StagePart};
use crate::ids::{AppId, DocumentKey, Hash32, OrgId};
use crate::keys;
use crate::outcome::{Outcome, RefusalKind, code};
use crate::space::{Reader, Space};

/// Stores one part; a part that is staged again replaces itself.
pub(super) fn stage(work: &mut Work<'_>, command: StagePart) -> Decided {
    let StagePart { org_id, app_id, document, id, part, bytes, .. } = command;
    check_document_key(&document)?;
    if part >= STAGED_PARTS_MAX || bytes.is_empty() || bytes.len() > PART_BYTES_MAX {
        let detail = format!(
            "a part must have 1 to {PART_BYTES_MAX} bytes and a number below {STAGED_PARTS_MAX}"
        );
        return refuse(RefusalKind::Invalid, code::INVALID_PART, detail);
    }
    work.parent_formation(&org_id, &app_id)?;
    let key = keys::change_part(&org_id, &app_id, &document, &id, part);
    work.rows.put(Space::ChangePart, key, bytes)?;
    Ok(Outcome::Done)
}

/// Joins staged parts, checks them against their id, and deletes them.
pub(super) fn take(
    work: &mut Work<'_>,
    (org, app, document): (&OrgId, &AppId, &DocumentKey),
    id: &Hash32,
    parts: u32,
) -> Decided<Vec<u8>> {
    if parts == 0 || parts > STAGED_PARTS_MAX {
        let detail = format!("{parts} parts are named, there can be 1 to {STAGED_PARTS_MAX}");
        return refuse(RefusalKind::Invalid, code::INVALID_STAGED_BYTES, detail);
    }
    let mut joined = Vec::new();
    for part in 0..parts {
        let key = keys::change_part(org, app, document, id, part);
        let Some(bytes) = work.rows.get(Space::ChangePart, &key)? else {
            let detail = format!("part {part} of {parts} of {id} isn't staged; stage it again");
            return refuse(RefusalKind::Conflict, code::MISSING_PART, detail);
        };
        joined.extend_from_slice(&bytes);
        work.rows.delete(Space::ChangePart, key)?;
        if joined.len() > STAGED_BYTES_MAX {
            let detail = format!("the parts of {id} have more than {STAGED_BYTES_MAX} bytes");
            return refuse(RefusalKind::Invalid, code::INVALID_STAGED_BYTES, detail);
        }
    }
    if Sha256::digest(&joined)[..] != id.0 {
        let detail = format!("the parts staged as {id} have another SHA-256");
        return refuse(RefusalKind::Invalid, code::INVALID_STAGED_BYTES, detail);
    }
    Ok(joined)
}

/// Refuses a key that no document may have.
pub(super) fn check_document_key(document: &DocumentKey) -> Decided<()> {
    match DocumentKey::parse(document.as_str()) {
        Ok(_) => Ok(()),
        Err(invalid) => refuse(RefusalKind::Invalid, code::INVALID_DOCUMENT_KEY, invalid.0),
    }
}
