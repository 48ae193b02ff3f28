//! Reads of organisations.

use super::{record, records};
use crate::ids::OrgId;
use crate::keys;
use crate::record::{Organization, OrganizationCounters};
use crate::space::{ReadError, Reader, Space};

/// Returns an organisation.
pub fn organization(reader: &dyn Reader, org: &OrgId) -> Result<Option<Organization>, ReadError> {
    record(reader, Space::Organization, &keys::organization(org))
}

/// Returns at most `limit` organisations by id, those after `after`.
pub fn organizations(
    reader: &dyn Reader,
    after: Option<&OrgId>,
    limit: usize,
) -> Result<Vec<Organization>, ReadError> {
    let mut range = keys::whole_space();
    if let Some(last) = after {
        range = keys::after(range, &keys::organization(last));
    }
    records(reader, Space::Organization, &range, limit)
}

/// Returns an organisation's running totals; zeros where it never existed.
pub fn counters(reader: &dyn Reader, org: &OrgId) -> Result<OrganizationCounters, ReadError> {
    let counters = record(reader, Space::OrganizationCounters, &keys::organization(org))?;
    Ok(counters.unwrap_or_default())
}
