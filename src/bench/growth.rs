//! What a large state costs: start, memory, writes.
//!
//! ```text
//!   cluster with few records  ─┐   writes, alternating
//!   cluster with many records ─┘──────────────────────► writes/s at each size
//!            └─ a node stopped or killed, and started ─► seconds to ready, memory
//! ```
//!
//! Both clusters run during the alternating writes; the one that isn't loaded costs heartbeats only.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::cluster::Cluster;
use super::gateway;
use super::load::{self, Keys, Load, create_records};
use super::machine;
use super::protocol::{Protocol, VALUE_BYTES, Workload};
use super::sample::Sample;

/// How many records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) few: usize,
    pub(super) many: usize,
    /// How long nodes rest before their memory is read.
    pub(super) rest: Duration,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Growth {
    pub(super) writes_few: Vec<Sample>,
    pub(super) writes_many: Vec<Sample>,
    /// Seconds from the start of a node that was stopped to its first 200 of /readyz.
    pub(super) ready_after_stop: Vec<f64>,
    /// The same of a node that was killed.
    pub(super) ready_after_kill: Vec<f64>,
    /// Resident memory of the largest node after the last load, at rest, MiB.
    pub(super) memory_mib: f64,
    /// What else is worth knowing, for people.
    pub(super) notes: Vec<String>,
}

/// Loads both clusters, and measures.
///
/// # Errors
/// A node fails.
pub(super) async fn measure(
    directory: &Path,
    sizes: Sizes,
    rounds: usize,
    load: Duration,
) -> anyhow::Result<Growth> {
    let mut growth = Growth::default();
    let mut many = create(&directory.join("many"), sizes.many, &mut growth.notes).await?;
    tokio::time::sleep(sizes.rest).await;
    growth.notes.push(format!("memory after loading: {}", memory_text(&many)));
    growth
        .notes
        .push(format!("on disk: {:.0} MiB a node", disk_mib(&directory.join("many/node-0"))));
    for round in 0..rounds {
        // Never the leader: this row is about a node's start, not about an election.
        let node = (many.leader().await? + 1 + round % 2) % many.hosts.len();
        many.servers.terminate(node)?;
        many.servers.ended(node).await?;
        growth.ready_after_stop.push(restart(&mut many, node).await?);
        many.servers.kill(node)?;
        growth.ready_after_kill.push(restart(&mut many, node).await?);
    }
    tokio::time::sleep(sizes.rest).await;
    growth.notes.push(format!("memory after restarts: {}", memory_text(&many)));
    let mut few = create(&directory.join("few"), sizes.few, &mut growth.notes).await?;
    for round in 0..rounds {
        for turn in 0..2 {
            if (round + turn).is_multiple_of(2) {
                growth.writes_few.push(writes(&mut few, sizes.few, load).await?);
            } else {
                growth.writes_many.push(writes(&mut many, sizes.many, load).await?);
            }
        }
    }
    tokio::time::sleep(sizes.rest).await;
    growth.notes.push(format!("memory after writes: {}", memory_text(&many)));
    growth.memory_mib = memory(&many).into_iter().fold(f64::NAN, f64::max);
    Ok(growth)
}

async fn create(
    directory: &Path,
    records: usize,
    notes: &mut Vec<String>,
) -> anyhow::Result<Cluster> {
    let cluster = gateway::start(directory, 0).await?;
    let start = Instant::now();
    create_records(&cluster.hosts, |number| format!("record-{number}"), records, VALUE_BYTES)
        .await?;
    let seconds = start.elapsed().as_secs_f64();
    notes.push(format!(
        "{records} records created in {seconds:.1} s ({:.0}/s)",
        records as f64 / seconds
    ));
    Ok(cluster)
}

/// Starts a node; returns the seconds until it is ready.
async fn restart(cluster: &mut Cluster, node: usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    cluster.servers.start(node)?;
    cluster.wait_ready(node).await?;
    Ok(start.elapsed().as_secs_f64())
}

/// Writes spread over all records.
async fn writes(cluster: &mut Cluster, records: usize, load: Duration) -> anyhow::Result<Sample> {
    let measured = load::run(Load {
        protocol: Protocol::Gateway,
        hosts: cluster.hosts.clone(),
        clients: 256,
        workload: Workload::Write,
        keys: Keys::Spread { count: records },
        duration: load,
        http1: false,
    })
    .await
    .context("the writes on a large state")?;
    cluster.servers.check()?;
    Ok(measured.sample())
}

fn memory(cluster: &Cluster) -> Vec<f64> {
    let pids = (0..cluster.hosts.len()).filter_map(|node| cluster.servers.pid(node));
    pids.filter_map(machine::resident_mib).collect()
}

fn memory_text(cluster: &Cluster) -> String {
    let nodes: Vec<_> = memory(cluster).iter().map(|mib| format!("{mib:.0}")).collect();
    format!("{} MiB", nodes.join(", "))
}

/// Bytes of all files below a directory, MiB.
fn disk_mib(directory: &Path) -> f64 {
    let mut open = vec![directory.to_path_buf()];
    let mut bytes = 0;
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(_) => {}
            }
        }
    }
    bytes as f64 / f64::from(1 << 20)
}
