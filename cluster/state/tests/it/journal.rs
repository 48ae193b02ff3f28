//! The journal: gapless, each event once, all or nothing (INV-3, INV-5).

use peat_gateway_state::command::*;
use peat_gateway_state::query;
use peat_gateway_state::record::*;
use peat_gateway_state::space::Space;
use peat_gateway_state::{Command, Outcome, codec};

use crate::support::Cluster;
use crate::support::make::{self, app, doc, hash, org};

fn sequences(cluster: &Cluster) -> Vec<(u64, String, u64)> {
    let events = query::journal_events(&cluster.rows, &org("acme"), 0, 1000, 1 << 20)
        .expect("rows are read");
    let shown = |event: query::JournalledEvent| {
        (event.sequence, event.event.document.to_string(), event.event.document_sequence)
    };
    events.into_iter().map(shown).collect()
}

fn append(cluster: &mut Cluster, batches: Vec<DocumentBatch>) -> Outcome {
    cluster.send(make::append(cluster.fence(), "acme", batches)).outcome
}

#[test]
fn a_batch_becomes_one_row_with_sequences_for_the_organization_and_for_each_document() {
    let mut cluster = Cluster::with_acme();
    let outcome = append(
        &mut cluster,
        vec![
            make::batch("alpha", "a", vec![make::change("a1", &[]), make::change("a2", &["a1"])]),
            make::batch("alpha", "b", vec![make::change("b1", &[])]),
            make::batch("alpha", "a", vec![make::change("a3", &["a2"])]),
        ],
    );
    assert_eq!(outcome, Outcome::Appended { first: 1, last: 4, known: 0 });
    let named = |sequence, document: &str, own| (sequence, document.to_owned(), own);
    let expected = vec![named(1, "a", 1), named(2, "a", 2), named(3, "b", 1), named(4, "a", 3)];
    assert_eq!(sequences(&cluster), expected);
    assert_eq!(cluster.rows.of(Space::Journal).len(), 1);

    let (acme, alpha) = (org("acme"), app("alpha"));
    let formation = query::formation(&cluster.rows, &acme, &alpha).unwrap().unwrap();
    assert_eq!((formation.documents, formation.revision), (2, 4));
    let row = cluster.rows.of(Space::Journal)[0].1.len() as u64;
    let bounds = query::journal_bounds(&cluster.rows, &acme).unwrap();
    assert_eq!(bounds, query::JournalBounds { trimmed: 0, last: 4, bytes: row });

    let event = &query::journal_events(&cluster.rows, &acme, 3, 1, 1).unwrap()[0].event;
    let id = event_id(&acme, &alpha, &doc("a"), EventKind::Change, &hash("a3"));
    assert_eq!((event.event_id, event.observed_at), (id, cluster.now));
}

#[test]
fn known_events_are_skipped_and_alone_leave_nothing() {
    let mut cluster = Cluster::with_acme();
    let events = || {
        vec![
            make::batch("alpha", "a", vec![make::change("a1", &[]), make::change("a1", &[])]),
            make::batch("alpha", "s", vec![make::snapshot("h", b"saved")]),
            make::batch("alpha", "t", vec![make::tombstone("t1")]),
        ]
    };
    assert_eq!(append(&mut cluster, events()), Outcome::Appended { first: 1, last: 3, known: 1 });
    let before = cluster.rows.clone();
    assert_eq!(append(&mut cluster, events()), Outcome::Appended { first: 0, last: 0, known: 4 });
    assert_eq!(cluster.rows, before);
}

#[test]
fn a_missing_ancestor_refuses_the_whole_command() {
    let mut cluster = Cluster::with_acme();
    let before = cluster.rows.clone();
    let outcome = append(
        &mut cluster,
        vec![
            make::batch("alpha", "a", vec![make::change("a1", &[])]),
            make::batch("alpha", "b", vec![make::change("b2", &["b1"])]),
        ],
    );
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
    assert_eq!(refusal.code, "missing_ancestor");
    assert_eq!(cluster.rows, before);
}

#[test]
fn a_change_is_no_ancestor_of_itself_nor_of_another_document() {
    let mut cluster = Cluster::with_acme();
    append(&mut cluster, vec![make::batch("alpha", "a", vec![make::change("a1", &[])])]);
    for (document, event) in [("a", make::change("x", &["x"])), ("b", make::change("b1", &["a1"]))]
    {
        let outcome = append(&mut cluster, vec![make::batch("alpha", document, vec![event])]);
        assert!(matches!(outcome, Outcome::Refused(refusal) if refusal.code == "missing_ancestor"));
    }
}

#[test]
fn a_full_journal_refuses_new_events_and_takes_known_ones() {
    let mut cluster = Cluster::with_acme();
    let first = || vec![make::batch("alpha", "a", vec![make::change("a1", &[])])];
    append(&mut cluster, first());
    let bytes = query::journal_bounds(&cluster.rows, &org("acme")).unwrap().bytes;
    let quotas = QuotaChanges { max_journal_bytes: Some(bytes), ..QuotaChanges::default() };
    cluster.done(make::set_quotas("acme", quotas));

    let before = cluster.rows.clone();
    let outcome =
        append(&mut cluster, vec![make::batch("alpha", "a", vec![make::change("a2", &["a1"])])]);
    assert!(matches!(outcome, Outcome::Refused(refusal) if refusal.code == "journal_full"));
    assert_eq!(cluster.rows, before);
    assert_eq!(append(&mut cluster, first()), Outcome::Appended { first: 0, last: 0, known: 1 });
}

#[test]
fn the_document_quota_counts_deleted_documents_and_spares_known_ones() {
    let mut cluster = Cluster::with_acme();
    let quotas = QuotaChanges { max_documents_per_formation: Some(1), ..QuotaChanges::default() };
    cluster.done(make::set_quotas("acme", quotas));
    append(&mut cluster, vec![make::batch("alpha", "a", vec![make::tombstone("t")])]);
    let outcome =
        append(&mut cluster, vec![make::batch("alpha", "b", vec![make::change("b", &[])])]);
    assert!(
        matches!(outcome, Outcome::Refused(refusal) if refusal.code == "document_quota_exceeded")
    );
    // No event at all makes no document.
    let outcome = append(&mut cluster, vec![make::batch("alpha", "c", vec![])]);
    assert_eq!(outcome, Outcome::Appended { first: 0, last: 0, known: 0 });
}

/// Stages an event in parts of `size` bytes and returns where it is.
fn stage(cluster: &mut Cluster, bytes: &[u8], size: usize) -> SequencedEvent {
    let id = make::sha256(bytes);
    let mut parts = 0;
    for bytes in bytes.chunks(size) {
        let part = StagePart {
            fence: cluster.fence(),
            org_id: org("acme"),
            app_id: app("alpha"),
            document: doc("a"),
            id,
            part: parts,
            bytes: bytes.to_vec(),
        };
        cluster.done(Command::StagePart(part));
        parts += 1;
    }
    SequencedEvent::Staged { id, parts }
}

fn staged(event: SequencedEvent) -> Vec<DocumentBatch> {
    vec![DocumentBatch { app_id: app("alpha"), document: doc("a"), events: vec![event] }]
}

#[test]
fn a_staged_event_is_journalled_like_an_inline_one_and_its_parts_go() {
    let mut cluster = Cluster::with_acme();
    let event = make::change("large", &[]);
    let place = stage(&mut cluster, &codec::encode(&event), 10);
    assert!(cluster.rows.of(Space::ChangePart).len() > 2);
    let outcome = append(&mut cluster, staged(place.clone()));
    assert_eq!(outcome, Outcome::Appended { first: 1, last: 1, known: 0 });
    assert!(cluster.rows.of(Space::ChangePart).is_empty());

    let mut inline = Cluster::with_acme();
    append(&mut inline, vec![make::batch("alpha", "a", vec![event])]);
    for space in [Space::Journal, Space::DocumentChange, Space::ChangeIndex, Space::Document] {
        assert_eq!(cluster.rows.of(space), inline.rows.of(space));
    }
    let outcome = append(&mut cluster, staged(place));
    assert!(matches!(outcome, Outcome::Refused(refusal) if refusal.code == "missing_part"));
}

#[test]
fn staged_bytes_that_are_not_what_they_should_be_are_refused() {
    let mut cluster = Cluster::with_acme();
    let junk = stage(&mut cluster, b"no event", 3);
    let SequencedEvent::Staged { id, parts } = junk.clone() else { panic!("{junk:?}") };
    let short = SequencedEvent::Staged { id, parts: parts - 1 };
    let none = SequencedEvent::Staged { id, parts: 0 };
    let many = SequencedEvent::Staged { id, parts: u32::MAX };
    let before = cluster.rows.clone();
    for place in [junk, short, none, many] {
        let outcome = append(&mut cluster, staged(place));
        assert!(
            matches!(&outcome, Outcome::Refused(refusal) if refusal.code == "invalid_staged_bytes"),
            "{outcome:?}"
        );
    }
    assert_eq!(cluster.rows, before);
}

#[test]
fn more_staged_bytes_than_allowed_are_refused() {
    let mut cluster = Cluster::with_acme();
    let bytes = vec![7; STAGED_BYTES_MAX + 1];
    let place = stage(&mut cluster, &bytes, PART_BYTES_MAX);
    let outcome = append(&mut cluster, staged(place));
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
    assert_eq!(refusal.code, "invalid_staged_bytes");
    assert!(refusal.detail.contains("more than"), "{}", refusal.detail);
}

#[test]
fn a_new_epoch_drops_parts_that_were_never_used() {
    let mut cluster = Cluster::with_acme();
    stage(&mut cluster, b"left behind", 4);
    cluster.claim();
    assert!(cluster.rows.of(Space::ChangePart).is_empty());
}

#[test]
fn work_of_an_older_epoch_or_term_is_refused() {
    let mut cluster = Cluster::with_acme();
    let old = cluster.fence();
    cluster.term = 2;
    let events = || vec![make::batch("alpha", "a", vec![make::change("a1", &[])])];
    assert_eq!(cluster.refused(make::append(old, "acme", events())), "stale_term");
    cluster.claim();
    let before = cluster.rows.clone();
    assert_eq!(cluster.refused(make::append(old, "acme", events())), "stale_term");
    let mixed = Fence { term: 2, epoch: old.epoch };
    assert_eq!(cluster.refused(make::append(mixed, "acme", events())), "stale_epoch");
    let none = Fence { term: 2, epoch: None };
    assert_eq!(cluster.refused(make::append(none, "acme", events())), "stale_epoch");
    assert_eq!(cluster.rows, before);
    cluster.done(make::append(cluster.fence(), "acme", events()));
}

#[test]
fn a_claim_of_an_older_term_is_refused_and_leaves_no_entry() {
    let mut cluster = Cluster::new();
    let before = cluster.rows.clone();
    let claim = ClaimEpoch { term: 9, node: peat_gateway_state::ids::NodeId(1) };
    assert_eq!(cluster.refused(Command::ClaimEpoch(claim)), "stale_term");
    assert_eq!(cluster.rows, before);
}

#[test]
fn an_epoch_is_the_index_of_its_claim() {
    let mut cluster = Cluster::new();
    let applied = cluster.claim();
    assert_eq!(Some(applied.index), cluster.epoch.map(|epoch| epoch.0));
    let record = query::epoch(&cluster.rows).unwrap().unwrap();
    assert_eq!((Some(record.epoch), record.term), (cluster.epoch, 1));
}
