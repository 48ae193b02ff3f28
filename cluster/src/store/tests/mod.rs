//! What the store promises, proven on real files.

mod checkpoints;
mod crash;
mod directory;
mod durability;
mod flips;
mod flusher;
pub(crate) mod inspect;
mod reading;
mod replay;
mod snapshot;
mod steps;
mod suite;
mod traced;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream;
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{EntryPayload, Membership};
use peat_gateway_state::command::{CreateOrganization, InitializeCluster};
use peat_gateway_state::ids::OrgId;
use peat_gateway_state::record::{ClusterSettings, OrganizationQuotas};
use peat_gateway_state::{Actor, Command, Envelope, codec};

use super::{LogStore, Machine, Store};
use crate::raft::{Entry, LogCommand, Vote};
use crate::wire::stored::log_id;

/// The cluster of these tests.
const CLUSTER: [u8; 16] = *b"cluster of tests";

/// A small generator of numbers; tests print its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`, which is above 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // Xorshift64*: good enough to pick cases.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

fn open(path: &Path) -> Store {
    Store::open(path).unwrap().store
}

fn vote(term: u64, node: u64) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: node }, committed: true }
}

fn blank(index: u64) -> Entry {
    Entry { log_id: log_id(1, index), payload: EntryPayload::Blank }
}

/// An entry whose bytes follow from its index, never to be applied.
fn filled(index: u64, bytes: usize) -> Entry {
    let envelope = Bytes::from(vec![index as u8; bytes]);
    let command = LogCommand { time_ms: index, envelope };
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(command) }
}

fn command(index: u64, command: Command) -> Entry {
    let actor = Actor {
        principal: "admin".to_owned(),
        source: "127.0.0.1".to_owned(),
        request_id: String::new(),
    };
    let envelope = codec::encode(&Envelope::new(actor, command)).into();
    let command = LogCommand { time_ms: 1_700_000_000_000 + index, envelope };
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(command) }
}

fn initialize(index: u64) -> Entry {
    let settings = ClusterSettings {
        cluster_id: CLUSTER,
        seal_domain: [2; 16],
        version: 1,
        idempotency_retention_ms: 600_000,
        journal_retention_ms: 0,
        key_check: vec![],
        upgrade: None,
    };
    command(index, Command::InitializeCluster(InitializeCluster { term: 1, settings }))
}

fn organization_id(index: u64) -> OrgId {
    OrgId::from_trusted(format!("org{index}"))
}

fn create_organization(index: u64) -> Entry {
    let create = CreateOrganization {
        org_id: organization_id(index),
        display_name: "An organisation".to_owned(),
        quotas: OrganizationQuotas::default(),
    };
    command(index, Command::CreateOrganization(create))
}

fn membership(index: u64) -> Entry {
    let members = Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3])], []);
    Entry { log_id: log_id(1, index), payload: EntryPayload::Membership(members) }
}

async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<Entry> = entries.into_iter().collect();
    log.blocking_append(entries).await.unwrap();
}

async fn apply(machine: &mut Machine, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    machine.apply(stream::iter(entries)).await.unwrap();
}

/// Fills a store: entry 1 membership, 2 initialises, then organisations up to `last`.
async fn populate(store: &Store, last: u64) {
    let entries =
        || [membership(1), initialize(2)].into_iter().chain((3..=last).map(create_organization));
    append(&mut store.log(), entries()).await;
    apply(&mut store.machine(), entries()).await;
}

async fn last_index(log: &mut LogStore) -> Option<u64> {
    log.get_log_state().await.unwrap().last_log_id.map(|id| id.index)
}

/// Copies a data directory as a crash at this moment would leave it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The newest WAL file of a data directory.
fn newest_wal(data: &Path) -> PathBuf {
    let mut wals: Vec<PathBuf> = fs::read_dir(data.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    wals.sort();
    wals.pop().unwrap()
}
