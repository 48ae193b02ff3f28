//! What a client waits when the leader is killed.
//!
//! One writer writes, one write after the other, with a short timeout for each try; what isn't answered
//! in time, or is refused, goes to the next node. The gap is the longest time between two
//! acknowledgements, from the last one before `kill -9` until a second after the first one behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::cluster::Cluster;
use super::http2::Http2;
use super::protocol::{Protocol, Workload};

/// How long the writer waits for one node.
const TRY_TIMEOUT: Duration = Duration::from_millis(100);
/// Pause after a node said no, or wasn't there.
const RETRY_DELAY: Duration = Duration::from_millis(2);
/// How long the writer writes before the kill, and after the first acknowledgement behind it.
const STEADY: Duration = Duration::from_secs(1);
/// How long a cluster may take to acknowledge again.
const GAP_MAX: Duration = Duration::from_secs(60);

/// Kills the leader `kills` times, and returns the gaps, ms.
///
/// # Errors
/// The cluster doesn't come back.
pub(super) async fn measure(cluster: &mut Cluster, kills: usize) -> anyhow::Result<Vec<f64>> {
    let mut gaps = Vec::new();
    for kill in 0..kills {
        let leader = cluster.leader().await?;
        let acks = Acks::default();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            protocol: cluster.protocol,
            hosts: cluster.hosts.clone(),
            // In turn one that loses its node and two that lose the leader behind it.
            node: (leader + kill) % cluster.hosts.len(),
            connection: None,
        };
        let writer = tokio::spawn(writer.run(acks.clone(), stop.clone()));
        let killed = async {
            acks.after(Instant::now() + STEADY).await?;
            let killed = Instant::now();
            cluster.servers.kill(leader)?;
            let back = acks.after(killed).await?;
            acks.after(back + STEADY).await?;
            anyhow::Ok(killed)
        }
        .await;
        stop.store(true, Ordering::Relaxed);
        writer.await.context("the writer ended")?;
        gaps.push(acks.longest_gap(killed?).as_secs_f64() * 1e3);
        cluster.start().await?;
    }
    Ok(gaps)
}

/// When writes were acknowledged.
#[derive(Clone, Default)]
struct Acks {
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Acks {
    fn add(&self) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    /// Waits for an acknowledgement after `time`; returns when it came.
    async fn after(&self, time: Instant) -> anyhow::Result<Instant> {
        let start = Instant::now();
        loop {
            let newest = self.times.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
            if let Some(newest) = newest.filter(|newest| *newest > time) {
                return Ok(newest);
            }
            if start.elapsed() > GAP_MAX {
                bail!("no write was acknowledged for {GAP_MAX:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The longest time between two acknowledgements of which the second came after `killed`.
    fn longest_gap(&self, killed: Instant) -> Duration {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times
            .windows(2)
            .filter(|pair| pair[1] > killed)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }
}

struct Writer {
    protocol: Protocol,
    hosts: Vec<String>,
    node: usize,
    connection: Option<Http2>,
}

impl Writer {
    async fn run(mut self, acks: Acks, stop: Arc<AtomicBool>) {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            match tokio::time::timeout(TRY_TIMEOUT, self.write(number)).await {
                Ok(Some(true)) => {
                    acks.add();
                    number += 1;
                    continue;
                }
                // Refused, or nobody is there.
                Ok(_) => tokio::time::sleep(RETRY_DELAY).await,
                Err(_) => {}
            }
            self.connection = None;
            self.node = (self.node + 1) % self.hosts.len();
        }
    }

    /// Writes once; `None` where the connection can't be had or broke.
    async fn write(&mut self, number: u64) -> Option<bool> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Http2::open(&self.hosts[self.node], false).await.ok()?),
        };
        let (workload, key) = (Workload::Write, "register-0");
        let stream = self.protocol.send(connection, workload, key, number).ok()?;
        Some(connection.answer(stream).await.ok()?.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_if_it_ends_after_the_kill() {
        let acks = Acks::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        acks.times.lock().expect("no thread has it").extend([at(0), at(900), at(1000), at(1300)]);
        assert_eq!(acks.longest_gap(at(1100)), Duration::from_millis(300));
        assert_eq!(acks.longest_gap(at(899)), Duration::from_millis(900));
    }
}
