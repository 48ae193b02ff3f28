//! Reads of sinks and cursors.

use super::{record, records};
use crate::ids::{OrgId, SinkId};
use crate::keys;
use crate::record::{Cursor, SealedSecret, Sink};
use crate::space::{ReadError, Reader, Space};

/// Returns a sink.
pub fn sink(reader: &dyn Reader, org: &OrgId, sink: &SinkId) -> Result<Option<Sink>, ReadError> {
    record(reader, Space::Sink, &keys::sink(org, sink))
}

/// Returns at most `limit` sinks of an organisation by id, those after `after`.
pub fn sinks(
    reader: &dyn Reader,
    org: &OrgId,
    after: Option<&SinkId>,
    limit: usize,
) -> Result<Vec<Sink>, ReadError> {
    let mut range = keys::organization_range(org);
    if let Some(last) = after {
        range = keys::after(range, &keys::sink(org, last));
    }
    records(reader, Space::Sink, &range, limit)
}

/// Returns all sinks of all organisations: what the leader delivers to, disabled ones included.
pub fn all_sinks(reader: &dyn Reader) -> Result<Vec<Sink>, ReadError> {
    records(reader, Space::Sink, &keys::whole_space(), usize::MAX)
}

/// Returns a sink's sealed credentials, `None` where it has none.
pub fn sink_credentials(
    reader: &dyn Reader,
    org: &OrgId,
    sink: &SinkId,
) -> Result<Option<SealedSecret>, ReadError> {
    record(reader, Space::SinkCredentials, &keys::sink(org, sink))
}

/// Returns how far a sink has acknowledged; every sink has a cursor.
pub fn cursor(
    reader: &dyn Reader,
    org: &OrgId,
    sink: &SinkId,
) -> Result<Option<Cursor>, ReadError> {
    record(reader, Space::Cursor, &keys::sink(org, sink))
}
