//! How far one sink has acknowledged: a watermark, and ranges above it.
//!
//! ```text
//!  sequence   1 2 3 4 5 6 7 8 9 …          x: outstanding (taken, not acknowledged)
//!             a a a x a a x a ·            a: acknowledged, or not for this sink
//!                 ▲   └─┘   └┘ ▲
//!     watermark = 3   ahead    taken = 8
//! ```
//!
//! The watermark is always right below the lowest outstanding event. A range lies between two
//! outstanding events and holds at least one acknowledged delivery; events that don't match the
//! filter need no record of their own, since reading them again costs nothing.

use std::collections::BTreeMap;

use peat_gateway_state::record::{CURSOR_RANGES_MAX, Cursor};

/// One sink's progress. Never moves backwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Everything up to here is acknowledged.
    acknowledged: u64,
    /// Acknowledged ranges above, first sequence to last; disjoint, none touches the watermark.
    ahead: BTreeMap<u64, u64>,
    /// Taken but not acknowledged; the value is when the event was observed, Unix ms.
    outstanding: BTreeMap<u64, u64>,
    /// Everything up to here was taken or passed over.
    taken: u64,
}

impl Progress {
    /// Goes on from a committed cursor.
    pub(crate) fn resume(cursor: &Cursor) -> Self {
        let mut progress = Self {
            acknowledged: cursor.acknowledged,
            ahead: cursor.ahead.iter().copied().collect(),
            outstanding: BTreeMap::new(),
            taken: cursor.acknowledged,
        };
        progress.absorb();
        progress
    }

    /// The watermark.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether an earlier worker had this event acknowledged: it is not delivered again.
    pub(crate) fn is_acknowledged(&self, sequence: u64) -> bool {
        sequence <= self.acknowledged
            || self.ahead.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
    }

    /// Whether an event may be taken now.
    ///
    /// With as many ranges as a cursor can carry, only events in the gaps between them may: what lies
    /// beyond could not be committed and would all be repeated after a failover.
    pub(crate) fn may_take(&self, sequence: u64) -> bool {
        self.ahead.len() < CURSOR_RANGES_MAX
            || self.ahead.last_key_value().is_some_and(|(_, last)| sequence < *last)
    }

    /// Takes an event for delivery; sequences are taken in ascending order.
    pub(crate) fn take(&mut self, sequence: u64, observed_at: u64) {
        self.taken = self.taken.max(sequence);
        self.outstanding.insert(sequence, observed_at);
        self.advance();
    }

    /// Passes over everything up to `through` that was not taken: it is not for this sink.
    pub(crate) fn pass(&mut self, through: u64) {
        self.taken = self.taken.max(through);
        self.advance();
    }

    /// Records that the destination has an event.
    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        if self.outstanding.remove(&sequence).is_none() {
            return;
        }
        let Some((below, _)) = self.outstanding.range(..sequence).next_back() else {
            self.advance();
            return;
        };
        let first = below + 1;
        let above = self.outstanding.range(sequence..).next().map(|(next, _)| *next);
        let mut last = above.map_or(self.taken, |next| next - 1);
        // Ranges between the two neighbours become one with this event.
        while let Some((&start, &end)) = self.ahead.range(first..=last).next() {
            last = last.max(end);
            self.ahead.remove(&start);
        }
        self.ahead.insert(first, last);
    }

    /// When the oldest outstanding event was observed, Unix ms.
    pub(crate) fn oldest_observed_at(&self) -> Option<u64> {
        self.outstanding.values().next().copied()
    }

    /// What to commit: the watermark and the lowest ranges that a cursor can carry.
    ///
    /// Ranges beyond them are not lost to this worker; only a successor repeats them.
    pub(crate) fn snapshot(&self) -> (u64, Vec<(u64, u64)>) {
        let ahead = self.ahead.iter().take(CURSOR_RANGES_MAX).map(|(a, b)| (*a, *b)).collect();
        (self.acknowledged, ahead)
    }

    /// Moves the watermark to right below the lowest outstanding event.
    fn advance(&mut self) {
        let through = self.outstanding.keys().next().map_or(self.taken, |lowest| lowest - 1);
        self.acknowledged = self.acknowledged.max(through);
        self.absorb();
    }

    /// Lets the watermark swallow ranges that it has reached.
    fn absorb(&mut self) {
        while let Some((&first, &last)) = self.ahead.first_key_value() {
            if first > self.acknowledged.saturating_add(1) {
                break;
            }
            self.ahead.remove(&first);
            self.acknowledged = self.acknowledged.max(last);
        }
        self.taken = self.taken.max(self.acknowledged);
    }
}
