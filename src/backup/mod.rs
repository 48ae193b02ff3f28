//! Snapshots that a node saves by itself, into a directory, with retention.
//!
//! ```text
//!  due? ──► a view of what this node has applied ──► .NAME.part ──► read back, every byte checked
//!                                                ──► NAME ──► the oldest beyond `keep` go
//! ```
//!
//! Every node that has the directory set saves its own, whoever leads: no node waits for another, and a
//! node that is cut off from the others still saves what it has. Names carry cluster, index and node, so
//! nodes may share a directory; each looks after its own files only, and those of another cluster stay.
//! A snapshot that fails is said, counted and tried again; it never hurts the node.

mod metrics;
mod save;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use peat_gateway_cluster::Handle;
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::Config;
use metrics::Metrics;
use save::{Job, Saved, newest};

/// Pause before a snapshot that failed is tried again, if the interval is longer.
const RETRY_DELAY: Duration = Duration::from_secs(60);
/// Pause before a node that isn't ready is looked at again.
const READY_DELAY: Duration = Duration::from_secs(1);
/// How long a snapshot that is being written may take to notice that the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The schedule at work, or nothing where none is configured.
pub struct Backups {
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

/// Starts saving, if a directory is configured.
pub fn start(config: &Config, handle: &Handle, registry: &Registry) -> Backups {
    let Some(directory) = &config.backup.dir else {
        return Backups { running: None };
    };
    let shutdown = CancellationToken::new();
    let schedule = Schedule {
        handle: handle.clone(),
        directory: directory.clone(),
        data_dir: config.gateway.data_dir.clone(),
        interval: Duration::from_secs(config.backup.interval_s),
        keep: usize::try_from(config.backup.keep).unwrap_or(usize::MAX),
        metrics: Metrics::register(registry),
        shutdown: shutdown.clone(),
    };
    info!(directory = %directory.display(), every_s = config.backup.interval_s, "saving snapshots");
    Backups { running: Some((tokio::spawn(schedule.run()), shutdown)) }
}

impl Backups {
    /// Ends it; a snapshot that is being written is given up.
    pub async fn stop(self) {
        let Some((task, shutdown)) = self.running else { return };
        shutdown.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
            tracing::warn!("a snapshot that was being saved did not end in time");
        }
    }
}

struct Schedule {
    handle: Handle,
    directory: PathBuf,
    data_dir: PathBuf,
    interval: Duration,
    keep: usize,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Schedule {
    async fn run(self) {
        while let Some(cluster_id) = self.wait_ready().await {
            let job = self.job(cluster_id);
            if let Some(pause) = self.not_due_for(&job) {
                // Its view would hold old rows on the disk all the while.
                drop(job);
                if self.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                continue;
            }
            let began = std::time::Instant::now();
            let saving = tokio::task::spawn_blocking(move || job.save());
            let saved = match saving.await {
                Ok(saved) => saved,
                Err(panic) => Err(format!("saving a snapshot panicked: {panic}")),
            };
            if self.shutdown.is_cancelled() {
                return;
            }
            let pause = match saved {
                Ok(saved) => {
                    self.note(&saved, began.elapsed());
                    continue;
                }
                Err(reason) => {
                    self.metrics.failures.inc();
                    error!(reason, directory = %self.directory.display(), "could not save a snapshot");
                    self.interval.min(RETRY_DELAY)
                }
            };
            if self.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Waits until this node's state is worth saving; `None` when the node stops.
    async fn wait_ready(&self) -> Option<[u8; 16]> {
        loop {
            if self.shutdown.is_cancelled() {
                return None;
            }
            if let (Some(cluster_id), Ok(())) = (self.handle.cluster_id(), self.handle.ready()) {
                return Some(cluster_id);
            }
            self.shutdown.run_until_cancelled(tokio::time::sleep(READY_DELAY)).await?;
        }
    }

    fn job(&self, cluster_id: [u8; 16]) -> Job {
        let handle = self.handle.clone();
        let view = handle.local_view();
        Job {
            directory: self.directory.clone(),
            data_dir: self.data_dir.clone(),
            cluster_id,
            node_id: self.handle.node_id(),
            index: view.applied_index(),
            keep: self.keep,
            stop: self.shutdown.clone(),
            write: Box::new(move |to| handle.write_snapshot(&view, to)),
        }
    }

    /// How long the newest snapshot, of this run or of one before, is new enough; `None`: save now.
    fn not_due_for(&self, job: &Job) -> Option<Duration> {
        let newest = newest(job)?;
        let age = SystemTime::now().duration_since(newest).unwrap_or_default();
        self.metrics.last_success.set(save::unix_seconds(newest));
        self.interval.checked_sub(age).filter(|left| !left.is_zero())
    }

    fn note(&self, saved: &Saved, took: Duration) {
        self.metrics.saved.inc();
        self.metrics.last_success.set(save::unix_seconds(SystemTime::now()));
        self.metrics.last_duration.set(took.as_secs_f64());
        self.metrics.last_bytes.set(i64::try_from(saved.bytes).unwrap_or(i64::MAX));
        info!(
            path = %saved.path.display(),
            bytes = saved.bytes,
            removed = saved.removed,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "saved a snapshot"
        );
    }
}

/// Gives a whole, synced file its name, durably.
///
/// # Errors
/// The disk refused; the file may have either name.
pub fn publish(part: &Path, file: &Path) -> io::Result<()> {
    std::fs::rename(part, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}
