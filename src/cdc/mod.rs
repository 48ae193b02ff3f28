//! Delivery: a worker per sink reads the journal from its cursor, delivers, and commits the cursor.

use crate::leader::LeaderWork;

/// Delivers to every enabled sink until `work.shutdown` is cancelled; returns when all workers ended.
pub async fn run(_work: LeaderWork, _settings: Settings) {
    unimplemented!("seam")
}

/// What delivery is told by the node's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Below it every file sink has its directory.
    pub file_sink_root: std::path::PathBuf,
    /// The NATS server of sinks that name none (`PEAT_CDC_NATS_URL`).
    pub nats_url: Option<String>,
    /// Whether webhooks may go to loopback and private addresses.
    pub webhook_allow_private: bool,
}
