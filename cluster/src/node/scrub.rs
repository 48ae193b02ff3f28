//! Reading all of this node's data in the background (INV-10).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::inner::Inner;
use crate::blocking::blocking;
use crate::config::StorageLimits;
use crate::store::scrub::{Pace, ScrubFailure};

/// The first pass comes this long after the start, or after one interval if that is shorter: what went bad
/// while the node was down is found soon, and the start isn't slowed.
const FIRST_PASS: Duration = Duration::from_secs(300);

/// Asks for a pass before its time.
#[derive(Clone, Default)]
pub(super) struct ScrubTrigger(Arc<Notify>);

impl ScrubTrigger {
    /// Asks; several wishes before a pass begins are one.
    pub(super) fn now(&self) {
        self.0.notify_one();
    }
}

/// Passes until `shutdown`.
pub(super) async fn run(
    inner: Arc<Inner>,
    limits: StorageLimits,
    trigger: ScrubTrigger,
    shutdown: CancellationToken,
) {
    let mut pause = match limits.scrub_interval.is_zero() {
        // Without an interval only a wish begins one.
        true => Duration::MAX,
        false => limits.scrub_interval.min(FIRST_PASS),
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(pause) => {}
            () = trigger.0.notified() => {}
        }
        pass(&inner, limits.scrub_bytes_per_second, &shutdown).await;
        if !limits.scrub_interval.is_zero() {
            pause = limits.scrub_interval;
        }
    }
}

async fn sleep(pause: Duration) {
    match tokio::time::Instant::now().checked_add(pause) {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn pass(inner: &Arc<Inner>, bytes_per_second: u64, shutdown: &CancellationToken) {
    let (store, stopped) = (inner.store.clone(), shutdown.clone());
    let begin = Instant::now();
    let passed = blocking(move || {
        let stop = || stopped.is_cancelled();
        store.scrub(&mut Pace::new(bytes_per_second, &stop))
    });
    let counts = &inner.checks;
    match passed.await {
        Ok(Ok(done)) => {
            counts.scrubs.fetch_add(1, Ordering::Relaxed);
            counts.scrubbed_rows.fetch_add(done.rows, Ordering::Relaxed);
            counts.scrubbed_bytes.fetch_add(done.bytes, Ordering::Relaxed);
            counts.scrub_duration_ms.store(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
            tracing::debug!(?done, "everything that is stored was read and is well");
        }
        Ok(Err(ScrubFailure::Stopped)) => {}
        Ok(Err(ScrubFailure::Damaged(what))) => {
            counts.scrub_failures.fetch_add(1, Ordering::Relaxed);
            inner.take_out_of_service(what).await;
        }
        Ok(Err(ScrubFailure::Failed(error))) => {
            counts.scrub_failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "could not read all that is stored");
        }
        Err(error) => tracing::error!(%error, "the pass over all that is stored panicked"),
    }
}
