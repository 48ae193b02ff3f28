//! What a node does with frames, and which frames it makes of its documents.

use std::error::Error;

use automerge::AutoCommit;
use automerge::sync::{Message, State, SyncDoc as _};
use bytes::Bytes;
use iroh::EndpointId;

use super::collections::SyncMode;
use super::replica::{Replica, SessionId, now_ms};
use super::session::{Next, Outgoing};
use crate::batch::{BATCH_ENTRIES_MAX, BATCH_TTL, SyncBatch};
use crate::frame::{FRAME_BYTES_MAX, FRAME_FIXED_BYTES, Frame, FrameKind};
use crate::negentropy::{self, NEGENTROPY_KEY};
use crate::tombstone::Tombstone;

/// Bytes of a batch that are not entries, rounded up.
const BATCH_FIXED_BYTES: usize = 64;

impl Replica {
    /// Takes a frame of a peer.
    pub(super) fn receive(&mut self, from: SessionId, frame: Frame) {
        if frame.kind == FrameKind::SyncBatch {
            match SyncBatch::decode(&frame.payload) {
                Ok(batch) => batch.entries.into_iter().for_each(|entry| {
                    // Published nodes skip what does not belong into a batch.
                    if matches!(
                        entry.kind,
                        FrameKind::DeltaSync | FrameKind::StateSnapshot | FrameKind::Tombstone
                    ) {
                        self.receive_one(from, entry);
                    }
                }),
                Err(error) => self.malformed(&frame.key, &error),
            }
        } else {
            self.receive_one(from, frame);
        }
    }

    fn receive_one(&mut self, from: SessionId, frame: Frame) {
        let Some(peer) = self.sessions.get(&from).map(|session| session.peer) else { return };
        match frame.kind {
            FrameKind::DeltaSync => self.receive_delta(from, peer, &frame),
            FrameKind::StateSnapshot => self.receive_snapshot(from, &frame),
            FrameKind::Tombstone => match Tombstone::decode(&frame.payload) {
                Ok(tombstone) => {
                    if self.bury(tombstone.clone()) {
                        self.spread_tombstone(&tombstone, Some(from));
                    }
                }
                Err(error) => self.malformed(&frame.key, &error),
            },
            FrameKind::TombstoneBatch => match Tombstone::decode_batch(&frame.payload) {
                // Batches are not handed on: every node sends its own.
                Ok(tombstones) => tombstones.into_iter().for_each(|tombstone| {
                    self.bury(tombstone);
                }),
                Err(error) => self.malformed(&frame.key, &error),
            },
            FrameKind::NegentropyInit => match negentropy::listed_ids(&frame.payload) {
                Ok(_) => self.answer_with_everything(from),
                Err(error) => self.malformed(&frame.key, &error),
            },
            FrameKind::NegentropyResponse
            | FrameKind::NegentropyRequest
            | FrameKind::TombstoneAck
            | FrameKind::WindowedHistory
            | FrameKind::SyncBatch => {}
        }
    }

    fn receive_delta(&mut self, from: SessionId, peer: EndpointId, frame: &Frame) {
        let key = &frame.key;
        if self.tombstones.contains_key(key) {
            return;
        }
        let message = match Message::decode(&frame.payload) {
            Ok(message) => message,
            Err(error) => return self.malformed(key, &error),
        };
        let their_heads = message.heads.clone();
        let Some(session) = self.sessions.get_mut(&from) else { return };
        let document = self.documents.entry(key.clone()).or_default();
        let before = document.get_heads();
        let state = session.states.entry(key.clone()).or_default();
        let received = document.sync().receive_sync_message(state, message);
        if let Err(error) = received {
            return self.malformed(key, &error);
        }
        let changed = document.get_heads() != before;
        session.answer(key);
        self.acknowledge(peer, key, &their_heads);
        if changed {
            self.unsaved.insert(key.clone());
            self.spread(key, Some(from));
        }
    }

    fn receive_snapshot(&mut self, from: SessionId, frame: &Frame) {
        let key = &frame.key;
        if self.tombstones.contains_key(key) {
            return;
        }
        let mut snapshot = match AutoCommit::load(&frame.payload) {
            Ok(snapshot) => snapshot,
            Err(error) => return self.malformed(key, &error),
        };
        let document = self.documents.entry(key.clone()).or_default();
        let before = document.get_heads();
        if let Err(error) = document.merge(&mut snapshot) {
            return self.malformed(key, &error);
        }
        if document.get_heads() != before {
            self.unsaved.insert(key.clone());
            self.spread(key, Some(from));
        }
    }

    /// Sends every document in as few batches as hold them, past the limiter. As on published nodes
    /// the sync states of all peers start over.
    fn answer_with_everything(&mut self, to: SessionId) {
        for session in self.sessions.values_mut() {
            session.states.clear();
        }
        let Some(session) = self.sessions.get_mut(&to) else { return };
        let mut batches = vec![Vec::new()];
        let mut batch_bytes = BATCH_FIXED_BYTES;
        for (key, document) in &mut self.documents {
            let state = session.states.entry(key.clone()).or_default();
            let Some(entry) = initial_frame(key, document, state, self.collections.mode(key))
            else {
                continue;
            };
            let entry_bytes = FRAME_FIXED_BYTES + entry.key.len() + entry.payload.len();
            let entries = batches.last().map_or(0, Vec::len);
            if batch_bytes + entry_bytes > FRAME_BYTES_MAX || entries == BATCH_ENTRIES_MAX {
                batches.push(Vec::new());
                batch_bytes = BATCH_FIXED_BYTES;
            }
            batch_bytes += entry_bytes;
            if let Some(batch) = batches.last_mut() {
                batch.push(entry);
            }
        }
        let ids: Vec<_> = self.documents.keys().map(|key| negentropy::item_id(key)).collect();
        let response = Frame {
            key: NEGENTROPY_KEY.to_owned(),
            kind: FrameKind::NegentropyResponse,
            payload: negentropy::id_list(&ids),
        };
        let frames = batches
            .into_iter()
            .filter(|entries| !entries.is_empty())
            .map(|entries| batch(entries).into_frame().ok())
            .chain([Some(response)]);
        for frame in frames {
            if !frame.is_some_and(|frame| session.push(frame)) {
                self.counts.dropped += 1;
            }
        }
    }

    /// Returns the next frame for a peer; none if there is nothing to say now.
    pub(super) fn next_frame(&mut self, id: SessionId) -> Option<Frame> {
        loop {
            let session = self.sessions.get_mut(&id)?;
            let frame = match session.next()? {
                Next::Frame(frame) => Some(frame),
                Next::Document(outgoing) => self.document_frame(id, &outgoing),
            };
            if let Some(frame) = frame {
                self.counts.pushed += 1;
                return Some(self.wrap(frame));
            }
        }
    }

    fn document_frame(&mut self, id: SessionId, outgoing: &Outgoing) -> Option<Frame> {
        let (key, mode) = match outgoing {
            Outgoing::Initiate(key) => (key, self.collections.mode(key)),
            // Whoever sends sync messages gets sync messages, whatever the collection's mode.
            Outgoing::Answer(key) => (key, SyncMode::FullHistory),
        };
        let state = self.sessions.get_mut(&id)?.states.entry(key.clone()).or_default();
        initial_frame(key, self.documents.get_mut(key)?, state, mode)
    }

    /// Puts a document's frame into a batch of its own, if the node does so.
    fn wrap(&self, frame: Frame) -> Frame {
        let is_wrapped =
            self.batched && matches!(frame.kind, FrameKind::DeltaSync | FrameKind::StateSnapshot);
        if !is_wrapped {
            return frame;
        }
        batch(vec![frame.clone()]).into_frame().unwrap_or(frame)
    }

    fn malformed(&mut self, key: &str, error: &(dyn Error + 'static)) {
        self.counts.malformed += 1;
        tracing::warn!(key, error, "a peer sent what cannot be read");
    }
}

/// Returns the next thing to say about a document; none if the peer knows everything.
fn initial_frame(
    key: &str,
    document: &mut AutoCommit,
    state: &mut State,
    mode: SyncMode,
) -> Option<Frame> {
    let (kind, payload) = match mode {
        SyncMode::LatestOnly => (FrameKind::StateSnapshot, document.save()),
        SyncMode::FullHistory => {
            (FrameKind::DeltaSync, document.sync().generate_sync_message(state)?.encode())
        }
    };
    Some(Frame { key: key.to_owned(), kind, payload: Bytes::from(payload) })
}

fn batch(entries: Vec<Frame>) -> SyncBatch {
    SyncBatch { batch_id: 0, created_at_ms: now_ms(), ttl: BATCH_TTL, entries }
}
