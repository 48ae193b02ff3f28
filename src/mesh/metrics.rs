//! What the observer counts.

use prometheus::{IntCounter, IntGauge, Registry};

/// Counters and gauges `peat_mesh_*`. Made once per process, whatever leads; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Frames received, entries of batches counted singly.
    pub frames: IntCounter,
    /// Frames of kinds that the observer has no use for.
    pub frames_ignored: IntCounter,
    /// Frames whose payload made no sense.
    pub frames_malformed: IntCounter,
    /// Changes, snapshots and tombstones that were new to the observer.
    pub changes_observed: IntCounter,
    /// Events that the cluster journalled.
    pub changes_journalled: IntCounter,
    /// Events that the cluster had already.
    pub changes_known: IntCounter,
    /// Answers sent.
    pub answers: IntCounter,
    /// Times a document was left unanswered: over a quota, too large, or damaged.
    pub documents_unanswered: IntCounter,
    /// Connections to mesh nodes.
    pub links: IntGauge,
    /// Formations that are observed.
    pub formations: IntGauge,
    /// Times everything of an organisation was closed and begun again because an outcome was unknown.
    pub restarts: IntCounter,
    /// Times a batch had to wait because the journal was full or the cluster had no leader.
    pub journal_waits: IntCounter,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            frames: counter("peat_mesh_frames_total", "Frames received from mesh nodes.")?,
            frames_ignored: counter(
                "peat_mesh_frames_ignored_total",
                "Frames received of kinds that the observer has no use for.",
            )?,
            frames_malformed: counter(
                "peat_mesh_frames_malformed_total",
                "Frames received whose payload could not be used.",
            )?,
            changes_observed: counter(
                "peat_mesh_changes_observed_total",
                "Changes, snapshots and tombstones that were new to the observer.",
            )?,
            changes_journalled: counter(
                "peat_mesh_changes_journalled_total",
                "Observed events that the cluster journalled.",
            )?,
            changes_known: counter(
                "peat_mesh_changes_known_total",
                "Observed events that the cluster had already.",
            )?,
            answers: counter("peat_mesh_answers_total", "Sync answers sent to mesh nodes.")?,
            documents_unanswered: counter(
                "peat_mesh_documents_unanswered_total",
                "Times a document was left unanswered: over a quota, too large, or damaged.",
            )?,
            links: gauge("peat_mesh_links", "Connections to mesh nodes.")?,
            formations: gauge("peat_mesh_formations", "Formations that are observed.")?,
            restarts: counter(
                "peat_mesh_restarts_total",
                "Times an organisation's observation began again because an outcome was unknown.",
            )?,
            journal_waits: counter(
                "peat_mesh_journal_waits_total",
                "Times a batch had to wait because the journal was full or no leader was there.",
            )?,
        })
    }
}
