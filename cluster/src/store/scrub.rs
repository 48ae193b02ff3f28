//! Reading everything that is stored, slowly, to find damage before anybody asks for what is damaged.
//!
//! ```text
//!  a view ──all rows──► checksums by RocksDB ──► sum ──equal?── the hash that `apply` keeps
//!  the log ──all entries──► their own checksums, no gap
//! ```
//!
//! The view holds back the deletion of old rows for as long as the pass takes.

use std::time::{Duration, Instant};

use peat_gateway_state::hash::StateHash;
use peat_gateway_state::{Family, Space};
use rocksdb::ReadOptions;

use super::Store;
use super::error::{StoreError, chain};
use super::layout::{LOG, META};
use super::log::decode_at;

/// Bytes read between two looks at the clock.
const PACE_BYTES: u64 = 256 << 10;
/// Bytes that RocksDB reads ahead of a pass.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// What a pass has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scrubbed {
    pub rows: u64,
    pub bytes: u64,
    pub log_entries: u64,
    /// The index of the state that was checked.
    pub index: u64,
}

/// Why a pass found no peace.
#[derive(Debug)]
pub(crate) enum ScrubFailure {
    /// What is stored isn't what was written.
    Damaged(String),
    /// The disk failed.
    Failed(StoreError),
    /// It was told to stop.
    Stopped,
}

/// How fast a pass reads, and whether it should go on.
pub(crate) struct Pace<'p> {
    bytes_per_second: u64,
    stop: &'p (dyn Fn() -> bool + Sync),
    bytes: u64,
    unpaid: u64,
    begin: Instant,
}

impl<'p> Pace<'p> {
    pub(crate) fn new(bytes_per_second: u64, stop: &'p (dyn Fn() -> bool + Sync)) -> Self {
        let bytes_per_second = bytes_per_second.max(1);
        Self { bytes_per_second, stop, bytes: 0, unpaid: 0, begin: Instant::now() }
    }

    /// Counts what was read, and waits where that was too fast.
    fn read(&mut self, bytes: u64) -> Result<(), ScrubFailure> {
        self.bytes += bytes;
        self.unpaid += bytes;
        if self.unpaid < PACE_BYTES {
            return Ok(());
        }
        self.unpaid = 0;
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second as f64);
        while let Some(early) = due.checked_sub(self.begin.elapsed()).filter(|d| !d.is_zero()) {
            if (self.stop)() {
                return Err(ScrubFailure::Stopped);
            }
            std::thread::sleep(early.min(Duration::from_millis(100)));
        }
        if (self.stop)() { Err(ScrubFailure::Stopped) } else { Ok(()) }
    }
}

impl Store {
    /// Reads everything once. Blocks for as long as that takes.
    pub(crate) fn scrub(&self, pace: &mut Pace<'_>) -> Result<Scrubbed, ScrubFailure> {
        let mut done = Scrubbed::default();
        self.scrub_state(pace, &mut done)?;
        self.scrub_log(pace, &mut done)?;
        self.scrub_meta()?;
        done.bytes = pace.bytes;
        Ok(done)
    }

    fn scrub_state(&self, pace: &mut Pace<'_>, done: &mut Scrubbed) -> Result<(), ScrubFailure> {
        let view = self.view();
        done.index = view.applied_index();
        let mut sums = StateHash::default();
        for family in Family::ALL {
            let mut ended = None;
            let read = view.each_row(family, |key, value| {
                let space = key.first().and_then(|byte| Space::from_byte(*byte));
                let Some(space) = space.filter(|space| space.family() == family) else {
                    let reason = format!("a row of {} is of no key space of it", family.name());
                    return Err(StoreError::Decode { what: "row", reason });
                };
                sums.add(space, &key[1..], value);
                done.rows += 1;
                if let Err(stopped) = pace.read((key.len() + value.len()) as u64) {
                    ended = Some(stopped);
                    return Err(StoreError::Panicked("nothing; the pass"));
                }
                Ok(())
            });
            if let Some(stopped) = ended {
                return Err(stopped);
            }
            read.map_err(failed)?;
        }
        let (kept, found) = (view.position().hash.digest(), sums.digest());
        if kept != found {
            let index = view.applied_index();
            return Err(ScrubFailure::Damaged(format!(
                "the rows of the state at index {index} give the hash {found}, not {kept} as applied"
            )));
        }
        Ok(())
    }

    fn scrub_log(&self, pace: &mut Pace<'_>, done: &mut Scrubbed) -> Result<(), ScrubFailure> {
        let database = &self.inner.database;
        let column = database.column(LOG).map_err(failed)?;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(READ_AHEAD_BYTES);
        let (mut rows, bounds) = {
            // The iterator sees the log as it is while the lock is held.
            let log = self.inner.log();
            let bounds = log.first.zip(log.last.map(|id| id.index));
            (database.db.raw_iterator_cf_opt(&column, options), bounds)
        };
        let Some((first, last)) = bounds else { return Ok(()) };
        rows.seek(first.to_be_bytes());
        for index in first..=last {
            let Some((key, value)) = rows.item() else {
                rows.status().map_err(StoreError::database("read the log")).map_err(failed)?;
                let (start, end, missing) = (first, last + 1, index);
                return Err(failed(StoreError::MissingEntry { start, end, missing }));
            };
            let bytes = (key.len() + value.len()) as u64;
            let entry = decode_at(key, value).map_err(failed)?;
            if entry.log_id.index != index {
                let (start, end, missing) = (first, last + 1, index);
                return Err(failed(StoreError::MissingEntry { start, end, missing }));
            }
            done.log_entries += 1;
            pace.read(bytes)?;
            rows.next();
        }
        Ok(())
    }

    fn scrub_meta(&self) -> Result<(), ScrubFailure> {
        let database = &self.inner.database;
        let column = database.column(META).map_err(failed)?;
        let mut rows = database.db.raw_iterator_cf(&column);
        rows.seek_to_first();
        while rows.valid() {
            rows.next();
        }
        rows.status().map_err(StoreError::database("read raft_meta")).map_err(failed)
    }
}

fn failed(error: StoreError) -> ScrubFailure {
    let is_damage = error.is_damage() || matches!(error, StoreError::Decode { .. });
    if is_damage { ScrubFailure::Damaged(chain(&error)) } else { ScrubFailure::Failed(error) }
}

#[cfg(test)]
impl Store {
    /// Puts a row into the state that no command wrote; `honest` corrects the hash by it.
    pub(crate) fn plant_row(&self, key: &[u8], value: &[u8], honest: bool) {
        use super::layout::{key as meta_key, state_column};
        use super::view::full_key;
        let inner = &self.inner;
        let mut position = inner.view().position().clone();
        let mut batch = rocksdb::WriteBatch::default();
        let column = state_column(Space::Peer.family(), position.generation);
        batch.put_cf(&inner.database.column(&column).unwrap(), full_key(Space::Peer, key), value);
        if honest {
            position.hash.add(Space::Peer, key, value);
            let hash = peat_gateway_state::codec::encode(&position.hash);
            batch.put_cf(&inner.database.column(META).unwrap(), meta_key::STATE_HASH, hash);
        }
        inner.database.write(batch, "plant a row").unwrap();
        inner.publish(position).unwrap();
    }
}
