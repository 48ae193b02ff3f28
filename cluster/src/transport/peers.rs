//! Channels to the other nodes: made once, connected when first used, reconnected for ever.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use peat_gateway_proto::cluster::cluster_client::ClusterClient;
use peat_gateway_proto::cluster::raft_client::RaftClient;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use super::connection::{PeerStream, TcpStream};
use super::tls::PeerCertificates;
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
    certificates: Option<Arc<PeerCertificates>>,
    known: Mutex<BTreeMap<u64, Arc<Peer>>>,
}

impl Peers {
    pub(crate) fn new(
        identity: Arc<Identity>,
        certificates: Option<Arc<PeerCertificates>>,
    ) -> Self {
        Self { identity, certificates, known: Mutex::new(BTreeMap::new()) }
    }

    /// The channels to a node; new ones where its address has changed.
    pub(crate) fn peer(&self, node_id: u64, address: &str) -> Arc<Peer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&node_id) {
            Some(peer) if peer.address == address => peer.clone(),
            _ => {
                let peer = Arc::new(Peer {
                    identity: self.identity.clone(),
                    certificates: self.certificates.clone(),
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
        channel(address, self.certificates.clone()).map(cluster_client)
    }
}

/// The channels to one node.
pub(crate) struct Peer {
    identity: Arc<Identity>,
    certificates: Option<Arc<PeerCertificates>>,
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
        let new =
            channel(&self.address, self.certificates.clone()).map_err(Status::invalid_argument)?;
        Ok(place.get_or_init(|| new).clone())
    }
}

fn cluster_client(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A channel that resolves its address again at each connect, so that a node may move, and uses the
/// certificates that are current then.
fn channel(address: &str, certificates: Option<Arc<PeerCertificates>>) -> Result<Channel, String> {
    // TLS, where there is any, is spoken below the channel, which therefore knows of none.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| {
            format!("could not use the peer address '{address}': {error}; it must be host:port")
        })?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let address: Arc<str> = address.into();
    let connector = tower::service_fn(move |_: Uri| {
        let (address, certificates) = (address.clone(), certificates.clone());
        async move { connect(&address, certificates).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn connect(
    address: &str,
    certificates: Option<Arc<PeerCertificates>>,
) -> io::Result<PeerStream> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
    let stream = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    Ok(match certificates {
        None => PeerStream::Plain(stream),
        Some(certificates) => {
            PeerStream::Tls(Box::new(certificates.connect(address, stream).await?.into()))
        }
    })
}
