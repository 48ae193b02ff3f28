//! Whether this node may serve, and what takes it out of service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peat_gateway_state::{Envelope, codec};
use tokio_util::sync::CancellationToken;

use super::inner::Inner;
use super::propose::Attempt;
use super::scrub::ScrubTrigger;
use super::{consistency, log_bound, scrub, space, watchdog};
use crate::blocking::blocking;
use crate::error::ReadIndexError;
use crate::health::{Alarm, AlarmCode};
use crate::store::space::Space;
use crate::store::stall::SyncTimes;

/// What watching the data has found, counted.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(super) comparisons: AtomicU64,
    pub(super) compared_index: AtomicU64,
    pub(super) scrubs: AtomicU64,
    pub(super) scrub_failures: AtomicU64,
    pub(super) scrubbed_rows: AtomicU64,
    pub(super) scrubbed_bytes: AtomicU64,
    pub(super) scrub_duration_ms: AtomicU64,
    pub(super) log_bytes: AtomicU64,
    free_bytes: AtomicU64,
    total_bytes: AtomicU64,
    /// What a test says instead of the file system.
    #[cfg(test)]
    planted_space: std::sync::Mutex<Option<Space>>,
}

/// How a node's disk and data are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeHealth {
    /// What is wrong.
    pub alarms: Vec<Alarm>,
    /// How long syncs of the write-ahead log took.
    pub syncs: SyncTimes,
    /// How long the sync has taken that is under way.
    pub sync_under_way: Option<Duration>,
    /// The data directory's file system; zeros until it was asked, or where nobody asks.
    pub space: Space,
    /// Bytes of log entries.
    pub log_bytes: u64,
    /// Comparisons with other nodes in which an index met.
    pub comparisons: u64,
    /// The newest index at which states were compared and found equal.
    pub compared_index: u64,
    /// Passes over everything that is stored, without a finding.
    pub scrubs: u64,
    /// Passes that found something or could not read.
    pub scrub_failures: u64,
    /// Rows read by passes.
    pub scrubbed_rows: u64,
    /// Bytes read by passes.
    pub scrubbed_bytes: u64,
    /// How long the last pass took.
    pub scrub_duration: Duration,
}

/// Starts everything that watches disk and data, until `shutdown`.
pub(super) fn watch(inner: &Arc<Inner>, shutdown: &CancellationToken) {
    let limits = inner.timing.storage.clone();
    let trigger = ScrubTrigger::default();
    tokio::spawn(watchdog::run(inner.clone(), limits.stall, shutdown.clone()));
    tokio::spawn(space::run(inner.clone(), limits.clone(), shutdown.clone()));
    tokio::spawn(log_bound::run(inner.clone(), limits.log_bytes_max, shutdown.clone()));
    let comparison_interval = limits.comparison_interval;
    let compare =
        consistency::run(inner.clone(), comparison_interval, trigger.clone(), shutdown.clone());
    tokio::spawn(compare);
    tokio::spawn(scrub::run(inner.clone(), limits, trigger, shutdown.clone()));
    tokio::spawn(watch_damage(inner.clone(), shutdown.clone()));
}

/// Takes the node out of service when a reader meets damage.
async fn watch_damage(inner: Arc<Inner>, shutdown: CancellationToken) {
    let mut damage = inner.store.damage();
    let met = tokio::select! {
        () = shutdown.cancelled() => return,
        met = damage.wait_for(Option::is_some) => met.ok().and_then(|met| met.clone()),
    };
    if let Some(what) = met {
        inner.take_out_of_service(what).await;
    }
}

impl Inner {
    /// Takes this node out of service for good: it serves no reads, takes no proposals, neither votes nor
    /// leads, and its data directory is marked so that no later start uses it.
    pub(super) async fn take_out_of_service(self: &Arc<Self>, what: String) {
        if self.health.has(AlarmCode::Damaged) {
            return;
        }
        let what = self.store.with_repair(&what);
        // First of all it stops answering; then it writes that down.
        self.health.raise(AlarmCode::Damaged, what.clone());
        self.raft.runtime_config().elect(false);
        tokio::spawn(watchdog::stop_leading(self.clone()));
        let store = self.store.clone();
        let marked = blocking(move || store.take_out_of_service(&what)).await;
        if let Ok(Err(error)) = marked {
            tracing::error!(%error, "could not mark the data directory as out of service");
        }
    }

    /// Whether the process does what only a restart could bring back.
    pub(crate) fn alive(&self) -> Result<(), String> {
        let limit = self.timing.storage.stall_restart;
        match self.store.syncs().under_way().filter(|took| !limit.is_zero() && *took >= limit) {
            Some(took) => Err(format!(
                "a sync of the data directory has been under way for {} s, the limit is {} s; look at the \
                 disk, then restart the process",
                took.as_secs(),
                limit.as_secs()
            )),
            None => Ok(()),
        }
    }

    /// Why this node is out of service for good.
    pub(crate) fn damaged(&self) -> Option<String> {
        self.health.detail(AlarmCode::Damaged)
    }

    pub(super) fn check_in_service(&self) -> Result<(), ReadIndexError> {
        match self.damaged() {
            Some(reason) => Err(ReadIndexError::OutOfService(reason)),
            None => Ok(()),
        }
    }

    /// Why this leader can't do what only a leader can.
    pub(super) fn stuck_leader(&self) -> Option<String> {
        let reason = self.health.unfit()?;
        (self.leader() == Some(self.node_id())).then_some(reason)
    }

    /// What this leader says to a client's command that it doesn't take.
    pub(super) fn refused_here(&self, envelope: &Bytes) -> Option<Attempt> {
        if let Some(reason) = self.health.unfit() {
            return Some(Attempt::Nothing(reason));
        }
        let reason = self.health.no_space()?;
        let makes_room = codec::decode::<Envelope>(envelope)
            .is_ok_and(|envelope| space::makes_room(&envelope.command));
        (!makes_room).then_some(Attempt::NoSpace(reason))
    }

    /// From now on the file system has this much space, as far as this node knows.
    #[cfg(test)]
    pub(super) fn plant_space(&self, space: Space) {
        *self.checks.planted_space.lock().unwrap() = Some(space);
    }

    #[cfg(test)]
    pub(super) fn planted_space(&self) -> Option<Space> {
        *self.checks.planted_space.lock().unwrap()
    }

    #[cfg(not(test))]
    pub(super) fn planted_space(&self) -> Option<Space> {
        None
    }

    pub(super) fn set_space(&self, space: Space) {
        self.checks.free_bytes.store(space.free_bytes, Ordering::Relaxed);
        self.checks.total_bytes.store(space.total_bytes, Ordering::Relaxed);
    }

    pub(crate) fn health(&self) -> NodeHealth {
        let checks = &self.checks;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NodeHealth {
            alarms: self.health.alarms(),
            syncs: self.store.syncs().times(),
            sync_under_way: self.store.syncs().under_way(),
            space: Space {
                free_bytes: count(&checks.free_bytes),
                total_bytes: count(&checks.total_bytes),
            },
            log_bytes: count(&checks.log_bytes),
            comparisons: count(&checks.comparisons),
            compared_index: count(&checks.compared_index),
            scrubs: count(&checks.scrubs),
            scrub_failures: count(&checks.scrub_failures),
            scrubbed_rows: count(&checks.scrubbed_rows),
            scrubbed_bytes: count(&checks.scrubbed_bytes),
            scrub_duration: Duration::from_millis(count(&checks.scrub_duration_ms)),
        }
    }
}
