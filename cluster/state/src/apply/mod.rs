//! Deciding: one entry, one outcome, and the rows that change.
//!
//! ```text
//!   entry ─► clock ─┬─ request ──► kept answer? ─► decide ─► audit entry ─► keep the answer
//!                   └─ leader work ─► fence ─► decide
//! ```
//!
//! A command is decided on an overlay of its own, which is dropped if the command is refused: each
//! family's file may refuse at any point, and nothing half-done can stay.

mod audit;
mod cascade;
mod clock;
mod compaction;
mod cursors;
mod documents;
mod epoch;
mod fence;
mod formation;
mod idempotency;
mod journal;
mod membership;
mod organization;
mod overlay;
mod peers;
mod refusals;
pub mod restore;
mod settings;
mod sink;
mod staging;
mod trim;
mod version;
mod work;

pub use overlay::{Overlay, RowChange};

use thiserror::Error;

use self::work::{Decided, Entry, Work, attempt};
use crate::codec;
use crate::command::{Actor, Command, Envelope, Fence, Idempotency};
use crate::outcome::Outcome;
use crate::query;
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
    let unknown = |reason| ApplyError::Unknown { index: position.index, reason };
    let envelope: Envelope = codec::decode(envelope).map_err(unknown)?;
    if envelope.version > crate::VERSION {
        return Err(unknown(format!(
            "it has version {}, this build understands up to {}",
            envelope.version,
            crate::VERSION
        )));
    }
    let now = clock::advance(overlay, position.time_ms)?;
    let entry = Entry { index: position.index, term: position.term, now };
    let Envelope { actor, idempotency, command, .. } = envelope;
    match command.fence() {
        Some(fence) => leader_work(overlay, entry, &actor, fence, command),
        None => request(overlay, entry, &actor, idempotency.as_ref(), command),
    }
}

/// Decides leader work: fenced, and its answer isn't kept.
fn leader_work(
    overlay: &mut Overlay<'_>,
    entry: Entry,
    actor: &Actor,
    fence: Fence,
    command: Command,
) -> Result<Applied, ApplyError> {
    let refused = match fence::check(overlay, &entry, fence, &command)? {
        None => version::check(overlay, &command)?,
        refused => refused,
    };
    let (outcome, effects) = match refused {
        Some(refusal) => (refusal.into(), Effects::default()),
        None => attempt(overlay, entry, |work| decide(work, actor, command))?,
    };
    Ok(Applied { outcome, index: entry.index, effects })
}

/// Decides a client's request: once per idempotency key, and never without its audit entry.
fn request(
    overlay: &mut Overlay<'_>,
    entry: Entry,
    actor: &Actor,
    idempotency: Option<&Idempotency>,
    command: Command,
) -> Result<Applied, ApplyError> {
    let known = idempotency::look_up(overlay, &entry, actor, idempotency)?;
    if let idempotency::Known::Answered { outcome, index } = known {
        return Ok(Applied { outcome, index, effects: Effects::default() });
    }
    let subject = audit::Subject::of(overlay, &command)?;
    let refused = match known {
        idempotency::Known::Refused(refusal) => Some(refusal),
        _ if query::settings(overlay)?.is_none() => Some(settings::not_initialized()),
        _ => version::check(overlay, &command)?,
    };
    let (outcome, effects) = match refused {
        Some(refusal) => (refusal.into(), Effects::default()),
        None => attempt(overlay, entry, |work| decide(work, actor, command))?,
    };
    audit::record_request(overlay, &entry, actor, subject, &outcome)?;
    idempotency::keep(overlay, &entry, actor, idempotency, &outcome)?;
    Ok(Applied { outcome, index: entry.index, effects })
}

fn decide(work: &mut Work<'_>, actor: &Actor, command: Command) -> Decided {
    match command {
        Command::CreateOrganization(command) => organization::create(work, command),
        Command::UpdateOrganization(command) => organization::update(work, command),
        Command::DeleteOrganization(command) => organization::delete(work, &command),
        Command::CreateFormation(command) => formation::create(work, command),
        Command::UpdateFormation(command) => formation::update(work, command),
        Command::DeleteFormation(command) => formation::delete(work, &command),
        Command::CreateSink(command) => sink::create(work, command),
        Command::UpdateSink(command) => sink::update(work, command),
        Command::DeleteSink(command) => sink::delete(work, &command),
        Command::UpdateSettings(command) => settings::update(work, &command),
        Command::RecordRefusals(command) => refusals::record(work, command),
        Command::InitializeCluster(command) => settings::initialize(work, actor, &command),
        Command::ClaimEpoch(command) => epoch::claim(work, actor, &command),
        Command::AppendChanges(command) => journal::append(work, command),
        Command::StagePart(command) => staging::stage(work, command),
        Command::CompactDocument(command) => compaction::compact(work, command),
        Command::CommitCursors(command) => cursors::commit(work, command),
        Command::TrimJournal(command) => trim::trim(work, &command),
        Command::RememberPeers(command) => peers::remember(work, command),
        Command::RaiseVersion(command) => version::raise(work, actor, &command),
        Command::RecordMembership(command) => membership::record(work, actor, command),
    }
}
