//! Runs one worker with a committer, and can crash it.

use std::sync::Arc;
use std::time::Duration;

use peat_gateway_state::record::{Cursor, Sink};
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::MemoryJournal;
use crate::cdc::committer::{self, Pending};
use crate::cdc::metrics::Registered;
use crate::cdc::retry::{Backoff, RetryPolicy};
use crate::cdc::sinks::Destination;
use crate::cdc::worker::{self, Assignment};

/// Delays that keep tests quick.
pub(crate) fn quick_retries() -> RetryPolicy {
    let quick = Backoff {
        least: Duration::ZERO,
        first: Duration::from_millis(1),
        most: Duration::from_millis(20),
    };
    RetryPolicy {
        transient: quick,
        rejected: quick,
        down: quick,
        retry_after_max: Duration::from_secs(5),
    }
}

/// A running worker.
pub(crate) struct Run {
    stop: CancellationToken,
    closing: CancellationToken,
    worker: JoinHandle<Cursor>,
    committer: JoinHandle<()>,
    _metrics: Registered,
}

impl Run {
    /// Starts a worker from the committed cursor.
    pub(crate) fn start(
        journal: &Arc<MemoryJournal>,
        sink: &Sink,
        destination: Arc<dyn Destination>,
    ) -> Self {
        let metrics = Registered::new(Registry::new());
        let commits = Arc::new(Pending::default());
        let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
        let committer = tokio::spawn(committer::run(
            Arc::clone(journal),
            Arc::clone(&commits),
            closing.clone(),
            CancellationToken::new(),
        ));
        let assignment = Assignment {
            journal: Arc::clone(journal),
            sink: sink.clone(),
            destination,
            cursor: journal.committed(),
            commits,
            policy: quick_retries(),
            metrics: metrics.metrics().sink(&sink.org_id, &sink.sink_id),
        };
        let worker = tokio::spawn(Box::pin(worker::run(assignment, stop.clone())));
        Self { stop, closing, worker, committer, _metrics: metrics }
    }

    /// Ends in good order; returns how far it got.
    pub(crate) async fn stop(self) -> Cursor {
        self.stop.cancel();
        let cursor = self.worker.await.unwrap();
        self.closing.cancel();
        self.committer.await.unwrap();
        cursor
    }

    /// Ends as a killed process does: nothing more is committed.
    pub(crate) async fn crash(self) {
        self.committer.abort();
        self.worker.abort();
        assert!(self.committer.await.is_err_and(|error| error.is_cancelled()));
        assert!(self.worker.await.is_err_and(|error| error.is_cancelled()));
    }
}
