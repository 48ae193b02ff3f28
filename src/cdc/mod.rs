//! Delivery: a worker per sink reads the journal from its cursor, delivers, and commits the cursor.
//!
//! ```text
//!  journal (replicated, one gapless sequence per organisation)
//!     │ rows after the cursor, in bounded batches
//!     ▼
//!   feed ──► filter, encode ──► worker ──► lanes by document ──► destination (file, webhook, NATS)
//!                                 ▲                                   │ acknowledged
//!                                 └──────────── progress ◄────────────┘
//!                                                  │ watermark + acknowledged ranges above it
//!                                                  ▼
//!                                  committer: one command for all sinks per 100 ms
//!                                                  │
//!                                                  ▼
//!                                  trimmer: drops what every enabled sink has
//! ```
//!
//! All of this runs on the leader only, under its epoch. What counts is the replicated cursor: it never
//! passes an event that the destination hasn't acknowledged, so a crash at any point repeats events
//! and loses none. A repeated event has the same id and the same bytes.
//!
//! * `supervisor`: which sinks have a worker.
//! * `feed`: reads ahead of a worker.
//! * `encoder`: the one place where an event becomes JSON.
//! * `worker`: one sink's loop, with `lanes`, `gate`, `retry` and `progress`.
//! * `committer`, `trimmer`: what goes back into the replicated state.
//! * `journal`: the seam to the cluster.
//! * `sinks`: the destinations. They know neither Raft nor one another.

mod committer;
mod encoder;
mod feed;
mod gate;
mod journal;
mod lanes;
mod metrics;
mod progress;
mod retry;
mod sinks;
mod supervisor;
mod trimmer;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::leader::LeaderWork;

/// What delivery is told by the node's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Below it every file sink has its directory, `<org>/<name>`.
    pub file_sink_root: std::path::PathBuf,
    /// The NATS server of sinks that name none (`PEAT_CDC_NATS_URL`).
    pub nats_url: Option<String>,
    /// Replicas of a JetStream stream that delivery creates; an existing stream is never changed.
    pub nats_stream_replicas: usize,
    /// Whether webhooks may go to loopback and private addresses.
    pub webhook_allow_private: bool,
    /// Where the `peat_cdc_*` metrics are registered while delivery runs on this node.
    pub registry: prometheus::Registry,
}

/// Delivers to every enabled sink until `work.shutdown` is cancelled, or until the cluster refuses
/// this leader's cursors; returns when all workers ended, at most two seconds later.
///
/// One run at a time per process: a run takes its metrics out of the registry when it ends.
pub async fn run(work: LeaderWork, settings: Settings) {
    let shutdown = work.shutdown.clone();
    let metrics = metrics::Registered::new(settings.registry.clone());
    let journal = Arc::new(journal::ReplicatedJournal::new(work));
    let timing = supervisor::Timing::default();
    Box::pin(supervisor::run(journal, settings, metrics.metrics(), timing, shutdown)).await;
}
