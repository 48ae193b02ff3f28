//! Keeps the log below a number of bytes, whatever the number of entries.
//!
//! openraft counts entries: with large ones, what it keeps could fill a disk. So when the log has more bytes
//! than it may, a snapshot is made and the log behind it purged until half of the bound is left. A follower
//! that still needed what is purged gets the snapshot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio_util::sync::CancellationToken;

use super::inner::Inner;
use crate::blocking::blocking;

/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Remembered sizes; when there are more, every other one is forgotten.
const MARKS_MAX: usize = 4_096;

/// How many bytes the log has up to which index: rising sums at some indexes.
#[derive(Debug, Default)]
struct Sizes {
    /// The last index that the sum contains, and the sum.
    marks: VecDeque<(u64, u64)>,
}

impl Sizes {
    fn note(&mut self, last: u64, sum: u64) {
        // Entries may have been cut off again: what stands above is another entry now.
        while self.marks.back().is_some_and(|(index, _)| *index >= last) {
            self.marks.pop_back();
        }
        self.marks.push_back((last, sum));
        if self.marks.len() > MARKS_MAX {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// Forgets what is only about entries below the log's first one, and returns the log's bytes.
    fn bytes(&mut self, first: u64) -> u64 {
        while self.marks.get(1).is_some_and(|(index, _)| *index < first) {
            self.marks.pop_front();
        }
        let below =
            self.marks.front().filter(|(index, _)| *index < first).map_or(0, |(_, sum)| *sum);
        self.marks.back().map_or(0, |(_, sum)| sum.saturating_sub(below))
    }

    /// The last index to purge so that at most `bytes_max` are left.
    fn purge_to(&self, bytes_max: u64) -> Option<u64> {
        let last_sum = self.marks.back()?.1;
        let enough = |sum: u64| last_sum.saturating_sub(sum) <= bytes_max;
        self.marks.iter().find(|(_, sum)| enough(*sum)).map(|(index, _)| *index)
    }
}

/// Watches until `shutdown`.
pub(super) async fn run(inner: Arc<Inner>, bytes_max: u64, shutdown: CancellationToken) {
    if bytes_max == 0 {
        return;
    }
    let store = inner.store.clone();
    let measured = blocking(move || store.measure_log()).await;
    let mut sizes = Sizes::default();
    let mut begin_sum = 0;
    match measured {
        Ok(Ok(marks)) => {
            for (index, sum) in marks {
                sizes.note(index, sum);
                begin_sum = sum;
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "could not measure the log"),
        Err(error) => tracing::warn!(%error, "could not measure the log"),
    }
    // What was appended while the log was measured is counted twice at most: it purges a little early.
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_PAUSE) => {}
        }
        let (first, last) = inner.store.log_bounds();
        sizes.note(last, begin_sum + inner.store.counts().append_bytes);
        let bytes = sizes.bytes(first);
        inner.checks.log_bytes.store(bytes, std::sync::atomic::Ordering::Relaxed);
        if bytes > bytes_max
            && let Some(target) = sizes.purge_to(bytes_max / 2)
            && let Err(error) = shrink(&inner, first, target).await
        {
            tracing::debug!(%error, "could not shrink the log");
        }
    }
}

/// Purges up to `target` as far as the snapshot reaches, and asks for a newer one where it doesn't.
async fn shrink(
    inner: &Inner,
    first: u64,
    target: u64,
) -> Result<(), openraft::errors::Fatal<crate::raft::TypeConfig>> {
    let snapshot = {
        let metrics = inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.snapshot.map_or(0, |id| id.index)
    };
    if snapshot < target {
        inner.raft.trigger().snapshot().await?;
    }
    let purged_to = target.min(snapshot);
    if purged_to >= first {
        inner.raft.trigger().purge_log(purged_to).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Sizes;

    #[test]
    fn sizes_count_what_is_between_the_first_and_the_last_entry() {
        let mut sizes = Sizes::default();
        for (last, sum) in [(10, 100), (20, 300), (30, 600)] {
            sizes.note(last, sum);
        }
        assert_eq!(sizes.bytes(1), 600);
        assert_eq!(sizes.bytes(11), 500);
        assert_eq!(sizes.bytes(25), 300);
        assert_eq!(sizes.purge_to(300), Some(20));
        assert_eq!(sizes.purge_to(50), Some(30));
        sizes.note(15, 700);
        assert_eq!(sizes.purge_to(400), Some(15));
    }

    #[test]
    fn forgotten_marks_leave_the_sums_true() {
        let mut sizes = Sizes::default();
        for index in 1..=10_000 {
            sizes.note(index, index * 10);
        }
        assert!(sizes.marks.len() <= super::MARKS_MAX + 1);
        assert_eq!(sizes.marks.back(), Some(&(10_000, 100_000)));
        let purged = sizes.purge_to(1_000).unwrap();
        assert!(purged >= 9_900, "{purged}");
    }
}
