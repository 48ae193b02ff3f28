//! One sink's worker: a single loop that owns the lanes, the gate and the progress.
//!
//! ```text
//!   feed ──batch──► pending ──take──► lanes ──start──► attempts (futures, bounded)
//!                                       ▲                  │
//!                          parked ◄─────┴──── failed ──────┤
//!                                                          └── delivered ──► progress ──► committer
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use peat_gateway_state::command::CursorAdvance;
use peat_gateway_state::record::{Cursor, Sink};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::committer::Pending;
use super::feed::{self, Batch, Source};
use super::gate::Gate;
use super::journal::Journal;
use super::lanes::Lanes;
use super::metrics::SinkMetrics;
use super::progress::Progress;
use super::retry::RetryPolicy;
use super::sinks::{Delivery, Destination, Failure, FailureClass, Receipt, Shape};

/// Progress is handed to the committer at most this often; building it costs more than an
/// acknowledgement.
const SUBMIT_INTERVAL: Duration = Duration::from_millis(20);
/// How long attempts that run may go on after the worker was told to stop. Those that don't end in
/// time are repeated by the next worker.
pub(crate) const DRAIN_TIME: Duration = Duration::from_millis(1000);
/// How often the lag is measured.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// What one worker works with.
pub(crate) struct Assignment<J> {
    /// The cluster.
    pub(crate) journal: Arc<J>,
    /// The sink as it was configured when the worker began.
    pub(crate) sink: Sink,
    /// Where it goes.
    pub(crate) destination: Arc<dyn Destination>,
    /// Where it begins.
    pub(crate) cursor: Cursor,
    /// Where progress goes.
    pub(crate) commits: Arc<Pending>,
    /// Delays after failures.
    pub(crate) policy: RetryPolicy,
    /// What it counts in.
    pub(crate) metrics: SinkMetrics,
}

/// An attempt that ended.
struct Attempt {
    lane: usize,
    batch: Vec<Delivery>,
    result: Result<Receipt, Failure>,
}

/// Delivers until `stop`, then lets running attempts end for [`DRAIN_TIME`]. Returns how far it got,
/// for a successor in the same process; the same was handed to the committer.
pub(crate) async fn run<J: Journal>(assignment: Assignment<J>, stop: CancellationToken) -> Cursor {
    let (sender, mut batches) = mpsc::channel(feed::BATCHES_AHEAD);
    let source =
        Source { org_id: assignment.sink.org_id.clone(), filter: assignment.sink.filter.clone() };
    let mut worker = Worker::new(assignment);
    let after = worker.progress.acknowledged();
    let journal = Arc::clone(&worker.journal);
    let reading = tokio::spawn(feed::run(journal, source, after, sender));
    worker.work(&mut batches, &stop).await;
    drop(batches);
    reading.abort();
    worker.drain().await;
    worker.cursor()
}

struct Worker<J> {
    journal: Arc<J>,
    sink: Sink,
    destination: Arc<dyn Destination>,
    shape: Shape,
    commits: Arc<Pending>,
    policy: RetryPolicy,
    metrics: SinkMetrics,
    /// Read but not taken yet.
    pending: VecDeque<Delivery>,
    /// Where the batch ends that `pending` is left of.
    pending_through: u64,
    lanes: Lanes,
    gate: Gate,
    progress: Progress,
    attempts: FuturesUnordered<BoxFuture<'static, Attempt>>,
    parked: FuturesUnordered<BoxFuture<'static, usize>>,
    /// When progress is handed in next; `None` while there is none.
    submit_at: Option<Instant>,
    submitted_at: Option<Instant>,
}

impl<J: Journal> Worker<J> {
    fn new(assignment: Assignment<J>) -> Self {
        let shape = assignment.destination.shape();
        Self {
            progress: Progress::resume(&assignment.cursor),
            journal: assignment.journal,
            sink: assignment.sink,
            destination: assignment.destination,
            shape,
            commits: assignment.commits,
            policy: assignment.policy,
            metrics: assignment.metrics,
            pending: VecDeque::new(),
            pending_through: 0,
            lanes: Lanes::new(shape),
            gate: Gate::new(Instant::now()),
            attempts: FuturesUnordered::new(),
            parked: FuturesUnordered::new(),
            submit_at: None,
            submitted_at: None,
        }
    }

    async fn work(&mut self, batches: &mut mpsc::Receiver<Batch>, stop: &CancellationToken) {
        let mut lag = tokio::time::interval(LAG_INTERVAL);
        lag.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.take();
            self.start();
            let opens_at = self.gate.opens_at(Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                Some(attempt) = self.attempts.next() => self.finish(attempt),
                Some(lane) = self.parked.next() => self.lanes.wake(lane),
                batch = batches.recv(), if self.pending.is_empty() => match batch {
                    Some(batch) => self.accept(batch),
                    None => {
                        // The feed ends only with its receiver, unless it panicked: the supervisor
                        // starts this sink anew.
                        tracing::error!(sink = %self.sink.sink_id, "the feed ended");
                        return;
                    }
                },
                () = until(self.submit_at) => self.submit(),
                () = until(opens_at) => {}
                _ = lag.tick() => self.measure(),
            }
        }
    }

    /// Lets running attempts end, for a while, and hands in the final progress.
    async fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_TIME;
        while let Ok(Some(attempt)) = tokio::time::timeout_at(deadline, self.attempts.next()).await
        {
            self.finish(attempt);
        }
        if self.submit_at.is_some() {
            self.submit();
        }
    }

    fn accept(&mut self, batch: Batch) {
        self.pending_through = batch.through;
        self.pending = batch.deliveries.into();
        if self.pending.is_empty() {
            self.progress.pass(batch.through);
            self.mark_dirty();
        }
    }

    /// Moves what was read into the lanes, as far as there is room.
    fn take(&mut self) {
        while let Some(next) = self.pending.front() {
            if !self.lanes.has_room(next.body.len()) || !self.progress.may_take(next.sequence) {
                return;
            }
            let Some(delivery) = self.pending.pop_front() else { return };
            if !self.progress.is_acknowledged(delivery.sequence) {
                self.progress.take(delivery.sequence, delivery.observed_at);
                self.lanes.push(delivery);
            }
            if self.pending.is_empty() {
                self.progress.pass(self.pending_through);
                self.mark_dirty();
            }
        }
    }

    /// Begins attempts, as many as the destination and the gate allow.
    fn start(&mut self) {
        let now = Instant::now();
        while self.lanes.has_ready()
            && self.attempts.len() < self.shape.attempts_max
            && self.gate.admits(self.attempts.len(), now)
        {
            let Some((lane, batch)) = self.lanes.next_attempt() else { return };
            self.metrics.in_flight.add(count(batch.len()));
            let destination = Arc::clone(&self.destination);
            self.attempts.push(Box::pin(async move {
                let result = destination.deliver(&batch).await;
                Attempt { lane, batch, result }
            }));
        }
    }

    fn finish(&mut self, attempt: Attempt) {
        let Attempt { lane, batch, result } = attempt;
        self.metrics.in_flight.sub(count(batch.len()));
        match result {
            Ok(receipt) => {
                self.metrics.attempt(None);
                self.metrics.delivered.inc_by(batch.len() as u64);
                self.metrics.duplicates.inc_by(receipt.duplicates);
                self.gate.answered(Instant::now());
                for delivery in &batch {
                    self.progress.acknowledge(delivery.sequence);
                }
                self.lanes.succeeded(lane, &batch);
                self.mark_dirty();
            }
            Err(failure) => {
                self.metrics.attempt(Some(failure.class));
                self.metrics.retries.inc();
                self.fail(lane, batch, &failure);
            }
        }
    }

    fn fail(&mut self, lane: usize, batch: Vec<Delivery>, failure: &Failure) {
        let now = Instant::now();
        let (org, sink) = (&self.sink.org_id, &self.sink.sink_id);
        let backoff = match failure.class {
            FailureClass::Down => {
                if let Some(delay) = self.gate.down(&self.policy, now) {
                    tracing::warn!(%org, %sink, ?delay, %failure, "the sink takes nothing");
                }
                self.hold(failure, now);
                self.lanes.returned(lane, batch);
                return;
            }
            FailureClass::Transient => &self.policy.transient,
            FailureClass::Rejected | FailureClass::Gone => &self.policy.rejected,
        };
        self.gate.answered(now);
        let first = batch.first().map(|delivery| (delivery.sequence, delivery.event_id));
        let (sequence, event_id) = first.unwrap_or_default();
        let failures = self.lanes.failed(lane, batch);
        let delay = backoff.delay(failures);
        // The first failure, then ever more seldom: a long outage must not fill the log.
        if failures.is_power_of_two() {
            let class = failure.class.word();
            tracing::warn!(
                %org, %sink, sequence, %event_id, class, failures, ?delay, %failure,
                "could not deliver, will try again"
            );
        }
        self.hold(failure, now);
        self.parked.push(Box::pin(async move {
            tokio::time::sleep(delay).await;
            lane
        }));
    }

    /// Leaves the destination alone as long as it asked for.
    fn hold(&mut self, failure: &Failure, now: Instant) {
        if let Some(asked) = failure.retry_after {
            self.gate.hold(asked.min(self.policy.retry_after_max), now);
        }
    }

    /// Notes that there is progress to hand in.
    fn mark_dirty(&mut self) {
        if self.submit_at.is_none() {
            let now = Instant::now();
            let earliest = self.submitted_at.map_or(now, |last| last + SUBMIT_INTERVAL);
            self.submit_at = Some(earliest.max(now));
        }
    }

    fn submit(&mut self) {
        self.submit_at = None;
        self.submitted_at = Some(Instant::now());
        let (acknowledged, ahead) = self.progress.snapshot();
        self.metrics.cursor.set(i64::try_from(acknowledged).unwrap_or(i64::MAX));
        self.commits.submit(CursorAdvance {
            org_id: self.sink.org_id.clone(),
            sink_id: self.sink.sink_id.clone(),
            acknowledged,
            ahead,
        });
    }

    fn cursor(&self) -> Cursor {
        let (acknowledged, ahead) = self.progress.snapshot();
        Cursor { acknowledged, ahead, epoch: self.journal.epoch(), updated_at: 0 }
    }

    fn measure(&self) {
        match self.journal.extent(&self.sink.org_id) {
            Ok(extent) => {
                let lag = extent.last.saturating_sub(self.progress.acknowledged());
                self.metrics.lag_events.set(i64::try_from(lag).unwrap_or(i64::MAX));
            }
            Err(error) => tracing::error!(%error, "could not read the journal's extent"),
        }
        let waiting = self.pending.front().map(|delivery| delivery.observed_at);
        let age = self.progress.oldest_observed_at().or(waiting).map_or(0.0, age_seconds);
        self.metrics.lag_seconds.set(age);
    }
}

/// Waits until a moment, for ever where there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn count(events: usize) -> i64 {
    i64::try_from(events).unwrap_or(i64::MAX)
}

fn age_seconds(observed_at_ms: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(observed_at_ms)).as_secs_f64()
}
