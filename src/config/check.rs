//! Checks across settings, after each was read by itself.

use std::time::Duration;

use super::given::Given;
use super::{Backup, Cdc, Cluster, Gateway, Keys, Log, Secret, Storage};

/// Fewest bytes of a token: shorter ones could be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Most tokens of administrators; a request is compared with each.
const ADMIN_TOKENS_MAX: usize = 8;
/// Most first members; a larger cluster is grown from a smaller one.
const INITIAL_PEERS_MAX: usize = 9;
/// Longest election timeout: beyond it a failover would outlast every client's patience.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Shortest stall: a sync of an ordinary disk takes less, and a busy one's not much more.
const DISK_STALL_MS_MIN: u64 = 100;
/// Most of a disk that may be kept free.
const DISK_FREE_PERCENT_MAX: u64 = 50;
/// Smallest bound of the log: a few entries of the largest size, and room to purge in steps.
const LOG_MIB_MIN: u64 = 8;
/// Longest lead time of a planned stop: whoever ends the process by force waits no longer.
const DRAIN_LEAD_MAX: Duration = Duration::from_secs(60);

pub(super) fn gateway(given: &mut Given, gateway: &Gateway) {
    let open = !gateway.bind.ip().is_loopback() && gateway.admin_token.is_none();
    // A token that was given but can't be read is a problem of its own.
    if open && !gateway.insecure_open && !given.has("gateway.admin_token") {
        given.problem(format!(
            "gateway.bind: {} is reachable from other machines, and no PEAT_ADMIN_TOKEN is set; set one, \
             bind to loopback, or say --insecure-open",
            gateway.bind
        ));
    }
    if let Some(tokens) = &gateway.admin_token
        && let Err(problem) = check_admin_tokens(tokens)
    {
        given.problem(format!("gateway.admin_token: {problem}"));
    }
    if !(100..=3_600_000).contains(&gateway.reload_check_ms) {
        given.problem(format!(
            "gateway.reload_check_ms: {} is not 100 to 3600000",
            gateway.reload_check_ms
        ));
    }
    if Duration::from_millis(gateway.drain_lead_ms) > DRAIN_LEAD_MAX {
        given.problem(format!(
            "gateway.drain_lead_ms: {} is above {}",
            gateway.drain_lead_ms,
            DRAIN_LEAD_MAX.as_millis()
        ));
    }
    if let Some(url) = &gateway.http_advertise
        && !url.starts_with("http://")
        && !url.starts_with("https://")
    {
        given.problem(format!("gateway.http_advertise: {url:?} is not an http or https URL"));
    }
}

/// Checks the administrator's tokens, one a line.
///
/// # Errors
/// What is wrong; the text shows nothing of them.
pub(crate) fn check_admin_tokens(tokens: &Secret) -> Result<(), String> {
    if tokens.expose().lines().count() > ADMIN_TOKENS_MAX {
        return Err(format!("the secret has more than {ADMIN_TOKENS_MAX} lines"));
    }
    tokens.expose().lines().try_for_each(check_token)
}

/// Checks the cluster's token.
///
/// # Errors
/// What is wrong; the text shows nothing of it.
pub(crate) fn check_cluster_token(token: &Secret) -> Result<(), String> {
    check_token(token.expose())
}

fn check_token(token: &str) -> Result<(), String> {
    if token.len() < TOKEN_BYTES_MIN {
        return Err(format!("the secret has fewer than {TOKEN_BYTES_MIN} bytes"));
    }
    Ok(())
}

pub(super) fn keys(given: &mut Given, keys: &Keys, cluster: Option<&Cluster>) {
    match keys.provider.as_str() {
        "local" => {
            let several = cluster.is_some_and(Cluster::has_peers);
            if several && keys.kek.is_none() && !given.has("keys.kek") {
                given.problem(
                    "keys.kek: a cluster of several nodes needs the same key on each: set PEAT_KEK or \
                     PEAT_KEK_FILE"
                        .into(),
                );
            }
        }
        "plaintext" => {
            if keys.kek.is_some() {
                given.problem("keys.kek: a key is set, but keys.provider is plaintext".into());
            }
        }
        "vault" | "aws-kms" => given.problem(format!(
            "keys.provider: {0} needs the feature {0}, which this build doesn't have",
            keys.provider
        )),
        other => given.problem(format!("keys.provider: {other:?} is neither local nor plaintext")),
    }
}

impl Cluster {
    /// Whether this node is told of other nodes, or listens for them.
    pub fn has_peers(&self) -> bool {
        self.peer_bind.is_some()
            || [&self.initial_peers, &self.join, &self.discover].iter().any(|list| !list.is_empty())
    }
}

pub(super) fn cluster(given: &mut Given, cluster: &Cluster) {
    founding(given, cluster);
    peers(given, cluster);
    if let Some(token) = &cluster.token
        && let Err(problem) = check_cluster_token(token)
    {
        given.problem(format!("cluster.token: {problem}"));
    }
    certificates(given, cluster);
    if !(4..=16_384).contains(&cluster.writes_under_way_max) {
        given.problem(format!(
            "cluster.writes_under_way_max: {} is not 4 to 16384",
            cluster.writes_under_way_max
        ));
    }
    for (key, entries) in [
        ("writes_waiting_per_org_max", cluster.writes_waiting_per_org_max),
        ("writes_waiting_max", cluster.writes_waiting_max),
        ("apply_lag_entries_max", cluster.apply_lag_entries_max),
    ] {
        if entries == 0 {
            given.problem(format!("cluster.{key}: must be at least 1"));
        }
    }
    timing(given, cluster);
}

fn founding(given: &mut Given, cluster: &Cluster) {
    if !["auto", "wait"].contains(&cluster.bootstrap.as_str()) {
        given.problem(format!(
            "cluster.bootstrap: {:?} is neither auto nor wait",
            cluster.bootstrap
        ));
    }
    let ways = [&cluster.initial_peers, &cluster.join, &cluster.discover];
    if ways.iter().filter(|way| !way.is_empty()).count() > 1 {
        given.problem(
            "cluster: PEAT_INITIAL_PEERS, PEAT_JOIN and PEAT_DISCOVER are different ways to a cluster; set \
             one"
                .into(),
        );
    }
    let expect = usize::try_from(cluster.expect).unwrap_or(usize::MAX);
    if !cluster.discover.is_empty() && !(1..=INITIAL_PEERS_MAX).contains(&expect) {
        given.problem(format!(
            "cluster.expect: with PEAT_DISCOVER it must be 1 to {INITIAL_PEERS_MAX}, not {expect}"
        ));
    }
    if cluster.discover.is_empty() && cluster.expect != 0 {
        given.problem("cluster.expect: set, but PEAT_DISCOVER is not".into());
    }
}

fn peers(given: &mut Given, cluster: &Cluster) {
    if cluster.has_peers() && cluster.token.is_none() && !given.has("cluster.token") {
        given.problem("cluster.token: nodes that have peers need PEAT_CLUSTER_TOKEN".into());
    }
    let Some(bind) = cluster.peer_bind else {
        let waits = cluster.bootstrap == "wait";
        if (cluster.has_peers() || waits) && !given.has("cluster.peer_bind") {
            given.problem(
                "cluster.initial_peers, join, discover or bootstrap=wait: set, but PEAT_PEER_BIND is not"
                    .into(),
            );
        }
        return;
    };
    let own = cluster.peer_address.clone().unwrap_or_else(|| bind.to_string());
    if cluster.peer_address.is_none() && (bind.ip().is_unspecified() || bind.port() == 0) {
        given.problem(format!(
            "cluster.peer_address: the other nodes can't reach {bind}; set PEAT_PEER_ADDRESS"
        ));
    }
    let others = cluster.join.iter().chain(&cluster.discover);
    let addresses = cluster.initial_peers.iter().chain(cluster.peer_address.as_ref()).chain(others);
    for address in addresses {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            given.problem(format!("cluster: {address:?} is not host:port"));
        }
    }
    if !cluster.initial_peers.is_empty() && !cluster.initial_peers.contains(&own) {
        given.problem(format!("cluster.initial_peers: this node's own address {own} is missing"));
    }
    let mut unique = cluster.initial_peers.clone();
    unique.sort();
    unique.dedup();
    if unique.len() != cluster.initial_peers.len() {
        given.problem("cluster.initial_peers: an address stands there twice".into());
    }
    if unique.len() > INITIAL_PEERS_MAX {
        given
            .problem(format!("cluster.initial_peers: more than {INITIAL_PEERS_MAX} first members"));
    }
}

fn certificates(given: &mut Given, cluster: &Cluster) {
    let files = [&cluster.peer_ca, &cluster.peer_cert, &cluster.peer_key];
    let set = files.iter().filter(|file| file.is_some()).count();
    if set != 0 && set != files.len() {
        given.problem(
            "cluster: PEAT_PEER_CA, PEAT_PEER_CERT and PEAT_PEER_KEY belong together; set all or none"
                .into(),
        );
    }
    if set == 0 && cluster.peer_bind.is_some_and(|bind| !bind.ip().is_loopback()) {
        given.problem(
            "cluster.peer_bind: peers on another address than loopback need PEAT_PEER_CA, PEAT_PEER_CERT \
             and PEAT_PEER_KEY"
                .into(),
        );
    }
}

fn timing(given: &mut Given, cluster: &Cluster) {
    let (heartbeat, min, max) =
        (cluster.heartbeat_ms, cluster.election_timeout_ms_min, cluster.election_timeout_ms_max);
    if heartbeat == 0 || min < heartbeat.saturating_mul(2) || max <= min {
        given.problem(format!(
            "cluster: heartbeat {heartbeat} ms, election timeout {min} to {max} ms: the heartbeat must be \
             above 0, the shortest timeout at least twice the heartbeat, and the longest above the shortest"
        ));
    }
    if Duration::from_millis(max) > ELECTION_TIMEOUT_MAX {
        given.problem(format!(
            "cluster.election_timeout_ms_max: {max} is above {}",
            ELECTION_TIMEOUT_MAX.as_millis()
        ));
    }
    if cluster.snapshot_entries < 100 {
        given.problem("cluster.snapshot_entries: must be at least 100".into());
    }
}

pub(super) fn storage(given: &mut Given, storage: &Storage) {
    let restart_ms = storage.disk_stall_restart_s.saturating_mul(1_000);
    if storage.disk_stall_ms < DISK_STALL_MS_MIN {
        given.problem(format!(
            "storage.disk_stall_ms: {} is below {DISK_STALL_MS_MIN}: ordinary syncs take that long",
            storage.disk_stall_ms
        ));
    }
    if restart_ms != 0 && restart_ms <= storage.disk_stall_ms {
        given.problem(format!(
            "storage.disk_stall_restart_s: {} s is not above the stall of {} ms that it follows",
            storage.disk_stall_restart_s, storage.disk_stall_ms
        ));
    }
    if storage.disk_free_percent_min > DISK_FREE_PERCENT_MAX {
        given.problem(format!(
            "storage.disk_free_percent_min: {} is above {DISK_FREE_PERCENT_MAX}",
            storage.disk_free_percent_min
        ));
    }
    if (1..LOG_MIB_MIN).contains(&storage.log_mib_max) {
        given.problem(format!("storage.log_mib_max: must be 0 or at least {LOG_MIB_MIN}"));
    }
    if storage.scrub_mib_per_s == 0 {
        given.problem(
            "storage.scrub_mib_per_s: must be above 0; scrub_interval_s = 0 ends scrubs".into(),
        );
    }
}

pub(super) fn cdc(given: &mut Given, cdc: &Cdc) {
    if !(1..=5).contains(&cdc.nats_stream_replicas) {
        given.problem(format!(
            "cdc.nats_stream_replicas: {} is not 1 to 5",
            cdc.nats_stream_replicas
        ));
    }
    let Some(url) = &cdc.nats_url else { return };
    if !cfg!(feature = "nats") {
        given.problem("cdc.nats_url needs the feature nats, which this build doesn't have".into());
    } else if !url.starts_with("nats://") && !url.starts_with("tls://") {
        // The URL may hold a password, so it isn't repeated.
        given.problem("cdc.nats_url: must begin with nats:// or tls://".into());
    } else if url.contains('@') {
        given.problem("cdc.nats_url: credentials belong to a sink, not into the URL".into());
    }
}

pub(super) fn backup(given: &mut Given, backup: &Backup, gateway: Option<&Gateway>) {
    if backup.interval_s == 0 {
        given.problem("backup.interval_s: must be at least 1".into());
    }
    if backup.keep == 0 {
        given.problem("backup.keep: must be at least 1".into());
    }
    if let (Some(dir), Some(gateway)) = (&backup.dir, gateway)
        && dir.starts_with(&gateway.data_dir)
    {
        given.problem(format!(
            "backup.dir: {} lies in the data directory and would be lost with it; choose a place outside",
            dir.display()
        ));
    }
}

pub(super) fn log(given: &mut Given, log: &Log) {
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&log.filter) {
        given.problem(format!("log.filter: {:?} is not a filter: {error}", log.filter));
    }
    if !["text", "json"].contains(&log.format.as_str()) {
        given.problem(format!("log.format: {:?} is neither text nor json", log.format));
    }
}
