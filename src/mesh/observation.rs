//! One formation, without IO: sightings in; events for the pipeline and answers out.
//!
//! ```text
//!  Sighting ──► replica ──► events, each with a ticket ──────────► pipeline ──► journal
//!                  └──────► answer, held until the replica's newest ticket is committed ──► link
//! ```
//!
//! An answer is made when its message is taken, and kept until everything that the replica held at that
//! time is committed, what other links brought included. So no answer, its filter included, speaks of
//! anything that a quorum doesn't have. (Guarantee 3)

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use automerge::Automerge;
use automerge::sync::Message;
use bytes::Bytes;
use peat_gateway_mesh::frame::{Frame, FrameKind};
use peat_gateway_state::command::NewEvent;
use peat_gateway_state::ids::{AppId, DocumentKey, Hash32, OrgId};
use peat_gateway_state::record::{EventKind, event_id};
use peat_gateway_state::space::ReadError;

use super::chunks;
use super::event;
use super::exchange::{Announcement, Exchange};
use super::journal::Journal;
use super::metrics::Metrics;
use super::pipeline::{ITEM_BYTES_MAX, ITEM_EVENTS_MAX, Item};
use super::replica::{AbsorbError, Replica, causal_order};
use super::replicas::Replicas;
use super::sighting::Sighting;

/// After as many frames without sense a link is closed.
pub(super) const MALFORMED_MAX: u32 = 100;
/// How long a document that can't be journalled is left alone before it is tried again.
const HELD_FOR: Duration = Duration::from_secs(60);
/// Most documents that are remembered as held back. At the limit all are forgotten, and tried again.
const HELD_MAX: usize = 10_000;
/// Answers that wait per link and document: the oldest, so that a busy document is answered at all, and
/// the newest. One between them is replaced.
const WAITING_ANSWERS_MAX: usize = 2;
/// Most documents whose exchange is remembered per link. At the limit the link's are forgotten, which costs
/// larger filters in the next answers.
const EXCHANGES_MAX: usize = 100_000;

/// A connection to a mesh node, numbered by the formation.
pub(super) type LinkId = u64;

/// One formation's replicas, exchanges and waiting answers.
pub(super) struct Observation<J> {
    org: OrgId,
    app: AppId,
    journal: J,
    metrics: Metrics,
    replicas: Replicas,
    links: HashMap<LinkId, LinkState>,
    /// Answers by the ticket that they wait for.
    waiting: BTreeMap<(u64, LinkId, DocumentKey), Bytes>,
    held: HashMap<DocumentKey, Instant>,
    newest_ticket: u64,
    committed: u64,
    items: VecDeque<Item>,
    answers: Vec<(LinkId, Frame)>,
    closing: Vec<LinkId>,
}

#[derive(Default)]
struct LinkState {
    exchanges: HashMap<DocumentKey, Exchange>,
    /// Tickets of this link's waiting answers by document.
    waiting: HashMap<DocumentKey, Vec<u64>>,
    malformed: u32,
}

impl<J: Journal> Observation<J> {
    /// Begins with nothing in memory; everything is read from the journal when a node mentions it.
    pub(super) fn new(org: OrgId, app: AppId, journal: J, metrics: Metrics) -> Self {
        Self {
            org,
            app,
            journal,
            metrics,
            replicas: Replicas::default(),
            links: HashMap::new(),
            waiting: BTreeMap::new(),
            held: HashMap::new(),
            newest_ticket: 0,
            committed: 0,
            items: VecDeque::new(),
            answers: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// A link is there.
    pub(super) fn connect(&mut self, link: LinkId) {
        self.links.insert(link, LinkState::default());
    }

    /// A link is gone; what it was owed is forgotten.
    pub(super) fn disconnect(&mut self, link: LinkId) {
        let Some(state) = self.links.remove(&link) else { return };
        for (document, tickets) in state.waiting {
            for ticket in tickets {
                self.waiting.remove(&(ticket, link, document.clone()));
            }
        }
    }

    /// Takes what a node said.
    ///
    /// # Errors
    /// The committed state can't be read: the formation must begin again.
    pub(super) fn take(
        &mut self,
        link: LinkId,
        sighting: Sighting,
        now: Instant,
    ) -> Result<(), ReadError> {
        if !self.links.contains_key(&link) {
            return Ok(());
        }
        let key = match &sighting {
            Sighting::Sync { key, .. }
            | Sighting::Snapshot { key, .. }
            | Sighting::Tombstone { key, .. } => key,
            Sighting::Malformed(reason) => {
                tracing::debug!(org = %self.org, app = %self.app, reason, "a frame made no sense");
                self.malformed(link);
                return Ok(());
            }
        };
        let Ok(document) = DocumentKey::parse(key) else {
            self.malformed(link);
            return Ok(());
        };
        if self.held.get(&document).is_some_and(|until| now < *until) {
            return Ok(());
        }
        let replica = match self.replicas.take(&document) {
            Some(replica) => replica,
            None => {
                let stored = self.journal.stored_document(&self.org, &self.app, &document)?;
                match Replica::load(stored) {
                    Ok(replica) => replica,
                    Err(error) => {
                        self.hold(&document, &error.to_string(), now);
                        return Ok(());
                    }
                }
            }
        };
        // Automerge reads what strangers send. Should it panic, then this document is left alone and
        // the others go on; the replica, perhaps half changed, is gone with the closure.
        let taken = catch_unwind(AssertUnwindSafe(|| {
            self.take_with(link, &document, replica, sighting, now)
        }));
        match taken {
            Ok(Ok(Some(replica))) => self.replicas.put(document, replica, self.committed),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => self.hold(&document, "what a node sent made the document library panic", now),
        }
        Ok(())
    }

    /// Everything up to `ticket` is journalled (or its documents were reported failed before).
    pub(super) fn committed(&mut self, ticket: u64) {
        self.committed = self.committed.max(ticket);
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > self.committed {
                break;
            }
            let ((ticket, link, document), payload) = entry.remove_entry();
            if let Some(state) = self.links.get_mut(&link)
                && let Some(tickets) = state.waiting.get_mut(&document)
            {
                tickets.retain(|waiting| *waiting != ticket);
                if tickets.is_empty() {
                    state.waiting.remove(&document);
                }
            }
            self.answers.push((link, answer_frame(&document, payload)));
        }
    }

    /// A document can't be journalled: it is left unanswered, with an alarm, and tried again later.
    pub(super) fn failed(&mut self, document: &DocumentKey, reason: &str, now: Instant) {
        self.hold(document, reason, now);
    }

    /// The replica isn't what is committed: it is built again, and the links that use it close.
    pub(super) fn diverged(&mut self, document: &DocumentKey) {
        self.replicas.take(document);
        let involved: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, state)| state.exchanges.contains_key(document))
            .map(|(link, _)| *link)
            .collect();
        self.forget_exchanges(document);
        self.closing.extend(involved);
    }

    /// Takes the next piece for the pipeline, in order.
    pub(super) fn next_item(&mut self) -> Option<Item> {
        self.items.pop_front()
    }

    /// How many pieces for the pipeline are left: above a bound the caller takes no more sightings.
    pub(super) fn items_left(&self) -> usize {
        self.items.len()
    }

    /// Takes the answers that may be sent.
    pub(super) fn take_answers(&mut self) -> Vec<(LinkId, Frame)> {
        std::mem::take(&mut self.answers)
    }

    /// Takes the links that must be closed.
    pub(super) fn take_closing(&mut self) -> Vec<LinkId> {
        std::mem::take(&mut self.closing)
    }

    /// Whether any answer waits for a commit.
    #[cfg(test)]
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns the replica's JSON, `None` where it isn't in memory.
    #[cfg(test)]
    pub(super) fn replica_json(&mut self, document: &DocumentKey) -> Option<String> {
        let replica = self.replicas.take(document)?;
        let text = peat_gateway_mesh::json::document(replica.document()).to_string();
        self.replicas.put(document.clone(), replica, self.committed);
        Some(text)
    }

    /// Returns the replica, or `None` where it must not be kept.
    fn take_with(
        &mut self,
        link: LinkId,
        document: &DocumentKey,
        mut replica: Replica,
        sighting: Sighting,
        now: Instant,
    ) -> Result<Option<Replica>, ReadError> {
        match sighting {
            Sighting::Tombstone { deleted_by, payload, .. } => {
                let hash = event::tombstone_hash(&payload);
                if self.is_new(document, EventKind::Tombstone, hash, &mut replica)? {
                    replica.delete();
                    self.forget_exchanges(document);
                    let event = event::of_tombstone(&payload, deleted_by);
                    self.enqueue(document, &mut replica, vec![event]);
                }
            }
            _ if replica.is_deleted() => {}
            Sighting::Snapshot { payload, .. } => {
                return self.take_snapshot(link, document, replica, &payload, now);
            }
            Sighting::Sync { payload, .. } => {
                return Ok(self.take_sync(link, document, replica, &payload, now));
            }
            Sighting::Malformed(_) => {}
        }
        Ok(Some(replica))
    }

    fn take_snapshot(
        &mut self,
        link: LinkId,
        document: &DocumentKey,
        mut replica: Replica,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Replica>, ReadError> {
        let Ok(received) = Automerge::load(payload) else {
            self.malformed(link);
            return Ok(Some(replica));
        };
        let hash = event::snapshot_hash(&received.get_heads());
        let id = event_id(&self.org, &self.app, document, EventKind::Snapshot, &hash);
        if replica.has_event(&id) || self.journal.knows_event(&self.org, &self.app, &id)? {
            return Ok(Some(replica));
        }
        match replica.absorb_snapshot(received) {
            Ok(None) => {}
            Ok(Some(event)) => {
                replica.note_event(id);
                self.enqueue(document, &mut replica, vec![event]);
            }
            Err(error) => {
                self.hold(document, &error.to_string(), now);
                return Ok(None);
            }
        }
        Ok(Some(replica))
    }

    fn take_sync(
        &mut self,
        link: LinkId,
        document: &DocumentKey,
        mut replica: Replica,
        payload: &[u8],
        now: Instant,
    ) -> Option<Replica> {
        let Ok(mut message) = Message::decode(payload) else {
            self.malformed(link);
            return Some(replica);
        };
        let mut changes = Vec::new();
        for blob in message.changes.iter() {
            match chunks::changes(blob) {
                Ok(found) => changes.extend(found),
                Err(error) => {
                    tracing::debug!(%error, %document, "changes in a sync message made no sense");
                    self.malformed(link);
                    return Some(replica);
                }
            }
        }
        let mut exchange = self.take_exchange(link, document);
        let carried_changes = !message.changes.is_empty();
        let brought = changes
            .iter()
            .filter(|change| {
                let hash = change.hash();
                !replica.holds(&hash) && !exchange.has_orphan(&hash)
            })
            .count();
        changes.extend(exchange.take_orphans());
        let (ready, orphans) = causal_order(changes, |hash| replica.holds(hash));
        exchange.keep_orphans(orphans);
        let (events, failure) = replica.absorb(ready);
        self.enqueue(document, &mut replica, events);
        match failure {
            None => {}
            Some(AbsorbError::Invalid(reason)) => {
                tracing::debug!(reason, %document, "a change could not be applied");
                self.malformed(link);
                // Automerge may have taken a part of it; what is committed is built again.
                self.put_exchange(link, document, exchange);
                return (replica.newest_ticket > self.committed).then_some(replica);
            }
            Some(error @ AbsorbError::TooLarge { .. }) => {
                self.hold(document, &error.to_string(), now);
                return None;
            }
        }
        message.heads.sort_unstable();
        let said = Announcement {
            heads: std::mem::take(&mut message.heads),
            have: std::mem::take(&mut message.have),
            carried_changes,
            brought,
        };
        let answer = exchange.answer(&replica, &said, now);
        self.put_exchange(link, document, exchange);
        if let Some(answer) = answer {
            self.answer_when_committed(
                link,
                document,
                replica.newest_ticket,
                answer.encode().into(),
            );
        }
        Some(replica)
    }

    /// Sends an answer now, or keeps it until `ticket` is committed.
    fn answer_when_committed(
        &mut self,
        link: LinkId,
        document: &DocumentKey,
        ticket: u64,
        payload: Bytes,
    ) {
        if ticket <= self.committed {
            self.answers.push((link, answer_frame(document, payload)));
            return;
        }
        let Some(state) = self.links.get_mut(&link) else { return };
        let tickets = state.waiting.entry(document.clone()).or_default();
        if tickets.last() != Some(&ticket) {
            if tickets.len() == WAITING_ANSWERS_MAX
                && let Some(newest) = tickets.pop()
            {
                self.waiting.remove(&(newest, link, document.clone()));
            }
            tickets.push(ticket);
        }
        self.waiting.insert((ticket, link, document.clone()), payload);
    }

    /// Gives events to the pipeline in pieces that fit a command, and the replica their newest ticket.
    fn enqueue(&mut self, document: &DocumentKey, replica: &mut Replica, events: Vec<NewEvent>) {
        self.metrics.changes_observed.inc_by(events.len() as u64);
        let mut piece = Vec::new();
        let mut piece_bytes = 0;
        let mut pieces = Vec::new();
        for event in events {
            let bytes = event::encoded_bytes(&event);
            if !piece.is_empty()
                && (piece_bytes + bytes > ITEM_BYTES_MAX || piece.len() == ITEM_EVENTS_MAX)
            {
                pieces.push((std::mem::take(&mut piece), std::mem::take(&mut piece_bytes)));
            }
            piece.push(event);
            piece_bytes += bytes;
        }
        if !piece.is_empty() {
            pieces.push((piece, piece_bytes));
        }
        for (events, bytes) in pieces {
            self.newest_ticket += 1;
            replica.newest_ticket = self.newest_ticket;
            self.items.push_back(Item {
                app: self.app.clone(),
                document: document.clone(),
                ticket: self.newest_ticket,
                events,
                bytes,
            });
        }
    }

    fn is_new(
        &self,
        document: &DocumentKey,
        kind: EventKind,
        hash: Hash32,
        replica: &mut Replica,
    ) -> Result<bool, ReadError> {
        let id = event_id(&self.org, &self.app, document, kind, &hash);
        if replica.has_event(&id) || self.journal.knows_event(&self.org, &self.app, &id)? {
            return Ok(false);
        }
        Ok(replica.note_event(id))
    }

    fn take_exchange(&mut self, link: LinkId, document: &DocumentKey) -> Exchange {
        self.links
            .get_mut(&link)
            .and_then(|state| state.exchanges.remove(document))
            .unwrap_or_default()
    }

    fn put_exchange(&mut self, link: LinkId, document: &DocumentKey, exchange: Exchange) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if state.exchanges.len() >= EXCHANGES_MAX {
            state.exchanges.clear();
        }
        state.exchanges.insert(document.clone(), exchange);
    }

    fn hold(&mut self, document: &DocumentKey, reason: &str, now: Instant) {
        self.replicas.take(document);
        self.forget_exchanges(document);
        self.metrics.documents_unanswered.inc();
        if self.held.len() >= HELD_MAX {
            self.held.clear();
        }
        if self.held.insert(document.clone(), now + HELD_FOR).is_none() {
            tracing::error!(
                org = %self.org, app = %self.app, %document, reason,
                "a document is left unanswered; the mesh keeps its changes until this is solved"
            );
        }
    }

    fn forget_exchanges(&mut self, document: &DocumentKey) {
        for (link, state) in &mut self.links {
            state.exchanges.remove(document);
            for ticket in state.waiting.remove(document).into_iter().flatten() {
                self.waiting.remove(&(ticket, *link, document.clone()));
            }
        }
    }

    fn malformed(&mut self, link: LinkId) {
        self.metrics.frames_malformed.inc();
        let Some(state) = self.links.get_mut(&link) else { return };
        state.malformed += 1;
        if state.malformed == MALFORMED_MAX + 1 {
            self.closing.push(link);
        }
    }
}

fn answer_frame(document: &DocumentKey, payload: Bytes) -> Frame {
    Frame { key: document.as_str().to_owned(), kind: FrameKind::DeltaSync, payload }
}
