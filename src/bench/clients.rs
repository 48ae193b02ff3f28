//! Closed-loop clients: each sends its next request when the last is answered.

use std::future::Future;
use std::time::{Duration, Instant};

use super::report::Sample;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// Replace a 256-byte value.
    Write,
    /// Read it, linearizable.
    Read,
    /// Read it from whichever node is asked.
    StaleRead,
}

/// Requests of each client before the clock starts.
const WARM_UP: Duration = Duration::from_millis(500);

/// One client's connection: sends one request, waits for its answer.
pub(super) trait Client: Send + 'static {
    /// Sends the `number`-th request; `false` if it wasn't answered with success.
    fn request(&mut self, workload: Workload, number: u64) -> impl Future<Output = bool> + Send;
}

/// Drives all clients for `load`, and gathers the latencies of what succeeded.
pub(super) async fn drive<C: Client>(
    clients: Vec<C>,
    workload: Workload,
    load: Duration,
) -> Sample {
    let start = Instant::now() + WARM_UP;
    let end = start + load;
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let (mut latencies, mut failed, mut number) = (Vec::new(), 0u64, 0u64);
                loop {
                    let began = Instant::now();
                    if began >= end {
                        return (latencies, failed);
                    }
                    let done = client.request(workload, number).await;
                    number += 1;
                    match done {
                        true if began >= start => latencies.push(began.elapsed()),
                        true => {}
                        false => failed += 1,
                    }
                }
            })
        })
        .collect();
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for task in tasks {
        if let Ok((some, missed)) = task.await {
            latencies.extend(some);
            failed += missed;
        }
    }
    Sample::from_latencies(latencies, load, failed)
}
