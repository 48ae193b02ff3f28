//! What is measured: every request, and this node's part in the cluster.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use peat_gateway_cluster::{NodeHealth, NodeStatus, Role};
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::storage_metrics::StorageMetrics;

/// Upper bounds of the duration histogram, seconds.
const DURATION_BUCKETS_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The API's metrics.
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    applied_index: IntGauge,
    last_log_index: IntGauge,
    term: IntGauge,
    is_leader: IntGauge,
    is_ready: IntGauge,
    version: IntGauge,
    storage: StorageMetrics,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub(super) fn register(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| {
            IntGauge::new(name, help).expect("the name is a valid metric name")
        };
        let metrics = Self {
            registry: registry.clone(),
            requests: IntCounterVec::new(
                Opts::new("peat_http_requests_total", "HTTP requests that were answered"),
                &["route", "method", "status"],
            )
            .expect("the names are valid"),
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "peat_http_request_duration_seconds",
                    "Time from a request's head to its answer's head",
                )
                .buckets(DURATION_BUCKETS_SECONDS.to_vec()),
                &["route", "method"],
            )
            .expect("the names are valid and the buckets ascend"),
            applied_index: gauge("peat_cluster_applied_index", "Log index applied on this node"),
            last_log_index: gauge("peat_cluster_last_log_index", "End of this node's log"),
            term: gauge("peat_cluster_term", "Raft term of this node"),
            is_leader: gauge("peat_cluster_is_leader", "1 where this node leads"),
            is_ready: gauge("peat_cluster_is_ready", "1 where this node is ready to serve"),
            version: gauge("peat_cluster_version", "Commands up to this version are used"),
            storage: StorageMetrics::register(registry),
        };
        let collectors: [Box<dyn Collector>; 8] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.durations.clone()),
            Box::new(metrics.applied_index.clone()),
            Box::new(metrics.last_log_index.clone()),
            Box::new(metrics.term.clone()),
            Box::new(metrics.is_leader.clone()),
            Box::new(metrics.is_ready.clone()),
            Box::new(metrics.version.clone()),
        ];
        for collector in collectors {
            if let Err(error) = registry.register(collector) {
                tracing::error!(%error, "a metric is not shown: give each node its own registry");
            }
        }
        metrics
    }

    /// Counts an answered request. `route` is a template, so that nobody can make up new series.
    pub(super) fn observe(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET | Method::HEAD | Method::POST | Method::PATCH | Method::DELETE => {
                method.as_str()
            }
            _ => "other",
        };
        self.requests.with_label_values(&[route, method, status.as_str()]).inc();
        self.durations.with_label_values(&[route, method]).observe(took.as_secs_f64());
    }

    /// Returns all metrics of the registry as Prometheus text, the node's status as it is now.
    ///
    /// # Errors
    /// A metric of the registry can't be written.
    pub(super) fn render(
        &self,
        node: &NodeStatus,
        health: &NodeHealth,
        version: u16,
        ready: bool,
    ) -> Result<Vec<u8>, prometheus::Error> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.applied_index.set(number(node.applied_index));
        self.last_log_index.set(number(node.last_log_index));
        self.term.set(number(node.term));
        self.is_leader.set(i64::from(node.role == Role::Leader));
        self.is_ready.set(i64::from(ready));
        self.version.set(i64::from(version));
        self.storage.set(health);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
