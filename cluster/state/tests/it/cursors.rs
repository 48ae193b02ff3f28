//! Cursors never move backwards, and nothing is trimmed in front of them (INV-3, INV-4). Peers.

use peat_gateway_state::Command;
use peat_gateway_state::command::*;
use peat_gateway_state::query;
use peat_gateway_state::record::*;
use peat_gateway_state::space::Space;

use crate::support::Cluster;
use crate::support::make::{self, app, org, sink_id};

/// A cluster with `count` journal rows of one event each.
fn journalled(count: usize) -> Cluster {
    let mut cluster = Cluster::with_acme();
    for number in 0..count {
        let events = vec![make::change(&format!("c{number}"), &[])];
        let batches = vec![make::batch("alpha", "a", events)];
        cluster.done(make::append(cluster.fence(), "acme", batches));
    }
    cluster
}

fn cursor(cluster: &Cluster, id: &str) -> (u64, Vec<(u64, u64)>) {
    let cursor = query::cursor(&cluster.rows, &org("acme"), &sink_id(id))
        .expect("rows in memory are read")
        .expect("every sink has a cursor");
    (cursor.acknowledged, cursor.ahead)
}

fn commit(cluster: &mut Cluster, acknowledged: u64, ahead: &[(u64, u64)]) {
    let advance = make::advance("acme", "S1", acknowledged, ahead);
    cluster.done(make::commit(cluster.fence(), vec![advance]));
}

#[test]
fn a_cursor_moves_forward_and_never_back() {
    let mut cluster = journalled(9);
    commit(&mut cluster, 2, &[(5, 6)]);
    assert_eq!(cursor(&cluster, "S1"), (2, vec![(5, 6)]));
    let kept = cluster.rows.clone();
    let refused: &[(u64, &[(u64, u64)])] = &[
        (1, &[(5, 6)]),
        (2, &[]),
        (2, &[(5, 5)]),
        (2, &[(6, 7)]),
        (2, &[(3, 4), (5, 6)]),
        (2, &[(5, 6), (6, 7)]),
        (2, &[(7, 8), (5, 6)]),
        (2, &[(5, 6), (8, 7)]),
        (2, &[(5, 6), (8, 10)]),
        (10, &[]),
        (u64::MAX, &[]),
        (2, &[(5, u64::MAX)]),
    ];
    for (acknowledged, ahead) in refused {
        commit(&mut cluster, *acknowledged, ahead);
        assert_eq!(cluster.rows, kept, "{acknowledged} {ahead:?} must be dropped");
    }
    commit(&mut cluster, 2, &[(4, 5), (6, 6), (8, 8)]);
    assert_eq!(cursor(&cluster, "S1"), (2, vec![(4, 5), (6, 6), (8, 8)]));
    commit(&mut cluster, 6, &[(8, 8)]);
    commit(&mut cluster, 9, &[]);
    assert_eq!(cursor(&cluster, "S1"), (9, vec![]));
}

#[test]
fn one_bad_advance_is_dropped_and_the_others_count() {
    let mut cluster = journalled(3);
    cluster.done(make::create_sink("acme", "S2"));
    let advances = vec![
        make::advance("acme", "S2", 99, &[]),
        make::advance("acme", "ghost", 1, &[]),
        make::advance("ghost", "S1", 1, &[]),
        make::advance("acme", "S1", 1, &[]),
    ];
    cluster.done(make::commit(cluster.fence(), advances));
    assert_eq!((cursor(&cluster, "S1").0, cursor(&cluster, "S2").0), (1, 3));
    let stored = query::cursor(&cluster.rows, &org("acme"), &sink_id("S1")).unwrap().unwrap();
    assert_eq!((Some(stored.epoch), stored.updated_at), (cluster.epoch, cluster.now));
}

#[test]
fn a_cursor_holds_a_limited_number_of_ranges() {
    let mut cluster = Cluster::with_acme();
    let events = (0..600).map(|number| make::change(&format!("c{number}"), &[])).collect();
    let batches = vec![make::batch("alpha", "a", events)];
    cluster.done(make::append(cluster.fence(), "acme", batches));
    let ranges: Vec<_> = (0..257).map(|number| (2 + number * 2, 2 + number * 2)).collect();
    commit(&mut cluster, 0, &ranges);
    assert_eq!(cursor(&cluster, "S1"), (0, vec![]));
    commit(&mut cluster, 0, &ranges[..256]);
    assert_eq!(cursor(&cluster, "S1").1.len(), CURSOR_RANGES_MAX);
}

#[test]
fn a_new_sink_begins_where_it_was_told() {
    let mut cluster = journalled(5);
    commit(&mut cluster, 2, &[]);
    cluster.done(make::trim(cluster.fence(), "acme", 2));
    for (id, start) in [("S2", SinkStart::Now), ("S3", SinkStart::Earliest)] {
        cluster.done(Command::CreateSink(CreateSink { start, ..make::new_sink("acme", id) }));
    }
    assert_eq!((cursor(&cluster, "S2").0, cursor(&cluster, "S3").0), (5, 2));
}

#[test]
fn trimming_stops_before_what_an_enabled_sink_has_not_acknowledged() {
    let mut cluster = journalled(5);
    commit(&mut cluster, 3, &[(5, 5)]);
    let before = cluster.rows.clone();
    assert_eq!(cluster.refused(make::trim(cluster.fence(), "acme", 4)), "journal_in_use");
    assert_eq!(cluster.rows, before);
    cluster.done(make::trim(cluster.fence(), "acme", 3));
    let bounds = query::journal_bounds(&cluster.rows, &org("acme")).unwrap();
    let bytes: usize = cluster.rows.of(Space::Journal).iter().map(|row| row.1.len()).sum();
    assert_eq!(bounds, query::JournalBounds { trimmed: 3, last: 5, bytes: bytes as u64 });
    let left = query::journal_events(&cluster.rows, &org("acme"), 0, 9, 1 << 20).unwrap();
    assert_eq!(left.iter().map(|event| event.sequence).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn trimming_never_splits_a_row() {
    let mut cluster = Cluster::with_acme();
    let events = vec![make::change("1", &[]), make::change("2", &[])];
    cluster.done(make::append(cluster.fence(), "acme", vec![make::batch("alpha", "a", events)]));
    commit(&mut cluster, 1, &[]);
    cluster.done(make::trim(cluster.fence(), "acme", 1));
    assert_eq!(query::journal_bounds(&cluster.rows, &org("acme")).unwrap().trimmed, 0);
}

#[test]
fn one_trim_deletes_a_bounded_number_of_rows() {
    let mut cluster = journalled(300);
    cluster.done(make::enable_sink("acme", "S1", false));
    let trimmed = |cluster: &Cluster| {
        query::journal_bounds(&cluster.rows, &org("acme")).expect("rows are read").trimmed
    };
    cluster.done(make::trim(cluster.fence(), "acme", u64::MAX));
    assert_eq!(trimmed(&cluster), 256);
    cluster.done(make::trim(cluster.fence(), "acme", u64::MAX));
    assert_eq!((trimmed(&cluster), cluster.rows.of(Space::Journal).len()), (300, 0));
}

#[test]
fn a_disabled_sink_does_not_hold_the_journal_and_resumes_at_the_oldest_event_left() {
    let mut cluster = journalled(9);
    commit(&mut cluster, 1, &[(4, 6), (8, 8)]);
    cluster.done(make::enable_sink("acme", "S1", false));
    cluster.done(make::trim(cluster.fence(), "acme", 3));
    assert_eq!(cursor(&cluster, "S1").0, 1);
    cluster.done(make::enable_sink("acme", "S1", true));
    // 4 to 6 were acknowledged ahead and touch the watermark now.
    assert_eq!(cursor(&cluster, "S1"), (6, vec![(8, 8)]));
}

#[test]
fn peers_are_replaced_by_id_and_those_seen_longest_ago_make_room() {
    let mut cluster = Cluster::with_acme();
    let fence = cluster.fence();
    let numbers: Vec<u32> = (0..1024).collect();
    for chunk in numbers.chunks(64) {
        let peers = chunk.iter().map(|n| make::peer(*n, 1000 + u64::from(*n))).collect();
        cluster.done(make::remember(fence, "acme", "alpha", peers));
    }
    // Number 0 is seen again, a new one comes from the future: number 1 is the oldest now.
    let peers = vec![make::peer(0, 5000), make::peer(5000, u64::MAX)];
    cluster.done(make::remember(fence, "acme", "alpha", peers));
    let peers = query::peers(&cluster.rows, &org("acme"), &app("alpha")).unwrap();
    assert_eq!(peers.len(), PEERS_PER_FORMATION_MAX);
    let find = |number| {
        let id = make::peer(number, 0).peer_id;
        query::peer(&cluster.rows, &org("acme"), &app("alpha"), &id).unwrap()
    };
    assert_eq!(find(0).map(|peer| peer.last_seen), Some(5000));
    assert_eq!(find(1), None);
    assert_eq!(find(5000).map(|peer| peer.last_seen), Some(cluster.now));
}
