//! Formations.

use super::cascade;
use super::work::{Decided, Work, check_revision, found, refuse, shown};
use crate::command::{CreateFormation, DeleteFormation, UpdateFormation};
use crate::ids::{AppId, OrgId};
use crate::keys;
use crate::outcome::{Outcome, RefusalKind, code};
use crate::query;
use crate::record::{
    Formation, FormationStatus, MeshIdOwner, PEER_ADDRESS_BYTES_MAX, STATIC_PEERS_MAX,
};
use crate::space::Space;

/// Characters of a mesh id.
const MESH_ID_BYTES: usize = 8;

/// Creates a formation with its genesis, active.
pub(super) fn create(work: &mut Work<'_>, command: CreateFormation) -> Decided {
    let CreateFormation { org_id, app_id, mesh_id, enrollment_policy, genesis, static_peers } =
        command;
    if let Err(invalid) = AppId::parse(app_id.as_str()) {
        return refuse(RefusalKind::Invalid, code::INVALID_APP_ID, invalid.0);
    }
    check_mesh_id(&mesh_id)?;
    check_static_peers(&static_peers)?;
    if genesis.record_version != 1 {
        return refuse(
            RefusalKind::Conflict,
            code::RECORD_VERSION_CONFLICT,
            format!("a new genesis must have record version 1, not {}", genesis.record_version),
        );
    }
    let organization = work.parent_organization(&org_id)?;
    if query::formation(&work.rows, &org_id, &app_id)?.is_some() {
        let detail = format!("the formation '{org_id}/{app_id}' exists already");
        return refuse(RefusalKind::Conflict, code::ALREADY_EXISTS, detail);
    }
    if query::mesh_id_owner(&work.rows, &mesh_id)?.is_some() {
        // Whose it is isn't said: it may be another organisation's.
        let detail = format!("the mesh id {mesh_id} is taken; make a new genesis");
        return refuse(RefusalKind::Conflict, code::MESH_ID_TAKEN, detail);
    }
    let mut counters = query::counters(&work.rows, &org_id)?;
    let max = organization.quotas.max_formations;
    if counters.formations >= max {
        let detail = format!("the organization '{org_id}' may have {max} formations");
        return refuse(RefusalKind::TooMany, code::QUOTA_EXCEEDED, detail);
    }
    counters.formations += 1;
    let key = keys::formation(&org_id, &app_id);
    let owner = MeshIdOwner { org_id: org_id.clone(), app_id: app_id.clone() };
    work.rows.put_record(Space::OrganizationCounters, keys::organization(&org_id), &counters)?;
    work.rows.put_record(Space::MeshId, keys::mesh_id(&mesh_id), &owner)?;
    work.rows.put_record(Space::Genesis, key, &genesis)?;
    let formation = Formation {
        org_id,
        app_id,
        mesh_id,
        enrollment_policy,
        status: FormationStatus::Active,
        created_at: work.entry.now,
        revision: work.entry.index,
        static_peers,
        documents: 0,
    };
    write(work, formation)
}

/// Changes a formation.
pub(super) fn update(work: &mut Work<'_>, command: UpdateFormation) -> Decided {
    let mut formation = existing(work, &command.org_id, &command.app_id)?;
    check_revision(command.expected_revision, formation.revision)?;
    if let Some(policy) = command.enrollment_policy {
        formation.enrollment_policy = policy;
    }
    if let Some(status) = command.status {
        formation.status = status;
    }
    if let Some(static_peers) = command.static_peers {
        check_static_peers(&static_peers)?;
        formation.static_peers = static_peers;
    }
    formation.revision = work.entry.index;
    write(work, formation)
}

/// Deletes a formation with its genesis, peers and documents. Its events stay in the journal.
pub(super) fn delete(work: &mut Work<'_>, command: &DeleteFormation) -> Decided {
    let DeleteFormation { org_id, app_id, expected_revision } = command;
    let formation = existing(work, org_id, app_id)?;
    check_revision(*expected_revision, formation.revision)?;
    work.rows.delete(Space::MeshId, keys::mesh_id(&formation.mesh_id))?;
    cascade::delete_formation_rows(&mut work.rows, &keys::formation_range(org_id, app_id))?;
    let mut counters = query::counters(&work.rows, org_id)?;
    counters.formations = counters.formations.saturating_sub(1);
    work.rows.put_record(Space::OrganizationCounters, keys::organization(org_id), &counters)?;
    work.effects.configuration = true;
    Ok(Outcome::Done)
}

fn existing(work: &Work<'_>, org: &OrgId, app: &AppId) -> Decided<Formation> {
    let formation = query::formation(&work.rows, org, app)?;
    found(formation, || format!("formation '{}/{}'", shown(org.as_str()), shown(app.as_str())))
}

fn write(work: &mut Work<'_>, formation: Formation) -> Decided {
    let key = keys::formation(&formation.org_id, &formation.app_id);
    work.rows.put_record(Space::Formation, key, &formation)?;
    work.effects.configuration = true;
    Ok(Outcome::Formation(formation))
}

fn check_mesh_id(mesh_id: &str) -> Decided<()> {
    let upper_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    if mesh_id.len() == MESH_ID_BYTES && mesh_id.bytes().all(upper_hex) {
        return Ok(());
    }
    refuse(
        RefusalKind::Invalid,
        code::INVALID_MESH_ID,
        format!("a mesh id must have {MESH_ID_BYTES} upper-case hex characters"),
    )
}

fn check_static_peers(peers: &[String]) -> Decided<()> {
    let fits = |peer: &String| (1..=PEER_ADDRESS_BYTES_MAX).contains(&peer.len());
    if peers.len() <= STATIC_PEERS_MAX && peers.iter().all(fits) {
        return Ok(());
    }
    let detail = format!(
        "static_peers may have {STATIC_PEERS_MAX} entries of 1 to {PEER_ADDRESS_BYTES_MAX} bytes"
    );
    refuse(RefusalKind::Invalid, code::INVALID_STATIC_PEERS, detail)
}
