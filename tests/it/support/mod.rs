//! What scenarios share: processes, ports, clients, receivers, waiting.

pub mod api;
pub mod certificates;
pub mod cli;
pub mod cluster;
pub mod deliveries;
pub mod disks;
pub mod field;
pub mod history;
pub mod load;
pub mod nats;
pub mod net;
pub mod ports;
pub mod previous;
pub mod proxy;
pub mod random;
pub mod registers;
pub mod steady;
pub mod trace;
pub mod webhook;

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static ALONE: Mutex<()> = Mutex::new(());

/// Keeps other heavy scenarios of this test binary waiting while the guard lives.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that a scenario can't be run on this machine, and why: where it is captured, and where it is seen.
pub fn not_run(what: &str, reason: &str) {
    println!("NOT RUN on this machine: {what} ({reason})");
    eprintln!("NOT RUN on this machine: {what} ({reason})");
}

/// Builds the runtime of a scenario.
pub fn runtime() -> tokio::runtime::Runtime {
    rustls::crypto::ring::default_provider().install_default().ok();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
}

/// Waits until `probe` gives `Ok`, and returns it; fails with the last status after `limit`.
pub async fn wait_for<T, E, F, Fut>(what: &str, limit: Duration, mut probe: F) -> T
where
    E: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(status) if start.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last status: {status:?}")
            }
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// Between two looks at a condition.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);
