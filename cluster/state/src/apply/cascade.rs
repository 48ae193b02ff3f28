//! Deleting with all that belongs to it. The ranges may be large; a deletion is one command.

use super::overlay::Overlay;
use crate::keys::KeyRange;
use crate::space::{ReadError, Space};

/// Spaces whose keys begin with `org app` and which end with the formation, but for its mesh id.
const OF_FORMATION: &[Space] = &[
    Space::Formation,
    Space::Genesis,
    Space::Peer,
    Space::Document,
    Space::DocumentChange,
    Space::DocumentBase,
    Space::ChangeIndex,
    Space::EventIndex,
    Space::ChangePart,
];

/// Spaces whose keys begin with `org` and which end only with the organisation.
const OF_ORGANIZATION: &[Space] =
    &[Space::Sink, Space::SinkCredentials, Space::Cursor, Space::Journal];

/// Deletes a formation's rows in `range`, its mesh id excepted.
pub(super) fn delete_formation_rows(
    rows: &mut Overlay<'_>,
    range: &KeyRange,
) -> Result<(), ReadError> {
    delete(rows, OF_FORMATION, range)
}

/// Deletes an organisation's rows in `range`; its own, its counters, its mesh ids and its audit
/// chain excepted.
pub(super) fn delete_organization_rows(
    rows: &mut Overlay<'_>,
    range: &KeyRange,
) -> Result<(), ReadError> {
    delete(rows, OF_FORMATION, range)?;
    delete(rows, OF_ORGANIZATION, range)
}

fn delete(rows: &mut Overlay<'_>, spaces: &[Space], range: &KeyRange) -> Result<(), ReadError> {
    for space in spaces {
        rows.delete_range(*space, range, &|_| true)?;
    }
    Ok(())
}
