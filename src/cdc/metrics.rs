//! The `peat_cdc_*` metrics, labelled by organisation and sink id.

use std::sync::Arc;

use peat_gateway_state::ids::{OrgId, SinkId};
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::sinks::FailureClass;

const LABELS: &[&str] = &["org", "sink"];
const RESULT_LABELS: &[&str] = &["org", "sink", "result"];
/// All values of the label `result`.
const RESULTS: &[&str] = &["delivered", "transient", "rejected", "down", "gone"];

/// All metrics of delivery.
pub(crate) struct Metrics {
    lag_events: IntGaugeVec,
    lag_seconds: GaugeVec,
    cursor: IntGaugeVec,
    in_flight: IntGaugeVec,
    attempts: IntCounterVec,
    delivered: IntCounterVec,
    duplicates: IntCounterVec,
    retries: IntCounterVec,
}

impl Metrics {
    fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), LABELS);
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), LABELS);
        Ok(Self {
            lag_events: gauge(
                "peat_cdc_lag_events",
                "Journalled events above the sink's watermark, those that it filters out included.",
            )?,
            lag_seconds: GaugeVec::new(
                Opts::new("peat_cdc_lag_seconds", "Age of the oldest event not yet acknowledged."),
                LABELS,
            )?,
            cursor: gauge("peat_cdc_cursor", "The sink's watermark, as last handed in to commit.")?,
            in_flight: gauge("peat_cdc_in_flight", "Events being tried now.")?,
            attempts: IntCounterVec::new(
                Opts::new("peat_cdc_attempts_total", "Attempts to deliver, by result."),
                RESULT_LABELS,
            )?,
            delivered: counter("peat_cdc_delivered_total", "Events that the sink acknowledged.")?,
            duplicates: counter(
                "peat_cdc_duplicates_total",
                "Events that the sink had already and recognised.",
            )?,
            retries: counter("peat_cdc_retries_total", "Attempts that will be repeated.")?,
        })
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.lag_events.clone()),
            Box::new(self.lag_seconds.clone()),
            Box::new(self.cursor.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.attempts.clone()),
            Box::new(self.delivered.clone()),
            Box::new(self.duplicates.clone()),
            Box::new(self.retries.clone()),
        ]
    }

    /// The metrics of one sink; its labels disappear when the value is dropped.
    pub(crate) fn sink(self: &Arc<Self>, org: &OrgId, sink: &SinkId) -> SinkMetrics {
        let labels = [org.as_str(), sink.as_str()];
        SinkMetrics {
            lag_events: self.lag_events.with_label_values(&labels),
            lag_seconds: self.lag_seconds.with_label_values(&labels),
            cursor: self.cursor.with_label_values(&labels),
            in_flight: self.in_flight.with_label_values(&labels),
            delivered: self.delivered.with_label_values(&labels),
            duplicates: self.duplicates.with_label_values(&labels),
            retries: self.retries.with_label_values(&labels),
            all: Arc::clone(self),
            org: org.clone(),
            sink: sink.clone(),
        }
    }
}

/// The metrics of one sink while its worker runs.
pub(crate) struct SinkMetrics {
    /// Events above the watermark.
    pub(crate) lag_events: IntGauge,
    /// Age of the oldest unacknowledged event.
    pub(crate) lag_seconds: Gauge,
    /// The watermark.
    pub(crate) cursor: IntGauge,
    /// Events being tried.
    pub(crate) in_flight: IntGauge,
    /// Acknowledged events.
    pub(crate) delivered: IntCounter,
    /// Recognised repetitions.
    pub(crate) duplicates: IntCounter,
    /// Attempts to be repeated.
    pub(crate) retries: IntCounter,
    all: Arc<Metrics>,
    org: OrgId,
    sink: SinkId,
}

impl SinkMetrics {
    /// Counts an attempt; `None` is a delivery.
    pub(crate) fn attempt(&self, failure: Option<FailureClass>) {
        let result = failure.map_or("delivered", FailureClass::word);
        let labels = [self.org.as_str(), self.sink.as_str(), result];
        self.all.attempts.with_label_values(&labels).inc();
    }
}

impl Drop for SinkMetrics {
    fn drop(&mut self) {
        let labels = [self.org.as_str(), self.sink.as_str()];
        // A label that was never used is not there: nothing to remove, nothing to say.
        for vector in [&self.all.lag_events, &self.all.cursor, &self.all.in_flight] {
            vector.remove_label_values(&labels).ok();
        }
        self.all.lag_seconds.remove_label_values(&labels).ok();
        for vector in [&self.all.delivered, &self.all.duplicates, &self.all.retries] {
            vector.remove_label_values(&labels).ok();
        }
        for result in RESULTS {
            let labels = [self.org.as_str(), self.sink.as_str(), result];
            self.all.attempts.remove_label_values(&labels).ok();
        }
    }
}

/// The metrics while they are in a registry; dropping takes them out, since only a leader delivers.
pub(crate) struct Registered {
    registry: Registry,
    metrics: Arc<Metrics>,
}

impl Registered {
    /// Builds and registers. What can't be registered is still counted, and said in the log.
    pub(crate) fn new(registry: Registry) -> Self {
        let metrics = Arc::new(Metrics::new().expect("the names and labels above are well-formed"));
        for collector in metrics.collectors() {
            if let Err(error) = registry.register(collector) {
                tracing::error!(%error, "could not register a metric of delivery");
            }
        }
        Self { registry, metrics }
    }

    /// What workers count in.
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        for collector in self.metrics.collectors() {
            if let Err(error) = self.registry.unregister(collector) {
                tracing::error!(%error, "could not take a metric of delivery out of the registry");
            }
        }
    }
}
