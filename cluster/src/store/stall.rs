//! How long syncs take, and how long the one has taken that is under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the histogram's buckets; a last one without bound follows.
const BOUNDS_MICROSECONDS: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// How long syncs of the write-ahead log took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncTimes {
    /// Upper bound in seconds and how many took at most that long, cumulative; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds of all together.
    pub sum_seconds: f64,
}

/// Watches the flusher: one thread enters, any may ask.
#[derive(Debug)]
pub(crate) struct SyncWatch {
    start: Instant,
    /// Milliseconds from `start`, plus one, at which the flusher began what it is at; 0 while it waits.
    since: AtomicU64,
    counts: [AtomicU64; BOUNDS_MICROSECONDS.len() + 1],
    sum_microseconds: AtomicU64,
    #[cfg(test)]
    held: held::Held,
}

impl Default for SyncWatch {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            since: AtomicU64::new(0),
            counts: Default::default(),
            sum_microseconds: AtomicU64::new(0),
            #[cfg(test)]
            held: held::Held::default(),
        }
    }
}

/// The flusher is at work until this is dropped.
pub(crate) struct Working<'w> {
    watch: &'w SyncWatch,
    outermost: bool,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if self.outermost {
            self.watch.since.store(0, Ordering::Release);
        }
    }
}

impl SyncWatch {
    /// Notes that the flusher begins to work: whatever blocks it from here on counts.
    pub(crate) fn enter(&self) -> Working<'_> {
        let now = self.start.elapsed().as_millis() as u64 + 1;
        let entered = self.since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        Working { watch: self, outermost: entered.is_ok() }
    }

    /// Measures one sync.
    pub(crate) fn timed<T>(&self, sync: impl FnOnce() -> T) -> T {
        #[cfg(test)]
        self.held.pass();
        let begin = Instant::now();
        let result = sync();
        let took = begin.elapsed().as_micros() as u64;
        let place = BOUNDS_MICROSECONDS.iter().position(|bound| took <= *bound);
        self.counts[place.unwrap_or(BOUNDS_MICROSECONDS.len())].fetch_add(1, Ordering::Relaxed);
        self.sum_microseconds.fetch_add(took, Ordering::Relaxed);
        result
    }

    /// How long the flusher has been at what it does now; `None` while it waits for work.
    pub(crate) fn under_way(&self) -> Option<Duration> {
        let since_ms = self.since.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_millis(since_ms)))
    }

    /// How long syncs took so far.
    pub(crate) fn times(&self) -> SyncTimes {
        let bounds = BOUNDS_MICROSECONDS.iter().map(|bound| *bound as f64 / 1e6);
        let mut total = 0;
        let buckets = bounds
            .chain([f64::INFINITY])
            .zip(&self.counts)
            .map(|(bound, count)| {
                total += count.load(Ordering::Relaxed);
                (bound, total)
            })
            .collect();
        let sum_seconds = self.sum_microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        SyncTimes { buckets, sum_seconds }
    }

    /// Makes every sync wait until the returned guard is dropped: a stuck disk.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> held::Hold<'_> {
        self.held.hold()
    }
}

#[cfg(test)]
pub(crate) mod held {
    use std::sync::{Condvar, Mutex};

    /// The planted stall.
    #[derive(Debug, Default)]
    pub(crate) struct Held {
        is_held: Mutex<bool>,
        released: Condvar,
    }

    /// Syncs wait until this is dropped.
    pub(crate) struct Hold<'h>(&'h Held);

    impl Held {
        pub(super) fn pass(&self) {
            let held = self.is_held.lock().unwrap();
            drop(self.released.wait_while(held, |held| *held).unwrap());
        }

        pub(super) fn hold(&self) -> Hold<'_> {
            *self.is_held.lock().unwrap() = true;
            Hold(self)
        }
    }

    impl Drop for Hold<'_> {
        fn drop(&mut self) {
            *self.0.is_held.lock().unwrap() = false;
            self.0.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_under_way_counts_and_nested_work_counts_from_its_outermost_begin() {
        let watch = SyncWatch::default();
        assert_eq!(watch.under_way(), None);
        let outer = watch.enter();
        std::thread::sleep(Duration::from_millis(5));
        drop(watch.enter());
        assert!(watch.under_way().unwrap() >= Duration::from_millis(4));
        drop(outer);
        assert_eq!(watch.under_way(), None);
    }

    #[test]
    fn every_sync_is_in_one_bucket() {
        let watch = SyncWatch::default();
        watch.timed(|| ());
        watch.timed(|| std::thread::sleep(Duration::from_millis(3)));
        let times = watch.times();
        assert_eq!(times.buckets.last().map(|(_, count)| *count), Some(2));
        assert!(times.sum_seconds >= 0.003);
    }
}
