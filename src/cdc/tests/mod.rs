//! Tests of delivery without a cluster: a journal in memory that checks every promise as it is used.

mod contract;
mod faults;
mod memory;
mod parts;
mod run;
mod supervision;

use std::future::Future;
use std::time::Duration;

pub(crate) use contract::{Received, Target, check_contract};
pub(crate) use faults::{Flaky, Scripted};
pub(crate) use memory::MemoryJournal;
pub(crate) use run::{Run, quick_retries};

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `check` is fine; panics with its last complaint when patience ends.
pub(crate) async fn eventually<F>(what: &str, mut check: impl FnMut() -> F)
where
    F: Future<Output = Result<(), String>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let Err(status) = check().await else { return };
        assert!(tokio::time::Instant::now() < deadline, "{what}: {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A small random generator, so that a printed seed repeats a test's choices. (SplitMix64)
pub(crate) struct Random(u64);

impl Random {
    /// Begins with a fresh seed, and prints it; `PEAT_TEST_SEED` repeats an earlier one.
    pub(crate) fn new(test: &str) -> Self {
        let given = std::env::var("PEAT_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| getrandom::u64().unwrap());
        eprintln!("{test}: PEAT_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
