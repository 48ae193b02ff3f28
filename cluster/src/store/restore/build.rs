//! Rows become the data directory of a node that is a cluster of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use openraft::Membership;
use openraft::impls::leader_id_std::LeaderId;
use peat_gateway_state::apply::Overlay;
use peat_gateway_state::apply::restore::{Facts, Restoration, raise};
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::ids::Hash32;
use peat_gateway_state::{ReadError, Space, codec};
use prost::Message;
use rocksdb::WriteBatch;

use crate::error::StartError;
use crate::raft::{Member, StoredMembership, Vote};
use crate::store::NodeIdentity;
use crate::store::directory::{Directory, UNFINISHED};
use crate::store::error::StoreError;
use crate::store::layout::{ColumnOptions, Database, META, key, state_column};
use crate::store::open::{self, cluster_version, open_database};
use crate::store::snapshot::{AddRow, load_rows};
use crate::store::synced::{SyncedFile, SyncedMark};
use crate::store::view::{Position, View, full_key};
use crate::wire::stored::{log_id, log_id_to_stored, stored_membership_to_stored, vote_to_stored};

/// What may stand beside the data: a volume's own folder, our notes, the key of a cluster of one,
/// what file sinks wrote.
const NO_DATA: [&str; 6] = ["lost+found", "LOCK", UNFINISHED, "new", "kek", "sinks"];

/// The new cluster and its only node.
pub(crate) struct Plan {
    /// What it comes from.
    pub(crate) facts: Facts,
    /// The node's id, never used before.
    pub(crate) node_id: u64,
}

/// What was built.
pub(crate) struct Built {
    /// The log index of its first state.
    pub(crate) index: u64,
    /// Hash of that state.
    pub(crate) state_hash: Hash32,
    /// Rows that were read.
    pub(crate) rows: u64,
}

/// Why nothing was built.
pub(crate) enum BuildError {
    /// The rows, or the disk.
    Store(StoreError),
    /// The directory.
    Start(StartError),
}

impl From<StoreError> for BuildError {
    fn from(error: StoreError) -> Self {
        BuildError::Store(error)
    }
}

impl From<StartError> for BuildError {
    fn from(error: StartError) -> Self {
        BuildError::Start(error)
    }
}

/// Mints a node id.
pub(crate) fn new_node_id(directory: &Directory) -> Result<u64, StartError> {
    open::new_node_id(directory)
}

/// Refuses a directory that holds anything that a restore would hide or mix with.
pub(crate) fn check_empty(directory: &Directory) -> Result<(), StartError> {
    let entries = directory.check(fs::read_dir(directory.root()), "list it")?;
    for entry in entries {
        let name = directory.check(entry, "list it")?.file_name();
        if !NO_DATA.iter().any(|allowed| name == *allowed) {
            return Err(directory.refuse(format!(
                "it holds {}; a restore needs a directory without data: choose an empty one, or \
                 move away what is there",
                name.display()
            )));
        }
    }
    Ok(())
}

/// Builds the directory `target` from the rows that `fill` adds, as the old cluster had them.
///
/// Everything is on the disk when it returns, but for the name of `target`.
pub(crate) fn build(
    target: &Path,
    plan: Plan,
    fill: impl FnOnce(&mut AddRow<'_>) -> Result<(), StoreError>,
) -> Result<Built, BuildError> {
    let directory = Directory::create(target)?;
    let lock = directory.lock()?;
    let columns = ColumnOptions::new();
    let (database, _) = open_database(&directory, &columns, lock)?;
    let database = Arc::new(database);
    let tables = target.join("tables");
    fs::create_dir(&tables).map_err(StoreError::file("create", &tables))?;
    let mut hash = StateHash::default();
    let mut rows = 0;
    load_rows(&database, &columns, 0, &tables, |add| {
        fill(&mut |family, key, value| {
            let unknown = || StoreError::Snapshot("a row is of no known key space".to_owned());
            let (byte, own_key) = key.split_first().ok_or_else(unknown)?;
            let space = Space::from_byte(*byte).ok_or_else(unknown)?;
            let value = raise(space, value).map_err(unreadable)?;
            hash.add(space, own_key, &value);
            rows += 1;
            add(family, key, &value)
        })
    })?;
    fs::remove_dir_all(&tables).map_err(StoreError::file("remove", &tables))?;
    let Plan { facts, node_id } = plan;
    let (cluster_id, term) = (facts.cluster_id, facts.term);
    let mut restoration = Restoration::new(facts);
    let index = restoration.index();
    finish_rows(&database, &mut restoration, &mut hash)?;
    let version = cluster_version(&View::take(&database, Position::default())?)?;
    directory.check_version(version.into())?;
    directory.write_format(version)?;
    let identity = NodeIdentity { node_id, cluster_id: Some(cluster_id) };
    write_meta(&database, identity, (term, index), &hash)?;
    let flushed = database.db.flush_wal(true);
    flushed.map_err(StoreError::database("sync the new database"))?;
    let mark = SyncedMark { log_end: index + 1, vote: Some(vote(term, node_id)) };
    let synced = SyncedFile::create(&directory.synced()).and_then(|mut file| {
        file.record(mark)?;
        file.sync()
    });
    synced.map_err(StoreError::file("write", directory.synced()))?;
    directory.sync()?;
    Ok(Built { index, state_hash: hash.digest(), rows })
}

fn vote(term: u64, node_id: u64) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: node_id }, committed: false }
}

/// Does what is left once all rows are there, each step in a write of its own.
fn finish_rows(
    database: &Arc<Database>,
    restoration: &mut Restoration,
    hash: &mut StateHash,
) -> Result<(), StoreError> {
    loop {
        let view = View::take(database, Position::default())?;
        let mut overlay = Overlay::new(&view);
        let more = restoration.step(&mut overlay).map_err(unreadable)?;
        let mut batch = WriteBatch::default();
        for (space, key, value) in overlay.finish(hash) {
            let column = database.column(&state_column(space.family(), 0))?;
            match value {
                Some(value) => batch.put_cf(&column, full_key(space, &key), value),
                None => batch.delete_cf(&column, full_key(space, &key)),
            }
        }
        database.write(batch, "complete the restored rows")?;
        if !more {
            return Ok(());
        }
    }
}

/// Writes who the node is and where its log begins: right behind the state, with nothing in it.
///
/// The member has no addresses yet: the node's first start fills them in.
fn write_meta(
    database: &Database,
    identity: NodeIdentity,
    (term, index): (u64, u64),
    hash: &StateHash,
) -> Result<(), StoreError> {
    let node_id = identity.node_id;
    let position = log_id(term, index);
    let stored_position = log_id_to_stored(&position).encode_to_vec();
    let members = BTreeMap::from([(node_id, Member::default())]);
    let alone = Membership::new(vec![BTreeSet::from([node_id])], members)
        .map_err(StoreError::decode("membership"))?;
    let membership = StoredMembership::new(Some(position), alone);
    let meta = database.column(META)?;
    let mut batch = WriteBatch::default();
    batch.put_cf(&meta, key::IDENTITY, identity.to_stored().encode_to_vec());
    for position in [key::APPLIED, key::PURGED, key::COMMITTED] {
        batch.put_cf(&meta, position, &stored_position);
    }
    let membership = stored_membership_to_stored(&membership).encode_to_vec();
    batch.put_cf(&meta, key::MEMBERSHIP, membership);
    batch.put_cf(&meta, key::STATE_HASH, codec::encode(hash));
    batch.put_cf(&meta, key::VOTE, vote_to_stored(&vote(term, node_id)).encode_to_vec());
    database.write(batch, "write who the new node is")
}

/// Rows of a snapshot or of a disk that are no records.
fn unreadable(error: ReadError) -> StoreError {
    StoreError::Snapshot(crate::store::error::chain(&error))
}
