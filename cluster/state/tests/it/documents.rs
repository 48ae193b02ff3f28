//! Documents: heads, base, changes and index follow the events.

use peat_gateway_state::Command;
use peat_gateway_state::command::*;
use peat_gateway_state::query::{self, DocumentContent};
use peat_gateway_state::record::Document;
use peat_gateway_state::space::Space;

use crate::support::Cluster;
use crate::support::make::{self, app, doc, hash, org};

fn append(cluster: &mut Cluster, events: Vec<NewEvent>) {
    let batches = vec![make::batch("alpha", "a", events)];
    cluster.done(make::append(cluster.fence(), "acme", batches));
}

fn content(cluster: &Cluster) -> DocumentContent {
    let found = query::document_content(&cluster.rows, &org("acme"), &app("alpha"), &doc("a"));
    found.expect("rows in memory are read").expect("the document exists")
}

fn has(cluster: &Cluster, name: &str) -> bool {
    query::has_change(&cluster.rows, &org("acme"), &app("alpha"), &doc("a"), &hash(name))
        .expect("rows in memory are read")
}

fn change_bytes(content: &DocumentContent) -> Vec<Vec<u8>> {
    content.changes.iter().map(|change| change.bytes.clone()).collect()
}

fn sorted(names: &[&str]) -> Vec<peat_gateway_state::ids::Hash32> {
    let mut hashes: Vec<_> = names.iter().map(|name| hash(name)).collect();
    hashes.sort_unstable();
    hashes
}

#[test]
fn heads_follow_branches_and_merges() {
    let mut cluster = Cluster::with_acme();
    append(&mut cluster, vec![make::change("1", &[])]);
    append(&mut cluster, vec![make::change("2a", &["1"]), make::change("2b", &["1"])]);
    assert_eq!(content(&cluster).document.heads, sorted(&["2a", "2b"]));
    append(&mut cluster, vec![make::change("3", &["2a", "2b"])]);
    let now = content(&cluster);
    assert_eq!(now.document.heads, sorted(&["3"]));
    assert_eq!(change_bytes(&now), [b"1".to_vec(), b"2a".to_vec(), b"2b".to_vec(), b"3".to_vec()]);
    assert_eq!((now.document.changes, now.document.bytes), (4, 6));
    let hashes =
        query::change_hashes(&cluster.rows, &org("acme"), &app("alpha"), &doc("a")).unwrap();
    assert_eq!(hashes, sorted(&["1", "2a", "2b", "3"]));
}

#[test]
fn a_snapshot_replaces_the_bytes_and_later_changes_build_on_its_heads() {
    let mut cluster = Cluster::with_acme();
    append(&mut cluster, vec![make::change("1", &[])]);
    let saved: Vec<u8> = (0..(2 << 20) + 5).map(|number| number as u8).collect();
    append(&mut cluster, vec![make::snapshot("s", &saved)]);
    let now = content(&cluster);
    let expected = Document {
        heads: sorted(&["s"]),
        document_sequence: 2,
        changes: 0,
        bytes: saved.len() as u64,
        base_parts: 3,
        deleted: false,
        last_modified: cluster.now,
        base_sequence: 2,
    };
    assert_eq!(now, DocumentContent { document: expected, base: saved, changes: vec![] });
    assert!(has(&cluster, "1") && has(&cluster, "s") && has(&cluster, "s before"));

    append(&mut cluster, vec![make::change("4", &["s"])]);
    append(&mut cluster, vec![make::snapshot("t", b"small")]);
    let now = content(&cluster);
    assert_eq!((now.base, now.document.base_parts), (b"small".to_vec(), 1));
    assert_eq!(cluster.rows.of(Space::DocumentBase).len(), 1);
}

#[test]
fn a_tombstone_drops_the_bytes_keeps_the_index_and_ends_the_document() {
    let mut cluster = Cluster::with_acme();
    append(&mut cluster, vec![make::change("1", &[]), make::tombstone("t")]);
    let now = content(&cluster);
    assert!(now.document.deleted && now.base.is_empty() && now.changes.is_empty());
    assert!(has(&cluster, "1"));
    let before = cluster.rows.clone();
    let late = vec![
        make::change("2", &["1"]),
        make::change("3", &["nothing that exists"]),
        make::snapshot("s", b"saved"),
        make::tombstone("t"),
    ];
    let batches = vec![make::batch("alpha", "a", late)];
    let applied = cluster.done(make::append(cluster.fence(), "acme", batches));
    let all_known = peat_gateway_state::Outcome::Appended { first: 0, last: 0, known: 4 };
    assert_eq!((applied.outcome, &cluster.rows), (all_known, &before));
    let listed = query::documents(&cluster.rows, &org("acme"), &app("alpha"), None, 10).unwrap();
    assert!(listed.len() == 1 && listed[0].deleted && listed[0].doc_id == doc("a"));
}

fn compact(cluster: &Cluster, document: &str, through: u64, saved: SavedForm) -> Command {
    Command::CompactDocument(CompactDocument {
        fence: cluster.fence(),
        org_id: org("acme"),
        app_id: app("alpha"),
        document: doc(document),
        through,
        saved,
    })
}

#[test]
fn compaction_replaces_what_it_covers_and_keeps_later_changes() {
    let mut cluster = Cluster::with_acme();
    append(&mut cluster, vec![make::change("1", &[]), make::change("2", &["1"])]);
    append(&mut cluster, vec![make::change("3", &["2"])]);
    let journal = cluster.rows.of(Space::Journal).len();
    cluster.done(compact(&cluster, "a", 2, SavedForm::Inline(b"one and two".to_vec())));
    let now = content(&cluster);
    assert_eq!(
        (now.base.as_slice(), change_bytes(&now)),
        (&b"one and two"[..], vec![b"3".to_vec()])
    );
    let head = &now.document;
    assert_eq!((head.changes, head.bytes, head.base_sequence), (1, 12, 2));
    assert_eq!((head.document_sequence, &head.heads), (3, &sorted(&["3"])));
    assert!(has(&cluster, "1") && has(&cluster, "2"));
    assert_eq!(cluster.rows.of(Space::Journal).len(), journal);

    let id = make::sha256(b"all three");
    for (part, bytes) in [b"all ".as_slice(), b"three"].into_iter().enumerate() {
        cluster.done(Command::StagePart(StagePart {
            fence: cluster.fence(),
            org_id: org("acme"),
            app_id: app("alpha"),
            document: doc("a"),
            id,
            part: part as u32,
            bytes: bytes.to_vec(),
        }));
    }
    cluster.done(compact(&cluster, "a", 3, SavedForm::Staged { id, parts: 2 }));
    let now = content(&cluster);
    assert_eq!((now.base.as_slice(), now.changes.len()), (&b"all three"[..], 0));
    assert_eq!(now.document.bytes, 9);
    assert!(cluster.rows.of(Space::ChangePart).is_empty());
}

#[test]
fn a_compaction_that_covers_nothing_new_or_too_much_is_refused() {
    let mut cluster = Cluster::with_acme();
    append(&mut cluster, vec![make::change("1", &[])]);
    let saved = || SavedForm::Inline(b"saved".to_vec());
    for through in [0, 2, u64::MAX] {
        assert_eq!(cluster.refused(compact(&cluster, "a", through, saved())), "stale_compaction");
    }
    cluster.done(compact(&cluster, "a", 1, saved()));
    assert_eq!(cluster.refused(compact(&cluster, "a", 1, saved())), "stale_compaction");
    assert_eq!(cluster.refused(compact(&cluster, "b", 1, saved())), "document_not_found");
    append(&mut cluster, vec![make::change("2", &["1"])]);
    let empty = SavedForm::Inline(Vec::new());
    assert_eq!(cluster.refused(compact(&cluster, "a", 2, empty)), "invalid_saved_form");
    append(&mut cluster, vec![make::tombstone("t")]);
    assert_eq!(cluster.refused(compact(&cluster, "a", 2, saved())), "document_deleted");
}
