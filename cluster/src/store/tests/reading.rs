//! Reading the log and the state.

use futures_util::{StreamExt, TryStreamExt};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use peat_gateway_state::Space;
use peat_gateway_state::codec::Key;
use peat_gateway_state::space::Reader;

use super::{append, apply, create_organization, filled, open, organization_id, populate, vote};
use crate::wire::stored::log_id;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn reads_are_bounded_and_the_same_from_memory_and_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let small: Vec<_> = (1..=600).map(|index| filled(index, 10)).collect();
    let large: Vec<_> = (601..=606).map(|index| filled(index, 400 << 10)).collect();
    let huge = filled(607, 3 * MIB);
    let all: Vec<_> = small.into_iter().chain(large).chain([huge]).collect();
    {
        let store = open(directory.path());
        append(&mut store.log(), all.clone()).await;
        check_reads(&store, &all).await;
    }
    check_reads(&open(directory.path()), &all).await;
}

async fn check_reads(store: &crate::store::Store, all: &[crate::raft::Entry]) {
    let mut reader = store.log().get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(..).await.unwrap(), all);
    assert_eq!(reader.limited_get_log_entries(1, 601).await.unwrap(), all[..512]);
    assert_eq!(reader.limited_get_log_entries(601, 608).await.unwrap(), all[600..602]);
    assert_eq!(reader.limited_get_log_entries(607, 608).await.unwrap(), all[606..]);
    assert!(reader.limited_get_log_entries(608, 609).await.is_err());
    assert!(reader.limited_get_log_entries(0, 5).await.is_err());
    let streamed: Vec<_> = reader.entries_stream(..).await.try_collect().await.unwrap();
    assert_eq!(streamed, all);
}

#[tokio::test]
async fn purged_entries_are_an_error_or_no_answer_and_never_a_shorter_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut log = store.log();
    append(&mut log, (1..=10).map(|index| filled(index, 10))).await;
    log.purge(log_id(1, 4)).await.unwrap();
    let mut reader = log.get_log_reader().await;
    // What goes to a follower may be late; see `limited_get_log_entries`.
    assert!(reader.limited_get_log_entries(4, 8).await.unwrap().is_empty());
    assert_eq!(reader.limited_get_log_entries(5, 8).await.unwrap().len(), 3);
    let first = reader.entries_stream(3..8).await.boxed().next().await.unwrap();
    assert!(first.is_err());
}

#[tokio::test]
async fn a_leaders_stream_ends_with_its_leadership() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut log = store.log();
    append(&mut log, (1..=1000).map(|index| filled(index, 10))).await;
    log.save_vote(&vote(2, 7)).await.unwrap();
    let mut reader = log.get_log_reader().await;
    let mut stream = reader.leader_bounded_stream(vote(2, 7).leader_id, 1..1001).await.boxed();
    assert!(stream.next().await.unwrap().is_ok());
    log.save_vote(&vote(3, 8)).await.unwrap();
    let rest: Vec<_> = stream.collect().await;
    assert!(rest.len() < 999, "what was read already may still come, the rest may not");
    assert!(rest.last().unwrap().is_err());
}

#[tokio::test]
async fn a_view_stays_as_it_was_while_entries_are_applied() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    populate(&store, 5).await;
    let old = store.view();
    apply(&mut store.machine(), [create_organization(6)]).await;
    let new = store.view();
    let key = Key::new().text(organization_id(6).as_str()).into_bytes();
    assert_eq!((old.applied_index(), new.applied_index()), (5, 6));
    assert_eq!(old.get(Space::Organization, &key).unwrap(), None);
    assert!(new.get(Space::Organization, &key).unwrap().is_some());
    assert_eq!(
        *store.changes().borrow(),
        crate::Changes { applied: 6, configuration: 6, journal: 0, cursors: 0 }
    );
}

#[tokio::test]
async fn scans_keep_to_their_space_and_range_in_both_directions() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    populate(&store, 8).await;
    let view = store.view();
    let scan = |start: &[u8], end: &[u8], reverse: bool, limit: usize| {
        let mut keys = Vec::new();
        view.scan(Space::Organization, start, end, reverse, &mut |key, value| {
            assert!(!value.is_empty());
            keys.push(key.to_vec());
            keys.len() < limit
        })
        .unwrap();
        keys
    };
    let all: Vec<_> = (3..=8)
        .map(|index| Key::new().text(organization_id(index).as_str()).into_bytes())
        .collect();
    assert_eq!(scan(b"", b"\xff", false, 100), all);
    let backwards: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(scan(b"", b"\xff", true, 100), backwards);
    assert_eq!(scan(&all[1], &all[4], false, 100), all[1..4]);
    assert_eq!(scan(&all[1], &all[4], true, 2), [all[3].clone(), all[2].clone()]);
    assert!(scan(&all[4], &all[1], false, 100).is_empty());
}
