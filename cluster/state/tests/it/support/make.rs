//! Commands with as little to say as possible.

use peat_gateway_state::Command;
use peat_gateway_state::command::*;
use peat_gateway_state::ids::{AppId, DocumentKey, Hash32, NodeId, OrgId, SinkId};
use peat_gateway_state::record::*;
use sha2::{Digest, Sha256};

pub(crate) fn org(id: &str) -> OrgId {
    OrgId::from_trusted(id)
}

pub(crate) fn app(id: &str) -> AppId {
    AppId::from_trusted(id)
}

pub(crate) fn doc(key: &str) -> DocumentKey {
    DocumentKey::from_trusted(key)
}

pub(crate) fn sink_id(id: &str) -> SinkId {
    SinkId::from_trusted(id)
}

pub(crate) fn sha256(bytes: &[u8]) -> Hash32 {
    Hash32(Sha256::digest(bytes).into())
}

/// A hash that is told apart by its text.
pub(crate) fn hash(text: &str) -> Hash32 {
    sha256(text.as_bytes())
}

pub(crate) fn actor(principal: &str) -> Actor {
    Actor { principal: principal.into(), source: "192.0.2.1".into(), request_id: "r1".into() }
}

pub(crate) fn settings() -> ClusterSettings {
    ClusterSettings {
        cluster_id: [1; 16],
        seal_domain: [2; 16],
        version: 1,
        idempotency_retention_ms: 60_000,
        journal_retention_ms: 0,
        key_check: vec![3; 4],
        upgrade: None,
    }
}

pub(crate) fn create_organization(id: &str) -> Command {
    create_organization_with(id, OrganizationQuotas::default())
}

pub(crate) fn create_organization_with(id: &str, quotas: OrganizationQuotas) -> Command {
    let display_name = format!("The {id}");
    Command::CreateOrganization(CreateOrganization { org_id: org(id), display_name, quotas })
}

pub(crate) fn rename_organization(id: &str, name: &str) -> Command {
    Command::UpdateOrganization(UpdateOrganization {
        org_id: org(id),
        expected_revision: None,
        display_name: Some(name.into()),
        quotas: QuotaChanges::default(),
    })
}

pub(crate) fn set_quotas(id: &str, quotas: QuotaChanges) -> Command {
    Command::UpdateOrganization(UpdateOrganization {
        org_id: org(id),
        expected_revision: None,
        display_name: None,
        quotas,
    })
}

pub(crate) fn delete_organization(id: &str) -> Command {
    Command::DeleteOrganization(DeleteOrganization { org_id: org(id), expected_revision: None })
}

pub(crate) fn sealed(record_version: u64) -> SealedSecret {
    SealedSecret { envelope: vec![9; 8], record_version }
}

pub(crate) fn create_formation(org_id: &str, app_id: &str, mesh_id: &str) -> Command {
    Command::CreateFormation(CreateFormation {
        org_id: org(org_id),
        app_id: app(app_id),
        mesh_id: mesh_id.into(),
        enrollment_policy: EnrollmentPolicy::Controlled,
        genesis: sealed(1),
        static_peers: vec!["10.0.0.1:4433".into()],
    })
}

pub(crate) fn update_formation(
    org_id: &str,
    app_id: &str,
    status: Option<FormationStatus>,
) -> Command {
    Command::UpdateFormation(UpdateFormation {
        org_id: org(org_id),
        app_id: app(app_id),
        expected_revision: None,
        enrollment_policy: None,
        status,
        static_peers: None,
    })
}

pub(crate) fn delete_formation(org_id: &str, app_id: &str) -> Command {
    Command::DeleteFormation(DeleteFormation {
        org_id: org(org_id),
        app_id: app(app_id),
        expected_revision: None,
    })
}

pub(crate) fn new_sink(org_id: &str, id: &str) -> CreateSink {
    CreateSink {
        org_id: org(org_id),
        sink_id: sink_id(id),
        sink_type: SinkKind::File { name: "out".into() },
        filter: SinkFilter::default(),
        start: SinkStart::Now,
        credentials: None,
    }
}

pub(crate) fn create_sink(org_id: &str, id: &str) -> Command {
    Command::CreateSink(new_sink(org_id, id))
}

pub(crate) fn sink_change(org_id: &str, id: &str) -> UpdateSink {
    UpdateSink {
        org_id: org(org_id),
        sink_id: sink_id(id),
        expected_revision: None,
        enabled: None,
        sink_type: None,
        filter: None,
        credentials: None,
    }
}

pub(crate) fn enable_sink(org_id: &str, id: &str, enabled: bool) -> Command {
    Command::UpdateSink(UpdateSink { enabled: Some(enabled), ..sink_change(org_id, id) })
}

pub(crate) fn delete_sink(org_id: &str, id: &str) -> Command {
    Command::DeleteSink(DeleteSink {
        org_id: org(org_id),
        sink_id: sink_id(id),
        expected_revision: None,
    })
}

pub(crate) fn refusals(org_ids: &[Option<&str>]) -> Command {
    let refusals = org_ids.iter().map(|id| RefusalRecord {
        org_id: id.map(org),
        actor: actor("nobody"),
        target: "GET /orgs".into(),
        code: "unauthenticated".into(),
        count: 5,
    });
    Command::RecordRefusals(RecordRefusals { refusals: refusals.collect() })
}

/// A change named by text, on others named by text.
pub(crate) fn change(name: &str, deps: &[&str]) -> NewEvent {
    NewEvent {
        change_hash: hash(name),
        actor: "a1".into(),
        patches: format!("[\"{name}\"]").into_bytes(),
        body: EventBody::Change {
            deps: deps.iter().map(|dep| hash(dep)).collect(),
            bytes: name.as_bytes().to_vec(),
        },
    }
}

/// A snapshot with one head, both named by text.
pub(crate) fn snapshot(head: &str, saved: &[u8]) -> NewEvent {
    NewEvent {
        change_hash: sha256(&hash(head).0),
        actor: String::new(),
        patches: b"[]".to_vec(),
        body: EventBody::Snapshot {
            heads: vec![hash(head)],
            hashes: vec![hash(head), hash(&format!("{head} before"))],
            saved: saved.to_vec(),
        },
    }
}

pub(crate) fn tombstone(payload: &str) -> NewEvent {
    NewEvent {
        change_hash: hash(payload),
        actor: "node-1".into(),
        patches: b"[]".to_vec(),
        body: EventBody::Tombstone,
    }
}

pub(crate) fn batch(app_id: &str, document: &str, events: Vec<NewEvent>) -> DocumentBatch {
    let events = events.into_iter().map(SequencedEvent::Inline).collect();
    DocumentBatch { app_id: app(app_id), document: doc(document), events }
}

pub(crate) fn append(fence: Fence, org_id: &str, batches: Vec<DocumentBatch>) -> Command {
    Command::AppendChanges(AppendChanges { fence, org_id: org(org_id), batches })
}

pub(crate) fn advance(
    org_id: &str,
    id: &str,
    acknowledged: u64,
    ahead: &[(u64, u64)],
) -> CursorAdvance {
    CursorAdvance { org_id: org(org_id), sink_id: sink_id(id), acknowledged, ahead: ahead.to_vec() }
}

pub(crate) fn commit(fence: Fence, advances: Vec<CursorAdvance>) -> Command {
    Command::CommitCursors(CommitCursors { fence, advances })
}

pub(crate) fn trim(fence: Fence, org_id: &str, through: u64) -> Command {
    Command::TrimJournal(TrimJournal { fence, org_id: org(org_id), through })
}

pub(crate) fn peer(number: u32, last_seen: u64) -> Peer {
    Peer { peer_id: format!("{number:064x}"), addresses: vec!["10.0.0.1:4433".into()], last_seen }
}

pub(crate) fn remember(fence: Fence, org_id: &str, app_id: &str, peers: Vec<Peer>) -> Command {
    Command::RememberPeers(RememberPeers { fence, org_id: org(org_id), app_id: app(app_id), peers })
}

pub(crate) fn member_record(node: u64) -> MemberRecord {
    let (name, peer_address) = (format!("node-{node}"), "host:7400".into());
    MemberRecord { node: NodeId(node), name, peer_address }
}

pub(crate) fn removal(node: u64) -> MembershipChange {
    MembershipChange::Remove { member: member_record(node), forced: Some("its disk burnt".into()) }
}

pub(crate) fn record_membership(fence: Fence, change: MembershipChange) -> RecordMembership {
    RecordMembership { fence, change }
}
