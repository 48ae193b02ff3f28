//! Keeping connections to the mesh nodes of a formation: static ones and those met before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peat_gateway_mesh::endpoint::{MeshEndpoint, PeerAddress};
use peat_gateway_mesh::formation_key::FormationKey;
use peat_gateway_mesh::identity::{self, EndpointId};
use peat_gateway_state::record::Peer;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Entrance;

/// First wait before a node is dialled again; doubles.
const REDIAL_DELAY_MIN: Duration = Duration::from_millis(200);
/// Longest such wait.
const REDIAL_DELAY_MAX: Duration = Duration::from_secs(5);
/// How long the name of a node's host may take to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a node may be: `host:port` texts by endpoint id.
pub(super) type Targets = BTreeMap<EndpointId, Vec<String>>;

/// Returns whom to dial. A static peer is `name@host:port` or `<64 hex>@host:port`.
///
/// Entries without a name or id are returned apart: nobody can be dialled without knowing who it is.
pub(super) fn targets(
    static_peers: &[String],
    remembered: &[Peer],
    secret: &[u8; 32],
    own: EndpointId,
) -> (Targets, Vec<String>) {
    let mut found = Targets::new();
    let mut nameless = Vec::new();
    for text in static_peers {
        let Some((name, address)) = text.split_once('@') else {
            nameless.push(text.clone());
            continue;
        };
        // 64 hex characters are an id; anything else is a name from which the id is derived.
        let id = match (name.len(), name.parse::<EndpointId>()) {
            (64, Ok(id)) => id,
            _ => identity::endpoint_id(secret, name),
        };
        found.entry(id).or_default().push(address.to_owned());
    }
    for peer in remembered {
        if let Ok(id) = peer.peer_id.parse::<EndpointId>() {
            found.entry(id).or_default().extend(peer.addresses.iter().cloned());
        }
    }
    found.remove(&own);
    (found, nameless)
}

/// Dials all targets and accepts whoever comes, until `shutdown`.
pub(super) async fn run(
    endpoint: MeshEndpoint,
    key: FormationKey,
    targets: Targets,
    entrance: Entrance,
    shutdown: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let key = Arc::new(key);
    for (id, addresses) in targets {
        let (endpoint, key) = (endpoint.clone(), Arc::clone(&key));
        let (entrance, shutdown) = (entrance.clone(), shutdown.clone());
        tasks.spawn(
            async move { dial(&endpoint, &key, id, &addresses, &entrance, &shutdown).await },
        );
    }
    let mut acceptor = endpoint.acceptor((*key).clone());
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            None => break,
            Some(Ok(link)) => {
                let (entrance, shutdown) = (entrance.clone(), shutdown.clone());
                tasks.spawn(async move { entrance.serve(link, &shutdown).await });
            }
            Some(Err(error)) => tracing::debug!(%error, "a mesh node could not be accepted"),
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

/// Keeps one connection to one node.
async fn dial(
    endpoint: &MeshEndpoint,
    key: &FormationKey,
    id: EndpointId,
    addresses: &[String],
    entrance: &Entrance,
    shutdown: &CancellationToken,
) {
    let mut delay = REDIAL_DELAY_MIN;
    let mut reported = false;
    loop {
        let peer = PeerAddress { id, sockets: resolve(addresses).await };
        let connecting = shutdown.run_until_cancelled(endpoint.connect(&peer, key));
        match connecting.await {
            None => return,
            Some(Ok(link)) => {
                (delay, reported) = (REDIAL_DELAY_MIN, false);
                entrance.serve(link, shutdown).await;
            }
            Some(Err(error)) => {
                if !reported {
                    tracing::info!(%error, peer = %id, "a mesh node can't be reached; trying on");
                    reported = true;
                }
            }
        }
        if shutdown.run_until_cancelled(sleep(delay)).await.is_none() {
            return;
        }
        delay = (delay * 2).min(REDIAL_DELAY_MAX);
    }
}

/// Resolves addresses anew at each attempt: pods move.
async fn resolve(addresses: &[String]) -> Vec<SocketAddr> {
    let mut sockets = Vec::new();
    for address in addresses {
        match timeout(RESOLVE_TIMEOUT, lookup_host(address)).await {
            Ok(Ok(found)) => sockets.extend(found),
            Ok(Err(error)) => tracing::debug!(%error, address, "could not resolve a mesh node"),
            Err(_) => tracing::debug!(address, "resolving a mesh node took too long"),
        }
    }
    sockets
}
