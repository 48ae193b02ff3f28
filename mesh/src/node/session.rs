//! One link as the replica sees it: sync states, and what is still to be sent.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use automerge::sync::State;
use iroh::EndpointId;
use tokio::sync::Notify;

use super::Pacing;
use super::limiter::Limiter;
use crate::frame::Frame;

/// How many ready-made frames (tombstones, batches) wait for a peer; further ones are dropped, and the
/// next poll carries what they said.
const FRAMES_MAX: usize = 1000;

/// Something to send. Documents are named only: what is sent of them is made at the last moment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Outgoing {
    /// Send the document's state or heads.
    Initiate(String),
    /// Answer the peer's last sync messages of the document.
    Answer(String),
}

/// One link.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: EndpointId,
    pub(super) states: HashMap<String, State>,
    pub(super) wake: Arc<Notify>,
    limiter: Limiter,
    /// Each at most once, so never more than two per document.
    outgoing: VecDeque<Outgoing>,
    queued: HashSet<Outgoing>,
    frames: VecDeque<Frame>,
}

/// What a session sends next.
pub(super) enum Next {
    Frame(Frame),
    Document(Outgoing),
}

impl Session {
    pub(super) fn new(peer: EndpointId, pacing: Pacing) -> Self {
        Self {
            peer,
            states: HashMap::new(),
            wake: Arc::new(Notify::new()),
            limiter: Limiter::new(pacing),
            outgoing: VecDeque::new(),
            queued: HashSet::new(),
            frames: VecDeque::new(),
        }
    }

    /// Queues a sync that we begin; false if the limiter drops it.
    pub(super) fn initiate(&mut self, key: &str) -> bool {
        let admitted = self.limiter.admit(key);
        if admitted {
            self.queue(Outgoing::Initiate(key.to_owned()));
        }
        admitted
    }

    /// Queues an answer; answers are not limited.
    pub(super) fn answer(&mut self, key: &str) {
        self.queue(Outgoing::Answer(key.to_owned()));
    }

    /// Queues a frame; false if there are too many.
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        if self.frames.len() >= FRAMES_MAX {
            return false;
        }
        self.frames.push_back(frame);
        self.wake.notify_one();
        true
    }

    /// Takes what is to be sent next.
    pub(super) fn next(&mut self) -> Option<Next> {
        if let Some(frame) = self.frames.pop_front() {
            return Some(Next::Frame(frame));
        }
        let outgoing = self.outgoing.pop_front()?;
        self.queued.remove(&outgoing);
        Some(Next::Document(outgoing))
    }

    fn queue(&mut self, outgoing: Outgoing) {
        if self.queued.insert(outgoing.clone()) {
            self.outgoing.push_back(outgoing);
            self.wake.notify_one();
        }
    }
}
