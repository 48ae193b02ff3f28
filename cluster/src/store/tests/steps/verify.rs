//! What must hold of a directory, whenever its process was killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::{Family, Space};

use super::{Ledger, Truth, is_true};
use crate::store::Store;
use crate::store::layout::{Db, database_options, generation_of};
use crate::store::tests::{CLUSTER, open, snapshot};

/// Files and folders of a data directory.
const NAMES: [&str; 5] = ["FORMAT", "LOCK", "db", "snapshots", "synced"];

/// Checks every promise of the ledger, and that the state is one that the log leads to.
pub(super) async fn all(data: &Path, ledger: &Ledger, truth: &Truth) {
    let store = open(data);
    let identity = store.identity();
    assert!(ledger.node.is_none_or(|node| node == identity.node_id), "another node id");
    if ledger.adopted {
        assert_eq!(identity.cluster_id, Some(CLUSTER));
    }
    log_and_vote(&store, ledger).await;
    state(&store, ledger, truth);
    files(data, &store);
}

async fn log_and_vote(store: &Store, ledger: &Ledger) {
    let mut log = store.log();
    let state = log.get_log_state().await.unwrap();
    let index = |id: Option<crate::raft::LogId>| id.map_or(0, |id| id.index);
    let (purged, last) = (index(state.last_purged_log_id), index(state.last_log_id));
    let applied = store.view().applied_index();
    assert!(purged <= applied, "purged {purged} beyond applied {applied}: {ledger:?}");
    // An installed snapshot is as good as the entries in it.
    assert!(last.max(applied) >= ledger.entry, "only {last}, {applied}: {ledger:?}");
    let mut reader = log.get_log_reader().await;
    let entries = reader.try_get_log_entries(..).await.unwrap();
    assert!(
        entries.iter().map(|entry| entry.log_id.index).eq(purged + 1..=last),
        "the log has a gap between {purged} and {last}"
    );
    for entry in &entries {
        let index = entry.log_id.index;
        assert!(index > ledger.entry || is_true(entry), "entry {index} is another: {ledger:?}");
    }
    if let Some((first, end)) = ledger.foreign {
        let there = |index| entries.iter().any(|e| e.log_id.index == index && !is_true(e));
        assert!((first..=end).all(there), "entries of the other leader are gone: {ledger:?}");
    }
    let vote = reader.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term);
    assert!(vote >= ledger.vote, "vote {vote} is there: {ledger:?}");
}

fn state(store: &Store, ledger: &Ledger, truth: &Truth) {
    let (applied, hash) = store.state_hash();
    assert!(applied >= ledger.opened_at.max(ledger.installed), "applied {applied}: {ledger:?}");
    assert_eq!(hash, truth.hashes[applied as usize], "not the state at {applied}: {ledger:?}");
    assert_eq!(recomputed(store).digest(), hash, "the rows are others than the hash says");
}

fn recomputed(store: &Store) -> StateHash {
    let mut hash = StateHash::default();
    for family in Family::ALL {
        let add = |key: &[u8], value: &[u8]| {
            hash.add(Space::from_byte(key[0]).unwrap(), &key[1..], value);
            Ok(())
        };
        store.view().each_row(family, add).unwrap();
    }
    hash
}

/// One generation's column families, and nothing unfinished.
fn files(data: &Path, store: &Store) {
    let columns = Db::list_cf(&database_options(), data.join("db")).unwrap();
    let generations: BTreeSet<_> = columns.iter().filter_map(|name| generation_of(name)).collect();
    let own = store.view().position().generation;
    assert_eq!(generations, BTreeSet::from([own]), "{columns:?}");
    assert_eq!(columns.len(), 3 + Family::ALL.len(), "{columns:?}");

    let mut names: Vec<_> =
        fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, NAMES);
    assert!(snapshot::files(data).is_empty(), "{:?}", snapshot::files(data));
}

pub(super) fn every_family_has_rows(store: &Store) {
    for family in Family::ALL {
        let mut rows = 0;
        store
            .view()
            .each_row(family, |_, _| {
                rows += 1;
                Ok(())
            })
            .unwrap();
        assert!(rows > 50, "{family:?} has {rows} rows");
    }
}
