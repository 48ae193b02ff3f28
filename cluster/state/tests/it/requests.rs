//! Requests of clients: what they leave behind, and what the audit log says of them (INV-9, INV-11).

use peat_gateway_state::audit::entry_hash;
use peat_gateway_state::query::{self, AuditFault, AuditVerdict};
use peat_gateway_state::record::*;
use peat_gateway_state::space::Space;
use peat_gateway_state::{Command, Outcome, VERSION, codec, keys};

use crate::support::make::{self, app, org, sink_id};
use crate::support::{Cluster, Rows};

fn results(cluster: &Cluster, chain: Option<&str>) -> Vec<(AuditAction, String, u32)> {
    let chain = chain.map(org);
    let entries = query::audit_entries(&cluster.rows, chain.as_ref(), None, usize::MAX)
        .expect("rows are read");
    entries.into_iter().rev().map(|entry| (entry.action, entry.result, entry.count)).collect()
}

#[test]
fn every_request_has_one_entry_in_the_chain_of_its_organization() {
    use AuditAction as Action;
    let mut cluster = Cluster::new();
    cluster.refused(make::rename_organization("acme", "x"));
    cluster.done(make::create_organization("acme"));
    cluster.refused(make::create_organization("acme"));
    cluster.done(make::create_formation("acme", "alpha", "00000001"));
    cluster.done(make::delete_organization("acme"));
    cluster.refused(make::delete_organization("acme"));
    cluster.done(make::create_organization("acme"));
    cluster.done(make::refusals(&[Some("acme"), None, Some("ghost")]));

    let done = |action| (action, "done".to_owned(), 1);
    let refused = |action, code: &str| (action, code.to_owned(), 1);
    let counted = (Action::Refused, "unauthenticated".to_owned(), 5);
    assert_eq!(
        results(&cluster, Some("acme")),
        vec![
            done(Action::CreateOrganization),
            refused(Action::CreateOrganization, "already_exists"),
            done(Action::CreateFormation),
            done(Action::DeleteOrganization),
            done(Action::CreateOrganization),
            counted.clone(),
        ]
    );
    assert_eq!(
        results(&cluster, None),
        vec![
            done(Action::InitializeCluster),
            done(Action::ClaimEpoch),
            refused(Action::UpdateOrganization, "not_found"),
            refused(Action::DeleteOrganization, "not_found"),
            counted.clone(),
            counted,
        ]
    );
    let acme = org("acme");
    for chain in [None, Some(&acme)] {
        let verdict = query::verify_audit(&cluster.rows, chain).unwrap();
        let head = query::audit_head(&cluster.rows, chain).unwrap();
        assert_eq!((verdict, head.number), (AuditVerdict::Intact(head), 6));
    }
}

#[test]
fn an_entry_says_who_did_what_to_what_and_when() {
    let mut cluster = Cluster::new();
    cluster.now = 2_000_000;
    let applied = cluster.done(make::create_organization("acme"));
    let acme = org("acme");
    let entry = query::audit_entries(&cluster.rows, Some(&acme), None, 1).unwrap().remove(0);
    assert_eq!(entry.actor, make::actor("admin"));
    assert_eq!((entry.target.as_str(), entry.time), ("organization/acme", 2_000_000));
    assert_eq!((entry.index, entry.number, entry.previous), (applied.index, 1, Default::default()));
    assert_eq!(entry.hash, entry_hash(&entry));
}

#[test]
fn long_texts_of_a_request_are_cut_in_the_audit_log() {
    let mut cluster = Cluster::new();
    let mut actor = make::actor("admin");
    actor.request_id = "é".repeat(4000);
    let command = make::rename_organization(&"x".repeat(9000), "y");
    cluster.send_envelope(&peat_gateway_state::Envelope::new(actor, command));
    let entry = query::audit_entries(&cluster.rows, None, None, 1).unwrap().remove(0);
    assert!(entry.target.len() <= 1024 && entry.actor.request_id.len() == 1024);
}

#[test]
fn verification_finds_every_kind_of_damage() {
    let mut cluster = Cluster::new();
    for _ in 0..3 {
        cluster.refused(make::rename_organization("ghost", "x"));
    }
    let key = |number| (Space::Audit, keys::audit(None, number));
    let entry = |number| -> AuditEntry { codec::decode(&cluster.rows.0[&key(number)]).unwrap() };
    let verdict = |rows: &Rows| query::verify_audit(rows, None).unwrap();
    let broken = |number, fault| AuditVerdict::Broken { number, fault };

    let mut rows = cluster.rows.clone();
    rows.0.remove(&key(2));
    assert_eq!(verdict(&rows), broken(2, AuditFault::Missing));

    let mut rows = cluster.rows.clone();
    rows.0.remove(&key(5));
    assert_eq!(verdict(&rows), broken(5, AuditFault::Missing));

    let mut rows = cluster.rows.clone();
    let mut altered = entry(3);
    altered.actor.principal = "someone else".into();
    rows.0.insert(key(3), codec::encode(&altered));
    assert_eq!(verdict(&rows), broken(3, AuditFault::Altered));

    altered.hash = entry_hash(&altered);
    rows.0.insert(key(3), codec::encode(&altered));
    assert_eq!(verdict(&rows), broken(4, AuditFault::Unlinked));

    let mut rows = cluster.rows.clone();
    let head = AuditHead { number: 5, hash: make::hash("other") };
    rows.0.insert((Space::AuditHead, keys::audit_head(None)), codec::encode(&head));
    assert_eq!(verdict(&rows), broken(5, AuditFault::WrongHead));
}

#[test]
fn deleting_an_organization_leaves_only_its_counters_and_its_audit_chain() {
    let mut cluster = Cluster::new();
    cluster.done(make::create_organization("other"));
    cluster.done(make::create_formation("other", "alpha", "00000009"));
    let before = cluster.rows.clone();

    cluster.done(make::create_organization("acme"));
    cluster.done(make::create_formation("acme", "alpha", "00000001"));
    let mut sink = make::new_sink("acme", "S1");
    sink.credentials = Some(make::sealed(1));
    cluster.done(Command::CreateSink(sink));
    let fence = cluster.fence();
    let events = vec![make::change("c1", &[]), make::snapshot("c2", b"saved")];
    let batches = vec![
        make::batch("alpha", "notes:1", events),
        make::batch("alpha", "notes:2", vec![make::change("c1", &[]), make::tombstone("t")]),
        make::batch("alpha", "notes:3", vec![make::change("c3", &[])]),
    ];
    cluster.done(make::append(fence, "acme", batches));
    cluster.done(make::remember(fence, "acme", "alpha", vec![make::peer(1, 5)]));
    cluster.done(make::delete_organization("acme"));

    let kept = [Space::Cluster, Space::Audit, Space::AuditHead, Space::OrganizationCounters];
    assert_eq!(cluster.rows.without(&kept), before.without(&kept));
    let counters = query::counters(&cluster.rows, &org("acme")).unwrap();
    let emptied = OrganizationCounters {
        journal_last: 5,
        journal_trimmed: 5,
        ..OrganizationCounters::default()
    };
    assert_eq!(counters, emptied);

    cluster.done(make::create_organization("acme"));
    cluster.done(make::create_formation("acme", "alpha", "00000001"));
    let batches = vec![make::batch("alpha", "notes:1", vec![make::change("c1", &[])])];
    let again = cluster.done(make::append(fence, "acme", batches));
    assert_eq!(again.outcome, Outcome::Appended { first: 6, last: 6, known: 0 });
}

#[test]
fn deleting_a_formation_leaves_the_journal_and_frees_its_mesh_id() {
    let mut cluster = Cluster::with_acme();
    let before = cluster.rows.clone();
    cluster.done(make::create_formation("acme", "beta", "00000002"));
    let batches =
        vec![make::batch("beta", "d", vec![make::change("c1", &[]), make::tombstone("t")])];
    cluster.done(make::append(cluster.fence(), "acme", batches));
    cluster.done(make::delete_formation("acme", "beta"));

    let kept = [
        Space::Cluster,
        Space::Audit,
        Space::AuditHead,
        Space::OrganizationCounters,
        Space::Journal,
    ];
    assert_eq!(cluster.rows.without(&kept), before.without(&kept));
    assert_eq!(cluster.rows.of(Space::Journal).len(), 1);
    assert_eq!(query::counters(&cluster.rows, &org("acme")).unwrap().formations, 1);
    cluster.done(make::create_formation("acme", "gamma", "00000002"));
}

#[test]
fn a_revision_is_the_index_of_the_command_and_guards_the_next() {
    let mut cluster = Cluster::with_acme();
    let applied = cluster.done(make::rename_organization("acme", "New"));
    let Outcome::Organization(organization) = applied.outcome else { panic!("{applied:?}") };
    assert_eq!((organization.revision, organization.display_name), (applied.index, "New".into()));
    let Command::DeleteOrganization(mut delete) = make::delete_organization("acme") else {
        panic!("it is a deletion")
    };
    delete.expected_revision = Some(applied.index - 1);
    assert_eq!(cluster.refused(Command::DeleteOrganization(delete.clone())), "precondition_failed");
    delete.expected_revision = Some(applied.index);
    cluster.done(Command::DeleteOrganization(delete));
}

#[test]
fn suspending_and_resuming_a_formation_keeps_everything_else() {
    let mut cluster = Cluster::with_acme();
    let (acme, alpha) = (org("acme"), app("alpha"));
    let before = query::formation(&cluster.rows, &acme, &alpha).unwrap().unwrap();
    cluster.done(make::update_formation("acme", "alpha", Some(FormationStatus::Suspended)));
    assert!(query::active_formations(&cluster.rows).unwrap().is_empty());
    cluster.done(make::update_formation("acme", "alpha", Some(FormationStatus::Active)));
    let after = query::formation(&cluster.rows, &acme, &alpha).unwrap().unwrap();
    assert_eq!(after, Formation { revision: after.revision, ..before });
    assert_eq!(query::active_formations(&cluster.rows).unwrap(), vec![after]);
}

#[test]
fn credentials_move_one_version_at_a_time() {
    let mut cluster = Cluster::with_acme();
    let change = |version| {
        let credentials = Some(make::sealed(version));
        Command::UpdateSink(peat_gateway_state::command::UpdateSink {
            credentials,
            ..make::sink_change("acme", "S1")
        })
    };
    assert_eq!(cluster.refused(change(2)), "record_version_conflict");
    cluster.done(change(1));
    assert_eq!(cluster.refused(change(1)), "record_version_conflict");
    cluster.done(change(2));
    let stored = query::sink_credentials(&cluster.rows, &org("acme"), &sink_id("S1")).unwrap();
    assert_eq!(stored, Some(make::sealed(2)));
    cluster.done(make::delete_sink("acme", "S1"));
    assert!(cluster.rows.of(Space::SinkCredentials).is_empty());
    assert!(cluster.rows.of(Space::Cursor).is_empty());
}

#[test]
fn effects_name_what_changed_and_nothing_else() {
    let mut cluster = Cluster::new();
    let effects = |applied: peat_gateway_state::Applied| {
        let effects = applied.effects;
        (effects.configuration, effects.journal, effects.cursors)
    };
    assert_eq!(effects(cluster.done(make::create_organization("acme"))), (true, false, false));
    assert_eq!(effects(cluster.send(make::create_organization("acme"))), (false, false, false));
    let formation = make::create_formation("acme", "alpha", "00000001");
    assert_eq!(effects(cluster.done(formation)), (true, false, false));
    assert_eq!(effects(cluster.done(make::create_sink("acme", "S1"))), (true, false, true));
    let fence = cluster.fence();
    let batch = || vec![make::batch("alpha", "d", vec![make::change("c", &[])])];
    assert_eq!(effects(cluster.done(make::append(fence, "acme", batch()))), (false, true, false));
    assert_eq!(effects(cluster.done(make::append(fence, "acme", batch()))), (false, false, false));
    let commit = |to| make::commit(fence, vec![make::advance("acme", "S1", to, &[])]);
    assert_eq!(effects(cluster.done(commit(1))), (false, false, true));
    assert_eq!(effects(cluster.done(commit(0))), (false, false, false));
    assert_eq!(effects(cluster.done(make::trim(fence, "acme", 1))), (false, false, false));
    assert_eq!(effects(cluster.done(make::refusals(&[None]))), (false, false, false));
    assert_eq!(effects(cluster.claim()), (false, false, false));
    assert_eq!(effects(cluster.initialize()), (false, false, false));
}

#[test]
fn initializing_again_changes_nothing() {
    let mut cluster = Cluster::new();
    let before = cluster.rows.clone();
    assert_eq!(cluster.initialize().outcome, Outcome::Done);
    assert_eq!(cluster.rows, before);
}

#[test]
fn settings_keep_what_a_change_does_not_name() {
    let mut cluster = Cluster::new();
    let change = peat_gateway_state::command::UpdateSettings {
        idempotency_retention_ms: None,
        journal_retention_ms: Some(5),
        upgrade: Some(Upgrade::Manual),
    };
    cluster.done(Command::UpdateSettings(change));
    let expected = ClusterSettings {
        version: VERSION,
        journal_retention_ms: 5,
        upgrade: Some(Upgrade::Manual),
        ..make::settings()
    };
    assert_eq!(query::settings(&cluster.rows).unwrap(), Some(expected));
}
