//! Every refusal code, and that a refusal changes nothing but its trace (INV-11).

use std::collections::BTreeSet;

use peat_gateway_state::command::*;
use peat_gateway_state::ids::{NodeId, SinkId};
use peat_gateway_state::outcome::code;
use peat_gateway_state::record::*;
use peat_gateway_state::space::Space;
use peat_gateway_state::{Command, Envelope, Outcome, RefusalKind};

use crate::support::Cluster;
use crate::support::make::{self, app, doc, hash, org};

use RefusalKind::{Conflict, Fenced, Invalid, NotFound, PreconditionFailed, TooMany, Unavailable};

/// A refusal that is expected, from the state of [`prepared`].
type Case = (&'static str, RefusalKind, Command);

/// `acme` with everything at its quota: formation `alpha`, suspended formation `beta`, sink `S1`;
/// in `alpha` the document `a` with one change and the deleted document `gone`.
fn prepared() -> Cluster {
    let mut cluster = Cluster::with_acme();
    cluster.done(make::create_formation("acme", "beta", "00000002"));
    cluster.done(make::update_formation("acme", "beta", Some(FormationStatus::Suspended)));
    let fence = cluster.fence();
    let batches = vec![
        make::batch("alpha", "a", vec![make::change("1", &[])]),
        make::batch("alpha", "gone", vec![make::tombstone("t")]),
    ];
    cluster.done(make::append(fence, "acme", batches));
    cluster.done(make::set_quotas(
        "acme",
        QuotaChanges {
            max_formations: Some(2),
            max_cdc_sinks: Some(1),
            max_documents_per_formation: Some(2),
            ..QuotaChanges::default()
        },
    ));
    cluster
}

fn requests() -> Vec<Case> {
    let formation = |change: &dyn Fn(&mut CreateFormation)| {
        let Command::CreateFormation(mut command) =
            make::create_formation("acme", "new", "000000FF")
        else {
            unreachable!("it creates a formation")
        };
        change(&mut command);
        Command::CreateFormation(command)
    };
    let sink = |change: &dyn Fn(&mut CreateSink)| {
        let mut command = make::new_sink("acme", "S9");
        change(&mut command);
        Command::CreateSink(command)
    };
    let kind = |sink_type: SinkKind| sink(&|c| c.sink_type = sink_type.clone());
    let filter = |filter: SinkFilter| sink(&|c| c.filter = filter.clone());
    let update = |change: UpdateSink| Command::UpdateSink(change);
    let static_peers = |peers: Vec<String>| formation(&|c| c.static_peers = peers.clone());
    let retention = |retention_ms| {
        Command::UpdateSettings(UpdateSettings {
            idempotency_retention_ms: Some(retention_ms),
            ..UpdateSettings::default()
        })
    };
    let mut cases = vec![
        (code::ALREADY_EXISTS, Conflict, make::create_organization("acme")),
        (code::ALREADY_EXISTS, Conflict, formation(&|c| c.app_id = app("alpha"))),
        (code::ALREADY_EXISTS, Conflict, make::create_sink("acme", "S1")),
        (code::INVALID_ORG_ID, Invalid, make::create_organization("")),
        (code::INVALID_ORG_ID, Invalid, make::create_organization("_org")),
        (code::INVALID_ORG_ID, Invalid, make::create_organization("a\0b")),
        (code::INVALID_APP_ID, Invalid, formation(&|c| c.app_id = app("a/b"))),
        (code::INVALID_SINK_ID, Invalid, sink(&|c| c.sink_id = SinkId::from_trusted(".."))),
        (code::INVALID_DISPLAY_NAME, Invalid, make::rename_organization("acme", "")),
        (code::INVALID_DISPLAY_NAME, Invalid, make::rename_organization("acme", &"x".repeat(1025))),
        (code::INVALID_MESH_ID, Invalid, formation(&|c| c.mesh_id = "0000000".into())),
        (code::INVALID_MESH_ID, Invalid, formation(&|c| c.mesh_id = "0000000a".into())),
        (code::MESH_ID_TAKEN, Conflict, formation(&|c| c.mesh_id = "00000001".into())),
        (code::RECORD_VERSION_CONFLICT, Conflict, formation(&|c| c.genesis = make::sealed(2))),
        (
            code::RECORD_VERSION_CONFLICT,
            Conflict,
            update(UpdateSink {
                credentials: Some(make::sealed(2)),
                ..make::sink_change("acme", "S1")
            }),
        ),
        (code::INVALID_STATIC_PEERS, Invalid, static_peers(vec![String::new()])),
        (code::INVALID_STATIC_PEERS, Invalid, static_peers(vec!["x".repeat(513)])),
        (code::INVALID_STATIC_PEERS, Invalid, static_peers(vec!["x".into(); 65])),
        (code::QUOTA_EXCEEDED, TooMany, formation(&|_| ())),
        (code::QUOTA_EXCEEDED, TooMany, sink(&|_| ())),
        (code::ORGANIZATION_NOT_FOUND, NotFound, formation(&|c| c.org_id = org("ghost"))),
        (code::ORGANIZATION_NOT_FOUND, NotFound, sink(&|c| c.org_id = org("ghost"))),
        (code::NOT_FOUND, NotFound, make::rename_organization("ghost", "x")),
        (code::NOT_FOUND, NotFound, make::delete_organization("ghost")),
        (code::NOT_FOUND, NotFound, make::update_formation("acme", "ghost", None)),
        (code::NOT_FOUND, NotFound, make::delete_formation("ghost", "alpha")),
        (code::NOT_FOUND, NotFound, make::enable_sink("acme", "ghost", true)),
        (code::NOT_FOUND, NotFound, make::delete_sink("ghost", "S1")),
        (code::INVALID_SINK_TYPE, Invalid, kind(SinkKind::File { name: "../etc".into() })),
        (code::INVALID_SINK_TYPE, Invalid, kind(SinkKind::Webhook { url: "ftp://x".into() })),
        (
            code::INVALID_SINK_TYPE,
            Invalid,
            kind(SinkKind::Webhook { url: format!("https://{}", "x".repeat(3000)) }),
        ),
        (
            code::INVALID_FILTER,
            Invalid,
            filter(SinkFilter { app_ids: vec![app("")], collections: vec![] }),
        ),
        (
            code::INVALID_FILTER,
            Invalid,
            filter(SinkFilter { app_ids: vec![], collections: vec!["c".into(); 257] }),
        ),
        (
            code::SINK_TYPE_IMMUTABLE,
            Invalid,
            update(UpdateSink {
                sink_type: Some(SinkKind::Webhook { url: "https://x".into() }),
                ..make::sink_change("acme", "S1")
            }),
        ),
        (code::INVALID_SETTINGS, Invalid, retention(59_999)),
        (code::INVALID_SETTINGS, Invalid, retention(86_400_001)),
        (code::TOO_MANY_REFUSALS, Invalid, make::refusals(&[None; 257])),
    ];
    for (url, prefix) in [("http://x", "p"), ("", ""), ("", "a..b"), ("nats://x", "a.*")] {
        let (url, subject_prefix) = (url.into(), prefix.into());
        let nats = SinkKind::Nats { url, subject_prefix };
        cases.push((code::INVALID_SINK_TYPE, Invalid, kind(nats)));
    }
    cases
}

fn stale_revisions() -> Vec<Case> {
    let expected_revision = Some(1);
    let (org_id, app_id, sink_id) = (org("acme"), app("alpha"), SinkId::from_trusted("S1"));
    let commands = [
        Command::UpdateOrganization(UpdateOrganization {
            org_id: org_id.clone(),
            expected_revision,
            display_name: None,
            quotas: QuotaChanges::default(),
        }),
        Command::DeleteOrganization(DeleteOrganization {
            org_id: org_id.clone(),
            expected_revision,
        }),
        Command::UpdateFormation(UpdateFormation {
            org_id: org_id.clone(),
            app_id: app_id.clone(),
            expected_revision,
            enrollment_policy: None,
            status: None,
            static_peers: None,
        }),
        Command::DeleteFormation(DeleteFormation {
            org_id: org_id.clone(),
            app_id,
            expected_revision,
        }),
        Command::UpdateSink(UpdateSink { expected_revision, ..make::sink_change("acme", "S1") }),
        Command::DeleteSink(DeleteSink { org_id, sink_id, expected_revision }),
    ];
    commands.map(|command| (code::PRECONDITION_FAILED, PreconditionFailed, command)).into()
}

fn leader_work(fence: Fence) -> Vec<Case> {
    let append = |app_id: &str, document: &str, event| {
        make::append(fence, "acme", vec![make::batch(app_id, document, vec![event])])
    };
    let change = || make::change("new", &[]);
    let part = |part, bytes: Vec<u8>, app_id: &str, document: &str| {
        Command::StagePart(StagePart {
            fence,
            org_id: org("acme"),
            app_id: app(app_id),
            document: doc(document),
            id: hash("x"),
            part,
            bytes,
        })
    };
    let compact = |document: &str, through, saved| {
        Command::CompactDocument(CompactDocument {
            fence,
            org_id: org("acme"),
            app_id: app("alpha"),
            document: doc(document),
            through,
            saved,
        })
    };
    let saved = || SavedForm::Inline(b"saved".to_vec());
    let staged = |parts| SavedForm::Staged { id: hash("x"), parts };
    let peers = |peer: Peer| make::remember(fence, "acme", "alpha", vec![peer]);
    let claim = ClaimEpoch { term: fence.term + 1, node: NodeId(1) };
    let initialize = InitializeCluster { term: fence.term + 1, settings: make::settings() };
    let old = Fence { epoch: None, ..fence };
    vec![
        (code::STALE_TERM, Fenced, Command::ClaimEpoch(claim)),
        (code::STALE_TERM, Fenced, Command::InitializeCluster(initialize)),
        (code::STALE_EPOCH, Fenced, make::append(old, "acme", vec![])),
        (code::STALE_EPOCH, Fenced, make::commit(old, vec![])),
        (code::STALE_EPOCH, Fenced, make::trim(old, "acme", 0)),
        (code::STALE_EPOCH, Fenced, make::remember(old, "acme", "alpha", vec![])),
        (code::ORGANIZATION_NOT_FOUND, NotFound, make::append(fence, "ghost", vec![])),
        (code::ORGANIZATION_NOT_FOUND, NotFound, make::trim(fence, "ghost", 0)),
        (code::FORMATION_NOT_FOUND, NotFound, append("ghost", "a", change())),
        (code::FORMATION_NOT_FOUND, NotFound, part(0, vec![1], "ghost", "a")),
        (code::FORMATION_NOT_FOUND, NotFound, make::remember(fence, "acme", "ghost", vec![])),
        (code::FORMATION_SUSPENDED, Conflict, append("beta", "a", change())),
        (code::INVALID_DOCUMENT_KEY, Invalid, append("alpha", "", change())),
        (code::INVALID_DOCUMENT_KEY, Invalid, part(0, vec![1], "alpha", &"d".repeat(1025))),
        (code::DOCUMENT_QUOTA_EXCEEDED, TooMany, append("alpha", "third", change())),
        (code::MISSING_ANCESTOR, Conflict, append("alpha", "a", make::change("new", &["no"]))),
        (code::INVALID_SAVED_FORM, Invalid, append("alpha", "a", make::snapshot("s", b""))),
        (code::INVALID_SAVED_FORM, Invalid, compact("a", 1, SavedForm::Inline(vec![]))),
        (code::INVALID_PART, Invalid, part(0, vec![], "alpha", "a")),
        (code::INVALID_PART, Invalid, part(64, vec![1], "alpha", "a")),
        (code::INVALID_PART, Invalid, part(0, vec![1; PART_BYTES_MAX + 1], "alpha", "a")),
        (code::MISSING_PART, Conflict, compact("a", 1, staged(1))),
        (code::INVALID_STAGED_BYTES, Invalid, compact("a", 1, staged(65))),
        (code::DOCUMENT_NOT_FOUND, NotFound, compact("none", 1, saved())),
        (code::DOCUMENT_DELETED, Conflict, compact("gone", 1, saved())),
        (code::STALE_COMPACTION, Conflict, compact("a", 2, saved())),
        (code::JOURNAL_IN_USE, Conflict, make::trim(fence, "acme", 1)),
        (
            code::TOO_MANY_PEERS,
            Invalid,
            make::remember(fence, "acme", "alpha", vec![make::peer(1, 1); 65]),
        ),
        (code::INVALID_PEER, Invalid, peers(Peer { peer_id: "AB".repeat(32), ..make::peer(1, 1) })),
        (code::INVALID_PEER, Invalid, peers(Peer { peer_id: "ab".into(), ..make::peer(1, 1) })),
        (
            code::INVALID_PEER,
            Invalid,
            peers(Peer { addresses: vec!["a".into(); 9], ..make::peer(1, 1) }),
        ),
    ]
}

/// Codes that need a state of their own; these tests show them.
const SHOWN_ELSEWHERE: &[&str] = &[
    // idempotency.rs
    code::IDEMPOTENCY_KEY_REUSED,
    code::INVALID_IDEMPOTENCY_KEY,
    // journal.rs
    code::JOURNAL_FULL,
    // membership.rs
    code::NODE_REMOVED,
    // here
    code::NOT_INITIALIZED,
    // versions.rs
    code::VERSION_NOT_ENABLED,
];

#[test]
fn every_code_is_given_and_a_refusal_leaves_only_its_audit_entry() {
    let cluster = prepared();
    let mut shown: BTreeSet<&str> = SHOWN_ELSEWHERE.iter().copied().collect();
    let cases = [requests(), stale_revisions(), leader_work(cluster.fence())].concat();
    for (code, kind, command) in cases {
        let mut cluster = cluster.clone();
        let before = cluster.rows.clone();
        let applied = cluster.send(command.clone());
        let Outcome::Refused(refusal) = &applied.outcome else {
            panic!("{command:?} was not refused with {code}")
        };
        assert_eq!((refusal.code.as_str(), refusal.kind), (code, kind), "{refusal:?}");
        assert!(!refusal.detail.is_empty() && !refusal.detail.ends_with('.'), "{refusal:?}");
        let trace = [Space::Audit, Space::AuditHead];
        assert_eq!(cluster.rows.without(&trace), before.without(&trace), "{command:?}");
        let entries = usize::from(!command.is_leader_work());
        let written = cluster.rows.of(Space::Audit).len() - before.of(Space::Audit).len();
        assert_eq!(written, entries, "{command:?}");
        shown.insert(code);
    }
    let all: BTreeSet<&str> = code::ALL.iter().copied().collect();
    assert_eq!(shown, all);
}

#[test]
fn nothing_is_decided_before_the_cluster_is_initialized() {
    let mut cluster = Cluster::empty();
    let envelope = Envelope::new(make::actor("admin"), make::create_organization("acme"));
    let applied = cluster.send_envelope(&envelope);
    let Outcome::Refused(refusal) = applied.outcome else { panic!("{applied:?}") };
    assert_eq!((refusal.code.as_str(), refusal.kind), (code::NOT_INITIALIZED, Unavailable));
    assert!(cluster.rows.of(Space::Organization).is_empty());
}

#[test]
fn codes_are_sorted_and_distinct() {
    assert!(code::ALL.windows(2).all(|pair| pair[0] < pair[1]));
}
