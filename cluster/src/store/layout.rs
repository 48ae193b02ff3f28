//! Column families, their options, and the keys of `raft_meta`.
//!
//! ```text
//!  raft_log        be64 index → encoded entry
//!  raft_meta       vote, last purged, committed, identity; applied id, membership, state hash,
//!                  generation
//!  records.gN      ┐
//!  journal.gN      ├ space byte ‖ key → record     (N: the generation; a snapshot brings the next)
//!  documents.gN    ┘
//! ```

use std::sync::Arc;

use peat_gateway_state::Family;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BoundColumnFamily, Cache, DBCompressionType,
    DBRecoveryMode, LogLevel, Options, WriteBatch, WriteOptions,
};

use super::directory::DirectoryLock;
use super::error::StoreError;
use super::quarantine::Damage;

/// A RocksDB whose column families can come and go while it is shared.
pub(super) type Db = rocksdb::DBWithThreadMode<rocksdb::MultiThreaded>;

/// The log's column family.
pub(super) const LOG: &str = "raft_log";
/// The column family of all that isn't an entry or a row.
pub(super) const META: &str = "raft_meta";
/// RocksDB insists on it; it stays empty.
pub(super) const DEFAULT: &str = "default";

/// Keys of `raft_meta`.
pub(super) mod key {
    /// `stored.v1.Vote`.
    pub(crate) const VOTE: &[u8] = b"vote";
    /// `stored.v1.LogId` of the last purged entry.
    pub(crate) const PURGED: &[u8] = b"last_purged";
    /// `stored.v1.LogId` of the last entry known to be committed.
    pub(crate) const COMMITTED: &[u8] = b"committed";
    /// `stored.v1.NodeIdentity`.
    pub(crate) const IDENTITY: &[u8] = b"identity";
    /// `stored.v1.LogId` of the last applied entry.
    pub(crate) const APPLIED: &[u8] = b"applied";
    /// `stored.v1.StoredMembership` as applied.
    pub(crate) const MEMBERSHIP: &[u8] = b"membership";
    /// CBOR sums of the state hash.
    pub(crate) const STATE_HASH: &[u8] = b"state_hash";
    /// be64 generation of the state's column families.
    pub(crate) const GENERATION: &[u8] = b"generation";
    // `snapshot` was the header of a snapshot file that earlier builds kept; it isn't read any more.
}

/// Shared by all column families; what is read often stays, up to here.
const BLOCK_CACHE_BYTES: usize = 64 << 20;
/// All memtables together; beyond, RocksDB writes the oldest one out.
const MEMTABLES_BYTES_MAX: usize = 96 << 20;
/// One memtable of the log: large, because most entries are purged before they need a file.
const LOG_MEMTABLE_BYTES: usize = 32 << 20;
/// One memtable of a state family.
const STATE_MEMTABLE_BYTES: usize = 16 << 20;
/// The WAL on disk; beyond, memtables are written out so that old files can go. It is also what a
/// restart reads at most.
pub(super) const WAL_BYTES_MAX: u64 = 128 << 20;
/// WAL files that are written over instead of removed: a sync of bytes in place needs no change of the
/// file's size, so the file system's own journal stays out of it.
const WAL_FILES_RECYCLED: usize = 3;
/// Threads for writing memtables out and for compaction.
const BACKGROUND_JOBS_MAX: i32 = 2;
/// Open table files; beyond, the least used are closed.
const OPEN_FILES_MAX: i32 = 512;
/// Bits of the bloom filter per key: 1 % false positives.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// One part of a table file's index or filter.
const INDEX_PART_BYTES: usize = 4 << 10;
/// RocksDB's own text logs.
const TEXT_LOG_FILES_MAX: usize = 4;
/// One of them.
const TEXT_LOG_BYTES_MAX: usize = 4 << 20;
/// Bytes that RocksDB hands to the disk at a time while it writes table files, so that a sync of
/// the WAL never waits for a whole file.
const WRITE_BACK_BYTES: u64 = 1 << 20;

/// An open database, and the lock that keeps other processes out.
///
/// Fields drop in order: the lock is released once RocksDB is closed.
pub(crate) struct Database {
    pub(super) db: Db,
    /// Where readers note damage.
    pub(super) damage: Damage,
    _lock: DirectoryLock,
}

impl Database {
    pub(super) fn new(db: Db, lock: DirectoryLock) -> Self {
        Self { db, damage: Damage::new(), _lock: lock }
    }

    /// The handle of a column family.
    pub(super) fn column(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>, StoreError> {
        self.db.cf_handle(name).ok_or_else(|| StoreError::Decode {
            what: "column families",
            reason: format!("there is no {name}"),
        })
    }

    /// The value under a key of `raft_meta`.
    pub(super) fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(&self.column(META)?, key).map_err(StoreError::database("read raft_meta"))
    }

    /// Writes a batch to memtables and WAL, readable at once, durable with the next flush.
    pub(super) fn write(&self, batch: WriteBatch, doing: &'static str) -> Result<(), StoreError> {
        self.db.write_opt(batch, &WriteOptions::default()).map_err(StoreError::database(doing))
    }
}

/// The name of a family's column family in a generation.
pub(super) fn state_column(family: Family, generation: u64) -> String {
    format!("{}.g{generation}", family.name())
}

/// The generation in a column family's name, `None` where it holds no state.
pub(super) fn generation_of(column: &str) -> Option<u64> {
    Family::ALL
        .iter()
        .find_map(|family| column.strip_prefix(family.name())?.strip_prefix(".g")?.parse().ok())
}

/// Options of the whole database.
///
/// `manual_wal_flush`: a write goes to RocksDB's buffer, and the flusher hands all of it to the
/// disk with one write and one sync. Killing the process loses what a power cut would, so tests
/// that kill prove durability too.
///
/// `PointInTime` recovery keeps the longest undamaged beginning of the WAL, so that a tail torn by
/// a power cut is no obstacle. Whether more than the torn tail is gone is checked against the
/// synced mark (see `synced`), which lies outside of the WAL. `TolerateCorruptedTailRecords` would
/// refuse to start where the disk wrote the pages of an unsynced tail out of order.
pub(super) fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_manual_wal_flush(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_recycle_log_file_num(WAL_FILES_RECYCLED);
    options.set_db_write_buffer_size(MEMTABLES_BYTES_MAX);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_bytes_per_sync(WRITE_BACK_BYTES);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(TEXT_LOG_FILES_MAX);
    options.set_max_log_file_size(TEXT_LOG_BYTES_MAX);
    options
}

/// Options per column family; clones share the block cache.
#[derive(Clone)]
pub(super) struct ColumnOptions {
    cache: Cache,
}

impl ColumnOptions {
    pub(super) fn new() -> Self {
        Self { cache: Cache::new_lru_cache(BLOCK_CACHE_BYTES) }
    }

    /// The options of a column family by its name.
    pub(super) fn of(&self, column: &str) -> Options {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&self.cache);
        tables.set_cache_index_and_filter_blocks(true);
        // In parts: the index of a large table file as one block is too large for a shard of the cache, and
        // would be read and unpacked again for each key that isn't there.
        tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        tables.set_metadata_block_size(INDEX_PART_BYTES);
        tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        if column == LOG {
            options.set_write_buffer_size(LOG_MEMTABLE_BYTES);
            options.set_compression_type(DBCompressionType::None);
        } else {
            options.set_write_buffer_size(STATE_MEMTABLE_BYTES);
            options.set_compression_type(DBCompressionType::Lz4);
            if generation_of(column).is_some() {
                tables.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
                tables.set_partition_filters(true);
            }
        }
        options.set_block_based_table_factory(&tables);
        // The simulation copies the files of a running database, and must be able to repeat that.
        #[cfg(test)]
        options.set_disable_auto_compactions(crate::simulation::active());
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_read_from_the_names_of_state_columns_only() {
        assert_eq!(generation_of(&state_column(Family::Journal, 12)), Some(12));
        assert_eq!(generation_of(LOG), None);
        assert_eq!(generation_of("records"), None);
        assert_eq!(generation_of("records.gx"), None);
    }
}
