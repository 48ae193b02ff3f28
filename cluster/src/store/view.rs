//! A consistent view of the state at one applied index.
//!
//! After each applied batch the machine takes a RocksDB snapshot and publishes it as the newest
//! view. Readers clone a pointer; they never wait for a writer, and no writer waits for them. A
//! view keeps its generation's column families too, so an installed snapshot doesn't disturb it.

use std::sync::Arc;

use peat_gateway_state::Family;
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::space::{ReadError, Reader, Space};
use rocksdb::{BoundColumnFamily, ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use super::error::StoreError;
use super::layout::{Database, Db, state_column};
use crate::raft::{LogId, StoredMembership};

/// The state as of one applied index. Cheap to clone; holds back the deletion of old rows, so drop it soon.
#[derive(Clone)]
pub struct View {
    inner: Arc<Inner>,
}

struct Inner {
    position: Position,
    rows: SnapshotCell,
}

/// What belongs to a view besides its rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    pub hash: StateHash,
    pub generation: u64,
}

/// A RocksDB snapshot and the column families of its generation.
struct Held<'db> {
    snapshot: SnapshotWithThreadMode<'db, Db>,
    families: [Arc<BoundColumnFamily<'db>>; Family::ALL.len()],
}

self_cell!(
    struct SnapshotCell {
        owner: Arc<Database>,
        #[covariant]
        dependent: Held,
    }
);

impl View {
    /// Takes a view of what is in the database now, which must be the state at `position`.
    pub(super) fn take(database: &Arc<Database>, position: Position) -> Result<Self, StoreError> {
        let generation = position.generation;
        let rows = SnapshotCell::try_new(database.clone(), |database| {
            let [records, journal, documents] = Family::ALL.map(|f| state_column(f, generation));
            Ok(Held {
                snapshot: database.db.snapshot(),
                families: [
                    database.column(&records)?,
                    database.column(&journal)?,
                    database.column(&documents)?,
                ],
            })
        })?;
        Ok(Self { inner: Arc::new(Inner { position, rows }) })
    }

    /// The log index that this view reflects.
    pub fn applied_index(&self) -> u64 {
        self.inner.position.applied.map_or(0, |id| id.index)
    }

    /// Ids of the members as of this view.
    pub(crate) fn members(&self) -> impl Iterator<Item = u64> {
        self.inner.position.membership.nodes().map(|(node, _)| *node)
    }

    /// Log index of the membership as of this view; 0 before there is one.
    pub(crate) fn membership_index(&self) -> u64 {
        self.inner.position.membership.log_id().as_ref().map_or(0, |id| id.index)
    }

    /// Applied id, membership, hash and generation of this view.
    pub(super) fn position(&self) -> &Position {
        &self.inner.position
    }

    /// Reads a row by its full key.
    pub(super) fn get_full(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let held = self.inner.rows.borrow_dependent();
        let value = held.snapshot.get_cf(held.family(space.family()), key);
        value.map_err(|source| self.failed(space, source))
    }

    /// Damage that a reader meets takes the node out of service, whatever the reader makes of it.
    fn failed(&self, space: Space, source: rocksdb::Error) -> ReadError {
        let doing = format!("read a {} row", space.name());
        self.inner.rows.borrow_owner().damage.note_if_corrupt(&doing, &source);
        ReadError::Store { space: space.name(), source: Box::new(source) }
    }

    /// Visits all rows of a family in key order, by their full keys, until `visit` fails.
    pub(super) fn each_row(
        &self,
        family: Family,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let held = self.inner.rows.borrow_dependent();
        let mut options = ReadOptions::default();
        // A pass over everything must not drive out what requests read.
        options.fill_cache(false);
        let mut rows = held.snapshot.raw_iterator_cf_opt(held.family(family), options);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            visit(key, value)?;
            rows.next();
        }
        rows.status().map_err(StoreError::database("read all rows"))
    }
}

impl<'db> Held<'db> {
    fn family(&self, family: Family) -> &Arc<BoundColumnFamily<'db>> {
        match family {
            Family::Records => &self.families[0],
            Family::Journal => &self.families[1],
            Family::Documents => &self.families[2],
        }
    }
}

impl Reader for View {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.get_full(space, &full_key(space, key))
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        if start >= end {
            return Ok(());
        }
        let held = self.inner.rows.borrow_dependent();
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(full_key(space, start));
        options.set_iterate_upper_bound(full_key(space, end));
        let mut rows = held.snapshot.raw_iterator_cf_opt(held.family(space.family()), options);
        if reverse {
            rows.seek_to_last();
        } else {
            rows.seek_to_first();
        }
        // The first byte of a full key is the space.
        while let Some((key, value)) = rows.item() {
            if !visit(&key[1..], value) {
                return Ok(());
            }
            if reverse {
                rows.prev();
            } else {
                rows.next();
            }
        }
        rows.status().map_err(|source| self.failed(space, source))
    }
}

/// A row's key in its column family.
pub(super) fn full_key(space: Space, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(space.byte());
    full.extend_from_slice(key);
    full
}
