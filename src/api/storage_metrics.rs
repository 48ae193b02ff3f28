//! What is measured of this node's disk and of the watch on what is stored.

use std::sync::{Arc, PoisonError, RwLock};

use peat_gateway_cluster::{AlarmCode, NodeHealth};
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// A family without labels: its name, its help, and how it is read.
type Family = (&'static str, &'static str, MetricType, fn(&NodeHealth) -> f64);

const FAMILIES: &[Family] = &[
    ("peat_storage_free_bytes", "Free bytes of the data directory", MetricType::GAUGE, |health| {
        health.space.free_bytes as f64
    }),
    (
        "peat_storage_total_bytes",
        "Size of the data directory's file system",
        MetricType::GAUGE,
        |health| health.space.total_bytes as f64,
    ),
    ("peat_storage_stalled", "1 while a sync doesn't end", MetricType::GAUGE, |health| {
        let stalled = AlarmCode::DiskStalled.name();
        f64::from(u8::from(health.alarms.iter().any(|alarm| alarm.code == stalled)))
    }),
    (
        "peat_storage_sync_under_way_seconds",
        "Age of the sync that is under way",
        MetricType::GAUGE,
        |health| health.sync_under_way.map_or(0.0, |took| took.as_secs_f64()),
    ),
    ("peat_storage_log_bytes", "Bytes of log entries", MetricType::GAUGE, |health| {
        health.log_bytes as f64
    }),
    (
        "peat_consistency_comparisons_total",
        "Comparisons with other nodes in which states were equal",
        MetricType::COUNTER,
        |health| health.comparisons as f64,
    ),
    (
        "peat_consistency_compared_index",
        "Newest log index at which states were compared and equal",
        MetricType::GAUGE,
        |health| health.compared_index as f64,
    ),
    (
        "peat_scrub_passes_total",
        "Passes over everything that is stored, without a finding",
        MetricType::COUNTER,
        |health| health.scrubs as f64,
    ),
    (
        "peat_scrub_failures_total",
        "Passes that found damage or could not read",
        MetricType::COUNTER,
        |health| health.scrub_failures as f64,
    ),
    ("peat_scrub_rows_total", "Rows read by passes", MetricType::COUNTER, |health| {
        health.scrubbed_rows as f64
    }),
    ("peat_scrub_bytes_total", "Bytes read by passes", MetricType::COUNTER, |health| {
        health.scrubbed_bytes as f64
    }),
    ("peat_scrub_duration_seconds", "How long the last pass took", MetricType::GAUGE, |health| {
        health.scrub_duration.as_secs_f64()
    }),
];
const ALARM: (&str, &str) = ("peat_alarm", "1 while something is wrong with this node");
const SYNC: (&str, &str) =
    ("peat_storage_sync_seconds", "How long syncs of the write-ahead log took");

/// Shows what it was last told.
#[derive(Clone)]
pub(super) struct StorageMetrics {
    health: Arc<RwLock<NodeHealth>>,
    descriptions: Vec<Desc>,
}

impl StorageMetrics {
    /// Makes the metrics and registers them.
    pub(super) fn register(registry: &Registry) -> Self {
        let describe = |name: &str, help: &str, label: Option<&str>| {
            let labels = label.map(str::to_owned).into_iter().collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
                .expect("the name is a valid metric name")
        };
        let mut descriptions: Vec<Desc> =
            FAMILIES.iter().map(|(name, help, ..)| describe(name, help, None)).collect();
        descriptions.push(describe(ALARM.0, ALARM.1, Some("code")));
        descriptions.push(describe(SYNC.0, SYNC.1, None));
        let metrics = Self { health: Arc::default(), descriptions };
        if let Err(error) = registry.register(Box::new(metrics.clone())) {
            tracing::error!(%error, "metrics are not shown: give each node its own registry");
        }
        metrics
    }

    /// Tells what to show from now on.
    pub(super) fn set(&self, health: &NodeHealth) {
        *self.health.write().unwrap_or_else(PoisonError::into_inner) = health.clone();
    }
}

impl Collector for StorageMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let health = self.health.read().unwrap_or_else(PoisonError::into_inner);
        let mut families: Vec<_> = FAMILIES
            .iter()
            .map(|(name, help, kind, read)| {
                family(name, help, *kind, vec![number(*kind, read(&health))])
            })
            .collect();
        let alarms = AlarmCode::ALL.iter().map(|code| {
            let raised = health.alarms.iter().any(|alarm| alarm.code == code.name());
            let mut metric = number(MetricType::GAUGE, f64::from(u8::from(raised)));
            let mut label = LabelPair::default();
            label.set_name("code".to_owned());
            label.set_value(code.name().to_owned());
            metric.set_label(vec![label]);
            metric
        });
        families.push(family(ALARM.0, ALARM.1, MetricType::GAUGE, alarms.collect()));
        families.push(family(SYNC.0, SYNC.1, MetricType::HISTOGRAM, vec![histogram(&health)]));
        families
    }
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn number(kind: MetricType, value: f64) -> Metric {
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        return metric;
    }
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}

fn histogram(health: &NodeHealth) -> Metric {
    let mut histogram = Histogram::default();
    let buckets = health.syncs.buckets.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(health.syncs.buckets.last().map_or(0, |(_, count)| *count));
    histogram.set_sample_sum(health.syncs.sum_seconds);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use peat_gateway_cluster::Alarm;
    use prometheus::{Encoder, TextEncoder};

    #[test]
    fn alarms_and_syncs_are_shown_as_they_were_told() {
        let registry = Registry::new();
        let metrics = StorageMetrics::register(&registry);
        let mut health = NodeHealth { log_bytes: 7, ..NodeHealth::default() };
        health.alarms.push(Alarm { code: "no_space".into(), detail: "full".into() });
        health.syncs.buckets = vec![(0.5, 1), (f64::INFINITY, 2)];
        metrics.set(&health);
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "peat_alarm{code=\"no_space\"} 1",
            "peat_alarm{code=\"damaged\"} 0",
            "peat_storage_log_bytes 7",
            "peat_storage_sync_seconds_bucket{le=\"0.5\"} 1",
            "peat_storage_sync_seconds_count 2",
            "# TYPE peat_scrub_passes_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
