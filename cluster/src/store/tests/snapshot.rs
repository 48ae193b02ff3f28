//! Snapshots: whole or not at all.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use peat_gateway_state::codec::Key;
use peat_gateway_state::space::Reader;
use peat_gateway_state::{Family, Space};

use super::{
    CLUSTER, Random, apply, blank, copy, create_organization, membership, open, organization_id,
    populate,
};
use crate::store::layout::state_column;
use crate::store::{SnapshotData, Store, StoreError};
use crate::wire::stored::log_id;

pub(super) async fn build(store: &Store) -> SnapshotData {
    let mut builder = store.machine().try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap().snapshot
}

pub(super) async fn bytes_of(data: &SnapshotData) -> Vec<u8> {
    let file = data.clone().into_file().await.unwrap();
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < file.bytes() {
        bytes.extend_from_slice(&file.read_chunk(bytes.len() as u64, 50_000).await.unwrap());
    }
    assert!(file.read_chunk(file.bytes(), 10).await.unwrap().is_empty());
    bytes
}

pub(super) async fn receive(store: &Store, bytes: &[u8]) -> Result<SnapshotData, StoreError> {
    let mut incoming = store.receive_snapshot()?;
    for chunk in bytes.chunks(10_000) {
        incoming.write(chunk)?;
    }
    incoming.finish().await
}

pub(super) async fn install(store: &Store, data: SnapshotData) {
    let meta = data.meta().unwrap();
    store.machine().install_snapshot(&meta, data).await.unwrap();
}

fn has_organization(store: &Store, index: u64) -> bool {
    let key = Key::new().text(organization_id(index).as_str()).into_bytes();
    store.view().get(Space::Organization, &key).unwrap().is_some()
}

pub(super) fn files(data: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(data.join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A leader with organisations up to `last`, and its snapshot's bytes.
async fn leader(last: u64) -> (tempfile::TempDir, Store, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.adopt(CLUSTER).unwrap();
    populate(&store, last).await;
    let data = build(&store).await;
    assert_eq!(data.applied(), Some(log_id(1, last)));
    let bytes = bytes_of(&data).await;
    (directory, store, bytes)
}

#[tokio::test]
async fn the_state_hash_is_equal_after_a_transfer_and_a_restart() {
    let (_leader_dir, leader, bytes) = leader(400).await;
    let directory = tempfile::tempdir().unwrap();
    let follower = open(directory.path());
    follower.adopt(CLUSTER).unwrap();
    // The follower holds something else, which the snapshot replaces.
    apply(&mut follower.machine(), [blank(1), membership(2)]).await;
    let old_view = follower.view();
    install(&follower, receive(&follower, &bytes).await.unwrap()).await;
    follower.log().purge(log_id(1, 400)).await.unwrap();
    assert_eq!(follower.state_hash(), leader.state_hash());
    assert!(has_organization(&follower, 400));
    assert_eq!(follower.changes().borrow().configuration, 400);
    assert_eq!(old_view.applied_index(), 2);
    assert_eq!(old_view.get(Space::Cluster, &[1]).unwrap(), None, "old views stay readable");
    // Both go on from there and stay equal.
    apply(&mut follower.machine(), [create_organization(401)]).await;
    apply(&mut leader.machine(), [create_organization(401)]).await;
    assert_eq!(follower.state_hash(), leader.state_hash());
    drop((follower, old_view));

    let follower = open(directory.path());
    assert_eq!(follower.state_hash(), leader.state_hash());
    assert_eq!(follower.last_log_index(), 400);
    let current = follower.machine().get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(1, 401)));
    assert_eq!(bytes_of(&current.snapshot).await, bytes_of(&build(&leader).await).await);
    assert!(files(directory.path()).is_empty());
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was_while_the_state_moves_on() {
    let (directory, store, bytes) = leader(10).await;
    let old = store.machine().get_current_snapshot().await.unwrap().unwrap().snapshot;
    let file = old.clone().into_file().await.unwrap();
    apply(&mut store.machine(), [create_organization(11)]).await;
    assert_eq!(build(&store).await.applied(), Some(log_id(1, 11)));
    assert_eq!(bytes_of(&old).await, bytes);
    assert_eq!(bytes_of(&SnapshotData::File(file.clone())).await, bytes);
    assert_eq!(files(directory.path()).len(), 1, "the file is there for as long as it is sent");
    drop(file);
    assert!(files(directory.path()).is_empty());
}

#[tokio::test]
async fn a_snapshot_that_an_install_overtook_replaces_nothing() {
    let (_leader_dir, _leader, bytes) = leader(30).await;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.adopt(CLUSTER).unwrap();
    populate(&store, 10).await;
    let mut late = store.machine().try_create_snapshot_builder(true).await.unwrap();
    install(&store, receive(&store, &bytes).await.unwrap()).await;
    let built = late.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(log_id(1, 10)));
    let current = store.machine().get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(1, 30)));
    assert!(files(directory.path()).is_empty());
}

#[tokio::test]
async fn foreign_and_damaged_snapshots_are_refused_with_the_old_state_intact() {
    let (_leader_dir, _leader, bytes) = leader(50).await;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.adopt([7; 16]).unwrap();
    populate(&store, 6).await;
    let hash = store.state_hash();
    let error = receive(&store, &bytes).await.err().unwrap().to_string();
    assert!(error.contains("another cluster"), "{error}");
    let mut longer = bytes.clone();
    longer.push(0);
    for damaged in [&[][..], &bytes[..100], &bytes[..bytes.len() - 1], &longer] {
        assert!(matches!(receive(&store, damaged).await, Err(StoreError::Snapshot(_))));
    }
    assert_eq!(store.state_hash(), hash);
    assert!(store.failure().borrow().is_none(), "a bad snapshot is the sender's failure");
    assert!(files(directory.path()).is_empty());
}

#[tokio::test]
async fn every_damaged_byte_of_a_snapshot_is_found() {
    let (_leader_dir, _leader, bytes) = leader(20).await;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let seed = getrandom::u64().unwrap();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let mut damaged = bytes.clone();
        // Most of the file is the padding of the header: look at the rest more often.
        let from = if random.below(4) == 0 { 0 } else { 128 << 10 };
        let at = (from + random.below(bytes.len() as u64 - from)) as usize;
        damaged[at] ^= 1 << random.below(8);
        if random.below(3) == 0 {
            damaged.truncate(at + 1);
        }
        assert!(receive(&store, &damaged).await.is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn a_snapshot_that_was_damaged_after_its_check_is_not_installed() {
    let (_leader_dir, _leader, bytes) = leader(20).await;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    populate(&store, 6).await;
    let hash = store.state_hash();
    let data = receive(&store, &bytes).await.unwrap();
    let path = directory.path().join("snapshots").join(&files(directory.path())[0]);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xee; 3], (128 << 10) + 500).unwrap();
    let meta = data.meta().unwrap();
    assert!(store.machine().install_snapshot(&meta, data).await.is_err());
    assert_eq!(store.state_hash(), hash);
    drop(store);
    assert_eq!(open(directory.path()).state_hash(), hash);
}

#[tokio::test]
async fn a_crash_before_the_switch_leaves_the_old_state() {
    let (directory, store, bytes) = leader(12).await;
    let hash = store.state_hash();
    receive(&store, &bytes).await.unwrap();
    // What each step before the switch leaves: half-made tables, loaded column families, a file; and a
    // snapshot that an earlier build kept.
    let snapshots = directory.path().join("snapshots");
    fs::create_dir(snapshots.join("77.tmp")).unwrap();
    fs::write(snapshots.join("77.tmp").join("0.sst"), b"half").unwrap();
    fs::write(snapshots.join("00000000000000000099-1.snapshot"), &bytes).unwrap();
    for family in Family::ALL {
        let column = state_column(family, 1);
        let options = store.inner.columns.of(&column);
        store.inner.database.db.create_cf(&column, &options).unwrap();
        let handle = store.inner.database.column(&column).unwrap();
        store.inner.database.db.put_cf(&handle, [0x10, 1], b"new").unwrap();
    }
    store.inner.database.db.flush_wal(true).unwrap();
    let crashed = tempfile::tempdir().unwrap();
    copy(directory.path(), crashed.path());
    let reopened = open(crashed.path());
    assert_eq!(reopened.state_hash(), hash);
    assert!(has_organization(&reopened, 12));
    assert!(files(crashed.path()).is_empty());
    assert!(reopened.inner.database.column(&state_column(Family::Records, 1)).is_err());
    // And the install can be tried again.
    install(&reopened, receive(&reopened, &bytes).await.unwrap()).await;
    assert_eq!(reopened.state_hash(), hash);
}

#[tokio::test]
async fn a_crash_after_the_switch_leaves_the_new_state() {
    let (_leader_dir, leader, bytes) = leader(12).await;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.adopt(CLUSTER).unwrap();
    populate(&store, 4).await;
    install(&store, receive(&store, &bytes).await.unwrap()).await;
    // The old generation has not been dropped, nor the log purged.
    for family in Family::ALL {
        let column = state_column(family, 0);
        let options = store.inner.columns.of(&column);
        store.inner.database.db.create_cf(&column, &options).unwrap();
    }
    fs::write(directory.path().join("snapshots/4.tmp"), b"old").unwrap();
    let crashed = tempfile::tempdir().unwrap();
    copy(directory.path(), crashed.path());
    let reopened = open(crashed.path());
    assert_eq!(reopened.state_hash(), leader.state_hash());
    assert!(files(crashed.path()).is_empty());
    assert!(reopened.inner.database.column(&state_column(Family::Records, 0)).is_err());
}

#[tokio::test]
async fn a_restarted_node_has_its_state_as_its_snapshot() {
    let (directory, store, _) = leader(5).await;
    drop(store);
    fs::remove_dir_all(directory.path().join("snapshots")).unwrap();
    let store = open(directory.path());
    let current = store.machine().get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(1, 5)));
    assert_eq!(build(&store).await.applied(), Some(log_id(1, 5)));
}
