//! The supervisor: one worker per enabled sink, restarted when its sink's configuration changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use peat_gateway_state::ids::{OrgId, SinkId};
use peat_gateway_state::record::{Cursor, Sink};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::committer::{self, Pending};
use super::journal::Journal;
use super::metrics::Metrics;
use super::retry::{Backoff, RetryPolicy};
use super::sinks::{self, Destination};
use super::worker::{self, Assignment};
use super::{Settings, trimmer};

/// Between two looks at the sinks, however often the configuration changes.
const RECONCILE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The sinks are looked at this often anyway, so that a worker that ended is started anew.
const RECONCILE_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// How long the last commit may take when delivery ends.
const LAST_COMMIT_TIME: Duration = Duration::from_millis(700);

/// Delays of one run; tests choose shorter ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// After failed deliveries.
    pub(crate) retries: RetryPolicy,
    /// After a sink could not be started, such as while the key provider is unreachable.
    pub(crate) start: Backoff,
    /// Between rounds of trimming.
    pub(crate) trim_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retries: RetryPolicy::default(),
            start: Backoff {
                least: Duration::from_millis(100),
                first: Duration::from_secs(1),
                most: Duration::from_secs(60),
            },
            trim_interval: Duration::from_secs(2),
        }
    }
}

type SinkKey = (OrgId, SinkId);

/// Delivers until `shutdown`, or until the epoch is over.
pub(crate) async fn run<J: Journal>(
    journal: Arc<J>,
    settings: Settings,
    metrics: Arc<Metrics>,
    timing: Timing,
    shutdown: CancellationToken,
) {
    let over = CancellationToken::new();
    let closing = CancellationToken::new();
    let commits = Arc::new(Pending::default());
    let committer = tokio::spawn(committer::run(
        Arc::clone(&journal),
        Arc::clone(&commits),
        closing.clone(),
        over.clone(),
    ));
    let trimmer_stop = CancellationToken::new();
    let trimmer = tokio::spawn(trimmer::run(
        Arc::clone(&journal),
        timing.trim_interval,
        trimmer_stop.clone(),
        over.clone(),
    ));
    let environment = Arc::new(Environment { journal, settings, metrics, timing, commits });
    let mut workers = Workers { environment, running: BTreeMap::new() };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = over.cancelled() => tracing::info!("delivery ends: another leader has taken over"),
        () = workers.supervise() => {}
    }
    trimmer_stop.cancel();
    let all: Vec<SinkKey> = workers.running.keys().cloned().collect();
    workers.stop(&all).await;
    closing.cancel();
    let mut committer = committer;
    if tokio::time::timeout(LAST_COMMIT_TIME, &mut committer).await.is_err() {
        // Nothing is lost: the next leader repeats what these cursors would have covered.
        tracing::warn!("the last cursors could not be committed in time");
        committer.abort();
    }
    trimmer.abort();
}

/// What all workers share.
struct Environment<J> {
    journal: Arc<J>,
    settings: Settings,
    metrics: Arc<Metrics>,
    timing: Timing,
    commits: Arc<Pending>,
}

struct Running {
    revision: u64,
    stop: CancellationToken,
    task: JoinHandle<Option<Cursor>>,
    /// How it ended, once that was waited for.
    ended: Option<Result<Option<Cursor>, JoinError>>,
}

struct Workers<J> {
    environment: Arc<Environment<J>>,
    running: BTreeMap<SinkKey, Running>,
}

impl<J: Journal> Workers<J> {
    /// Keeps the workers as the configuration asks for; never returns.
    async fn supervise(&mut self) {
        let mut changes = self.environment.journal.changes();
        loop {
            let seen = changes.borrow_and_update().configuration;
            match self.wanted().await {
                Ok(wanted) => self.reconcile(wanted).await,
                Err(reason) => tracing::error!(%reason, "could not read the sinks"),
            }
            tokio::time::sleep(RECONCILE_INTERVAL_MIN).await;
            let changed = changes.wait_for(|newest| newest.configuration != seen);
            // Whether it changed or the time is up, the sinks are looked at again.
            tokio::time::timeout(RECONCILE_INTERVAL_MAX, changed).await.ok();
        }
    }

    /// Reads the enabled sinks, off the runtime's threads.
    async fn wanted(&self) -> Result<BTreeMap<SinkKey, Sink>, String> {
        let journal = Arc::clone(&self.environment.journal);
        let read = tokio::task::spawn_blocking(move || journal.enabled_sinks());
        let sinks = read.await.map_err(|error| error.to_string())?;
        let sinks = sinks.map_err(|error| error.to_string())?;
        let keyed =
            sinks.into_iter().map(|sink| ((sink.org_id.clone(), sink.sink_id.clone()), sink));
        Ok(keyed.collect())
    }

    async fn reconcile(&mut self, wanted: BTreeMap<SinkKey, Sink>) {
        let to_stop: Vec<SinkKey> = self
            .running
            .iter()
            .filter(|(key, running)| {
                let is_current =
                    wanted.get(key).is_some_and(|sink| sink.revision == running.revision);
                !is_current || running.task.is_finished()
            })
            .map(|(key, _)| key.clone())
            .collect();
        let mut reached = self.stop(&to_stop).await;
        for (key, sink) in wanted {
            if !self.running.contains_key(&key) {
                let before = reached.remove(&key);
                self.start(key, sink, before);
            }
        }
    }

    /// Stops workers side by side and returns how far they got.
    ///
    /// Cancel-safe: a worker is kept until its end was seen.
    async fn stop(&mut self, keys: &[SinkKey]) -> BTreeMap<SinkKey, Cursor> {
        let stopping = self.running.iter_mut().filter(|(key, _)| keys.contains(key));
        join_all(stopping.map(|(_, running)| async {
            running.stop.cancel();
            if running.ended.is_none() {
                running.ended = Some((&mut running.task).await);
            }
        }))
        .await;
        let mut reached = BTreeMap::new();
        for key in keys {
            match self.running.remove(key).and_then(|running| running.ended) {
                Some(Ok(Some(cursor))) => {
                    reached.insert(key.clone(), cursor);
                }
                Some(Err(error)) => {
                    tracing::error!(sink = %key.1, %error, "a sink's worker failed");
                }
                Some(Ok(None)) | None => {}
            }
        }
        reached
    }

    fn start(&mut self, key: SinkKey, sink: Sink, before: Option<Cursor>) {
        let stop = CancellationToken::new();
        let revision = sink.revision;
        let environment = Arc::clone(&self.environment);
        let task = tokio::spawn(serve(environment, sink, before, stop.clone()));
        self.running.insert(key, Running { revision, stop, task, ended: None });
    }
}

/// Builds a sink's destination, as soon as that is possible, and delivers to it.
async fn serve<J: Journal>(
    environment: Arc<Environment<J>>,
    sink: Sink,
    before: Option<Cursor>,
    stop: CancellationToken,
) -> Option<Cursor> {
    let begun = stop.run_until_cancelled(begin(&environment, &sink, before)).await;
    let (destination, cursor) = begun?;
    tracing::info!(
        org = %sink.org_id, sink = %sink.sink_id, after = cursor.acknowledged, "delivery begins"
    );
    let assignment = Assignment {
        journal: Arc::clone(&environment.journal),
        commits: Arc::clone(&environment.commits),
        policy: environment.timing.retries,
        metrics: environment.metrics.sink(&sink.org_id, &sink.sink_id),
        destination,
        cursor,
        sink,
    };
    Some(Box::pin(worker::run(assignment, stop)).await)
}

/// Tries until the sink can be started. Its events wait in the journal meanwhile.
async fn begin<J: Journal>(
    environment: &Environment<J>,
    sink: &Sink,
    before: Option<Cursor>,
) -> (Arc<dyn Destination>, Cursor) {
    let mut failures = 0;
    loop {
        match prepare(environment, sink).await {
            Ok((destination, committed)) => {
                // What the predecessor in this process reached may not be committed yet.
                let newer = before.filter(|before| before.acknowledged >= committed.acknowledged);
                return (destination, newer.unwrap_or(committed));
            }
            Err(reason) => {
                failures += 1;
                let delay = environment.timing.start.delay(failures);
                tracing::error!(
                    org = %sink.org_id, sink = %sink.sink_id, reason, ?delay,
                    "could not start the sink, will try again"
                );
                tokio::time::sleep(delay).await;
            }
        }
    }
}

async fn prepare<J: Journal>(
    environment: &Environment<J>,
    sink: &Sink,
) -> Result<(Arc<dyn Destination>, Cursor), String> {
    let journal = &environment.journal;
    let credentials = journal.credentials(sink).await?;
    let credentials = credentials.as_ref().map(|secret| secret.as_slice());
    let destination = sinks::build(sink, credentials, journal.epoch(), &environment.settings);
    let destination = destination.map_err(|error| error.to_string())?;
    let cursor = journal.cursor(&sink.org_id, &sink.sink_id).map_err(|error| error.to_string())?;
    Ok((destination, cursor))
}
