//! A node's documents and tombstones, and what its links still have to say. No IO, no waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use automerge::{AutoCommit, ChangeHash};
use iroh::EndpointId;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::collections::{Collections, SyncMode, split_key};
use super::document::{DocumentError, with_fields};
use super::session::Session;
use super::{Change, DocumentState, Pacing, Status};
use crate::frame::{Frame, FrameKind};
use crate::json;
use crate::negentropy;
use crate::tombstone::{Direction, TOMBSTONE_BATCH_KEY, Tombstone};

/// Names a link.
pub(super) type SessionId = u64;

/// Everything a node knows.
#[derive(Debug)]
pub(super) struct Replica {
    node_name: String,
    pub(super) collections: Collections,
    pub(super) pacing: Pacing,
    pub(super) batched: bool,
    pub(super) documents: BTreeMap<String, AutoCommit>,
    pub(super) tombstones: BTreeMap<String, Tombstone>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    acknowledged: HashMap<EndpointId, BTreeMap<String, HashSet<ChangeHash>>>,
    /// Keys of documents and tombstones that changed since they were last saved.
    pub(super) unsaved: BTreeSet<String>,
    next_session: SessionId,
    pub(super) counts: Status,
}

impl Replica {
    pub(super) fn new(node_name: String, collections: Collections, pacing: Pacing) -> Self {
        Self {
            node_name,
            collections,
            pacing,
            batched: false,
            documents: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            sessions: BTreeMap::new(),
            acknowledged: HashMap::new(),
            unsaved: BTreeSet::new(),
            next_session: 0,
            counts: Status::default(),
        }
    }

    pub(super) fn set_batched(&mut self, batched: bool) {
        self.batched = batched;
    }

    /// Writes a change and queues it for every peer.
    pub(super) fn write(&mut self, change: &Change) -> Result<Vec<ChangeHash>, DocumentError> {
        let heads = match change {
            Change::Put { key, fields } => self.put(key, fields)?,
            Change::SoftDelete { key, reason } => {
                let mut fields = self.fields(key)?;
                fields.insert("_deleted".to_owned(), true.into());
                fields.insert("_deleted_at".to_owned(), now_ms().into());
                fields.insert("_deleted_reason".to_owned(), reason.as_str().into());
                self.put(key, &fields)?
            }
            Change::Delete { key, reason } => {
                self.delete(key, reason.clone())?;
                Vec::new()
            }
        };
        self.counts.written += 1;
        Ok(heads)
    }

    fn put(
        &mut self,
        key: &str,
        fields: &Map<String, Value>,
    ) -> Result<Vec<ChangeHash>, DocumentError> {
        if split_key(key).is_none_or(|(collection, id)| collection.is_empty() || id.is_empty()) {
            return Err(DocumentError::InvalidKey { key: key.to_owned() });
        }
        if self.tombstones.contains_key(key) {
            return Err(DocumentError::Deleted { key: key.to_owned() });
        }
        let mut empty = AutoCommit::new();
        let old = self.documents.get_mut(key).unwrap_or(&mut empty);
        let mut new = with_fields(old, fields).map_err(|error| DocumentError::Automerge {
            key: key.to_owned(),
            source: Box::new(error),
        })?;
        let heads = new.get_heads();
        self.documents.insert(key.to_owned(), new);
        self.unsaved.insert(key.to_owned());
        self.spread(key, None);
        Ok(heads)
    }

    fn fields(&self, key: &str) -> Result<Map<String, Value>, DocumentError> {
        match self.documents.get(key).map(json::document) {
            Some(Value::Object(fields)) => Ok(fields),
            _ => Err(DocumentError::Missing { key: key.to_owned() }),
        }
    }

    fn delete(&mut self, key: &str, reason: Option<String>) -> Result<(), DocumentError> {
        let missing = || DocumentError::Missing { key: key.to_owned() };
        let (collection, document_id) = split_key(key).ok_or_else(missing)?;
        if !self.documents.contains_key(key) {
            return Err(missing());
        }
        let last = self.tombstones.values().map(|tombstone| tombstone.lamport).max();
        let direction = match collection {
            "cells" | "contact_reports" => Direction::UpOnly,
            "commands" => Direction::DownOnly,
            _ => Direction::Bidirectional,
        };
        let tombstone = Tombstone {
            collection: collection.to_owned(),
            document_id: document_id.to_owned(),
            deleted_at_ms: now_ms(),
            lamport: last.unwrap_or(0).saturating_add(1),
            deleted_by: self.node_name.clone(),
            reason,
            direction,
        };
        if self.bury(tombstone.clone()) {
            self.spread_tombstone(&tombstone, None);
        }
        Ok(())
    }

    /// Stores a tombstone and deletes its document; false if it was known.
    pub(super) fn bury(&mut self, tombstone: Tombstone) -> bool {
        let key = tombstone.document_key();
        if self.tombstones.contains_key(&key) {
            return false;
        }
        self.documents.remove(&key);
        for session in self.sessions.values_mut() {
            session.states.remove(&key);
        }
        self.unsaved.insert(key.clone());
        self.tombstones.insert(key, tombstone);
        true
    }

    /// Queues a changed document for every peer but the one it came from. As on published nodes the
    /// sync state is forgotten, and the next exchange starts over with heads.
    pub(super) fn spread(&mut self, key: &str, from: Option<SessionId>) {
        for (id, session) in &mut self.sessions {
            if Some(*id) == from {
                continue;
            }
            session.states.remove(key);
            if !session.initiate(key) {
                self.counts.dropped += 1;
            }
        }
    }

    /// Queues a tombstone for every peer but the one it came from, unless it goes one way only: those
    /// travel with the next poll.
    pub(super) fn spread_tombstone(&mut self, tombstone: &Tombstone, from: Option<SessionId>) {
        if matches!(tombstone.direction, Direction::UpOnly | Direction::DownOnly) {
            return;
        }
        let Ok(frame) = tombstone.to_frame() else {
            self.counts.dropped += 1;
            return;
        };
        for (id, session) in &mut self.sessions {
            if Some(*id) != from && !session.push(frame.clone()) {
                self.counts.dropped += 1;
            }
        }
    }

    /// Begins a link: everything is pushed, as far as the limiter lets it pass.
    pub(super) fn open_session(&mut self, peer: EndpointId) -> (SessionId, Arc<Notify>) {
        let id = self.next_session;
        self.next_session += 1;
        let session = Session::new(peer, self.pacing);
        let wake = Arc::clone(&session.wake);
        self.sessions.insert(id, session);
        self.push_everything(id);
        (id, wake)
    }

    /// Ends a link; its sync states are gone with it.
    pub(super) fn close_session(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// Offers everything to every peer once more.
    pub(super) fn poll(&mut self) {
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.push_everything(id);
        }
    }

    fn push_everything(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for (key, document) in &mut self.documents {
            // An exchange that got stuck, because an answer was lost, starts over with heads.
            let is_stuck =
                session.states.get(key).is_some_and(|state| !document.has_our_changes(state));
            if is_stuck && self.collections.mode(key) == SyncMode::FullHistory {
                session.states.remove(key);
            }
            if !session.initiate(key) {
                self.counts.dropped += 1;
            }
        }
        if self.tombstones.is_empty() {
            return;
        }
        let tombstones: Vec<Tombstone> = self.tombstones.values().cloned().collect();
        let is_queued = Tombstone::encode_batch(&tombstones).is_ok_and(|payload| {
            let key = TOMBSTONE_BATCH_KEY.to_owned();
            session.push(Frame { key, kind: FrameKind::TombstoneBatch, payload })
        });
        if !is_queued {
            self.counts.dropped += 1;
        }
    }

    /// Queues an empty negentropy init for every peer.
    pub(super) fn ask_for_everything(&mut self) {
        for session in self.sessions.values_mut() {
            if !session.push(negentropy::empty_init()) {
                self.counts.dropped += 1;
            }
        }
    }

    /// Notes that a peer has these heads, and so everything before them.
    pub(super) fn acknowledge(&mut self, peer: EndpointId, key: &str, heads: &[ChangeHash]) {
        let Some(document) = self.documents.get_mut(key) else { return };
        let is_new = |hash: &ChangeHash| {
            !self
                .acknowledged
                .values()
                .any(|documents| documents.get(key).is_some_and(|hashes| hashes.contains(hash)))
        };
        let mut new_changes = 0;
        let mut found = Vec::new();
        let known = self.acknowledged.get(&peer).and_then(|documents| documents.get(key));
        let mut seen: HashSet<ChangeHash> = HashSet::new();
        let mut stack = heads.to_vec();
        while let Some(hash) = stack.pop() {
            if known.is_some_and(|known| known.contains(&hash)) || !seen.insert(hash) {
                continue;
            }
            // Heads that we do not have are the peer's own changes.
            let Some(change) = document.get_change_by_hash(&hash) else { continue };
            stack.extend(change.deps());
            new_changes += u64::from(is_new(&hash));
            found.push(hash);
        }
        self.counts.acknowledged += new_changes;
        let documents = self.acknowledged.entry(peer).or_default();
        documents.entry(key.to_owned()).or_default().extend(found);
    }

    pub(super) fn acknowledged(&self, peer: &EndpointId) -> BTreeMap<String, BTreeSet<ChangeHash>> {
        let Some(documents) = self.acknowledged.get(peer) else { return BTreeMap::new() };
        documents
            .iter()
            .map(|(key, hashes)| (key.clone(), hashes.iter().copied().collect()))
            .collect()
    }

    pub(super) fn documents(&mut self) -> BTreeMap<String, DocumentState> {
        self.documents.iter_mut().map(|(key, document)| (key.clone(), state(document))).collect()
    }

    pub(super) fn document(&mut self, key: &str) -> Option<DocumentState> {
        self.documents.get_mut(key).map(state)
    }

    pub(super) fn all_change_hashes(&mut self, key: &str) -> Vec<ChangeHash> {
        let Some(document) = self.documents.get_mut(key) else { return Vec::new() };
        document.get_changes(&[]).iter().map(automerge::Change::hash).collect()
    }

    pub(super) fn tombstones(&self) -> Vec<Tombstone> {
        self.tombstones.values().cloned().collect()
    }

    pub(super) fn connected_peers(&self) -> Vec<EndpointId> {
        let peers: BTreeSet<EndpointId> =
            self.sessions.values().map(|session| session.peer).collect();
        peers.into_iter().collect()
    }

    pub(super) fn status(&self) -> Status {
        Status {
            documents: self.documents.len(),
            tombstones: self.tombstones.len(),
            links: self.sessions.len(),
            ..self.counts
        }
    }
}

fn state(document: &mut AutoCommit) -> DocumentState {
    let mut heads = document.get_heads();
    heads.sort_unstable();
    DocumentState { heads, json: json::document(document) }
}

/// Returns the time in milliseconds since 1970; 0 before that.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
