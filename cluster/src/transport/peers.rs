//! Channels to the other nodes: made once, connected when first used, reconnected for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use peat_gateway_proto::cluster::cluster_client::ClusterClient;
use peat_gateway_proto::cluster::raft_client::RaftClient;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::{MESSAGE_BYTES_MAX, admission};
use crate::node::identity::Identity;

/// How long a connection may take to open; then the call fails as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A quiet connection is asked for a sign of life this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// A connection that gives none for this long is closed, and its calls fail.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// HTTP/2 window: bytes under way that the receiver hasn't taken yet.
const WINDOW_BYTES: u32 = 4 << 20;

/// A kind of traffic with a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lane {
    /// Heartbeats, votes and leadership transfer: small, and late is too late.
    Urgent,
    /// Append streams.
    Log,
    /// Snapshots.
    Snapshot,
    /// Forwarded proposals, read index, status.
    Requests,
}

const LANES: usize = 4;

/// All nodes that this one has spoken to.
pub(crate) struct Peers {
    identity: Arc<Identity>,
    tls: Option<ClientTlsConfig>,
    known: Mutex<BTreeMap<u64, Arc<Peer>>>,
}

impl Peers {
    pub(crate) fn new(identity: Arc<Identity>, tls: Option<ClientTlsConfig>) -> Self {
        Self { identity, tls, known: Mutex::new(BTreeMap::new()) }
    }

    /// The channels to a node; new ones where its address has changed.
    pub(crate) fn peer(&self, node_id: u64, address: &str) -> Arc<Peer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&node_id) {
            Some(peer) if peer.address == address => peer.clone(),
            _ => {
                let peer = Arc::new(Peer {
                    identity: self.identity.clone(),
                    tls: self.tls.clone(),
                    node_id,
                    address: address.to_owned(),
                    channels: Default::default(),
                    foreign: admission::Notice::default(),
                });
                known.insert(node_id, peer.clone());
                peer
            }
        }
    }

    /// The channels to a node at the newest address that anybody named; at `address` where nobody did.
    ///
    /// A client that openraft holds for long finds the node by this after its address has changed.
    pub(crate) fn current(&self, node_id: u64, address: &str) -> Arc<Peer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let current = known.get(&node_id).cloned();
        drop(known);
        current.unwrap_or_else(|| self.peer(node_id, address))
    }

    /// A channel to an address whose node isn't known yet.
    ///
    /// # Errors
    /// The address is no address.
    pub(crate) fn stranger(&self, address: &str) -> Result<ClusterClient<Channel>, String> {
        channel(address, self.tls.clone()).map(cluster_client)
    }
}

/// The channels to one node.
pub(crate) struct Peer {
    identity: Arc<Identity>,
    tls: Option<ClientTlsConfig>,
    node_id: u64,
    address: String,
    channels: [OnceLock<Channel>; LANES],
    foreign: admission::Notice,
}

impl Peer {
    pub(crate) fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Says now and then where a node of another cluster answers in this one's place.
    pub(crate) fn note_refusal(&self, status: &Status) {
        if let Some(theirs) = admission::foreign_cluster(status)
            && self.foreign.due()
        {
            let own = self.identity.cluster_id().map(hex::encode).unwrap_or_default();
            tracing::warn!(
                node = format!("{:016x}", self.node_id),
                address = self.address,
                cluster = theirs,
                own,
                "the node at this address belongs to another cluster and refuses this one's calls; if \
                 this cluster was restored or recovered into that one, stop this node and let it join \
                 that one with an empty data directory (`peat-gateway cluster join`), else remove that \
                 member from this one (`peat-gateway cluster remove`)"
            );
        }
    }

    /// Addresses a message to this node.
    ///
    /// # Errors
    /// The own node belongs to no cluster yet.
    pub(crate) fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        admission::address(&self.identity, self.node_id, message)
    }

    /// A client of the node's Raft service.
    ///
    /// # Errors
    /// The member's address is no address.
    pub(crate) fn raft(&self, lane: Lane) -> Result<RaftClient<Channel>, Status> {
        Ok(RaftClient::new(self.channel(lane)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A client of the node's Cluster service.
    ///
    /// # Errors
    /// The member's address is no address.
    pub(crate) fn cluster(&self) -> Result<ClusterClient<Channel>, Status> {
        self.channel(Lane::Requests).map(cluster_client)
    }

    fn channel(&self, lane: Lane) -> Result<Channel, Status> {
        let place = &self.channels[lane as usize];
        if let Some(open) = place.get() {
            return Ok(open.clone());
        }
        let new = channel(&self.address, self.tls.clone()).map_err(Status::invalid_argument)?;
        Ok(place.get_or_init(|| new).clone())
    }
}

fn cluster_client(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A channel that resolves its address again at each connect, so that a node may move.
fn channel(address: &str, tls: Option<ClientTlsConfig>) -> Result<Channel, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("could not use the peer address '{address}': {error}; it must be host:port")
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|error| wrong(&error))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .tcp_nodelay(true);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).map_err(|error| wrong(&error))?;
    }
    #[cfg(test)]
    if crate::simulation::active() {
        return Ok(endpoint.connect_with_connector_lazy(crate::simulation::net::Connector));
    }
    Ok(endpoint.connect_lazy())
}
