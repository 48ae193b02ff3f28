//! Lanes: events of one document follow one another, other documents don't wait for them.
//!
//! A document always falls into the same lane of a sink. A lane has at most one attempt running, and
//! while its first event is retried the whole lane is parked; all other lanes go on.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::sinks::{Delivery, Shape};

/// Most events that one sink holds in its lanes. At the limit it reads no further.
pub(crate) const WINDOW_EVENTS_MAX: usize = 4096;
/// Most bytes that one sink holds in its lanes; a single larger event is still taken.
pub(crate) const WINDOW_BYTES_MAX: usize = 16 << 20;

/// All lanes of one sink.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    /// Lanes that may begin an attempt, first come first served.
    ready: VecDeque<usize>,
    shape: Shape,
    /// Events queued or being tried.
    events: usize,
    /// Their bytes.
    bytes: usize,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Delivery>,
    /// Ready, being tried or parked: not to be made ready again.
    engaged: bool,
    /// Failed attempts of the first event in a row.
    failures: u32,
}

impl Lanes {
    /// Builds empty lanes.
    pub(crate) fn new(shape: Shape) -> Self {
        let mut lanes = Vec::new();
        lanes.resize_with(shape.lanes.max(1), Lane::default);
        Self { lanes, ready: VecDeque::new(), shape, events: 0, bytes: 0 }
    }

    /// Whether there is room for an event of this size.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.events == 0
            || (self.events < WINDOW_EVENTS_MAX && self.bytes + bytes <= WINDOW_BYTES_MAX)
    }

    /// Queues an event behind those of its lane.
    pub(crate) fn push(&mut self, delivery: Delivery) {
        self.events += 1;
        self.bytes += delivery.body.len();
        let index = self.index(&delivery);
        let lane = &mut self.lanes[index];
        lane.queue.push_back(delivery);
        if !lane.engaged {
            lane.engaged = true;
            self.ready.push_back(index);
        }
    }

    /// Whether a lane waits for its turn.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the next attempt: a lane and its first events, at least one.
    pub(crate) fn next_attempt(&mut self) -> Option<(usize, Vec<Delivery>)> {
        let index = self.ready.pop_front()?;
        let queue = &mut self.lanes[index].queue;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.front() {
            let is_over = batch.len() >= self.shape.batch_events
                || bytes + next.body.len() > self.shape.batch_bytes;
            if is_over && !batch.is_empty() {
                break;
            }
            bytes += next.body.len();
            batch.extend(queue.pop_front());
        }
        Some((index, batch))
    }

    /// The destination has the batch: the lane goes on.
    pub(crate) fn succeeded(&mut self, index: usize, batch: &[Delivery]) {
        self.events -= batch.len();
        self.bytes -= batch.iter().map(|delivery| delivery.body.len()).sum::<usize>();
        let lane = &mut self.lanes[index];
        lane.failures = 0;
        lane.engaged = !lane.queue.is_empty();
        if lane.engaged {
            self.ready.push_back(index);
        }
    }

    /// Puts a batch back in front; the lane stays parked until [`Lanes::wake`]. Returns how often its
    /// first event has failed.
    pub(crate) fn failed(&mut self, index: usize, batch: Vec<Delivery>) -> u32 {
        let lane = &mut self.lanes[index];
        for delivery in batch.into_iter().rev() {
            lane.queue.push_front(delivery);
        }
        lane.failures = lane.failures.saturating_add(1);
        lane.failures
    }

    /// Puts a batch back in front, to be tried as soon as the gate opens; not held against the lane.
    pub(crate) fn returned(&mut self, index: usize, batch: Vec<Delivery>) {
        let lane = &mut self.lanes[index];
        for delivery in batch.into_iter().rev() {
            lane.queue.push_front(delivery);
        }
        self.ready.push_front(index);
    }

    /// Ends a lane's parking.
    pub(crate) fn wake(&mut self, index: usize) {
        self.ready.push_back(index);
    }

    fn index(&self, delivery: &Delivery) -> usize {
        let mut hasher = DefaultHasher::new();
        delivery.app.as_str().hash(&mut hasher);
        delivery.document.as_str().hash(&mut hasher);
        (hasher.finish() % self.lanes.len() as u64) as usize
    }
}
