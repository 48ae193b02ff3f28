//! Group commit, with a sync that the test holds in its hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::store::flusher::{Counters, Failure, Flusher, MarkChange};
use crate::store::synced::SyncedFile;

const PATIENCE: Duration = Duration::from_secs(20);

/// A flusher whose every sync says that it began, and waits for its result.
///
/// Fields drop in order: letting go of `results` lets the flusher's last sync succeed.
struct Held {
    results: Sender<Result<(), String>>,
    flusher: Flusher,
    failure: Failure,
    began: Receiver<()>,
    syncs: Arc<AtomicU64>,
    directory: tempfile::TempDir,
}

fn held() -> Held {
    let directory = tempfile::tempdir().unwrap();
    let synced = SyncedFile::create(&directory.path().join("synced")).unwrap();
    let failure = Failure::new();
    let (begin, began) = channel();
    let (results, result) = channel::<Result<(), String>>();
    let syncs = Arc::new(AtomicU64::new(0));
    let count = syncs.clone();
    let counters = Arc::new(Counters::default());
    let flusher = Flusher::start(synced, failure.clone(), counters, move || {
        count.fetch_add(1, Ordering::SeqCst);
        // Once the test has let go, every sync succeeds.
        begin.send(()).ok();
        result.recv().unwrap_or(Ok(()))
    })
    .unwrap();
    Held { results, flusher, failure, began, syncs, directory }
}

impl Held {
    fn submit(&self, change: MarkChange, name: u64, answers: &Sender<(u64, Result<(), String>)>) {
        let answers = answers.clone();
        self.flusher.submit(
            change,
            Box::new(move |result| answers.send((name, result.map_err(str::to_owned))).unwrap()),
        );
    }

    fn mark_on_disk(&self) -> u64 {
        SyncedFile::open(&self.directory.path().join("synced")).unwrap().mark().log_end
    }
}

#[test]
fn append_callback_fires_only_after_the_wal_is_synced() {
    let held = held();
    let (answer, answers) = channel();
    held.submit(MarkChange::LogEnd(7), 1, &answer);
    held.began.recv_timeout(PATIENCE).unwrap();
    assert!(answers.try_recv().is_err(), "the sync has not ended");
    assert_eq!(held.mark_on_disk(), 0, "nothing is known to be synced yet");
    held.results.send(Ok(())).unwrap();
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), (1, Ok(())));
    assert_eq!(held.mark_on_disk(), 7);
}

#[test]
fn jobs_that_wait_share_one_sync_and_end_in_order() {
    let held = held();
    let (answer, answers) = channel();
    held.submit(MarkChange::LogEnd(1), 0, &answer);
    held.began.recv_timeout(PATIENCE).unwrap();
    for name in 1..=50 {
        held.submit(MarkChange::LogEnd(name), name, &answer);
    }
    held.results.send(Ok(())).unwrap();
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().0, 0);
    held.began.recv_timeout(PATIENCE).unwrap();
    assert!(answers.try_recv().is_err(), "the first sync began before these were queued");
    held.results.send(Ok(())).unwrap();
    for name in 1..=50 {
        assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), (name, Ok(())));
    }
    assert_eq!(held.syncs.load(Ordering::SeqCst), 2);
    assert_eq!(held.mark_on_disk(), 50);
}

#[test]
fn a_failed_sync_fails_all_later_jobs_and_is_never_tried_again() {
    let held = held();
    let (answer, answers) = channel();
    held.submit(MarkChange::LogEnd(3), 1, &answer);
    held.began.recv_timeout(PATIENCE).unwrap();
    held.results.send(Err("the disk is gone".to_owned())).unwrap();
    let failed = Err("the disk is gone".to_owned());
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), (1, failed.clone()));
    held.submit(MarkChange::LogEnd(4), 2, &answer);
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), (2, failed));
    assert_eq!(held.failure.watch().borrow().as_deref(), Some("the disk is gone"));
    assert_eq!(held.mark_on_disk(), 0);
    let syncs = held.syncs.clone();
    drop(held);
    assert_eq!(syncs.load(Ordering::SeqCst), 1, "not at the end either");
}
