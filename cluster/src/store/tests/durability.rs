//! What survives a restart, and what must not be passed over in silence.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftStateMachine};

use super::{
    append, apply, blank, copy, filled, last_index, membership, newest_wal, open, populate, vote,
};
use crate::error::StartError;
use crate::store::Store;
use crate::store::layout::WAL_BYTES_MAX;
use crate::wire::stored::log_id;

#[tokio::test]
async fn restart_keeps_vote_log_committed_applied_membership_and_hash() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let identity = store.identity();
    populate(&store, 20).await;
    let mut log = store.log();
    log.save_vote(&vote(4, 9)).await.unwrap();
    log.save_committed(Some(log_id(1, 18))).await.unwrap();
    log.purge(log_id(1, 5)).await.unwrap();
    let hash = store.state_hash();
    let state = log.get_log_state().await.unwrap();
    let applied = store.machine().applied_state().await.unwrap();
    drop((store, log));

    let opened = Store::open(directory.path()).unwrap();
    assert!(!opened.was_new);
    let (store, mut log) = (opened.store.clone(), opened.store.log());
    assert_eq!(store.identity(), identity);
    assert_eq!(store.state_hash(), hash);
    assert_eq!(store.changes().borrow().applied, 20);
    assert_eq!(store.last_log_index(), 20);
    assert_eq!(log.get_log_state().await.unwrap(), state);
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 18)));
    assert_eq!(store.machine().applied_state().await.unwrap(), applied);
    assert_eq!(applied.1.log_id(), &Some(log_id(1, 1)));
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote(4, 9)));
    assert_eq!(reader.try_get_log_entries(..).await.unwrap().len(), 15);
}

#[tokio::test]
async fn a_failed_entry_stops_the_machine_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let entries = futures_util::stream::iter([Ok((filled(1, 30), None))]);
    assert!(store.machine().apply(entries).await.is_err());
    let failure = store.failure().borrow().clone().unwrap();
    assert!(failure.contains("could not apply log entry 1"), "{failure}");
    assert_eq!(store.view().applied_index(), 0);
}

#[tokio::test]
async fn an_entry_is_never_applied_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    apply(&mut store.machine(), [blank(1), membership(2)]).await;
    let again = futures_util::stream::iter([Ok((blank(2), None))]);
    assert!(store.machine().apply(again).await.is_err());
}

/// Appends 20 synced entries of 100 bytes, each with its own sync.
async fn twenty_synced(path: &Path) -> Store {
    let store = open(path);
    let mut log = store.log();
    for index in 1..=20 {
        append(&mut log, [filled(index, 100)]).await;
    }
    store
}

#[tokio::test]
async fn torn_tail_is_cut_and_synced_records_survive() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let store = twenty_synced(&data).await;
    for index in 21..=30 {
        store.log().write_entries([filled(index, 100)].into_iter()).unwrap();
    }
    store.inner.database.db.flush_wal(false).unwrap();
    for cut in [0, 1, 50, 200, 700] {
        let crashed = directory.path().join(format!("cut{cut}"));
        copy(&data, &crashed);
        let wal = OpenOptions::new().write(true).open(newest_wal(&crashed)).unwrap();
        wal.set_len(wal.metadata().unwrap().len() - cut).unwrap();
        let reopened = open(&crashed);
        let last = last_index(&mut reopened.log()).await.unwrap();
        assert!((20..=30).contains(&last), "cut {cut}: {last}");
        assert_eq!(last == 30, cut == 0, "cut {cut}: {last}");
        // The log goes on from there.
        append(&mut reopened.log(), [filled(last + 1, 10)]).await;
    }
}

#[tokio::test]
async fn a_damaged_page_in_the_unsynced_tail_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let store = twenty_synced(&data).await;
    let counts = store.counts();
    assert_eq!((counts.append_batches, counts.apply_batches), (20, 0));
    assert!(counts.fsyncs == 20 && counts.append_bytes > 2000, "{counts:?}");
    let synced_bytes = newest_wal(&data).metadata().unwrap().len();
    for index in 21..=30 {
        store.log().write_entries([filled(index, 100)].into_iter()).unwrap();
    }
    store.inner.database.db.flush_wal(false).unwrap();
    let crashed = directory.path().join("crashed");
    copy(&data, &crashed);
    let wal = OpenOptions::new().write(true).open(newest_wal(&crashed)).unwrap();
    wal.write_all_at(&[0; 64], synced_bytes + 300).unwrap();
    let last = last_index(&mut open(&crashed).log()).await.unwrap();
    assert!((20..30).contains(&last), "{last}");
}

#[tokio::test]
async fn a_lost_synced_record_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let store = twenty_synced(&data).await;
    let refused = |name: &str, damage: &dyn Fn(&Path)| {
        let crashed = directory.path().join(name);
        copy(&data, &crashed);
        damage(&crashed);
        for attempt in 0..2 {
            match Store::open(&crashed) {
                Err(StartError::LostSyncedRecords { found, synced: 20 }) => assert!(found < 20),
                Err(other) => panic!("{name}, attempt {attempt}: {other}"),
                Ok(_) => panic!("{name}, attempt {attempt}: opened"),
            }
        }
    };
    refused("flipped", &|data| {
        let path = newest_wal(data);
        let wal = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let middle = wal.metadata().unwrap().len() / 2;
        let mut byte = [0];
        wal.read_exact_at(&mut byte, middle).unwrap();
        wal.write_all_at(&[byte[0] ^ 0x10], middle).unwrap();
    });
    refused("cut", &|data| {
        let wal = OpenOptions::new().write(true).open(newest_wal(data)).unwrap();
        wal.set_len(wal.metadata().unwrap().len() - 3).unwrap();
    });
    refused("emptied", &|data| {
        std::fs::remove_dir_all(data.join("db")).unwrap();
    });
    drop(store);
}

#[tokio::test]
async fn a_lost_vote_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let store = open(&data);
    let before = directory.path().join("before");
    copy(&data, &before);
    store.log().save_vote(&vote(3, 5)).await.unwrap();
    std::fs::copy(data.join("synced"), before.join("synced")).unwrap();
    let error = Store::open(&before).err().unwrap().to_string();
    assert!(error.contains("a vote that was synced is gone"), "{error}");
}

#[tokio::test]
async fn a_missing_mark_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(twenty_synced(directory.path()).await);
    std::fs::remove_file(directory.path().join("synced")).unwrap();
    let error = Store::open(directory.path()).err().unwrap().to_string();
    assert!(error.contains("must not vote"), "{error}");
}

#[tokio::test]
async fn a_truncated_log_opens_whenever_the_crash_comes() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let store = twenty_synced(&data).await;
    let mut log = store.log();
    // The truncation itself stays unsynced: the mark must be low already.
    log.truncate_after(Some(log_id(1, 8))).await.unwrap();
    let old_wal = directory.path().join("old_wal");
    copy(&data, &old_wal);
    assert_eq!(last_index(&mut open(&old_wal).log()).await, Some(20));
    append(&mut log, [filled(9, 10)]).await;
    let new_wal = directory.path().join("new_wal");
    copy(&data, &new_wal);
    let mut log = open(&new_wal).log();
    assert_eq!(last_index(&mut log).await, Some(9));
    let entries = log.get_log_reader().await.try_get_log_entries(1..).await.unwrap();
    assert_eq!(entries.len(), 9);
    assert_eq!(entries[8], filled(9, 10));
}

#[tokio::test]
async fn entries_that_leave_a_gap_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&mut store.log(), [filled(1, 10)]).await;
    assert!(store.log().write_entries([filled(3, 10)].into_iter()).is_err());
    store.log().purge(log_id(1, 7)).await.unwrap();
    assert!(store.log().write_entries([filled(2, 10)].into_iter()).is_err());
    append(&mut store.log(), [filled(8, 10)]).await;
}

#[tokio::test]
async fn write_ahead_log_is_cut_when_it_reaches_its_bound() {
    const ENTRY_BYTES: usize = 512 << 10;
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut log = store.log();
    let mut most = 0;
    // Three times the bound goes through it.
    for index in 1..=3 * (WAL_BYTES_MAX / ENTRY_BYTES as u64) {
        append(&mut log, [filled(index, ENTRY_BYTES)]).await;
        if index % 16 == 0 {
            most = most.max(wal_bytes(root.path()));
        }
    }
    // What was written since the cut began, and the files that wait to be written over.
    let limit = WAL_BYTES_MAX * 5 / 2;
    assert!(most <= limit, "{most} bytes of write-ahead log, the limit is {limit}");
}

fn wal_bytes(data: &Path) -> u64 {
    let files = std::fs::read_dir(data.join("db")).unwrap().flatten();
    files
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
