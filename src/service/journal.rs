//! The journal, read and followed.

use peat_gateway_cluster::{Changes, Consistency};
use peat_gateway_state::ids::OrgId;
use peat_gateway_state::query::{self, JournalledEvent};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::access::{Operation, authorize};
use super::{Call, Error, READ_TIMEOUT, Reply, Service, Snapshot, existing_organization, org_id};

/// Most bytes of changes in one answer; an answer with less than the limit may have more behind it.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Most events that a follower is given at once.
const FOLLOWED_EVENTS_MAX: usize = 100;

/// An event as people and sinks see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Its identity, hexadecimal: the same in every delivery.
    pub event_id: String,
    /// Position in the organisation's journal.
    pub sequence: u64,
    /// Position in the document's own order.
    pub document_sequence: u64,
    /// The organisation.
    pub org_id: String,
    /// The formation.
    pub app_id: String,
    /// The document's key.
    pub document_id: String,
    /// `change`, `snapshot` or `tombstone`.
    pub kind: &'static str,
    /// The Automerge change hash, hexadecimal.
    pub change_hash: String,
    /// Who made the change: an Automerge actor in hexadecimal.
    pub actor_id: String,
    /// Unix time in ms at which the gateway observed it.
    pub timestamp_ms: u64,
    /// What changed.
    pub patches: Value,
}

/// A part of a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// In sequence.
    pub events: Vec<Event>,
    /// Sequence of the newest event.
    pub head: u64,
    /// Sequence of the newest event that was trimmed.
    pub trimmed: u64,
}

impl Service {
    /// Returns events above sequence `after`, in sequence.
    ///
    /// # Errors
    /// `not_found` where there is no such organisation.
    pub async fn journal(
        &self,
        call: &Call,
        org: &str,
        after: u64,
        limit: usize,
    ) -> Result<Reply<Tail>, Error> {
        authorize(call.principal, Operation::ReadJournal)?;
        let org = org_id(org)?;
        let snapshot = self.read(call).await?;
        existing_organization(&snapshot, &org)?;
        let index = snapshot.index();
        Ok(Reply { value: tail(&snapshot, &org, after, limit)?, index })
    }

    /// Follows a journal: from above `after`, or from now.
    ///
    /// # Errors
    /// `not_found` where there is no such organisation.
    pub async fn follow_journal(
        &self,
        call: &Call,
        org: &str,
        after: Option<u64>,
    ) -> Result<Reply<Follower>, Error> {
        authorize(call.principal, Operation::ReadJournal)?;
        let org = org_id(org)?;
        let changes = self.cluster.changes();
        let snapshot = self.read(call).await?;
        existing_organization(&snapshot, &org)?;
        let head = query::journal_bounds(snapshot.reader(), &org)?.last;
        let follower =
            Follower { service: self.clone(), org, changes, after: after.unwrap_or(head) };
        Ok(Reply { value: follower, index: snapshot.index() })
    }
}

/// Follows an organisation's journal on this node.
pub struct Follower {
    service: Service,
    org: OrgId,
    changes: watch::Receiver<Changes>,
    after: u64,
}

/// What a follower has next.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// Events up to this sequence were trimmed before they could be followed.
    Trimmed(u64),
    /// Events, in sequence; at least one.
    Events(Vec<Event>),
}

impl Follower {
    /// Waits for what comes next; `None` when the organisation or the node has ended.
    ///
    /// Cancel-safe: what wasn't returned comes again.
    ///
    /// # Errors
    /// The state can't be read; the follower is of no more use.
    pub async fn next(&mut self) -> Result<Option<Followed>, Error> {
        loop {
            // Marked before reading: what is journalled meanwhile wakes the next wait.
            self.changes.borrow_and_update();
            let consistency = Consistency { stale: true, ..Consistency::default() };
            let snapshot = self.service.cluster.read(consistency, READ_TIMEOUT).await?;
            if query::organization(snapshot.reader(), &self.org)?.is_none() {
                return Ok(None);
            }
            let tail = tail(&snapshot, &self.org, self.after, FOLLOWED_EVENTS_MAX)?;
            drop(snapshot);
            if self.after < tail.trimmed {
                self.after = tail.trimmed;
                return Ok(Some(Followed::Trimmed(tail.trimmed)));
            }
            if let Some(last) = tail.events.last() {
                self.after = last.sequence;
                return Ok(Some(Followed::Events(tail.events)));
            }
            if self.changes.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

fn tail(snapshot: &Snapshot, org: &OrgId, after: u64, limit: usize) -> Result<Tail, Error> {
    let bounds = query::journal_bounds(snapshot.reader(), org)?;
    let events = query::journal_events(snapshot.reader(), org, after, limit, PAGE_BYTES_MAX)?;
    let events = events.into_iter().map(|event| shown(org, event)).collect::<Result<_, _>>()?;
    Ok(Tail { events, head: bounds.last, trimmed: bounds.trimmed })
}

fn shown(
    org: &OrgId,
    JournalledEvent { sequence, event }: JournalledEvent,
) -> Result<Event, Error> {
    Ok(Event {
        event_id: event.event_id.to_string(),
        sequence,
        document_sequence: event.document_sequence,
        org_id: org.as_str().to_owned(),
        app_id: event.app_id.as_str().to_owned(),
        document_id: event.document.as_str().to_owned(),
        kind: event.kind.word(),
        change_hash: event.change_hash.to_string(),
        actor_id: event.actor,
        timestamp_ms: event.observed_at,
        patches: serde_json::from_slice(&event.patches).map_err(Error::internal)?,
    })
}
