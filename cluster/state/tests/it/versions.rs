//! The cluster's version: what needs it, who is refused, and how it is raised (INV-10).

use std::collections::BTreeSet;

use peat_gateway_state::apply::ApplyError;
use peat_gateway_state::command::*;
use peat_gateway_state::outcome::code;
use peat_gateway_state::query;
use peat_gateway_state::record::{AuditAction, Upgrade};
use peat_gateway_state::space::Space;
use peat_gateway_state::{Command, Envelope, Outcome, RefusalKind, VERSION, codec};

use crate::samples;
use crate::support::Cluster;
use crate::support::make;

/// The variants that builds without a version gate know. Nothing is ever added here.
const VERSION_1: &[&str] = &[
    "AppendChanges",
    "ClaimEpoch",
    "CommitCursors",
    "CompactDocument",
    "CreateFormation",
    "CreateOrganization",
    "CreateSink",
    "DeleteFormation",
    "DeleteOrganization",
    "DeleteSink",
    "InitializeCluster",
    "RecordRefusals",
    "RememberPeers",
    "StagePart",
    "TrimJournal",
    "UpdateFormation",
    "UpdateOrganization",
    "UpdateSettings",
    "UpdateSink",
];

fn raise(cluster: &Cluster, version: u16) -> Command {
    Command::RaiseVersion(RaiseVersion { fence: cluster.fence(), version })
}

fn hold() -> Command {
    Command::UpdateSettings(UpdateSettings {
        upgrade: Some(Upgrade::Manual),
        ..UpdateSettings::default()
    })
}

fn version(cluster: &Cluster) -> u16 {
    query::settings(&cluster.rows).expect("rows are read").expect("settings are there").version
}

#[test]
fn commands_that_version_1_does_not_know_need_more() {
    let mut seen = BTreeSet::new();
    for (label, command) in samples::commands(Cluster::new().fence()) {
        let variant = label.split('-').next().unwrap();
        let needed = command.minimum_version();
        if !VERSION_1.contains(&variant) {
            assert!(needed > FIRST_VERSION, "{label} claims that version 1 knows it");
        }
        assert!(needed <= VERSION, "{label} needs more than this build understands");
        let envelope = Envelope::new(make::actor("admin"), command);
        assert_eq!(Envelope::version_of(&codec::encode(&envelope)), Some(needed), "{label}");
        if VERSION_1.contains(&label) {
            assert_eq!(needed, FIRST_VERSION, "{label} is no longer what version 1 knows");
            seen.insert(label);
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), VERSION_1);
}

#[test]
fn bytes_that_are_no_envelope_have_no_version() {
    for bytes in [&[][..], &[0x84], &[0x84, 0x61, b'x'], &[0x01]] {
        assert_eq!(Envelope::version_of(bytes), None, "{bytes:?}");
    }
}

#[test]
fn command_newer_than_the_cluster_is_refused_until_the_version_is_raised() {
    let mut cluster = Cluster::new_at(1);
    let before = cluster.rows.clone();
    let key = Idempotency { key: "k".into(), request_digest: make::hash("body") };
    let envelope = Envelope::new(make::actor("admin"), hold()).with_idempotency(Some(key));
    let Outcome::Refused(refusal) = cluster.send_envelope(&envelope).outcome else {
        panic!("it was not refused")
    };
    assert_eq!(
        (refusal.code.as_str(), refusal.kind),
        (code::VERSION_NOT_ENABLED, RefusalKind::Unavailable)
    );
    assert!(refusal.detail.contains("needs cluster version 2, the cluster has 1"), "{refusal:?}");
    let trace = [Space::Audit, Space::AuditHead];
    assert_eq!(cluster.rows.without(&trace), before.without(&trace));

    cluster.done(raise(&cluster, 2));
    assert_eq!(version(&cluster), 2);
    // The same request, tried again: the refusal was not kept as its answer.
    assert_eq!(cluster.send_envelope(&envelope).outcome, Outcome::Done);
    let settings = query::settings(&cluster.rows).unwrap().unwrap();
    assert_eq!(settings.upgrade, Some(Upgrade::Manual));
}

#[test]
fn version_is_raised_once_with_its_audit_entry_and_never_lowered() {
    let mut cluster = Cluster::new_at(1);
    for (asked, expected) in [(1, 1), (2, 2), (2, 2), (1, 2)] {
        cluster.done(raise(&cluster, asked));
        assert_eq!(version(&cluster), expected);
    }
    let entries = query::audit_entries(&cluster.rows, None, None, usize::MAX).unwrap();
    let raised: Vec<_> =
        entries.iter().filter(|entry| entry.action == AuditAction::RaiseVersion).collect();
    assert_eq!(raised.len(), 1);
    assert_eq!((raised[0].target.as_str(), raised[0].result.as_str()), ("version/2", "done"));
}

#[test]
fn a_build_that_does_not_know_the_new_version_stops_where_it_is_raised() {
    let mut cluster = Cluster::new_at(1);
    let command = raise(&cluster, VERSION + 1);
    let index = cluster.next_index();
    let before = cluster.rows.clone();
    let envelope = Envelope::new(make::actor("admin"), command);
    let error = cluster.apply_bytes(codec::encode(&envelope)).unwrap_err();
    assert!(matches!(error, ApplyError::Unknown { index: at, .. } if at == index), "{error}");
    assert_eq!(cluster.rows, before);

    let settings =
        peat_gateway_state::record::ClusterSettings { version: VERSION + 1, ..make::settings() };
    let command = Command::InitializeCluster(InitializeCluster { term: 1, settings });
    let envelope = Envelope::new(make::actor("admin"), command);
    assert!(Cluster::empty().apply_bytes(codec::encode(&envelope)).is_err());
}
