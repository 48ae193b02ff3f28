//! Typed reads of one view: what `apply`, the API and the leader's workers share.
//!
//! Every listing takes a limit and the last key that the caller has seen, so that a page costs what
//! it shows. Errors of every function here: the store failed, or a row isn't what this build writes;
//! the caller stops using the view.

mod audit;
mod cluster;
mod document;
mod formation;
mod journal;
mod membership;
mod organization;
mod sink;

use minicbor::Decode;

pub use audit::{AuditFault, AuditVerdict, audit_entries, audit_head, verify_audit};
pub use cluster::{clock, epoch, idempotency_record, origin, settings};
pub use document::{
    DocumentContent, change_hashes, document, document_content, documents, has_change,
};
pub use formation::{
    active_formations, formation, formations, genesis, mesh_id_owner, peer, peers,
};
pub use journal::{JournalBounds, JournalledEvent, journal_bounds, journal_events};
pub use membership::{removed_node, removed_nodes};
pub use organization::{counters, organization, organizations};
pub use sink::{all_sinks, cursor, sink, sink_credentials, sinks};

use crate::codec;
use crate::keys::KeyRange;
use crate::space::{ReadError, Reader, Space};

/// Reads one record.
///
/// # Errors
/// The store failed, or the bytes are no such record.
pub fn record<T>(reader: &dyn Reader, space: Space, key: &[u8]) -> Result<Option<T>, ReadError>
where
    T: for<'b> Decode<'b, ()>,
{
    match reader.get(space, key)? {
        Some(bytes) => decode(space, &bytes).map(Some),
        None => Ok(None),
    }
}

/// Visits the records of a range in key order until `visit` returns `false`.
///
/// # Errors
/// The store failed, or a row is no such record.
pub fn scan_records<T>(
    reader: &dyn Reader,
    space: Space,
    range: &KeyRange,
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], T) -> bool,
) -> Result<(), ReadError>
where
    T: for<'b> Decode<'b, ()>,
{
    let mut failed = None;
    reader.scan(
        space,
        &range.0,
        &range.1,
        reverse,
        &mut |key, value| match decode(space, value) {
            Ok(record) => visit(key, record),
            Err(error) => {
                failed = Some(error);
                false
            }
        },
    )?;
    failed.map_or(Ok(()), Err)
}

/// Reads at most `limit` records of a range in key order.
fn records<T>(
    reader: &dyn Reader,
    space: Space,
    range: &KeyRange,
    limit: usize,
) -> Result<Vec<T>, ReadError>
where
    T: for<'b> Decode<'b, ()>,
{
    let mut found = Vec::new();
    if limit > 0 {
        scan_records(reader, space, range, false, &mut |_, record| {
            found.push(record);
            found.len() < limit
        })?;
    }
    Ok(found)
}

fn decode<T>(space: Space, bytes: &[u8]) -> Result<T, ReadError>
where
    T: for<'b> Decode<'b, ()>,
{
    codec::decode(bytes).map_err(|reason| damaged(space, reason))
}

fn damaged(space: Space, reason: impl Into<String>) -> ReadError {
    ReadError::Decode { space: space.name(), reason: reason.into() }
}
