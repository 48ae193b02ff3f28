//! What may be asked of the state: a closed set.
//!
//! A command is either a *request* of a client, proposed by any node and forwarded to the leader, or
//! *leader work*, proposed only by the node that holds the epoch it carries, and never forwarded.
//! A new variant gets the next number and a version; it is proposed only once every member reads it:
//! [`version`] says how. A node that meets a variant it doesn't know stops: skipping it would make the nodes
//! differ.

mod formation;
mod journal;
mod leader;
mod membership;
mod organization;
mod settings;
mod sink;
pub mod version;

use minicbor::{Decode, Encode};
use serde::Serialize;

pub use formation::{CreateFormation, DeleteFormation, UpdateFormation};
pub use journal::{
    AppendChanges, CompactDocument, DocumentBatch, EventBody, NewEvent, PART_BYTES_MAX,
    STAGED_BYTES_MAX, STAGED_PARTS_MAX, SavedForm, SequencedEvent, StagePart,
};
pub use leader::{
    ClaimEpoch, CommitCursors, CursorAdvance, Fence, PEERS_PER_COMMAND_MAX, RaiseVersion,
    RememberPeers, TrimJournal,
};
pub use membership::{MemberRecord, MembershipChange, RecordMembership};
pub use organization::{CreateOrganization, DeleteOrganization, QuotaChanges, UpdateOrganization};
pub use settings::{
    IDEMPOTENCY_RETENTION_MS, InitializeCluster, REFUSALS_PER_COMMAND_MAX, RecordRefusals,
    RefusalRecord, UpdateSettings,
};
pub use sink::{CreateSink, DeleteSink, UpdateSink};
pub use version::FIRST_VERSION;

use crate::ids::Hash32;

/// Most bytes of one encoded envelope; the proposer splits what is larger into staged parts.
pub const ENVELOPE_BYTES_MAX: usize = 1 << 20;

/// A command with all that `apply` needs to decide it, as the log carries it.
///
/// The leader's time stamp and the entry's position are outside, in [`crate::EntryPosition`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    /// What [`Command::minimum_version`] says; a build of an older version stops here.
    #[n(0)]
    pub version: u16,
    /// Who asked.
    #[n(1)]
    pub actor: Actor,
    /// Present where the client may retry. Leader work ignores it.
    #[n(2)]
    pub idempotency: Option<Idempotency>,
    /// What is asked.
    #[n(3)]
    pub command: Command,
}

impl Envelope {
    /// Wraps a command, with the version that it needs.
    pub fn new(actor: Actor, command: Command) -> Self {
        Self { version: command.minimum_version(), actor, idempotency: None, command }
    }

    /// Reads the version from the front of an encoded envelope; `None` if the bytes are no envelope.
    ///
    /// For who passes envelopes on and need not know what is in them.
    pub fn version_of(bytes: &[u8]) -> Option<u16> {
        let mut decoder = minicbor::Decoder::new(bytes);
        decoder.array().ok()?;
        decoder.u16().ok()
    }

    /// Adds a client's idempotency key.
    #[must_use]
    pub fn with_idempotency(mut self, idempotency: Option<Idempotency>) -> Self {
        self.idempotency = idempotency;
        self
    }
}

/// Who asked for something; stands in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Actor {
    /// `admin`, `loopback`, `node:<id>`.
    #[n(0)]
    pub principal: String,
    /// The client's address without port; empty for nodes.
    #[n(1)]
    pub source: String,
    /// The request's `x-request-id`; empty for leader work.
    #[n(2)]
    pub request_id: String,
}

/// A client's promise that a request with the same key is the same request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Idempotency {
    /// Chosen by the client, 1–255 bytes; belongs to the actor's principal.
    #[n(0)]
    pub key: String,
    /// SHA-256 of method, path and body.
    #[n(1)]
    pub request_digest: Hash32,
}

/// Most bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The closed set of commands. Numbers are never reused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(missing_docs, reason = "each variant's struct says what it does")]
pub enum Command {
    // Requests of clients.
    #[n(1)]
    CreateOrganization(#[n(0)] CreateOrganization),
    #[n(2)]
    UpdateOrganization(#[n(0)] UpdateOrganization),
    #[n(3)]
    DeleteOrganization(#[n(0)] DeleteOrganization),
    #[n(4)]
    CreateFormation(#[n(0)] CreateFormation),
    #[n(5)]
    UpdateFormation(#[n(0)] UpdateFormation),
    #[n(6)]
    DeleteFormation(#[n(0)] DeleteFormation),
    #[n(7)]
    CreateSink(#[n(0)] CreateSink),
    #[n(8)]
    UpdateSink(#[n(0)] UpdateSink),
    #[n(9)]
    DeleteSink(#[n(0)] DeleteSink),
    #[n(10)]
    UpdateSettings(#[n(0)] UpdateSettings),
    #[n(11)]
    RecordRefusals(#[n(0)] RecordRefusals),
    // Leader work.
    #[n(32)]
    InitializeCluster(#[n(0)] InitializeCluster),
    #[n(33)]
    ClaimEpoch(#[n(0)] ClaimEpoch),
    #[n(34)]
    AppendChanges(#[n(0)] AppendChanges),
    #[n(35)]
    StagePart(#[n(0)] StagePart),
    #[n(36)]
    CompactDocument(#[n(0)] CompactDocument),
    #[n(37)]
    CommitCursors(#[n(0)] CommitCursors),
    #[n(38)]
    TrimJournal(#[n(0)] TrimJournal),
    #[n(39)]
    RememberPeers(#[n(0)] RememberPeers),
    #[n(40)]
    RaiseVersion(#[n(0)] RaiseVersion),
    #[n(44)]
    RecordMembership(#[n(0)] RecordMembership),
}

impl Command {
    /// Returns the fence of leader work, `None` for a client's request.
    ///
    /// `ClaimEpoch` and `InitializeCluster` carry a term but no epoch yet; they are leader work too.
    pub fn fence(&self) -> Option<Fence> {
        match self {
            Command::InitializeCluster(c) => Some(Fence { term: c.term, epoch: None }),
            Command::ClaimEpoch(c) => Some(Fence { term: c.term, epoch: None }),
            Command::AppendChanges(c) => Some(c.fence),
            Command::StagePart(c) => Some(c.fence),
            Command::CompactDocument(c) => Some(c.fence),
            Command::CommitCursors(c) => Some(c.fence),
            Command::TrimJournal(c) => Some(c.fence),
            Command::RememberPeers(c) => Some(c.fence),
            Command::RaiseVersion(c) => Some(c.fence),
            Command::RecordMembership(c) => Some(c.fence),
            _ => None,
        }
    }

    /// Whether only the leader may propose it, and never forwarded.
    pub fn is_leader_work(&self) -> bool {
        self.fence().is_some()
    }
}
