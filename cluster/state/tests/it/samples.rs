//! A sample of every command.

use peat_gateway_state::Command;
use peat_gateway_state::command::*;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::record::*;

use crate::golden::{change, filter, kinds};
use crate::support::make::{self, app, doc, hash, org, sink_id};

/// A sample of every command, all of which `acme` of `Cluster::with_acme` understands.
pub(crate) fn commands(fence: Fence) -> Vec<(&'static str, Command)> {
    let (org_id, app_id, document) = (org("acme"), app("alpha"), doc("notes:1"));
    let expected_revision = Some(3);
    let refusals = vec![RefusalRecord {
        org_id: Some(org("acme")),
        actor: make::actor("nobody"),
        target: "GET /orgs".into(),
        code: "unauthenticated".into(),
        count: 4,
    }];
    let quotas = QuotaChanges {
        max_formations: Some(5),
        max_journal_bytes: Some(1 << 20),
        ..QuotaChanges::default()
    };
    let staged = SequencedEvent::Staged { id: hash("staged"), parts: 2 };
    vec![
        ("CreateOrganization", make::create_organization("beta")),
        (
            "UpdateOrganization",
            Command::UpdateOrganization(UpdateOrganization {
                org_id: org_id.clone(),
                expected_revision,
                display_name: Some("New".into()),
                quotas,
            }),
        ),
        (
            "DeleteOrganization",
            Command::DeleteOrganization(DeleteOrganization {
                org_id: org_id.clone(),
                expected_revision,
            }),
        ),
        ("CreateFormation", make::create_formation("acme", "beta", "0A1B2C3D")),
        (
            "UpdateFormation",
            Command::UpdateFormation(UpdateFormation {
                org_id: org_id.clone(),
                app_id: app_id.clone(),
                expected_revision,
                enrollment_policy: Some(EnrollmentPolicy::Open),
                status: Some(FormationStatus::Suspended),
                static_peers: Some(vec!["host:1".into()]),
            }),
        ),
        (
            "DeleteFormation",
            Command::DeleteFormation(DeleteFormation {
                org_id: org_id.clone(),
                app_id: app_id.clone(),
                expected_revision,
            }),
        ),
        (
            "CreateSink",
            Command::CreateSink(CreateSink {
                sink_type: kinds().remove(2),
                filter: filter(),
                start: SinkStart::Earliest,
                credentials: Some(make::sealed(1)),
                ..make::new_sink("acme", "S2")
            }),
        ),
        (
            "UpdateSink",
            Command::UpdateSink(UpdateSink {
                expected_revision: None,
                enabled: Some(false),
                sink_type: Some(kinds().remove(0)),
                filter: Some(filter()),
                credentials: Some(make::sealed(1)),
                ..make::sink_change("acme", "S1")
            }),
        ),
        (
            "DeleteSink",
            Command::DeleteSink(DeleteSink {
                org_id: org_id.clone(),
                sink_id: sink_id("S1"),
                expected_revision: None,
            }),
        ),
        (
            "UpdateSettings",
            Command::UpdateSettings(UpdateSettings {
                idempotency_retention_ms: Some(60_000),
                journal_retention_ms: None,
                upgrade: None,
            }),
        ),
        (
            "UpdateSettings-upgrade",
            Command::UpdateSettings(UpdateSettings {
                upgrade: Some(Upgrade::Manual),
                ..UpdateSettings::default()
            }),
        ),
        ("RecordRefusals", Command::RecordRefusals(RecordRefusals { refusals })),
        (
            "InitializeCluster",
            Command::InitializeCluster(InitializeCluster {
                term: fence.term,
                settings: make::settings(),
            }),
        ),
        ("ClaimEpoch", Command::ClaimEpoch(ClaimEpoch { term: fence.term, node: NodeId(7) })),
        (
            "AppendChanges",
            make::append(
                fence,
                "acme",
                vec![
                    make::batch("alpha", "notes:1", vec![make::change("c1", &[]), change()]),
                    make::batch("alpha", "notes:2", vec![make::snapshot("s", b"saved")]),
                    make::batch("alpha", "notes:3", vec![make::tombstone("t")]),
                ],
            ),
        ),
        (
            "AppendChanges-staged",
            make::append(
                fence,
                "acme",
                vec![DocumentBatch {
                    app_id: app_id.clone(),
                    document: document.clone(),
                    events: vec![staged],
                }],
            ),
        ),
        (
            "StagePart",
            Command::StagePart(StagePart {
                fence,
                org_id: org_id.clone(),
                app_id: app_id.clone(),
                document: document.clone(),
                id: hash("staged"),
                part: 1,
                bytes: vec![1, 2, 3],
            }),
        ),
        (
            "CompactDocument",
            Command::CompactDocument(CompactDocument {
                fence,
                org_id,
                app_id,
                document,
                through: 1,
                saved: SavedForm::Inline(b"saved".to_vec()),
            }),
        ),
        ("CommitCursors", make::commit(fence, vec![make::advance("acme", "S1", 0, &[(2, 3)])])),
        ("TrimJournal", make::trim(fence, "acme", 0)),
        (
            "RaiseVersion",
            Command::RaiseVersion(RaiseVersion { fence, version: peat_gateway_state::VERSION }),
        ),
        ("RememberPeers", make::remember(fence, "acme", "alpha", vec![make::peer(1, 5)])),
        (
            "RecordMembership",
            Command::RecordMembership(make::record_membership(fence, make::removal(9))),
        ),
    ]
}
