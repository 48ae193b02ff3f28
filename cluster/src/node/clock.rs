//! The one place that asks what time it is. Consensus itself never does.

use std::time::{SystemTime, UNIX_EPOCH};

/// Stamps proposals: never below its last stamp, whatever the machine's clock does.
#[derive(Default)]
pub(crate) struct StampClock {
    last_ms: u64,
}

impl StampClock {
    /// Returns the stamp for what is proposed now: Unix time in ms.
    pub(crate) fn stamp(&mut self) -> u64 {
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        self.last_ms = self.last_ms.max(now_ms);
        self.last_ms
    }
}
