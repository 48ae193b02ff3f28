//! A disk that doesn't answer: the leader that has it stops leading.
//!
//! openraft's heartbeats need no disk, so a leader whose syncs don't end would keep its followers waiting
//! for as long as it likes.
//!
//! ```text
//!  sync under way ≥ limit ─► alarm `disk_stalled` ─► not ready, takes no proposals, leads no more,
//!                                                    doesn't campaign
//!                         ─► the voter closest to the log takes over; if it can't, silence makes the
//!                            others elect
//!  syncs end again        ─► alarm cleared, may campaign
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inner::Inner;
use super::transfer::TransferError;
use crate::health::AlarmCode;

/// Looks at the flusher per limit.
const LOOKS_PER_LIMIT: u32 = 8;
/// Shortest pause between two looks.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);
/// How long all syncs must have been quick before the disk counts as well again.
const RECOVERY: Duration = Duration::from_secs(1);
/// How long another voter may take to take over before this leader falls silent.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

/// Watches until `shutdown`.
pub(super) async fn run(inner: Arc<Inner>, limit: Duration, shutdown: CancellationToken) {
    let pause = (limit / LOOKS_PER_LIMIT).max(LOOK_PAUSE_MIN);
    let mut last_slow: Option<Instant> = None;
    loop {
        let slow = inner.store.syncs().under_way().filter(|took| *took >= limit);
        match (slow, last_slow) {
            (Some(took), before) => {
                if before.is_none() {
                    stalled(&inner, took, limit);
                }
                last_slow = Some(Instant::now());
            }
            (None, Some(last)) if last.elapsed() >= RECOVERY => {
                inner.health.clear(AlarmCode::DiskStalled);
                if inner.damaged().is_none() {
                    inner.raft.runtime_config().elect(true);
                    inner.raft.runtime_config().heartbeat(true);
                }
                last_slow = None;
            }
            (None, _) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn stalled(inner: &Arc<Inner>, took: Duration, limit: Duration) {
    inner.health.raise(
        AlarmCode::DiskStalled,
        format!(
            "a sync of the data directory has been under way for {} ms, the limit is {} ms; look at the \
             disk; this node serves again when it answers",
            took.as_millis(),
            limit.as_millis()
        ),
    );
    inner.raft.runtime_config().elect(false);
    // Not waited for here: handing on may take long, and the disk may be back sooner.
    tokio::spawn(stop_leading(inner.clone()));
}

/// Has another voter take over; if none can be told to, this node falls silent and they elect one.
///
/// Silence lasts until the alarm that asked for it is cleared.
pub(super) async fn stop_leading(inner: Arc<Inner>) {
    match inner.transfer_leadership(None, TRANSFER_TIMEOUT).await {
        Ok(node) => tracing::warn!(%node, "leadership is handed on"),
        Err(TransferError::NotLeader | TransferError::NoOther) => {}
        Err(error) => {
            // With a stuck disk this node can't write down the other's term, and so can't see it lead.
            tracing::warn!(%error, "leadership may not be handed on; this node falls silent");
            if inner.health.unfit().is_some() {
                inner.raft.runtime_config().heartbeat(false);
            }
        }
    }
}
