//! The flusher without its thread: a task that syncs when the simulated disk has got so far.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::disk;

/// The mark is synced this long after it was written, without a job.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

type Step = Mutex<Box<dyn FnMut() + Send>>;

/// Stands for the flusher's thread on the host that opened the store; ends when that host crashes.
pub(crate) struct SimulatedThread {
    step: Arc<Step>,
    work: Arc<Notify>,
}

impl SimulatedThread {
    /// Begins to call `step`, which syncs for all jobs that wait.
    pub(crate) fn start(step: impl FnMut() + Send + 'static) -> Self {
        let step: Arc<Step> = Arc::new(Mutex::new(Box::new(step)));
        let work = Arc::new(Notify::new());
        let (thread, wakes, place) = (Arc::downgrade(&step), work.clone(), disk::PLACE.get());
        tokio::spawn(async move {
            loop {
                tokio::time::timeout(MARK_INTERVAL, wakes.notified()).await.ok();
                tokio::time::sleep(disk::sync_delay(place)).await;
                match thread.upgrade() {
                    Some(step) => call(&step),
                    None => return,
                }
            }
        });
        Self { step, work }
    }

    /// A job waits.
    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// Syncs at once, for a caller that blocks its thread.
    pub(crate) fn step(&self) {
        call(&self.step);
    }
}

fn call(step: &Step) {
    (*step.lock().unwrap_or_else(PoisonError::into_inner))();
}
