//! Reading the log: from memory where it can be, and never with a gap.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt};
use openraft::errors::LeaderChanged;
use openraft::storage::LeaderBoundedStreamError;
use openraft::type_config::alias::LeaderIdOf;
use openraft::{OptionalSend, RaftLogReader};

use super::Inner;
use super::error::StoreError;
use super::log::{Found, Limit, decode_at, half_open};
use crate::raft::{Entry, TypeConfig, Vote};

/// What one request to a follower carries at most, so that it fits a message and a time limit.
const REQUEST_LIMIT: Limit = Limit { entries: 512, bytes: 1 << 20 };
/// No limit: the caller has bounded the range.
const UNLIMITED: Limit = Limit { entries: usize::MAX, bytes: usize::MAX };

/// Reads the log as it is at each call. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogReader {
    inner: Arc<Inner>,
}

impl LogReader {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Reads what the log has of a range, from the range's first present entry on.
    ///
    /// # Errors
    /// An entry between the log's first and last is missing or damaged.
    fn read(&self, start: u64, end: u64, limit: Limit) -> Result<Vec<Entry>, StoreError> {
        let (start, end, found) = {
            let log = self.inner.log();
            let (Some(first), Some(last)) = (log.first, log.last) else { return Ok(Vec::new()) };
            let range = (start.max(first), end.min(last.index + 1));
            (range.0, range.1, log.find(&self.inner.database, range, limit)?)
        };
        let mut rows = match found {
            Found::Cached(entries) => return Ok(entries),
            Found::Stored(rows) => rows,
        };
        let mut entries = Vec::new();
        let mut bytes_left = limit.bytes;
        rows.seek_to_first();
        for index in start..end {
            let Some((key, value)) = rows.item() else {
                rows.status().map_err(StoreError::database("read the log"))?;
                return Err(StoreError::MissingEntry { start, end, missing: index });
            };
            if entries.len() == limit.entries || (value.len() > bytes_left && !entries.is_empty()) {
                break;
            }
            let entry = decode_at(key, value)?;
            if entry.log_id.index != index {
                return Err(StoreError::MissingEntry { start, end, missing: index });
            }
            bytes_left = bytes_left.saturating_sub(value.len());
            entries.push(entry);
            rows.next();
        }
        Ok(entries)
    }

    /// Reads without limits, for the simulation's observer.
    #[cfg(test)]
    pub(super) fn everything(&self, start: u64, end: u64) -> Result<Vec<Entry>, StoreError> {
        self.read(start, end, UNLIMITED)
    }

    fn read_checked(&self, start: u64, end: u64, limit: Limit) -> Result<Vec<Entry>, io::Error> {
        Ok(self.inner.check(self.read(start, end, limit))?)
    }

    /// One chunk of a stream; empty at the end of the range or of the log.
    fn next_chunk(&self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read_checked(start, end, REQUEST_LIMIT)?;
        match entries.first() {
            // What a stream is asked for must not have been purged behind its back.
            Some(first) if first.log_id.index != start && self.purged_beyond(start) => {
                Err(StoreError::MissingEntry { start, end, missing: start }.into())
            }
            _ => Ok(entries),
        }
    }

    fn purged_beyond(&self, index: u64) -> bool {
        self.inner.log().purged.is_some_and(|purged| purged.index >= index)
    }

    fn vote(&self) -> Option<Vote> {
        self.inner.log().vote
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = half_open(&range);
        self.read_checked(start, end, UNLIMITED)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read_checked(start, end, REQUEST_LIMIT)?;
        if start < end && entries.first().is_none_or(|first| first.log_id.index != start) {
            if self.purged_beyond(start) {
                // A stream to a follower outlives the leadership by a little, and then nothing keeps this node from
                // purging what that stream would send next. openraft takes no entries as a heartbeat, which
                // the follower refuses; an error would end this node.
                return Ok(Vec::new());
            }
            return Err(StoreError::MissingEntry { start, end, missing: start }.into());
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.vote())
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = half_open(&range);
        chunks(self.clone(), start, end, |_| Ok(()))
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderIdOf<TypeConfig>,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, LeaderBoundedStreamError<TypeConfig>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = half_open(&range);
        chunks(self.clone(), start, end, move |reader| match reader.vote() {
            Some(vote) if vote.leader_id == leader && vote.committed => Ok(()),
            other => Err(LeaderChanged::new(leader, other).into()),
        })
    }
}

/// Streams a range in chunks, so that a long one is never in memory as a whole. `check` is asked
/// before and after each chunk is read.
fn chunks<E: From<io::Error> + Send + 'static>(
    reader: LogReader,
    start: u64,
    end: u64,
    check: impl Fn(&LogReader) -> Result<(), E> + Send + 'static,
) -> impl Stream<Item = Result<Entry, E>> + Send {
    let read = move |at: u64| -> Result<Vec<Entry>, E> {
        check(&reader)?;
        let entries = reader.next_chunk(at, end)?;
        check(&reader)?;
        Ok(entries)
    };
    stream::iter(Chunks { read, next: Some(start) }).flat_map(stream::iter)
}

/// Yields chunks until the range or the log ends; an error is the last.
struct Chunks<F> {
    read: F,
    next: Option<u64>,
}

impl<E, F: FnMut(u64) -> Result<Vec<Entry>, E>> Iterator for Chunks<F> {
    type Item = Vec<Result<Entry, E>>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = (self.read)(self.next.take()?);
        match chunk {
            Err(error) => Some(vec![Err(error)]),
            Ok(entries) => {
                self.next = Some(entries.last()?.log_id.index.checked_add(1)?);
                Some(entries.into_iter().map(Ok).collect())
            }
        }
    }
}
