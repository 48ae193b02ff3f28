//! What is measured of clients' writes on this node.

use peat_gateway_cluster::{Handle, WriteCounts};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Reads the node's counts whenever metrics are asked for.
struct Writes {
    handle: Handle,
    under_way: IntGauge,
    waiting: IntGauge,
    refused: IntCounterVec,
}

/// Registers this node's metrics. One node per registry.
pub(super) fn register(registry: &Registry, handle: &Handle) {
    let gauge = |name: &str, help: &str| {
        IntGauge::new(name, help).expect("the name is a valid metric name")
    };
    let writes = Writes {
        handle: handle.clone(),
        under_way: gauge("peat_writes_under_way", "Clients' writes of this node in consensus"),
        waiting: gauge("peat_writes_waiting", "Clients' writes that wait for a place in consensus"),
        refused: IntCounterVec::new(
            Opts::new(
                "peat_writes_refused_total",
                "Clients' writes that were refused unseen: too many of their organisation (share) or of \
                 all (full), or too many entries to apply first (lag)",
            ),
            &["reason"],
        )
        .expect("the names are valid"),
    };
    if let Err(error) = registry.register(Box::new(writes)) {
        tracing::error!(%error, "a metric is not shown: give each node its own registry");
    }
}

impl Collector for Writes {
    fn desc(&self) -> Vec<&Desc> {
        [self.under_way.desc(), self.waiting.desc(), self.refused.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = self.handle.write_counts();
        let WriteCounts { under_way, waiting, refused_share, refused_full, refused_lag } = counts;
        self.under_way.set(i64::try_from(under_way).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        for (reason, count) in
            [("share", refused_share), ("full", refused_full), ("lag", refused_lag)]
        {
            // The node's counts only grow, so this counter does too.
            let counter = self.refused.with_label_values(&[reason]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        [self.under_way.collect(), self.waiting.collect(), self.refused.collect()].concat()
    }
}
