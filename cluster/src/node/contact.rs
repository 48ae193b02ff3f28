//! When this node last heard of a leader.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The moment of the last accepted heartbeat. The clock is monotonic.
pub(crate) struct LeaderContact {
    start: Instant,
    /// Milliseconds from `start`, plus one; 0 before the first.
    last: AtomicU64,
}

impl LeaderContact {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Notes a leader's sign of life that arrived at `when`.
    pub(crate) fn heard(&self, when: Instant) {
        let elapsed_ms = when.saturating_duration_since(self.start).as_millis() as u64;
        self.last.fetch_max(elapsed_ms + 1, Ordering::Relaxed);
    }

    /// How long ago that was; `None` if never.
    pub(crate) fn age(&self) -> Option<Duration> {
        let last_ms = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_millis(last_ms)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::LeaderContact;

    #[test]
    fn age_counts_from_the_newest_sign_of_life() {
        let contact = LeaderContact::new();
        assert_eq!(contact.age(), None);
        let now = Instant::now();
        contact.heard(now);
        contact.heard(now.checked_sub(Duration::from_millis(1)).unwrap_or(now));
        assert!(contact.age().expect("heard") < Duration::from_secs(60));
    }
}
