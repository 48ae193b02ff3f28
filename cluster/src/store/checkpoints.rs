//! State hashes at indexes that all nodes pass, so that they can be compared while writes go on.
//!
//! A node knows its hash where a batch of entries ended, and batches end elsewhere on every node. So every
//! node also ends one at each multiple of [`CHECKPOINT_ENTRIES`], and remembers the newest of those hashes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use peat_gateway_state::ids::Hash32;

use super::Store;
use super::view::Position;

/// Entries between two checkpoints.
const CHECKPOINT_ENTRIES: u64 = 1_024;
/// Checkpoints remembered; older ones are forgotten.
const CHECKPOINTS_MAX: usize = 64;

/// The newest checkpoints, in order.
#[derive(Default)]
pub(super) struct Checkpoints {
    newest: Mutex<VecDeque<(u64, Hash32)>>,
}

/// Whether a batch ends behind this index.
pub(super) fn is_checkpoint(index: u64) -> bool {
    index.is_multiple_of(CHECKPOINT_ENTRIES)
}

impl Checkpoints {
    /// Remembers the position if it is at a checkpoint.
    pub(super) fn note(&self, position: &Position) {
        let Some(index) = position.applied.map(|id| id.index).filter(|index| is_checkpoint(*index))
        else {
            return;
        };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.back().is_some_and(|(last, _)| *last >= index) {
            return;
        }
        if newest.len() == CHECKPOINTS_MAX {
            newest.pop_front();
        }
        newest.push_back((index, position.hash.digest()));
    }
}

impl Store {
    /// The state's hash at all indexes that are known, in order; the last is the newest view's.
    pub(crate) fn state_hashes(&self) -> Vec<(u64, Hash32)> {
        let checkpoints = &self.inner.checkpoints.newest;
        let mut hashes: Vec<_> =
            checkpoints.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let now = self.state_hash();
        hashes.retain(|(index, _)| *index < now.0);
        hashes.push(now);
        hashes
    }
}
