//! Reads of formations and of the mesh nodes that were met.

use super::{record, records, scan_records};
use crate::ids::{AppId, OrgId};
use crate::keys;
use crate::record::{
    Formation, FormationStatus, MeshIdOwner, PEERS_PER_FORMATION_MAX, Peer, SealedSecret,
};
use crate::space::{ReadError, Reader, Space};

/// Returns a formation.
pub fn formation(
    reader: &dyn Reader,
    org: &OrgId,
    app: &AppId,
) -> Result<Option<Formation>, ReadError> {
    record(reader, Space::Formation, &keys::formation(org, app))
}

/// Returns at most `limit` formations of an organisation by id, those after `after`.
pub fn formations(
    reader: &dyn Reader,
    org: &OrgId,
    after: Option<&AppId>,
    limit: usize,
) -> Result<Vec<Formation>, ReadError> {
    let mut range = keys::organization_range(org);
    if let Some(last) = after {
        range = keys::after(range, &keys::formation(org, last));
    }
    records(reader, Space::Formation, &range, limit)
}

/// Returns all active formations of all organisations: what the leader observes.
pub fn active_formations(reader: &dyn Reader) -> Result<Vec<Formation>, ReadError> {
    let mut active = Vec::new();
    let range = keys::whole_space();
    scan_records(reader, Space::Formation, &range, false, &mut |_, formation: Formation| {
        if formation.status == FormationStatus::Active {
            active.push(formation);
        }
        true
    })?;
    Ok(active)
}

/// Returns a formation's sealed genesis.
pub fn genesis(
    reader: &dyn Reader,
    org: &OrgId,
    app: &AppId,
) -> Result<Option<SealedSecret>, ReadError> {
    record(reader, Space::Genesis, &keys::formation(org, app))
}

/// Returns which formation has a mesh id.
pub fn mesh_id_owner(reader: &dyn Reader, mesh_id: &str) -> Result<Option<MeshIdOwner>, ReadError> {
    record(reader, Space::MeshId, &keys::mesh_id(mesh_id))
}

/// Returns one mesh node of a formation.
pub fn peer(
    reader: &dyn Reader,
    org: &OrgId,
    app: &AppId,
    peer_id: &str,
) -> Result<Option<Peer>, ReadError> {
    record(reader, Space::Peer, &keys::peer(org, app, peer_id))
}

/// Returns the mesh nodes of a formation by id, at most [`PEERS_PER_FORMATION_MAX`].
pub fn peers(reader: &dyn Reader, org: &OrgId, app: &AppId) -> Result<Vec<Peer>, ReadError> {
    records(reader, Space::Peer, &keys::formation_range(org, app), PEERS_PER_FORMATION_MAX)
}
