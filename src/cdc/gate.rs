//! The gate before all lanes of one sink.
//!
//! ```text
//!  start ───────────────────────────────────────────────────┐
//!   open ──down, or Retry-After──► closed until t ──t passed──► one probe
//!     ▲                                  ▲                        │
//!     └──────────── it got through ──────┼────────────────────────┤
//!                                        └──── down again ────────┘
//! ```
//!
//! While the destination is down no event is tried: attempts would tell nothing new, and would
//! arrive as a burst when it comes back. It begins with a probe, so that a destination that is down
//! from the start is not met by all lanes at once.

use std::time::Duration;

use tokio::time::Instant;

use super::retry::RetryPolicy;

/// Whether attempts may begin.
#[derive(Debug)]
pub(crate) struct Gate {
    /// From then on one probe may run; `None` while the gate is open.
    closed_until: Option<Instant>,
    failures: u32,
}

impl Gate {
    /// A gate that admits a probe at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { closed_until: Some(now), failures: 0 }
    }

    /// Whether one more attempt may begin, with this many running.
    pub(crate) fn admits(&self, running: usize, now: Instant) -> bool {
        match self.closed_until {
            None => true,
            Some(until) => now >= until && running == 0,
        }
    }

    /// When a probe may begin; `None` while it may already, or the gate is open.
    pub(crate) fn opens_at(&self, now: Instant) -> Option<Instant> {
        self.closed_until.filter(|until| *until > now)
    }

    /// The destination answered. Attempts that began before the gate closed don't open it.
    pub(crate) fn answered(&mut self, now: Instant) {
        if self.opens_at(now).is_none() {
            *self = Self { closed_until: None, failures: 0 };
        }
    }

    /// The destination is down; returns the delay if this closed the gate.
    ///
    /// Attempts that ran side by side fail together: only the first of them counts.
    pub(crate) fn down(&mut self, policy: &RetryPolicy, now: Instant) -> Option<Duration> {
        if self.opens_at(now).is_some() {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let delay = policy.down.delay(self.failures);
        self.closed_until = Some(now + delay);
        Some(delay)
    }

    /// The destination asked to be left alone for a while.
    pub(crate) fn hold(&mut self, delay: Duration, now: Instant) {
        self.closed_until = Some(self.closed_until.map_or(now + delay, |at| at.max(now + delay)));
    }
}
