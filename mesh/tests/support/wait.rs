//! Waits for conditions.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a condition may take to come true.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Waits until `look` returns what `is_right` accepts; panics with the last seen otherwise.
pub async fn until<T: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> T,
    is_right: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let seen = look().await;
        if is_right(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {WAIT_MAX:?}: {seen:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
