//! The QUIC endpoint of one member: dials and accepts sync connections, and authenticates both.
//!
//! ```text
//!   connect ──► QUIC ──► handshake ─────────────────────────► Link
//!   Acceptor ──► QUIC ──► handshake, in a task of its own ──► Link, in order of completion
//! ```
//!
//! Nothing but the given socket addresses is used: no relay, no DNS, no published addresses, no port
//! mapping. A mesh may be cut off from everything else.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use iroh::endpoint::{Connection, ConnectionError, Incoming, QuicTransportConfig, presets};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey, TransportAddr};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use crate::formation_key::FormationKey;
use crate::handshake::{self, HANDSHAKE_STEP_TIMEOUT, HandshakeError};
use crate::link::Link;

/// The application protocol of sync connections.
pub const SYNC_ALPN: &[u8] = b"cap/automerge/1";
/// Close code: the peer failed the formation handshake.
pub const CLOSE_AUTH_FAILED: u32 = 1;
/// Close code: the node demands a certificate that it does not have of us.
pub const CLOSE_CERTIFICATE_REQUIRED: u32 = 2;
/// Close code: the node has not discovered our endpoint id.
pub const CLOSE_NOT_A_MEMBER: u32 = 3;
/// How often a silent connection is kept alive; some nodes drop it after 5 s of silence.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How often a connection is tried before [`MeshEndpoint::connect`] gives up; nodes that are just
/// starting refuse the first.
pub const CONNECT_ATTEMPTS_MAX: u32 = 3;
/// Pause between attempts.
pub const CONNECT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// How long reaching a peer may take; a peer that does not answer is not tried again.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many peers may be in their handshake at once; further ones wait until one is done.
pub const HANDSHAKES_MAX: usize = 64;
/// How many streams a peer may have open; it waits before it opens more.
pub const PEER_STREAMS_MAX: u32 = 128;
/// How many one-way streams a peer may have open; they carry heartbeats, which are ignored.
const PEER_UNI_STREAMS_MAX: u32 = 8;
/// How much a peer may send ahead of what was read, in bytes, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

const AUTH_FAILED_REASON: &[u8] = b"formation auth failed";

/// A peer and where it may be reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerAddress {
    /// Its endpoint id; see [`crate::identity::endpoint_id`].
    pub id: EndpointId,
    /// Its UDP addresses, all of which are tried.
    pub sockets: Vec<SocketAddr>,
}

/// The endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("open the mesh endpoint on UDP {address}; choose a free address of this machine")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// No link to a peer came about. Nothing was exchanged but the handshake; try again later.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer did not answer.
    #[error("connect to a mesh node: no answer within 10 s from {sockets:?}")]
    Unreachable {
        /// Where it was sought.
        sockets: Vec<SocketAddr>,
    },
    /// The connection failed.
    #[error("connect to a mesh node: the connection failed")]
    Connection(#[source] Box<dyn Error + Send + Sync>),
    /// The peer speaks, but not the formation's language.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The peer closed the connection instead of answering. Codes: 1 wrong secret, 2 certificate
    /// required, 3 not discovered by the node.
    #[error("connect to a mesh node: it refused with code {code}: {reason}")]
    Refused {
        /// Its close code.
        code: u64,
        /// Its reason.
        reason: String,
    },
    /// The task of a handshake panicked.
    #[error("accept a mesh node: the handshake broke off")]
    Broken(#[source] JoinError),
}

impl LinkError {
    /// Whether another attempt at once may succeed.
    fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            Self::Handshake(HandshakeError::Lost { .. }) => true,
            Self::Refused { code, .. } => {
                *code != u64::from(CLOSE_AUTH_FAILED)
                    && *code != u64::from(CLOSE_CERTIFICATE_REQUIRED)
            }
            Self::Unreachable { .. } | Self::Handshake(_) | Self::Broken(_) => false,
        }
    }
}

/// The endpoint of one member of one formation. Cheap to clone; all clones are one endpoint.
#[derive(Clone, Debug)]
pub struct MeshEndpoint {
    endpoint: Endpoint,
}

impl MeshEndpoint {
    /// Opens an endpoint on one UDP address; port 0 chooses a free one.
    ///
    /// # Errors
    /// The address is taken or not of this machine.
    pub async fn bind(secret: SecretKey, bind: SocketAddr) -> Result<Self, BindError> {
        let failed = |source: Box<dyn Error + Send + Sync>| BindError { address: bind, source };
        let transport = QuicTransportConfig::builder()
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .default_path_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .max_concurrent_bidi_streams(PEER_STREAMS_MAX.into())
            .max_concurrent_uni_streams(PEER_UNI_STREAMS_MAX.into())
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .receive_window(CONNECTION_WINDOW_BYTES.into())
            .send_window(u64::from(CONNECTION_WINDOW_BYTES))
            .build();
        let endpoint = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .clear_address_lookup()
            .clear_ip_transports()
            .bind_addr(bind)
            .map_err(|error| failed(Box::new(error)))?
            .secret_key(secret)
            .alpns(vec![SYNC_ALPN.to_vec()])
            .transport_config(transport)
            .bind()
            .await
            .map_err(|error| failed(Box::new(error)))?;
        Ok(Self { endpoint })
    }

    /// Returns this endpoint's id.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.endpoint.id()
    }

    /// Returns the UDP addresses on which it listens; an unspecified IP stands for all of them.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.endpoint.bound_sockets()
    }

    /// Connects to a peer and authenticates, with up to three quick attempts.
    ///
    /// Cancel-safe: a cancelled attempt closes its connection.
    ///
    /// # Errors
    /// See [`LinkError`]; the caller waits, then tries again.
    pub async fn connect(&self, peer: &PeerAddress, key: &FormationKey) -> Result<Link, LinkError> {
        let mut attempt = 1;
        loop {
            match self.connect_once(peer, key).await {
                Err(error) if attempt < CONNECT_ATTEMPTS_MAX && error.is_worth_retrying() => {
                    tracing::debug!(%error, attempt, "mesh node refused, trying again");
                    attempt += 1;
                    sleep(CONNECT_RETRY_DELAY).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn connect_once(
        &self,
        peer: &PeerAddress,
        key: &FormationKey,
    ) -> Result<Link, LinkError> {
        let sockets = peer.sockets.iter().copied().map(TransportAddr::Ip);
        let address = EndpointAddr::from_parts(peer.id, sockets);
        let connecting = self.endpoint.connect(address, SYNC_ALPN);
        let connection = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| LinkError::Unreachable { sockets: peer.sockets.clone() })?
            .map_err(|error| LinkError::Connection(Box::new(error)))?;
        let greeted = async {
            let (mut send, mut receive) = connection.open_bi().await.map_err(LinkError::from)?;
            handshake::connect(&mut send, &mut receive, key).await.map_err(LinkError::from)
        };
        settle(connection.clone(), greeted.await)
    }

    /// Returns what accepts peers of this endpoint. One is enough; several would share the peers.
    #[must_use]
    pub fn acceptor(&self, key: FormationKey) -> Acceptor {
        Acceptor { endpoint: self.endpoint.clone(), key, handshakes: JoinSet::new() }
    }

    /// Closes every connection and waits until the peers know, a few seconds at most.
    pub async fn close(&self) {
        self.endpoint.close().await;
    }
}

/// Accepts peers, up to [`HANDSHAKES_MAX`] handshakes at a time, so that a slow one delays nobody.
/// Dropping it breaks off the handshakes under way.
#[derive(Debug)]
pub struct Acceptor {
    endpoint: Endpoint,
    key: FormationKey,
    handshakes: JoinSet<Result<Link, LinkError>>,
}

impl Acceptor {
    /// Returns the next peer that is authenticated, or that failed; none once the endpoint is closed.
    /// Cancel-safe.
    pub async fn accept(&mut self) -> Option<Result<Link, LinkError>> {
        loop {
            let has_room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    return Some(done.unwrap_or_else(|error| Err(LinkError::Broken(error))));
                }
                incoming = self.endpoint.accept(), if has_room => {
                    let greeted = greet(incoming?, self.key.clone());
                    self.handshakes.spawn(greeted);
                }
            }
        }
    }
}

/// Authenticates one incoming peer.
async fn greet(incoming: Incoming, key: FormationKey) -> Result<Link, LinkError> {
    let timed_out = |step| LinkError::Handshake(HandshakeError::Timeout { step });
    let connection = timeout(HANDSHAKE_STEP_TIMEOUT, incoming.into_future())
        .await
        .map_err(|_| timed_out("connection"))?
        .map_err(|error| LinkError::Connection(Box::new(error)))?;
    let greeted = async {
        let (mut send, mut receive) = timeout(HANDSHAKE_STEP_TIMEOUT, connection.accept_bi())
            .await
            .map_err(|_| timed_out("first stream"))??;
        handshake::accept(&mut send, &mut receive, &key).await?;
        // It cannot be closed already: nobody else has this half.
        drop(send.finish());
        Ok(())
    };
    settle(connection.clone(), greeted.await)
}

/// Makes a link of an authenticated connection, and closes every other.
fn settle(connection: Connection, greeted: Result<(), LinkError>) -> Result<Link, LinkError> {
    let Err(error) = greeted else { return Ok(Link::start(connection)) };
    // A node that rejects closes at once, which overtakes its verdict: the reason says more.
    if let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason() {
        return Err(LinkError::Refused {
            code: close.error_code.into_inner(),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        });
    }
    connection.close(CLOSE_AUTH_FAILED.into(), AUTH_FAILED_REASON);
    Err(error)
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(Box::new(error))
    }
}
