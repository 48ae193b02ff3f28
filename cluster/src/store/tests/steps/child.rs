//! The process that is killed.

use std::io::Write;
use std::path::{Path, PathBuf};

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use peat_gateway_state::Command;
use peat_gateway_state::command::{
    AppendChanges, ClaimEpoch, CreateFormation, DocumentBatch, EventBody, Fence, NewEvent,
    SequencedEvent,
};
use peat_gateway_state::ids::{AppId, DocumentKey, Epoch, Hash32, NodeId};
use peat_gateway_state::record::{EnrollmentPolicy, SealedSecret};

use super::{SEED, SNAPSHOT_AT, SNAPSHOTS, is_true, snapshot_path};
use crate::raft::Entry;
use crate::store::steps;
use crate::store::tests::{
    CLUSTER, Random, append, apply, command, create_organization, filled, initialize, last_index,
    membership, open, organization_id, snapshot, vote,
};
use crate::wire::stored::log_id;

/// Each kind of work is done twice: only the second time it replaces what the first has made.
const TURNS: u64 = 12;
/// The organisation, formation and epoch of the changes.
const ORGANIZATION: u64 = 3;
const FORMATION: u64 = 4;
const EPOCH: u64 = 5;

/// The true log: rows of every family.
pub(super) fn entry(index: u64) -> Entry {
    let app_id = AppId::from_trusted("fleet");
    match index {
        1 => membership(index),
        2 => initialize(index),
        FORMATION => {
            let create = CreateFormation {
                org_id: organization_id(ORGANIZATION),
                app_id,
                mesh_id: "0123ABCD".to_owned(),
                enrollment_policy: EnrollmentPolicy::Controlled,
                genesis: SealedSecret { envelope: vec![9; 80], record_version: 1 },
                static_peers: vec![],
            };
            command(index, Command::CreateFormation(create))
        }
        EPOCH => command(index, Command::ClaimEpoch(ClaimEpoch { term: 1, node: NodeId(1) })),
        _ if index % 2 == 1 && index > EPOCH => {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&index.to_be_bytes());
            let event = NewEvent {
                change_hash: Hash32(hash),
                actor: "a1".to_owned(),
                patches: b"[]".to_vec(),
                body: EventBody::Change { deps: vec![], bytes: vec![index as u8; 300] },
            };
            let batch = DocumentBatch {
                app_id,
                document: DocumentKey::from_trusted(format!("tracks:{}", index % 40)),
                events: vec![SequencedEvent::Inline(event)],
            };
            let append = AppendChanges {
                fence: Fence { term: 1, epoch: Some(Epoch(EPOCH)) },
                org_id: organization_id(ORGANIZATION),
                batches: vec![batch],
            };
            command(index, Command::AppendChanges(append))
        }
        _ => create_organization(index),
    }
}

/// Says a promise. The lock is taken per line: the harness writes to the same pipe.
fn say(text: &str) {
    std::io::stdout().lock().write_all(format!("{text} .\n").as_bytes()).unwrap();
}

pub(super) async fn work(data: &Path) {
    let snapshots = PathBuf::from(std::env::var(SNAPSHOTS).unwrap());
    let mut random = Random::new(std::env::var(SEED).unwrap().parse().unwrap());
    // The harness may have begun a line; ended without a full stop, it is no promise.
    std::io::stdout().lock().write_all(b"\n").unwrap();
    let store = open(data);
    say(&format!("node {}", store.identity().node_id));
    store.adopt(CLUSTER).unwrap();
    say("adopted");
    drop(store);
    // As a process that died while it built a snapshot leaves it.
    std::fs::write(data.join("snapshots").join("99.tmp"), b"half").unwrap();

    let store = open(data);
    say(&format!("opened {}", store.view().applied_index()));
    let (mut log, mut machine) = (store.log(), store.machine());
    let mut reader = log.get_log_reader().await;
    let mut term = reader.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term);
    // What openraft does at a start: a log that ends before the state is purged up to it, and what
    // is not the leader's is truncated.
    let applied = store.view().applied_index();
    if last_index(&mut log).await.is_none_or(|last| last < applied) && applied > 0 {
        log.purge(log_id(1, applied)).await.unwrap();
    }
    let entries = reader.try_get_log_entries(..).await.unwrap();
    if let Some(foreign) = entries.iter().find(|entry| !is_true(entry)) {
        say("truncating");
        log.truncate_after(Some(log_id(1, foreign.log_id.index - 1))).await.unwrap();
    }
    let mut next = last_index(&mut log).await.unwrap_or(0) + 1;
    let behind = reader.try_get_log_entries(applied + 1..next).await.unwrap();
    apply(&mut machine, behind).await;

    for turn in 0..TURNS {
        let count = 1 + random.below(5);
        append(&mut log, (next..next + count).map(entry)).await;
        next += count;
        say(&format!("entry {}", next - 1));
        let start = store.view().applied_index() + 1;
        apply(&mut machine, (start..next).map(entry)).await;
        match turn % 6 {
            0 => {
                term += 1;
                log.save_vote(&vote(term, 1)).await.unwrap();
                say(&format!("vote {term}"));
            }
            1 => {
                let last = next + random.below(4);
                append(&mut log, (next..=last).map(|index| filled(index, 90))).await;
                say(&format!("foreign {next} {last}"));
                say("truncating");
                log.truncate_after(Some(log_id(1, next - 1))).await.unwrap();
            }
            2 => log.save_committed(Some(log_id(1, next - 1))).await.unwrap(),
            3 => {
                let built = snapshot::build(&store).await;
                drop(snapshot::bytes_of(&built).await);
            }
            4 => log.purge(log_id(1, next - 1 - random.below(next - 1).min(3))).await.unwrap(),
            _ => {
                let Some(index) = SNAPSHOT_AT.into_iter().find(|index| *index >= next) else {
                    continue;
                };
                let bytes = std::fs::read(snapshot_path(&snapshots, index)).unwrap();
                let data = snapshot::receive(&store, &bytes).await.unwrap();
                snapshot::install(&store, data).await;
                say(&format!("installed {index}"));
                log.purge(log_id(1, index)).await.unwrap();
                next = index + 1;
            }
        }
    }
    drop((reader, log, machine, store));
    for (step, hits) in steps::hits() {
        say(&format!("hits {step:?} {hits}"));
    }
    say("end");
}
