//! What the state answers. A refusal is a value, not an error: nothing happened, and why.

use minicbor::{Decode, Encode};

use crate::ids::Epoch;
use crate::record::{Formation, Organization, Sink};

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(missing_docs, reason = "the variants carry what the command's struct promises")]
pub enum Outcome {
    /// Done; there is nothing to show.
    #[n(0)]
    Done,
    #[n(1)]
    Organization(#[n(0)] Organization),
    #[n(2)]
    Formation(#[n(0)] Formation),
    #[n(3)]
    Sink(#[n(0)] Sink),
    #[n(4)]
    EpochClaimed(#[n(0)] Epoch),
    /// Events were journalled: sequences `first..=last` (0, 0 if all were known already).
    #[n(5)]
    Appended {
        #[n(0)]
        first: u64,
        #[n(1)]
        last: u64,
        /// Events that were known already.
        #[n(2)]
        known: u32,
    },
    /// Nothing happened.
    #[n(6)]
    Refused(#[n(0)] Refusal),
}

/// Why nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// Maps to HTTP and gRPC status.
    #[n(0)]
    pub kind: RefusalKind,
    /// Stable, snake_case: `already_exists`, `quota_exceeded`.
    #[n(1)]
    pub code: String,
    /// For people: what was attempted and what is in the way.
    #[n(2)]
    pub detail: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalKind {
    /// The request can never succeed as it is.
    #[n(0)]
    Invalid,
    /// What it names doesn't exist.
    #[n(1)]
    NotFound,
    /// It contradicts what is there.
    #[n(2)]
    Conflict,
    /// `If-Match` named another revision.
    #[n(3)]
    PreconditionFailed,
    /// A quota or limit is reached.
    #[n(4)]
    TooMany,
    /// The proposer isn't the leader that it believed to be.
    #[n(5)]
    Fenced,
    /// Not now: the cluster isn't initialised, or the journal is full.
    #[n(6)]
    Unavailable,
}

impl Refusal {
    /// Builds a refusal.
    pub fn new(kind: RefusalKind, code: &str, detail: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), detail: detail.into() }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Outcome::Refused(refusal)
    }
}
