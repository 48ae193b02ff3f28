//! One gateway node: starts everything in order, and drains everything in order.
//!
//! ```text
//!   start:  HTTP port ─► Node::start ─► keyring ─┬─► HTTP API
//!                                                ├─► key check   (as soon as this node has the settings)
//!                                                └─► leadership  (observer and delivery while it leads)
//!   end:    signal ─► stop: announced ─► leader work ─► leadership ─► HTTP drained ─► Node::stop
//!           node failed · wrong key · leader work stuck ─► the process ends with a code of its own
//! ```

mod http;
mod initialize;
mod keyring;
mod leadership;
mod metrics;
mod reload;
mod signals;
mod stop;

use std::time::Duration;

use futures_util::FutureExt;
use peat_gateway_cluster::config::Timing;
use peat_gateway_cluster::{
    ClusterConfig, MembershipConfig, Node, PeerTls, StartError, StorageLimits, WriteLimits,
};
use prometheus::Registry;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::api;
use crate::backup;
use crate::cdc;
use crate::config::{self, Config, Secret};
use crate::keys::{KekFileError, KeyError};
use crate::leader::LeaderWork;
use crate::mesh;
use leadership::{Leadership, LeadershipError};
use reload::Reload;
pub use signals::shutdown_on_signals;

/// Why a node ended otherwise than by a signal.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The data directory or the HTTP port can't be used.
    #[error("could not {action} {target}")]
    Start {
        /// What was attempted.
        action: &'static str,
        /// On what.
        target: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key file can't be used.
    #[error(transparent)]
    KeyFile(#[from] KekFileError),
    /// The node could not start.
    #[error(transparent)]
    Node(#[from] StartError),
    /// This node's key doesn't open what the cluster sealed.
    #[error(
        "this node's key-encryption key is not the cluster's; set PEAT_KEK or PEAT_KEK_FILE to the key that \
         the other nodes have"
    )]
    WrongKey(#[source] KeyError),
    /// The node can't go on.
    #[error("this node can't go on: {0}")]
    Failed(String),
    /// The leader's work did not end; only the end of the process is sure to end it.
    #[error("leader work didn't end within {} s after leadership was lost", leadership::STOP_TIMEOUT.as_secs())]
    LeaderWorkStuck,
}

impl From<LeadershipError> for ServeError {
    fn from(error: LeadershipError) -> Self {
        match error {
            LeadershipError::WrongKey(source) => ServeError::WrongKey(source),
            LeadershipError::Stuck => ServeError::LeaderWorkStuck,
            LeadershipError::Failed(reason) => ServeError::Failed(reason),
        }
    }
}

/// Runs a node until `shutdown` is cancelled, then drains it. While it leads, it does `more` beside the leader's
/// own work; `more` ends soon after its token is cancelled.
///
/// # Errors
/// See [`ServeError`]; the process should end, with the code that `docs/reference/cli.md` gives.
pub async fn run<W, F>(
    config: Config,
    shutdown: CancellationToken,
    more: W,
) -> Result<(), ServeError>
where
    W: Fn(LeaderWork) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let data_dir = &config.gateway.data_dir;
    std::fs::create_dir_all(data_dir).map_err(|source| ServeError::Start {
        action: "create the data directory",
        target: data_dir.display().to_string(),
        source,
    })?;
    // Bound before anything is started, so that a taken port is said at once.
    let listener = tokio::net::TcpListener::bind(config.gateway.bind).await.map_err(|source| {
        ServeError::Start { action: "listen on", target: config.gateway.bind.to_string(), source }
    })?;
    let starting = Node::start(cluster_config(&config));
    let mut node = tokio::select! {
        node = starting => node?,
        () = shutdown.cancelled() => return Ok(()),
    };
    // Now the data directory is locked, and known to be a gateway's: a key may be made in it.
    let keyring = keyring::open(&config)?;
    let handle = node.handle();
    info!(node_id = %handle.node_id(), bind = %config.gateway.bind, "the node runs");

    initialize::check_key_at_start(&handle, &keyring).await?;

    let registry = Registry::new();
    let (draining, http_shutdown) = (CancellationToken::new(), CancellationToken::new());
    let service = http::service(&config, &handle, &keyring);
    let api_settings = http::settings(&config, &registry, &draining);
    metrics::register(&registry, &handle);
    let reload = Reload::new(&config, &handle, &api_settings);
    let reload = reload.run(Duration::from_millis(config.gateway.reload_check_ms));
    let _reload = AbortOnDropHandle::new(tokio::spawn(reload));
    let mut http = tokio::spawn(api::serve(listener, service, api_settings, http_shutdown.clone()));
    let key_check = initialize::watch_key_check(&handle, &keyring);
    let mesh_settings = mesh_settings(&config, &registry)?;
    let cdc_settings = cdc_settings(&config, &registry);
    let leadership = Leadership {
        handle: handle.clone(),
        keyring: keyring.clone(),
        work: move |work: LeaderWork| {
            // When one gives up the other ends too, and both are started again.
            let stop = work.shutdown.clone();
            let observer = mesh::run(work.clone(), mesh_settings.clone());
            let delivery = cdc::run(work.clone(), cdc_settings.clone());
            let more = more(work);
            async move {
                tokio::join!(
                    observer.inspect(|()| stop.cancel()),
                    delivery.inspect(|()| stop.cancel()),
                    more
                );
            }
        },
    };
    let backups = backup::start(&config, &handle, &registry);
    let leadership_shutdown = CancellationToken::new();
    let mut leadership = tokio::spawn(leadership.run(leadership_shutdown.clone()));

    let removed = node.removed();
    let ended = tokio::select! {
        () = shutdown.cancelled() => tokio::select! {
            () = stop::announce(&draining, drain_lead(&config)) => Ok(()),
            reason = node.failed() => Err(ServeError::Failed(reason)),
            ended = &mut leadership => return Err(unexpected_end(ended)),
            ended = &mut http => return Err(http_ended(ended)),
        },
        reason = node.failed() => Err(ServeError::Failed(reason)),
        () = removed => {
            info!("this node was removed from its cluster; it ends and is not to be started again");
            Ok(())
        }
        wrong = key_check => Err(wrong.into()),
        // Nothing is drained here: the other nodes take over faster than this one could hand over.
        ended = &mut leadership => return Err(unexpected_end(ended)),
        ended = &mut http => return Err(http_ended(ended)),
    };
    if let Err(failure) = &ended {
        // Said now: what follows may hang on the same fault.
        error!(reason = %failure, "the node ends");
    }
    backups.stop().await;
    let running = stop::Running { leadership, leadership_shutdown, http, http_shutdown };
    let stopped = stop::end(node, running, ended.is_ok()).await;
    ended.and(stopped)
}

/// Without peers there is nowhere to send requests to, so such a node doesn't wait.
fn drain_lead(config: &Config) -> Duration {
    match config.cluster.has_peers() {
        true => Duration::from_millis(config.gateway.drain_lead_ms),
        false => Duration::ZERO,
    }
}

fn unexpected_end(
    ended: Result<Result<(), LeadershipError>, tokio::task::JoinError>,
) -> ServeError {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) => ServeError::Failed("the leadership loop ended by itself".into()),
        Err(panic) => ServeError::Failed(format!("leader work panicked: {panic}")),
    }
}

fn http_ended(ended: Result<(), tokio::task::JoinError>) -> ServeError {
    ServeError::Failed(match ended {
        Ok(()) => "the HTTP server ended by itself".into(),
        Err(panic) => format!("the HTTP server panicked: {panic}"),
    })
}

/// What the cluster crate is told.
fn cluster_config(config: &Config) -> ClusterConfig {
    let cluster = &config.cluster;
    let peer_tls = match (&cluster.peer_ca, &cluster.peer_cert, &cluster.peer_key) {
        (Some(ca), Some(cert), Some(key)) => {
            Some(PeerTls { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
        }
        _ => None,
    };
    ClusterConfig {
        data_dir: config.gateway.data_dir.clone(),
        name: cluster.node_name.clone().unwrap_or_default(),
        peer_bind: cluster.peer_bind.map(|bind| bind.to_string()),
        peer_address: cluster.peer_address.clone().unwrap_or_default(),
        http_address: config.gateway.http_advertise.clone().unwrap_or_default(),
        initial_peers: cluster.initial_peers.clone(),
        cluster_token: cluster.token.as_ref().map(Secret::expose).unwrap_or_default().to_owned(),
        peer_tls,
        timing: Timing {
            heartbeat_interval: Duration::from_millis(cluster.heartbeat_ms),
            election_timeout_min: Duration::from_millis(cluster.election_timeout_ms_min),
            election_timeout_max: Duration::from_millis(cluster.election_timeout_ms_max),
            snapshot_entries: cluster.snapshot_entries,
            upgrade_delay: Duration::from_millis(cluster.upgrade_delay_ms),
            entries_kept: cluster.log_entries_kept,
            storage: storage_limits(&config.storage),
        },
        membership: MembershipConfig {
            join: cluster.join.clone(),
            learner_only: cluster.join_learner_only,
            discover: cluster.discover.clone(),
            expect: usize::try_from(cluster.expect).unwrap_or(usize::MAX),
            wait: cluster.bootstrap == "wait",
            auto_promote: !cluster.manual_promotion,
            promote_after: Duration::from_millis(cluster.promote_after_ms),
        },
        writes: WriteLimits {
            under_way_max: places(cluster.writes_under_way_max),
            waiting_per_organization_max: places(cluster.writes_waiting_per_org_max),
            waiting_max: places(cluster.writes_waiting_max),
            apply_lag_max: cluster.apply_lag_entries_max,
        },
    }
}

fn storage_limits(storage: &config::Storage) -> StorageLimits {
    let mib = |mib: u64| mib.saturating_mul(1 << 20);
    StorageLimits {
        stall: Duration::from_millis(storage.disk_stall_ms),
        stall_restart: Duration::from_secs(storage.disk_stall_restart_s),
        free_bytes_min: mib(storage.disk_free_mib_min),
        free_percent_min: storage.disk_free_percent_min,
        ballast_bytes_max: mib(storage.ballast_mib),
        log_bytes_max: mib(storage.log_mib_max),
        comparison_interval: Duration::from_secs(storage.comparison_interval_s),
        scrub_interval: Duration::from_secs(storage.scrub_interval_s),
        scrub_bytes_per_second: mib(storage.scrub_mib_per_s),
    }
}

fn places(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn mesh_settings(config: &Config, registry: &Registry) -> Result<mesh::Settings, ServeError> {
    Ok(mesh::Settings {
        bind: config.mesh.bind,
        node_name: config.mesh.node_name.clone(),
        metrics: mesh::Metrics::register(registry)
            .map_err(|error| ServeError::Failed(error.to_string()))?,
        peers: mesh::Peers::default(),
    })
}

fn cdc_settings(config: &Config, registry: &Registry) -> cdc::Settings {
    let default = || config.gateway.data_dir.join("sinks");
    cdc::Settings {
        file_sink_root: config.cdc.file_sink_dir.clone().unwrap_or_else(default),
        nats_url: config.cdc.nats_url.clone(),
        nats_stream_replicas: usize::try_from(config.cdc.nats_stream_replicas).unwrap_or(1),
        webhook_allow_private: config.cdc.webhook_allow_private,
        registry: registry.clone(),
    }
}
