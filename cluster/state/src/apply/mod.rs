//! Deciding: one entry, one outcome, and the rows that change.

mod overlay;

pub use overlay::{Overlay, RowChange};

use thiserror::Error;

use crate::outcome::Outcome;
use crate::space::ReadError;

/// Where an entry stands and when the leader stamped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPosition {
    /// Its log index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Unix time in ms by the leader's clock when it was proposed.
    pub time_ms: u64,
}

/// What applying an entry gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer.
    pub outcome: Outcome,
    /// The index of the entry that did it: an earlier one where this is the answer to a retry.
    pub index: u64,
    /// What the node's own workers should look at.
    pub effects: Effects,
}

/// What changed, for workers that wait. Running them is the node's business, never `apply`'s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Organisations, formations, sinks or settings.
    pub configuration: bool,
    /// New journal rows.
    pub journal: bool,
    /// Cursors.
    pub cursors: bool,
}

impl Effects {
    /// Joins two.
    #[must_use]
    pub fn or(self, other: Effects) -> Effects {
        Effects {
            configuration: self.configuration || other.configuration,
            journal: self.journal || other.journal,
            cursors: self.cursors || other.cursors,
        }
    }
}

/// An entry can't be applied: the node must stop, because going on would make it differ.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The entry is not something this build understands.
    #[error(
        "could not understand log entry {index}: {reason}; a newer version of peat-gateway wrote it"
    )]
    Unknown {
        /// Its log index.
        index: u64,
        /// What the decoder said.
        reason: String,
    },
}

/// Applies one entry: decides it, and writes what it changes into the overlay.
///
/// # Errors
/// See [`ApplyError`]: the node must stop. A refused command is no error.
pub fn apply(
    overlay: &mut Overlay<'_>,
    position: &EntryPosition,
    envelope: &[u8],
) -> Result<Applied, ApplyError> {
    let _ = (overlay, position, envelope);
    unimplemented!("replaced by the apply files")
}
