//! Group commit: one thread, one sync for everything that waits.
//!
//! ```text
//!  append ──write──► RocksDB (WAL buffer)      ┌─────────── flusher thread ───────────┐
//!     └────job──────► queue ──────────────────►│ take all jobs · flush_wal(sync) once │
//!  save_vote, truncate, purge, adopt ─────────►│ · write the synced mark · callbacks  │
//!                                              └──────────────────────────────────────┘
//! ```
//!
//! A caller writes to RocksDB first and queues its job second, so the sync that a job waits for
//! covers its write. Jobs finish in the order of the queue. When a sync fails, every job from then
//! on fails: which pages reached the disk is unknown, and trying again would only hide it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::error::StoreError;
use super::space;
use super::stall::SyncWatch;
use super::steps::{fault, step};
use super::synced::SyncedFile;
use crate::raft::Vote;

/// Jobs that may wait. Beyond, writers block until the disk has caught up, which slows proposals.
const QUEUED_JOBS_MAX: usize = 4096;

/// What a job's writes mean for the synced mark.
#[derive(Clone, Copy, Debug)]
pub(super) enum MarkChange {
    /// Nothing.
    None,
    /// The log now ends before this index.
    LogEnd(u64),
    /// The log is about to be cut back to this end: the mark is synced before the job is done.
    LowerLogEnd(u64),
    /// This vote was given; the mark is synced before the job is done.
    Vote(Vote),
}

/// Called when a job's writes are durable, or never will be.
pub(super) type Done = Box<dyn FnOnce(Result<(), &str>) + Send>;

struct Job {
    change: MarkChange,
    done: Done,
}

/// Where the store says that it failed. The first reason stays.
#[derive(Clone)]
pub(super) struct Failure(Arc<watch::Sender<Option<String>>>);

impl Failure {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Records a failure: the process must end.
    pub(super) fn set(&self, reason: &str) {
        self.0.send_if_modified(|current| {
            if current.is_some() {
                return false;
            }
            let reason = match space::is_full(reason) {
                true => format!("{reason}; {}", space::MAKE_ROOM),
                false => reason.to_owned(),
            };
            tracing::error!(reason, "the store failed");
            *current = Some(reason);
            true
        });
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }
}

/// What the store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageCounts {
    /// Syncs of the WAL.
    pub fsyncs: u64,
    /// Batches of entries appended to the log.
    pub append_batches: u64,
    /// Bytes of encoded entries appended to the log.
    pub append_bytes: u64,
    /// Batches of entries applied to the state.
    pub apply_batches: u64,
    /// Entries applied to the state.
    pub applied_entries: u64,
}

/// Where [`StorageCounts`] are counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub fsyncs: AtomicU64,
    pub append_batches: AtomicU64,
    pub append_bytes: AtomicU64,
    pub apply_batches: AtomicU64,
    pub applied_entries: AtomicU64,
    /// What the flusher is at, and how long syncs take.
    pub syncs: SyncWatch,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> StorageCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StorageCounts {
            fsyncs: read(&self.fsyncs),
            append_batches: read(&self.append_batches),
            append_bytes: read(&self.append_bytes),
            apply_batches: read(&self.apply_batches),
            applied_entries: read(&self.applied_entries),
        }
    }
}

/// The queue to the flusher thread; dropping it ends the thread after a last sync.
pub(super) struct Flusher {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// What stands for the thread in the simulation.
    #[cfg(test)]
    simulated: Option<crate::simulation::flusher::SimulatedThread>,
}

impl Flusher {
    /// Starts the thread. `sync` makes everything written so far durable.
    pub(super) fn start(
        synced: SyncedFile,
        failure: Failure,
        counters: Arc<Counters>,
        sync: impl FnMut() -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUED_JOBS_MAX);
        let worker = Worker { synced, failure, counters, sync, failed: None };
        #[cfg(test)]
        if crate::simulation::active() {
            let mut worker = worker;
            let simulated = crate::simulation::flusher::SimulatedThread::start(move || {
                worker.flush_waiting(&jobs);
            });
            return Ok(Self { queue: Some(queue), thread: None, simulated: Some(simulated) });
        }
        let thread = std::thread::Builder::new()
            .name("wal-flusher".into())
            .spawn(move || worker.run(&jobs))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            #[cfg(test)]
            simulated: None,
        })
    }

    /// Queues a job: `done` is called from the flusher's thread after the next sync. Blocks while
    /// the queue is full.
    pub(super) fn submit(&self, change: MarkChange, done: Done) {
        let refused = match &self.queue {
            Some(queue) => queue.send(Job { change, done }).err().map(|refused| refused.0),
            None => Some(Job { change, done }),
        };
        if let Some(job) = refused {
            (job.done)(Err("the flusher has ended"));
        }
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            simulated.wake();
        }
    }

    /// Waits until everything written so far is durable.
    pub(super) async fn flush(&self, change: MarkChange) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.submit(
            change,
            Box::new(move |result| {
                // The caller may have stopped waiting; the write is durable all the same.
                drop(sender.send(result.map_err(str::to_owned)));
            }),
        );
        receiver.await.map_err(|_| StoreError::Panicked("the flusher"))?.map_err(StoreError::Flush)
    }

    /// Waits like [`Self::flush`], blocking the thread.
    pub(super) fn flush_blocking(&self) -> Result<(), StoreError> {
        let (sender, receiver) = sync_channel(1);
        self.submit(
            MarkChange::None,
            Box::new(move |result| {
                drop(sender.send(result.map_err(str::to_owned)));
            }),
        );
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            simulated.step();
        }
        receiver.recv().map_err(|_| StoreError::Panicked("the flusher"))?.map_err(StoreError::Flush)
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.queue = None;
        let Some(thread) = self.thread.take() else { return };
        // A callback may hold the last reference to the store; a thread can't wait for itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the flusher thread panicked");
        }
    }
}

/// The flusher thread.
struct Worker<S> {
    synced: SyncedFile,
    failure: Failure,
    counters: Arc<Counters>,
    sync: S,
    failed: Option<String>,
}

impl<S: FnMut() -> Result<(), String>> Worker<S> {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut batch = Vec::new();
        loop {
            // Without a mark to sync there is nothing to wake for but a job.
            let timeout = self.synced.due().unwrap_or(Duration::MAX);
            match jobs.recv_timeout(timeout) {
                Ok(job) => batch.push(job),
                Err(RecvTimeoutError::Timeout) => self.sync_mark(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            batch.extend(jobs.try_iter());
            if !batch.is_empty() {
                self.flush(&mut batch);
            }
        }
        // The last applied rows may be unsynced: not a promise, but it saves applying them again.
        if self.failed.is_none() && (self.sync)().is_ok() {
            step!(LastSync);
            self.sync_mark();
        }
    }

    /// What the thread does when it wakes, for the simulation.
    #[cfg(test)]
    fn flush_waiting(&mut self, jobs: &Receiver<Job>) {
        let mut batch: Vec<Job> = jobs.try_iter().collect();
        if !batch.is_empty() {
            self.flush(&mut batch);
        }
        if self.synced.due().is_some_and(|due| due.is_zero()) {
            self.sync_mark();
        }
    }

    fn flush(&mut self, batch: &mut Vec<Job>) {
        fault!(AcknowledgesFirst, {
            batch.drain(..).for_each(|job| (job.done)(Ok(())));
            // Long enough that whoever was told says so before the disk has it.
            std::thread::sleep(Duration::from_millis(20));
        });
        let counters = self.counters.clone();
        let _working = counters.syncs.enter();
        if self.failed.is_none() {
            Counters::add(&self.counters.fsyncs, 1);
            step!(JobsTaken);
            let result = counters.syncs.timed(&mut self.sync);
            step!(WalSynced);
            self.note(result);
        }
        if self.failed.is_none() {
            let result = self.change_mark(batch);
            self.note(result.map_err(|error| format!("could not write the synced mark: {error}")));
        }
        for job in batch.drain(..) {
            (job.done)(self.failed.as_deref().map_or(Ok(()), Err));
            step!(JobDone);
        }
        if self.synced.due().is_some_and(|due| due.is_zero()) {
            self.sync_mark();
        }
    }

    /// Writes what all jobs together mean for the mark: once, because each is a system call.
    fn change_mark(&mut self, batch: &[Job]) -> std::io::Result<()> {
        let mut mark = self.synced.mark();
        let mut at_once = false;
        for job in batch {
            match job.change {
                MarkChange::None => {}
                MarkChange::LogEnd(end) => mark.log_end = end,
                MarkChange::LowerLogEnd(end) => {
                    mark.log_end = end;
                    at_once = true;
                }
                MarkChange::Vote(vote) => {
                    mark.vote = Some(vote);
                    at_once = true;
                }
            }
        }
        if mark != self.synced.mark() {
            self.synced.record(mark)?;
            step!(MarkRecorded);
        }
        if at_once {
            self.synced.sync()?;
            step!(MarkSynced);
        }
        Ok(())
    }

    fn sync_mark(&mut self) {
        if self.failed.is_none() {
            let counters = self.counters.clone();
            let _working = counters.syncs.enter();
            let result = self.synced.sync();
            self.note(result.map_err(|error| format!("could not sync the synced mark: {error}")));
        }
    }

    fn note(&mut self, result: Result<(), String>) {
        if let Err(reason) = result {
            self.failure.set(&reason);
            self.failed = Some(reason);
        }
    }
}
