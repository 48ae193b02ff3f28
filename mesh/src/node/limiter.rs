//! The rate limit of syncs that a node initiates, per peer.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Pacing;

/// Most syncs at once; further ones are dropped.
const TOKENS_MAX: u32 = 100;
/// Tokens that come back each period.
const REFILL_TOKENS: u32 = 10;
const REFILL_PERIOD: Duration = Duration::from_millis(100);
/// Least time between two syncs of one document; a sync in between is dropped.
const DOCUMENT_COOLDOWN: Duration = Duration::from_millis(100);

/// A token bucket, and a cooldown per document.
#[derive(Debug)]
pub(super) struct Limiter {
    pacing: Pacing,
    tokens: u32,
    refilled_at: Instant,
    last_sync: HashMap<String, Instant>,
}

impl Limiter {
    pub(super) fn new(pacing: Pacing) -> Self {
        let refilled_at = Instant::now();
        Self { pacing, tokens: TOKENS_MAX, refilled_at, last_sync: HashMap::new() }
    }

    /// Whether a document may be synced now; if so, that is counted.
    pub(super) fn admit(&mut self, document_key: &str) -> bool {
        if self.pacing == Pacing::Unlimited {
            return true;
        }
        let now = Instant::now();
        self.refill(now);
        let is_cooling = self
            .last_sync
            .get(document_key)
            .is_some_and(|last| now.duration_since(*last) < DOCUMENT_COOLDOWN);
        if is_cooling || self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        self.last_sync.insert(document_key.to_owned(), now);
        true
    }

    fn refill(&mut self, now: Instant) {
        let periods = now.duration_since(self.refilled_at).as_millis() / REFILL_PERIOD.as_millis();
        let periods = u32::try_from(periods).unwrap_or(TOKENS_MAX).min(TOKENS_MAX);
        if periods > 0 {
            self.tokens = (self.tokens + periods * REFILL_TOKENS).min(TOKENS_MAX);
            self.refilled_at += REFILL_PERIOD * periods;
            if self.tokens == TOKENS_MAX {
                // A full bucket forgets the past, or a long pause would refill it twice.
                self.refilled_at = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_pass_at_once_then_ten_every_hundred_milliseconds() {
        let mut limiter = Limiter::new(Pacing::Stock);
        let mut admitted = |from: u32| {
            (from..from + 200).filter(|number| limiter.admit(&format!("docs:{number}"))).count()
        };
        assert_eq!(admitted(0), 100);
        assert_eq!(admitted(200), 0);
        advance(Duration::from_millis(250)).await;
        assert_eq!(admitted(400), 20);
        advance(Duration::from_millis(50)).await;
        assert_eq!(admitted(600), 10);
        advance(Duration::from_secs(60)).await;
        assert_eq!(admitted(800), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn one_document_passes_once_in_a_hundred_milliseconds() {
        let mut limiter = Limiter::new(Pacing::Stock);
        assert!(limiter.admit("docs:1"));
        assert!(!limiter.admit("docs:1"));
        assert!(limiter.admit("docs:2"));
        advance(DOCUMENT_COOLDOWN).await;
        assert!(limiter.admit("docs:1"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_pacing_everything_passes() {
        let mut limiter = Limiter::new(Pacing::Unlimited);
        assert!((0..1000).all(|_| limiter.admit("docs:1")));
    }
}
