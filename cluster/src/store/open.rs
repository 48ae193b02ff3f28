//! Opening a data directory: lock, format, RocksDB, identity, and whether anything synced is gone.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use peat_gateway_proto::stored as proto;
use peat_gateway_state::command::FIRST_VERSION;
use peat_gateway_state::{Family, codec, query};
use prost::Message;
use rocksdb::{ColumnFamilyDescriptor, WriteBatch};
use tokio::sync::watch;

use super::directory::{Directory, DirectoryLock};
use super::error::{StoreError, chain};
use super::flusher::{Counters, Failure, Flusher};
use super::layout::{
    ColumnOptions, DEFAULT, Database, Db, LOG, META, database_options, generation_of, key,
    state_column,
};
use super::log::{Log, decode_at};
use super::manifest;
use super::snapshot::{drop_generation, remove_unfinished};
use super::space::{MAKE_ROOM, is_full};
use super::steps::step;
use super::synced::SyncedFile;
use super::view::{Position, View};
use super::{Inner, NodeIdentity, Opened, Store};
use crate::error::StartError;
use crate::handle::Changes;
use crate::wire::stored::{log_id_from_stored, stored_membership_from_stored};

/// How long the list of column families may take to read: it is a few kilobytes.
const LIST_COLUMNS_LIMIT: Duration = Duration::from_secs(20);
/// What to do about a damaged directory; the other nodes have everything.
const REBUILD: &str = "this node must not vote; remove it from the cluster and join again with an \
                       empty data directory";

/// See [`Store::open`].
pub(super) fn open(data_dir: &Path) -> Result<Opened, StartError> {
    let directory = Directory::create(data_dir)?;
    let lock = directory.lock()?;
    step!(DirectoryLocked);
    directory.check_finished()?;
    directory.check_format()?;
    directory.check_not_removed()?;
    directory.check_in_service()?;
    directory.make_room();
    let snapshots = directory.snapshots();
    directory.check(fs::create_dir_all(&snapshots), "create its folder of snapshots")?;
    step!(SnapshotFolderMade);
    let columns = ColumnOptions::new();
    let (database, names) = open_database(&directory, &columns, lock)?;
    let database = Arc::new(database);
    step!(DatabaseOpened);
    let damaged = |error: StoreError| {
        directory.refuse(format!("{}; if the disk is sound, {REBUILD}", chain(&error)))
    };
    let (identity, synced, was_new) = identify(&directory, &database)?;
    let position = recover_position(&database, &columns, &names).map_err(damaged)?;
    let log = Log::load(&database).map_err(damaged)?;
    // What was only in the write-ahead log has gone into table files, which are synced.
    #[cfg(test)]
    crate::simulation::disk::synced(&database);
    check_synced(&directory, &database, &log, &synced)?;
    remove_unfinished(&snapshots).map_err(damaged)?;

    let failure = Failure::new();
    let counters = Arc::new(Counters::default());
    let flushed = database.clone();
    let flusher = Flusher::start(synced, failure.clone(), counters.clone(), move || {
        step!(WalHalfWritten, flushed.db.flush_wal(false));
        let synced = flushed.db.flush_wal(true);
        #[cfg(test)]
        crate::simulation::disk::synced(&flushed);
        synced.map_err(|error| format!("could not sync the WAL: {error}"))
    });
    let flusher = directory.check(flusher, "start the thread that syncs it")?;
    let applied = position.applied.map_or(0, |id| id.index);
    let changes = Changes { applied, configuration: applied, journal: applied, cursors: applied };
    let view = View::take(&database, position).map_err(damaged)?;
    let version = cluster_version(&view).map_err(damaged)?;
    directory.check_version(version.into())?;
    directory.check(directory.mark_version(version), "write FORMAT")?;
    let inner = Inner {
        flusher,
        log: Mutex::new(log),
        newest: RwLock::new(view),
        rows: Mutex::default(),
        identity: Mutex::new(identity),
        changes: watch::Sender::new(changes),
        checkpoints: Default::default(),
        failure,
        counters,
        columns,
        directory: directory.clone(),
        temporary_files: AtomicU64::new(0),
        database,
    };
    Ok(Opened { store: Store { inner: Arc::new(inner) }, was_new })
}

/// The cluster's version as of a view.
pub(super) fn cluster_version(view: &View) -> Result<u16, StoreError> {
    let settings = query::settings(view)
        .map_err(|error| StoreError::Decode { what: "settings", reason: error.to_string() })?;
    Ok(settings.map_or(FIRST_VERSION, |settings| settings.version))
}

/// Reads which column families a database has.
///
/// RocksDB reads some damaged MANIFEST files for ever, so it gets a thread and a limit.
fn list_columns(directory: &Directory, path: &Path) -> Result<Vec<String>, StartError> {
    let (sender, listed) = std::sync::mpsc::sync_channel(1);
    let own_path = path.to_owned();
    let reading = std::thread::Builder::new().name("list-columns".into()).spawn(move || {
        let names = Db::list_cf(&database_options(), &own_path);
        // Nobody waits any more where it took too long.
        sender.send(names).ok();
    });
    directory.check(reading, "start the thread that reads its column families")?;
    match listed.recv_timeout(LIST_COLUMNS_LIMIT) {
        Ok(names) => directory.check(names, "read its column families"),
        Err(_) => Err(directory.refuse(format!(
            "could not read its column families within {} s: its MANIFEST is damaged, or the disk \
             doesn't answer; if the disk is sound, {REBUILD}",
            LIST_COLUMNS_LIMIT.as_secs()
        ))),
    }
}

pub(super) fn open_database(
    directory: &Directory,
    columns: &ColumnOptions,
    lock: DirectoryLock,
) -> Result<(Database, Vec<String>), StartError> {
    let path = directory.database();
    let options = database_options();
    // RocksDB writes CURRENT when a new database is complete.
    let mut names = match path.join("CURRENT").try_exists() {
        Ok(true) => {
            let damage = directory.check(manifest::damage(&path), "read its MANIFEST")?;
            if let Some(damage) = damage {
                return Err(directory.refuse(format!("{damage}; if the disk is sound, {REBUILD}")));
            }
            list_columns(directory, &path)?
        }
        Ok(false) => Vec::new(),
        Err(error) => return Err(directory.refuse(format!("could not look into it: {error}"))),
    };
    for name in [DEFAULT, LOG, META] {
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    let descriptors = names.iter().map(|name| ColumnFamilyDescriptor::new(name, columns.of(name)));
    let db = Db::open_cf_descriptors(&options, &path, descriptors).map_err(|error| {
        if is_full(error.as_ref()) {
            return directory.refuse(format!("could not open its database: {error}; {MAKE_ROOM}"));
        }
        directory.refuse(format!(
            "could not open its database: {error}; if the disk is sound, {REBUILD}"
        ))
    })?;
    Ok((Database::new(db, lock), names))
}

/// Reads who the directory belongs to; a new one gets its node id, durably.
fn identify(
    directory: &Directory,
    database: &Database,
) -> Result<(NodeIdentity, SyncedFile, bool), StartError> {
    let unreadable = |error: StoreError| directory.refuse(chain(&error));
    let path = directory.synced();
    if let Some(bytes) = database.meta(key::IDENTITY).map_err(unreadable)? {
        let identity = NodeIdentity::from_stored(&bytes).map_err(unreadable)?;
        let synced = SyncedFile::open(&path).map_err(|error| {
            directory.refuse(format!(
                "could not read its file synced, which says what this node has promised: \
                 {error}; {REBUILD}"
            ))
        })?;
        return Ok((identity, synced, false));
    }
    // Either it is new, or the database lost everything.
    match SyncedFile::open(&path).map(|synced| synced.mark()) {
        Ok(mark) if mark.log_end > 0 || mark.vote.is_some() => {
            let synced = mark.log_end.saturating_sub(1);
            return Err(StartError::LostSyncedRecords { found: 0, synced });
        }
        Ok(_) => {}
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
        Err(error) => return Err(directory.refuse(format!("could not read synced: {error}"))),
    }
    let synced = directory.check(SyncedFile::create(&path), "create its file synced")?;
    directory.sync()?;
    step!(MarkCreated);
    let identity = NodeIdentity { node_id: new_node_id(directory)?, cluster_id: None };
    let mut batch = WriteBatch::default();
    let meta = database.column(META).map_err(unreadable)?;
    batch.put_cf(&meta, key::IDENTITY, identity.to_stored().encode_to_vec());
    database.write(batch, "write the identity").map_err(unreadable)?;
    step!(IdentityWritten);
    directory.check(database.db.flush_wal(true), "sync its database")?;
    step!(IdentitySynced);
    #[cfg(test)]
    crate::simulation::disk::synced(database);
    Ok((identity, synced, true))
}

pub(super) fn new_node_id(directory: &Directory) -> Result<u64, StartError> {
    loop {
        let id = directory.check(getrandom::u64(), "get random bytes for the node id")?;
        if id != 0 {
            return Ok(id);
        }
    }
}

/// Reads where the state stands.
pub(super) fn read_position(database: &Database) -> Result<Position, StoreError> {
    let generation = match database.meta(key::GENERATION)? {
        None => 0,
        Some(bytes) => u64::from_be_bytes(bytes.as_slice().try_into().map_err(|_| {
            StoreError::Decode { what: "generation", reason: "it has not 8 bytes".to_owned() }
        })?),
    };
    let applied = match database.meta(key::APPLIED)? {
        None => None,
        Some(bytes) => Some(log_id_from_stored(
            &proto::LogId::decode(&*bytes).map_err(StoreError::decode("applied position"))?,
        )),
    };
    let membership = match database.meta(key::MEMBERSHIP)? {
        None => Default::default(),
        Some(bytes) => {
            let stored = proto::StoredMembership::decode(&*bytes)
                .map_err(StoreError::decode("membership"))?;
            stored_membership_from_stored(stored).map_err(StoreError::decode("membership"))?
        }
    };
    let hash = match database.meta(key::STATE_HASH)? {
        None => Default::default(),
        Some(bytes) => codec::decode(&bytes).map_err(StoreError::decode("state hash"))?,
    };
    Ok(Position { applied, membership, hash, generation })
}

/// Reads where the state stands, drops what an interrupted install left, and creates what an
/// interrupted first start left out.
fn recover_position(
    database: &Database,
    columns: &ColumnOptions,
    names: &[String],
) -> Result<Position, StoreError> {
    let position = read_position(database)?;
    let generation = position.generation;
    for other in names.iter().filter_map(|name| generation_of(name)) {
        if other != generation {
            drop_generation(database, other)?;
        }
    }
    for family in Family::ALL {
        let name = state_column(family, generation);
        if database.db.cf_handle(&name).is_some() {
            continue;
        }
        if generation > 0 || position.applied.is_some() {
            let reason = format!("there is no {name}");
            return Err(StoreError::Decode { what: "column families", reason });
        }
        database
            .db
            .create_cf(&name, &columns.of(&name))
            .map_err(StoreError::database("create column families"))?;
        step!(StateColumnCreated);
    }
    Ok(position)
}

/// Refuses a directory that has lost what it said was on disk.
fn check_synced(
    directory: &Directory,
    database: &Database,
    log: &Log,
    synced: &SyncedFile,
) -> Result<(), StartError> {
    let mark = synced.mark();
    if log.end() < mark.log_end {
        return Err(StartError::LostSyncedRecords {
            found: log.end().saturating_sub(1),
            synced: mark.log_end - 1,
        });
    }
    // A vote is partially ordered; one of a higher term or with the quorum's word is newer.
    let order = |vote: &crate::raft::Vote| (vote.leader_id.term, vote.committed);
    if mark.vote.as_ref().map(order) > log.vote.as_ref().map(order) {
        return Err(directory.refuse(format!("a vote that was synced is gone from it; {REBUILD}")));
    }
    // The mark is a lower bound: entries above it may be the torn end, but without a gap.
    check_gapless(database, log, mark.log_end)
        .map_err(|error| directory.refuse(format!("{}; {REBUILD}", chain(&error))))
}

fn check_gapless(database: &Database, log: &Log, from: u64) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (log.first, log.last) else { return Ok(()) };
    let purged_end = log.purged.map_or(first, |id| id.index + 1);
    let (start, end) = (from.max(first), last.index + 1);
    if purged_end != first {
        return Err(StoreError::MissingEntry { start: purged_end, end, missing: purged_end });
    }
    let column = database.column(LOG)?;
    let mut rows = database.db.raw_iterator_cf(&column);
    rows.seek(start.to_be_bytes());
    for index in start..end {
        let entry = rows.item().map(|(key, value)| decode_at(key, value)).transpose()?;
        if entry.is_none_or(|entry| entry.log_id.index != index) {
            rows.status().map_err(StoreError::database("read the log"))?;
            return Err(StoreError::MissingEntry { start, end, missing: index });
        }
        rows.next();
    }
    Ok(())
}
