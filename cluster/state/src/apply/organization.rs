//! Organisations.

use super::cascade;
use super::work::{Decided, Work, check_revision, found, refuse, shown};
use crate::command::{CreateOrganization, DeleteOrganization, QuotaChanges, UpdateOrganization};
use crate::ids::{DISPLAY_NAME_BYTES_MAX, OrgId};
use crate::keys;
use crate::outcome::{Outcome, RefusalKind, code};
use crate::query;
use crate::record::{Organization, OrganizationQuotas};
use crate::space::Space;

/// Creates an organisation. One created again goes on with the sequences and the audit chain of its
/// predecessor.
pub(super) fn create(work: &mut Work<'_>, command: CreateOrganization) -> Decided {
    let CreateOrganization { org_id, display_name, quotas } = command;
    if let Err(invalid) = OrgId::parse(org_id.as_str()) {
        return refuse(RefusalKind::Invalid, code::INVALID_ORG_ID, invalid.0);
    }
    check_display_name(&display_name)?;
    if query::organization(&work.rows, &org_id)?.is_some() {
        return refuse(
            RefusalKind::Conflict,
            code::ALREADY_EXISTS,
            format!("the organization '{org_id}' exists already"),
        );
    }
    let counters = query::counters(&work.rows, &org_id)?;
    let key = keys::organization(&org_id);
    work.rows.put_record(Space::OrganizationCounters, key, &counters)?;
    let organization = Organization {
        org_id,
        display_name,
        quotas,
        created_at: work.entry.now,
        revision: work.entry.index,
    };
    write(work, organization)
}

/// Changes an organisation. A quota below what exists keeps what exists and refuses more.
pub(super) fn update(work: &mut Work<'_>, command: UpdateOrganization) -> Decided {
    let mut organization = existing(work, &command.org_id)?;
    check_revision(command.expected_revision, organization.revision)?;
    if let Some(display_name) = command.display_name {
        check_display_name(&display_name)?;
        organization.display_name = display_name;
    }
    change_quotas(&mut organization.quotas, &command.quotas);
    organization.revision = work.entry.index;
    write(work, organization)
}

/// Deletes an organisation with all that it holds.
///
/// Its counters stay, emptied: an organisation created again under the same id must not reuse
/// sequences that consumers have seen. Its audit chain stays too.
pub(super) fn delete(work: &mut Work<'_>, command: &DeleteOrganization) -> Decided {
    let org = &command.org_id;
    let organization = existing(work, org)?;
    check_revision(command.expected_revision, organization.revision)?;
    for formation in query::formations(&work.rows, org, None, usize::MAX)? {
        work.rows.delete(Space::MeshId, keys::mesh_id(&formation.mesh_id))?;
    }
    cascade::delete_organization_rows(&mut work.rows, &keys::organization_range(org))?;
    work.rows.delete(Space::Organization, keys::organization(org))?;
    let mut counters = query::counters(&work.rows, org)?;
    counters.formations = 0;
    counters.sinks = 0;
    counters.journal_bytes = 0;
    counters.journal_trimmed = counters.journal_last;
    work.rows.put_record(Space::OrganizationCounters, keys::organization(org), &counters)?;
    work.effects.configuration = true;
    work.effects.cursors = true;
    Ok(Outcome::Done)
}

fn existing(work: &Work<'_>, org: &OrgId) -> Decided<Organization> {
    let organization = query::organization(&work.rows, org)?;
    found(organization, || format!("organization '{}'", shown(org.as_str())))
}

fn write(work: &mut Work<'_>, organization: Organization) -> Decided {
    let key = keys::organization(&organization.org_id);
    work.rows.put_record(Space::Organization, key, &organization)?;
    work.effects.configuration = true;
    Ok(Outcome::Organization(organization))
}

fn check_display_name(name: &str) -> Decided<()> {
    if (1..=DISPLAY_NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    let detail =
        format!("display_name must have 1 to {DISPLAY_NAME_BYTES_MAX} bytes, not {}", name.len());
    refuse(RefusalKind::Invalid, code::INVALID_DISPLAY_NAME, detail)
}

fn change_quotas(quotas: &mut OrganizationQuotas, changes: &QuotaChanges) {
    fn set<T: Copy>(quota: &mut T, change: Option<T>) {
        if let Some(value) = change {
            *quota = value;
        }
    }
    set(&mut quotas.max_formations, changes.max_formations);
    set(&mut quotas.max_peers_per_formation, changes.max_peers_per_formation);
    set(&mut quotas.max_documents_per_formation, changes.max_documents_per_formation);
    set(&mut quotas.max_cdc_sinks, changes.max_cdc_sinks);
    set(&mut quotas.max_enrollments_per_hour, changes.max_enrollments_per_hour);
    set(&mut quotas.max_journal_bytes, changes.max_journal_bytes);
}
