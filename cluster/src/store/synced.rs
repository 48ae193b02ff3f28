//! What must be in the WAL after a crash.
//!
//! RocksDB forgets a damaged end of its WAL without a word. For a voter that would be a broken
//! promise: it told the leader that entries were on disk. So the flusher writes here, *after* each
//! sync of the WAL, how far the log and the vote reached; at open, a log that ends earlier means
//! that synced records are gone, and the node refuses to vote.
//!
//! The mark is a lower bound. It is written without a sync of its own, so it survives the end of
//! the process exactly, and a power cut up to [`SYNC_INTERVAL`]. Two slots are written in turn, so a
//! torn write leaves the one before. Where the log is truncated, the mark is lowered and synced
//! first: otherwise a power cut would leave a mark above a log that is rightly shorter.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::raft::Vote;
use crate::wire::stored::{vote_from_stored, vote_to_stored};
use peat_gateway_proto::stored as proto;

/// The mark is synced this long after it was written, at most.
pub(super) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

const MAGIC: &[u8; 4] = b"PGSM";
/// Sectors are written whole, so each slot has its own.
const SLOT_BYTES: u64 = 4096;
const SLOTS: u64 = 2;
/// Magic, counter, log end, vote term, vote node, vote committed.
const BODY_BYTES: usize = 4 + 8 + 8 + 8 + 8 + 1;
const CHECKSUM_BYTES: usize = 4;

/// How far the log and the vote are known to be synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SyncedMark {
    /// The index after the last synced entry; 0 while there is none.
    pub log_end: u64,
    /// The last synced vote.
    pub vote: Option<Vote>,
}

/// The file that holds the mark.
pub(super) struct SyncedFile {
    file: File,
    counter: u64,
    mark: SyncedMark,
    dirty_since: Option<Instant>,
}

impl SyncedFile {
    /// Creates the file with an empty mark, durably but for its name.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        file.set_len(SLOT_BYTES * SLOTS)?;
        let mut synced = Self { file, counter: 0, mark: SyncedMark::default(), dirty_since: None };
        synced.record(SyncedMark::default())?;
        synced.file.sync_all()?;
        #[cfg(test)]
        crate::simulation::disk::file_synced(&synced.file);
        synced.dirty_since = None;
        Ok(synced)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// `NotFound` where there is none; `InvalidData` where no slot is whole.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let newest = (0..SLOTS)
            .filter_map(|slot| {
                let mut bytes = [0; BODY_BYTES + CHECKSUM_BYTES];
                file.read_exact_at(&mut bytes, slot * SLOT_BYTES).ok()?;
                decode(&bytes)
            })
            .max_by_key(|(counter, _)| *counter);
        let (counter, mark) = newest.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "neither of its two marks is whole")
        })?;
        Ok(Self { file, counter, mark, dirty_since: None })
    }

    /// The newest mark.
    pub(super) fn mark(&self) -> SyncedMark {
        self.mark
    }

    /// Writes a mark; it survives the process at once, and a power cut after [`Self::sync`].
    pub(super) fn record(&mut self, mark: SyncedMark) -> io::Result<()> {
        self.counter += 1;
        let slot = self.counter % SLOTS;
        self.file.write_all_at(&encode(self.counter, &mark), slot * SLOT_BYTES)?;
        self.mark = mark;
        self.dirty_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Makes the mark survive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty_since.take().is_some() {
            self.file.sync_data()?;
            #[cfg(test)]
            crate::simulation::disk::file_synced(&self.file);
        }
        Ok(())
    }

    /// Whether a sync is due, and if not, when it will be.
    pub(super) fn due(&self) -> Option<Duration> {
        self.dirty_since.map(|since| SYNC_INTERVAL.saturating_sub(since.elapsed()))
    }
}

fn encode(counter: u64, mark: &SyncedMark) -> [u8; BODY_BYTES + CHECKSUM_BYTES] {
    let mut bytes = [0; BODY_BYTES + CHECKSUM_BYTES];
    let vote = mark.vote.as_ref().map(vote_to_stored).unwrap_or_default();
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..12].copy_from_slice(&counter.to_be_bytes());
    bytes[12..20].copy_from_slice(&mark.log_end.to_be_bytes());
    bytes[20..28].copy_from_slice(&vote.term.to_be_bytes());
    bytes[28..36].copy_from_slice(&vote.node_id.to_be_bytes());
    // 0: no vote yet, 1: a vote, 2: one that a quorum granted.
    bytes[36] = mark.vote.map_or(0, |vote| 1 + u8::from(vote.committed));
    let checksum = crc32c::crc32c(&bytes[..BODY_BYTES]);
    bytes[BODY_BYTES..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; BODY_BYTES + CHECKSUM_BYTES]) -> Option<(u64, SyncedMark)> {
    let number = |at: usize| bytes[at..at + 8].iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
    let checksum = crc32c::crc32c(&bytes[..BODY_BYTES]).to_be_bytes();
    if &bytes[..4] != MAGIC || bytes[BODY_BYTES..] != checksum {
        return None;
    }
    let vote = match bytes[36] {
        0 => None,
        kind => Some(vote_from_stored(&proto::Vote {
            term: number(20),
            node_id: number(28),
            committed: kind == 2,
        })),
    };
    Some((number(4), SyncedMark { log_end: number(12), vote }))
}

#[cfg(test)]
mod tests {
    use openraft::impls::leader_id_std::LeaderId;

    use super::*;

    #[test]
    fn the_newest_whole_mark_is_found_and_a_torn_one_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("synced");
        let vote = Vote { leader_id: LeaderId { term: 3, voted_for: 8 }, committed: true };
        let first = SyncedMark { log_end: 5, vote: None };
        let second = SyncedMark { log_end: 9, vote: Some(vote) };
        let mut file = SyncedFile::create(&path).unwrap();
        file.record(first).unwrap();
        file.record(second).unwrap();
        file.sync().unwrap();
        assert_eq!(SyncedFile::open(&path).unwrap().mark(), second);
        let torn = OpenOptions::new().write(true).open(&path).unwrap();
        torn.write_all_at(&[0xff], file.counter % SLOTS * SLOT_BYTES + 14).unwrap();
        assert_eq!(SyncedFile::open(&path).unwrap().mark(), first);
        torn.set_len(0).unwrap();
        assert_eq!(SyncedFile::open(&path).err().unwrap().kind(), io::ErrorKind::InvalidData);
    }
}
