//! How long to wait before the next attempt. Nothing is ever dropped, so attempts are unlimited.

use std::time::Duration;

/// Exponential backoff with full jitter: a random delay below a ceiling that doubles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// No delay is shorter.
    pub(crate) least: Duration,
    /// The ceiling of the first delay.
    pub(crate) first: Duration,
    /// The ceiling stops doubling here.
    pub(crate) most: Duration,
}

impl Backoff {
    /// Returns the delay after the given number of failed attempts (1 after the first).
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let span = self.ceiling(failures).saturating_sub(self.least);
        // Without randomness the full span is still a correct delay, only not spread.
        let random = getrandom::u64().unwrap_or(u64::MAX);
        let share = random as f64 / u64::MAX as f64;
        self.least + span.mul_f64(share)
    }

    /// Returns the longest delay after that many failed attempts.
    pub(crate) fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

/// The delays of one sink by class of failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    /// The lane waits: the destination had a passing problem with this event.
    pub(crate) transient: Backoff,
    /// The lane waits longer: the destination refuses this event, and somebody must change that.
    pub(crate) rejected: Backoff,
    /// All lanes wait: the destination takes nothing.
    pub(crate) down: Backoff,
    /// A longer `Retry-After` is cut to this, so that a wrong header can't stop a sink for good.
    pub(crate) retry_after_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let quick = Backoff {
            least: Duration::ZERO,
            first: Duration::from_millis(100),
            most: Duration::from_secs(30),
        };
        Self {
            transient: quick,
            rejected: Backoff {
                least: Duration::from_secs(5),
                first: Duration::from_secs(10),
                most: Duration::from_secs(300),
            },
            down: Backoff { least: Duration::from_millis(50), ..quick },
            retry_after_max: Duration::from_secs(3600),
        }
    }
}
