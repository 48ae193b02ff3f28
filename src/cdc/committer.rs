//! The committer: one command for the cursors of all sinks, at most every 100 ms.
//!
//! Workers hand in their newest progress; a newer one of the same sink replaces an older one that
//! waits. A commit that failed is tried again with whatever is newest then: cursors only rise, so
//! repeating an old command does nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use peat_gateway_state::command::CursorAdvance;
use peat_gateway_state::ids::{OrgId, SinkId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, WorkError};
use super::retry::Backoff;

/// Between two commits.
pub(crate) const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Most cursors in one command, so that it stays far below an entry's size; the rest goes in the next.
const ADVANCES_MAX: usize = 128;
/// Between attempts to commit while the cluster can't.
const COMMIT_BACKOFF: Backoff = Backoff {
    least: Duration::from_millis(20),
    first: Duration::from_millis(100),
    most: Duration::from_secs(2),
};

/// Progress that waits to be committed: at most one entry per sink.
#[derive(Default)]
pub(crate) struct Pending {
    advances: Mutex<BTreeMap<(OrgId, SinkId), CursorAdvance>>,
    arrived: Notify,
}

impl Pending {
    /// Hands in a sink's newest progress.
    pub(crate) fn submit(&self, advance: CursorAdvance) {
        let key = (advance.org_id.clone(), advance.sink_id.clone());
        self.lock().insert(key, advance);
        self.arrived.notify_one();
    }

    fn take(&self) -> Vec<CursorAdvance> {
        let mut advances = self.lock();
        let keys: Vec<_> = advances.keys().take(ADVANCES_MAX).cloned().collect();
        keys.iter().filter_map(|key| advances.remove(key)).collect()
    }

    /// Puts back what could not be committed, unless something newer came.
    fn put_back(&self, failed: Vec<CursorAdvance>) {
        let mut advances = self.lock();
        for advance in failed {
            let key = (advance.org_id.clone(), advance.sink_id.clone());
            advances.entry(key).or_insert(advance);
        }
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(OrgId, SinkId), CursorAdvance>> {
        // Each change is one map operation: the map is whole even after a panic.
        self.advances.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Commits until `closing`, then what is left, once. Cancels `over` where the epoch has ended.
pub(crate) async fn run<J: Journal>(
    journal: Arc<J>,
    pending: Arc<Pending>,
    closing: CancellationToken,
    over: CancellationToken,
) {
    let mut failures = 0;
    while !over.is_cancelled() {
        let is_last = closing.is_cancelled();
        let advances = pending.take();
        if advances.is_empty() {
            if is_last {
                return;
            }
            tokio::select! {
                () = pending.arrived.notified() => {}
                () = closing.cancelled() => {}
            }
            continue;
        }
        let began = Instant::now();
        let pause = match journal.commit(advances.clone()).await {
            Ok(()) => {
                failures = 0;
                COMMIT_INTERVAL
            }
            Err(WorkError::Over) => {
                over.cancel();
                return;
            }
            Err(WorkError::Refused(reason)) => {
                // The next progress of these sinks is a new command.
                tracing::error!(%reason, "the cluster refused cursors");
                COMMIT_INTERVAL
            }
            Err(WorkError::Later(reason)) => {
                failures += 1;
                tracing::warn!(%reason, failures, "could not commit cursors, will try again");
                pending.put_back(advances);
                COMMIT_BACKOFF.delay(failures)
            }
        };
        if is_last && (failures > 0 || pending.is_empty()) {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep_until(began + pause) => {}
            () = closing.cancelled() => {}
        }
    }
}
