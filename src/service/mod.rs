//! Use cases: authorise, check, propose or read.
//!
//! ```text
//!   api, cli ──► Service ── may this principal? ─► check the input ─► seal what is secret
//!                   │                                                      │
//!                   │ read: a view as new as asked                         ▼ write
//!                   └────────► Cluster (the node's Handle) ◄──── propose a command; `apply` decides
//! ```
//!
//! Only this module proposes clients' commands. What it checks itself is what `apply` can't: who asks,
//! where a webhook would go, what credentials look like. Uniqueness, quotas and revisions are decided
//! by `apply` alone, whose refusals come back as [`Error`]s with the same code.
//!
//! Every use case takes a [`Call`]: who asks, and how new a read must be. Its answer is a [`Reply`]:
//! the value, and an index that contains it.

pub mod access;
pub mod audit;
pub mod cluster;
pub mod credentials;
pub mod destination;
pub mod documents;
mod error;
pub mod formations;
pub mod journal;
pub mod members;
#[cfg(test)]
pub(crate) mod memory;
pub mod organizations;
pub mod settings;
pub mod sinks;
pub mod snapshot;
pub mod status;
#[cfg(test)]
mod tests;
pub mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use peat_gateway_cluster::{Consistency, Handle};
use peat_gateway_state::command::Idempotency;
use peat_gateway_state::ids::{AppId, OrgId};
use peat_gateway_state::{Actor, Command, Envelope, Outcome, query};

pub use access::{Operation, Principal};
pub use cluster::{Cluster, Snapshot, SnapshotSource};
pub use error::{Error, Kind};

use crate::keys::{Binding, Keyring, SecretKind};

/// How long a proposal may take before its outcome counts as unknown.
pub const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read may wait for the index that it needs; then it is refused as unavailable.
pub const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What the service is told by the node's configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Whether webhooks may go to loopback, link-local and private addresses.
    pub webhook_allow_private: bool,
}

/// All use cases. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    cluster: Arc<dyn Cluster>,
    keyring: Keyring,
    settings: Settings,
}

/// Who asks for something, and how.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks.
    pub principal: Principal,
    /// The client's address without port.
    pub source: String,
    /// The request's id, for logs and the audit log.
    pub request_id: String,
    /// For writes: what makes a retry the same request.
    pub idempotency: Option<Idempotency>,
    /// For reads: how new the answer must be. Writes take only `min_index` from it.
    pub consistency: Consistency,
}

/// An answer and the log index that it reflects: a later read that demands this index sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<T> {
    /// The answer.
    pub value: T,
    /// The index.
    pub index: u64,
}

impl<T> Reply<T> {
    /// Turns the value into another.
    pub fn map<U>(self, turn: impl FnOnce(T) -> U) -> Reply<U> {
        Reply { value: turn(self.value), index: self.index }
    }
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In the listing's order.
    pub items: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

impl<T> Page<T> {
    /// Makes a page of what was read with a limit one above the page's.
    fn cut(mut items: Vec<T>, limit: usize) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}

impl Call {
    /// Who asks, as the audit log names them.
    fn actor(&self) -> Actor {
        Actor {
            principal: self.principal.name().to_owned(),
            source: self.source.clone(),
            request_id: self.request_id.clone(),
        }
    }
}

impl Service {
    /// Serves a running node.
    pub fn new(handle: Handle, keyring: Keyring, settings: Settings) -> Self {
        Self::over(Arc::new(handle), keyring, settings)
    }

    /// Serves anything that behaves as a node.
    pub fn over(cluster: Arc<dyn Cluster>, keyring: Keyring, settings: Settings) -> Self {
        Self { cluster, keyring, settings }
    }

    /// Returns a view that is as new as the call demands.
    async fn read(&self, call: &Call) -> Result<Snapshot, Error> {
        self.cluster.read(call.consistency, READ_TIMEOUT).await.map_err(Error::from)
    }

    /// Returns the newest view: what a write prepares itself on.
    async fn read_newest(&self, min_index: u64) -> Result<Snapshot, Error> {
        let consistency = Consistency { min_index, ..Consistency::default() };
        self.cluster.read(consistency, READ_TIMEOUT).await.map_err(Error::from)
    }

    /// Proposes a client's command; a refusal becomes an error.
    async fn propose(&self, call: &Call, command: Command) -> Result<Reply<Outcome>, Error> {
        let envelope =
            Envelope::new(call.actor(), command).with_idempotency(call.idempotency.clone());
        self.propose_envelope(&envelope).await
    }

    async fn propose_envelope(&self, envelope: &Envelope) -> Result<Reply<Outcome>, Error> {
        let committed = self.cluster.propose(envelope, PROPOSAL_TIMEOUT).await?;
        match committed.outcome {
            Outcome::Refused(refusal) => Err(refusal.into()),
            outcome => Ok(Reply { value: outcome, index: committed.applied_index }),
        }
    }
}

/// Returns the cluster's seal domain.
fn seal_domain(snapshot: &Snapshot) -> Result<[u8; 16], Error> {
    let settings = query::settings(snapshot.reader())?;
    settings.map(|settings| settings.seal_domain).ok_or_else(|| {
        Error::new(
            Kind::Unavailable,
            "not_initialized",
            "the cluster is not initialized yet; try again",
        )
    })
}

/// What a secret of this record version is bound to.
fn binding<'a>(
    seal_domain: [u8; 16],
    org: &'a OrgId,
    kind: SecretKind,
    record: &'a str,
    version: u64,
) -> Binding<'a> {
    Binding { seal_domain, org: org.as_str(), kind, record, version }
}

/// Reads an organisation's id from a path: one that can't exist is not found.
fn org_id(text: &str) -> Result<OrgId, Error> {
    OrgId::parse(text).map_err(|_| Error::not_found("organization", text))
}

/// Reads a formation's id from a path: one that can't exist is not found.
fn app_id(text: &str) -> Result<AppId, Error> {
    AppId::parse(text).map_err(|_| Error::not_found("formation", text))
}

/// Refuses where the organisation doesn't exist in this view.
fn existing_organization(snapshot: &Snapshot, org: &OrgId) -> Result<(), Error> {
    match query::organization(snapshot.reader(), org)? {
        Some(_) => Ok(()),
        None => Err(Error::not_found("organization", org.as_str())),
    }
}

/// An outcome of another command than the one proposed: a programmer's error in `apply`.
fn unexpected(outcome: &Outcome) -> Error {
    Error::internal(format!("the state answered another command: {outcome:?}"))
}
