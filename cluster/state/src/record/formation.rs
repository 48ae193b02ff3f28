//! Formations: one mesh each, with its own root of trust.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::ids::{AppId, OrgId};

/// Who may enrol. The byte is also the mesh's membership policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
pub enum EnrollmentPolicy {
    /// Anyone, without a credential.
    #[n(0)]
    Open,
    /// Holders of a token or of an identity that a rule admits.
    #[n(1)]
    Controlled,
    /// Only whom an operator approves.
    #[n(2)]
    Strict,
}

/// Whether the gateway observes the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum FormationStatus {
    /// The leader keeps connections to the mesh.
    #[n(0)]
    Active,
    /// Nothing is observed; what is journalled is still delivered.
    #[n(1)]
    Suspended,
}

/// A formation. Its genesis is sealed in a row of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Formation {
    /// The organisation that owns it.
    #[n(0)]
    pub org_id: OrgId,
    /// Chosen by the user, never changed; also the mesh's formation id.
    #[n(1)]
    pub app_id: AppId,
    /// 8 upper-case hex characters, derived from the genesis; unique in the cluster.
    #[n(2)]
    pub mesh_id: String,
    /// Who may enrol.
    #[n(3)]
    pub enrollment_policy: EnrollmentPolicy,
    /// Whether it is observed.
    #[n(4)]
    pub status: FormationStatus,
    /// Unix time in ms.
    #[n(5)]
    pub created_at: u64,
    /// Log index of the command that wrote this version; the `ETag`.
    #[n(6)]
    pub revision: u64,
    /// Addresses of mesh nodes that the leader dials: `host:port`, or `name@host:port` where the
    /// node's endpoint id is derived from its name.
    #[n(7)]
    pub static_peers: Vec<String>,
    /// Documents that exist, deleted ones included; checked against the quota.
    #[n(8)]
    pub documents: u32,
}

/// Most mesh nodes remembered per formation; a further one replaces the one seen longest ago.
pub const PEERS_PER_FORMATION_MAX: usize = 1024;
/// Most addresses of one mesh node.
pub const PEER_ADDRESSES_MAX: usize = 8;
/// Most bytes of one address of a mesh node, static or remembered.
pub const PEER_ADDRESS_BYTES_MAX: usize = 512;
/// Most static peers of a formation; more are refused with `invalid_static_peers`.
pub const STATIC_PEERS_MAX: usize = 64;

/// Which formation has a mesh id.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MeshIdOwner {
    /// Its organisation.
    #[n(0)]
    pub org_id: OrgId,
    /// The formation.
    #[n(1)]
    pub app_id: AppId,
}

/// A mesh node that the gateway has met; a new leader dials it at once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Peer {
    /// The node's endpoint id: 64 lower-case hex characters.
    #[n(0)]
    pub peer_id: String,
    /// Socket addresses at which it was last reached, at most 8.
    #[n(1)]
    pub addresses: Vec<String>,
    /// Unix time in ms when it was last connected.
    #[n(2)]
    pub last_seen: u64,
}
