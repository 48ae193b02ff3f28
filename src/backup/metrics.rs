//! The `peat_snapshot_*` metrics of snapshots that a node saves by itself.

use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntGauge, Registry};

/// All of them.
#[derive(Clone)]
pub(super) struct Metrics {
    /// When the newest snapshot was saved.
    pub(super) last_success: IntGauge,
    /// How long it took, with reading it back.
    pub(super) last_duration: Gauge,
    /// How large it is.
    pub(super) last_bytes: IntGauge,
    /// Snapshots saved since the start.
    pub(super) saved: IntCounter,
    /// Attempts that failed since the start.
    pub(super) failures: IntCounter,
}

impl Metrics {
    /// Builds and registers. What can't be registered is still counted, and said in the log.
    pub(super) fn register(registry: &Registry) -> Self {
        let metrics = Self {
            last_success: named(IntGauge::new(
                "peat_snapshot_last_success_timestamp_seconds",
                "Unix time at which this node last saved a snapshot; 0 before the first.",
            )),
            last_duration: named(Gauge::new(
                "peat_snapshot_last_duration_seconds",
                "Time that the last snapshot took to be written and read back.",
            )),
            last_bytes: named(IntGauge::new(
                "peat_snapshot_last_bytes",
                "Size of the last snapshot.",
            )),
            saved: named(IntCounter::new(
                "peat_snapshot_saved_total",
                "Snapshots that this node saved by itself.",
            )),
            failures: named(IntCounter::new(
                "peat_snapshot_failures_total",
                "Snapshots that this node could not save.",
            )),
        };
        let collectors: [Box<dyn Collector>; 5] = [
            Box::new(metrics.last_success.clone()),
            Box::new(metrics.last_duration.clone()),
            Box::new(metrics.last_bytes.clone()),
            Box::new(metrics.saved.clone()),
            Box::new(metrics.failures.clone()),
        ];
        for collector in collectors {
            if let Err(error) = registry.register(collector) {
                tracing::error!(%error, "could not register a metric of snapshots");
            }
        }
        metrics
    }
}

fn named<T>(metric: Result<T, prometheus::Error>) -> T {
    metric.expect("the names above are well-formed")
}
