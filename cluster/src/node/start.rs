//! Starting a node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::{Config, SnapshotPolicy, StepDownPolicy};
use peat_gateway_proto::cluster::cluster_server::ClusterServer;
use peat_gateway_proto::cluster::raft_server::RaftServer;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use super::bootstrap;
use super::contact::LeaderContact;
use super::early_election::{self, LostLeader};
use super::fairness::FairPlaces;
use super::forward::Forwarder;
use super::founding::{self, Founding};
use super::identity::Identity;
use super::inner::{Inner, LEADER_PROPOSALS_MAX, LeaderFinder, Raft};
use super::introduce::Introductions;
use super::propose::ProposalLane;
use super::read::{ReadRounds, Standing};
use super::versions::{self, KnownVersion};
use super::{Node, leadership, membership, raise, service};
use crate::blocking::blocking;
use crate::config::{ClusterConfig, Timing};
use crate::error::StartError;
use crate::handle::Leadership;
use crate::health::Health;
use crate::raft::Member;
use crate::store::Store;
use crate::transport::MESSAGE_BYTES_MAX;
use crate::transport::admission::Admission;
use crate::transport::cluster_service::ClusterService;
use crate::transport::connection::TcpListener;
use crate::transport::listener;
use crate::transport::network::Network;
use crate::transport::peers::Peers;
use crate::transport::proposals::ProposalStreams;
use crate::transport::raft_service::RaftService;
use crate::transport::tls::PeerCertificates;
use crate::transport::token::TokenKey;

/// What a node says that waits for an operator.
const WAITS: &str = "this node waits for an operator: peat-gateway cluster init or cluster join here, or \
                     peat-gateway cluster add on a member";
/// How long a snapshot may make no progress, and how long its installation may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Entries in one append; the log reader also cuts by bytes.
const APPEND_ENTRIES_MAX: u64 = 512;
/// Entries purged at once.
const PURGE_BATCH: u64 = 256;
/// How long a leader that was removed from the cluster goes on, so that all learn of it.
const REMOVED_LEADER_MS: u64 = 1_000;
/// Pauses between tries to reach a node that is down.
const BACKOFF: &str = "50ms 100ms 200ms ...500ms";
/// HTTP/2 window: bytes under way that this node hasn't taken yet.
const WINDOW_BYTES: u32 = 4 << 20;
/// A quiet connection is asked for a sign of life this often, and closed without one.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// See [`Node::start`].
pub(super) async fn start(config: ClusterConfig) -> Result<Node, StartError> {
    let founding = Founding::of(&config)?;
    let raft_config = raft_config(&config.timing)?;
    let data_dir = config.data_dir.clone();
    let opened = blocking(move || Store::open(&data_dir))
        .await
        .map_err(|error| StartError::Consensus(error.to_string()))??;
    tracing::info!(
        node_id = opened.store.identity().node_id,
        was_new = opened.was_new,
        last_log_index = opened.store.last_log_index(),
        "opened the data directory"
    );
    let store = opened.store;
    let member = Member {
        peer_address: config.peer_address.clone(),
        http_address: config.http_address.clone(),
        name: config.name.clone(),
        learner_only: config.membership.learner_only,
    };
    name_restored_member(&store, &member).await?;
    let certificates = match &config.peer_tls {
        Some(files) => {
            let loaded = PeerCertificates::load(files, &config.peer_address);
            Some(Arc::new(loaded.map_err(StartError::Tls)?))
        }
        None => None,
    };
    let listener = match &config.peer_bind {
        Some(address) => Some(listener::bind(address, certificates.is_some()).await?),
        None => None,
    };

    let known = store.identity();
    let identity = Arc::new(Identity::new(known.node_id, known.cluster_id));
    let peers = Arc::new(Peers::new(identity.clone(), certificates.clone()));
    let network = Network::new(peers.clone());
    let told = network.told();
    let raft = Raft::build(known.node_id, raft_config, network, store.log(), store.machine())
        .await
        .map_err(|error| StartError::Consensus(error.to_string()))?;
    let token = TokenKey::new(&config.cluster_token);
    let shutdown = CancellationToken::new();
    let (leadership_sender, leadership) = watch::channel(Leadership::Follower);
    let finder = LeaderFinder { raft: raft.clone(), peers: peers.clone() };
    let standing = Standing {
        node_id: known.node_id,
        raft: raft.clone(),
        store: store.clone(),
        peers: peers.clone(),
        leadership: leadership.clone(),
        told,
    };
    let inner = Arc::new(Inner {
        reads: ReadRounds::start(standing, finder),
        lane: ProposalLane::open(raft.clone()),
        forwarder: Forwarder::new(shutdown.clone()),
        contact: Arc::new(LeaderContact::new()),
        member,
        timing: config.timing.clone(),
        leadership,
        writes: FairPlaces::new(config.writes),
        apply_lag_max: config.writes.apply_lag_max,
        leader_proposals: Semaphore::new(LEADER_PROPOSALS_MAX),
        health: Arc::new(Health::new()),
        checks: Default::default(),
        forwarded: ProposalStreams::default(),
        certificates,
        token: token.clone(),
        recovered: AtomicBool::new(false),
        known_version: KnownVersion::new(),
        bootstrap: Mutex::new(None),
        boot_id: getrandom::u64().map_err(|error| StartError::Consensus(error.to_string()))?,
        introductions: Introductions { peers: peers.clone(), token: token.clone() },
        founding: others_of(&config),
        promotion: config.membership.clone(),
        changing: tokio::sync::Mutex::new(()),
        retired: Arc::default(),
        boots: Mutex::default(),
        departure: watch::Sender::new(None),
        raft,
        store,
        identity,
        peers,
    });
    let (lost_leader, lost_leaders) = LostLeader::channel();
    let listener = listener.map(|listener| serve(&inner, lost_leader, listener, &shutdown));
    inner.raft.run();
    // From here on a failure drops the node, which ends what was started.
    let (failure, bootstrap_failure) = watch::channel(None);
    let node =
        Node { inner: inner.clone(), shutdown: shutdown.clone(), listener, bootstrap_failure };
    let initialized = inner.raft.is_initialized().await;
    let initialized = initialized.map_err(|error| StartError::Consensus(error.to_string()))?;
    match founding {
        Founding::Alone => bootstrap::alone(&inner).await?,
        _ if initialized => {}
        Founding::Wait => inner.set_bootstrapping(Some(WAITS.to_owned())),
        founding => {
            tokio::spawn(founding::run(founding, inner.clone(), failure, shutdown.clone()));
        }
    }
    tokio::spawn(early_election::run(inner.clone(), lost_leaders, shutdown.clone()));
    tokio::spawn(leadership::run(inner.clone(), leadership_sender, shutdown.clone()));
    tokio::spawn(versions::keep_marked(inner.clone(), shutdown.clone()));
    tokio::spawn(raise::raise_when_all_agree(inner.clone(), shutdown.clone()));
    membership::start(&inner, &shutdown);
    service::watch(&inner, &shutdown);
    tokio::spawn(watch_recovery(inner, shutdown));
    Ok(node)
}

/// The other first members that the configuration lists.
fn others_of(config: &ClusterConfig) -> Option<Vec<String>> {
    let others = config.initial_peers.iter().filter(|address| **address != config.peer_address);
    let others: Vec<String> = others.cloned().collect();
    (!others.is_empty()).then_some(others)
}

/// The first start after a restore says where the node is found.
async fn name_restored_member(store: &Store, member: &Member) -> Result<(), StartError> {
    let (store, member) = (store.clone(), member.clone());
    let named = blocking(move || store.name_restored_member(&member)).await;
    let named = named.map_err(|error| StartError::Consensus(error.to_string()))?;
    named.map_err(|error| StartError::Consensus(describe(&error)))
}

/// Notes when what was committed before the start is applied again. A first log ends a bootstrap
/// that another node began.
async fn watch_recovery(inner: Arc<Inner>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        recovered = inner.raft.wait_for_recovery(None) => if recovered.is_ok() {
            inner.set_bootstrapping(None);
            inner.recovered.store(true, Ordering::Relaxed);
        }
    }
}

fn raft_config(timing: &Timing) -> Result<Arc<Config>, StartError> {
    let config = Config {
        cluster_name: "peat-gateway".to_owned(),
        heartbeat_interval: timing.heartbeat_interval.as_millis() as u64,
        election_timeout_min: timing.election_timeout_min.as_millis() as u64,
        election_timeout_max: timing.election_timeout_max.as_millis() as u64,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT.as_millis() as u64,
        max_payload_entries: APPEND_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_entries),
        max_in_snapshot_log_to_keep: timing.entries_kept,
        replication_lag_threshold: (timing.snapshot_entries + timing.entries_kept).max(2),
        purge_batch_size: PURGE_BATCH.min(timing.snapshot_entries.max(1)),
        enable_pre_vote: Some(true),
        // A restarted leader must be elected again: terms fence leader work.
        enable_leader_restore: Some(false),
        // A follower whose log went backwards lost acknowledged data; it must not be repaired.
        allow_log_reversion: None,
        removed_leader_step_down: StepDownPolicy::After(REMOVED_LEADER_MS),
        backoff: BACKOFF.to_owned(),
        ..Config::default()
    };
    let config = config.validate().map_err(|error| StartError::Consensus(error.to_string()))?;
    Ok(Arc::new(config))
}

fn serve(
    inner: &Arc<Inner>,
    lost_leader: LostLeader,
    listener: TcpListener,
    shutdown: &CancellationToken,
) -> JoinHandle<()> {
    let admission =
        Admission::new(inner.identity.clone(), inner.retired.clone(), inner.health.clone());
    let raft = RaftServer::new(RaftService {
        raft: inner.raft.clone(),
        store: inner.store.clone(),
        contact: inner.contact.clone(),
        lost_leader,
    });
    let raft = raft
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let cluster = ClusterServer::new(ClusterService {
        inner: inner.clone(),
        admission: admission.clone(),
        token: inner.token.clone(),
        proposals: inner.forwarded.clone(),
    });
    let cluster = cluster
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut server = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE));
    let router = server.add_service(InterceptedService::new(raft, admission)).add_service(cluster);
    let connections = listener::connections(listener, inner.certificates.clone(), shutdown.clone());
    let stopped = shutdown.clone().cancelled_owned();
    tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming_shutdown(connections, stopped).await {
            tracing::error!(error = %describe(&error), "the peer listener ended");
        }
    })
}

/// An error with its causes, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
