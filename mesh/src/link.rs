//! An authenticated sync connection: frames in, frames out.
//!
//! ```text
//!   peer's streams ──┐                                    ┌── one stream per frame ──► peer
//!   our streams'     ├─► a reader each ─► bounded queue   │
//!   receiving halves ┘                        │           │
//!                                        Link::recv   LinkSender::send
//! ```
//!
//! Published nodes use streams in three ways: one frame per stream, several frames on one stream of
//! which old receivers read only the first, or one persistent stream with frames both ways, which may
//! be one that *we* opened. Reading every stream until its end and writing one frame per stream
//! interoperates with all of them.
//!
//! Receive and send in different tasks. A task that does both stops receiving while it waits to send;
//! if the peer does the same, both wait until one gives up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{Connection, ConnectionError, RecvStream, SendStream, WriteError};
use iroh::{EndpointId, TransportAddr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frame::{Frame, FrameError, FrameLimits, read_header, read_payload};

/// How many events wait for the receiver; then readers stop, and QUIC stops the peer.
pub const INBOUND_EVENTS_MAX: usize = 64;
/// Payloads above this many bytes are read one at a time per link, and the next one only when the last
/// was received, so that a peer cannot fill the memory with half-sent frames.
pub const SMALL_PAYLOAD_BYTES_MAX: usize = 256 << 10;
/// How many frames may be on their way at once, answers on their streams included; further ones wait.
pub const OUTBOUND_STREAMS_MAX: usize = 64;
/// How long sending may make no progress; then it fails.
pub const SEND_STALL_MAX: Duration = Duration::from_secs(30);
/// How much is written between two looks at the clock, in bytes.
const WRITE_CHUNK_BYTES: usize = 64 << 10;

/// What a peer did.
#[derive(Debug)]
pub enum LinkEvent {
    /// It sent a frame.
    Frame(Frame),
    /// It sent something that is not a frame; the rest of that stream is ignored, other streams go on.
    Malformed(FrameError),
}

/// Why a link ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkClosed {
    /// The peer closed it.
    ByPeer {
        /// Its close code.
        code: u64,
        /// Its reason.
        reason: String,
    },
    /// This side closed it.
    ByUs,
    /// The connection was lost; in which way, in words.
    Lost(String),
}

/// A frame was not sent, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The frame cannot be sent at all.
    #[error("send a frame: it is not valid")]
    Frame(#[source] FrameError),
    /// The peer took nothing for too long.
    #[error("send a frame: the peer took nothing for {SEND_STALL_MAX:?}; close the link")]
    Stalled,
    /// The peer does not want this frame.
    #[error("send a frame: the peer stopped reading it")]
    Stopped,
    /// The link is closed.
    #[error("send a frame: the link is closed")]
    Closed,
}

/// An event, and the right to the memory that a large one takes.
struct Queued {
    event: LinkEvent,
    /// Given back when the event is received.
    large: Option<OwnedSemaphorePermit>,
}

/// An authenticated connection. Dropping it closes the connection with code 0.
#[derive(Debug)]
pub struct Link {
    sender: LinkSender,
    events: mpsc::Receiver<Queued>,
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.event.fmt(formatter)
    }
}

/// The sending half of a link. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LinkSender {
    connection: Connection,
    readers: Readers,
    outbound: Arc<Semaphore>,
}

impl Link {
    /// Takes over a connection after its handshake.
    pub(crate) fn start(connection: Connection) -> Self {
        let (events_in, events) = mpsc::channel(INBOUND_EVENTS_MAX);
        let (streams, own_streams) = mpsc::channel(OUTBOUND_STREAMS_MAX);
        let inbound = Inbound {
            limits: FrameLimits::default(),
            large: Arc::new(Semaphore::new(1)),
            events: events_in,
        };
        tokio::spawn(read_all(connection.clone(), inbound, own_streams));
        let sender = LinkSender {
            connection,
            readers: Readers { streams },
            outbound: Arc::new(Semaphore::new(OUTBOUND_STREAMS_MAX)),
        };
        Self { sender, events }
    }

    /// Returns the peer's endpoint id, which TLS has proved.
    #[must_use]
    pub fn peer_id(&self) -> EndpointId {
        self.sender.peer_id()
    }

    /// Returns the address that is used to reach the peer now, if there is one.
    #[must_use]
    pub fn remote_address(&self) -> Option<SocketAddr> {
        let paths = self.sender.connection.paths();
        let selected = paths.iter().find(|path| path.is_selected());
        match selected.or_else(|| paths.iter().next())?.remote_addr() {
            TransportAddr::Ip(address) => Some(*address),
            _ => None,
        }
    }

    /// Waits for the next event; none once the connection has ended and all was received. Events of
    /// one stream come in order, those of different streams in any. Cancel-safe.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        let Queued { event, large } = self.events.recv().await?;
        drop(large);
        Some(event)
    }

    /// Returns the sending half.
    #[must_use]
    pub fn sender(&self) -> LinkSender {
        self.sender.clone()
    }

    /// Sends a frame; see [`LinkSender::send`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        self.sender.send(frame).await
    }

    /// Closes the connection. What was sent but not yet received may be lost.
    pub fn close(&self, code: u32, reason: &str) {
        self.sender.close(code, reason);
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> LinkClosed {
        self.sender.closed().await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.sender.close(0, "");
    }
}

impl LinkSender {
    /// Returns the peer's endpoint id, which TLS has proved.
    #[must_use]
    pub fn peer_id(&self) -> EndpointId {
        self.connection.remote_id()
    }

    /// Sends a frame on a stream of its own, and returns when all of it is in QUIC's hands. Frames may
    /// overtake one another. Not cancel-safe: a cancelled frame may arrive truncated.
    ///
    /// # Errors
    /// See [`SendError`]. The peer may or may not have the frame, except when it was not valid.
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        let (header, payload) = split(frame)?;
        let permit = in_time(Arc::clone(&self.outbound).acquire_owned())
            .await?
            .map_err(|_| SendError::Closed)?;
        let (mut send, receive) =
            in_time(self.connection.open_bi()).await?.map_err(|_| SendError::Closed)?;
        for mut part in [header, payload] {
            while !part.is_empty() {
                let chunk = part.split_to(part.len().min(WRITE_CHUNK_BYTES));
                in_time(send.write_chunk(chunk)).await?.map_err(|error| match error {
                    WriteError::Stopped(_) => SendError::Stopped,
                    _ => SendError::Closed,
                })?;
            }
        }
        // A peer that has the whole frame may already have stopped the stream: no error.
        drop(send.finish());
        self.readers.read(Stream { send, receive, permit: Some(permit) }).await
    }

    /// Closes the connection. What was sent but not yet received may be lost.
    pub fn close(&self, code: u32, reason: &str) {
        self.connection.close(code.into(), reason.as_bytes());
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> LinkClosed {
        match self.connection.closed().await {
            ConnectionError::ApplicationClosed(close) => LinkClosed::ByPeer {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::LocallyClosed => LinkClosed::ByUs,
            error => LinkClosed::Lost(error.to_string()),
        }
    }
}

async fn in_time<T>(step: impl Future<Output = T>) -> Result<T, SendError> {
    timeout(SEND_STALL_MAX, step).await.map_err(|_| SendError::Stalled)
}

/// Returns a frame's bytes before the payload, and the payload, which is not copied.
fn split(frame: Frame) -> Result<(Bytes, Bytes), SendError> {
    let mut header = BytesMut::new();
    frame.encode_header(&mut header).map_err(SendError::Frame)?;
    Ok((header.freeze(), frame.payload))
}

/// A stream that is read until its end. The sending half of a peer's stream is kept open and unused as
/// long: dropping it early would end a persistent stream that the peer may still use.
struct Stream {
    send: SendStream,
    receive: RecvStream,
    permit: Option<OwnedSemaphorePermit>,
}

/// Hands our own streams to the readers.
#[derive(Clone, Debug)]
struct Readers {
    streams: mpsc::Sender<Stream>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.receive.id().fmt(formatter)
    }
}

impl Readers {
    async fn read(&self, stream: Stream) -> Result<(), SendError> {
        // There are never more of our streams than the channel has room for: this waits for nobody.
        self.streams.send(stream).await.map_err(|_| SendError::Closed)
    }
}

/// Where readers put what they read.
#[derive(Clone)]
struct Inbound {
    limits: FrameLimits,
    large: Arc<Semaphore>,
    events: mpsc::Sender<Queued>,
}

/// Reads every stream of a connection until it ends. The number of readers is bounded: the peer's
/// streams by QUIC, ours by their permits.
async fn read_all(
    connection: Connection,
    inbound: Inbound,
    mut own_streams: mpsc::Receiver<Stream>,
) {
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => {
                let Ok((send, receive)) = accepted else { break };
                let stream = Stream { send, receive, permit: None };
                readers.spawn(inbound.clone().read_stream(stream));
            }
            Some(stream) = own_streams.recv() => {
                readers.spawn(inbound.clone().read_stream(stream));
            }
            heartbeats = connection.accept_uni() => {
                let Ok(mut heartbeats) = heartbeats else { break };
                // It is ours alone and just opened, so it can be stopped.
                drop(heartbeats.stop(0_u32.into()));
            }
            Some(_) = readers.join_next() => {}
        }
    }
    // What has arrived completely is still handed on; readers end because their streams have failed.
    drop(inbound);
    while readers.join_next().await.is_some() {}
}

impl Inbound {
    /// Reads one stream until its end, a failure, or until nobody receives any more.
    async fn read_stream(self, mut stream: Stream) {
        loop {
            let (outcome, large) = self.read_frame(&mut stream.receive).await;
            let event = match outcome {
                Ok(None) => break,
                Ok(Some(frame)) => LinkEvent::Frame(frame),
                // Reset by the peer, or the connection is gone: nothing that the peer said wrongly.
                Err(FrameError::Io(error)) => {
                    tracing::debug!(%error, "mesh stream ended early");
                    break;
                }
                Err(error) => LinkEvent::Malformed(error),
            };
            let is_last = matches!(event, LinkEvent::Malformed(_));
            let sent = self.events.send(Queued { event, large }).await;
            if is_last || sent.is_err() {
                break;
            }
        }
        let Stream { send, receive, permit } = stream;
        drop((send, receive, permit));
    }

    async fn read_frame(
        &self,
        receive: &mut RecvStream,
    ) -> (Result<Option<Frame>, FrameError>, Option<OwnedSemaphorePermit>) {
        let header = match read_header(receive, &self.limits).await {
            Ok(Some(header)) => header,
            Ok(None) => return (Ok(None), None),
            Err(error) => return (Err(error), None),
        };
        let large = if header.payload_bytes > SMALL_PAYLOAD_BYTES_MAX {
            // The semaphore is never closed, so this waits until it succeeds.
            Arc::clone(&self.large).acquire_owned().await.ok()
        } else {
            None
        };
        let frame = read_payload(receive, header, &self.limits).await.map(Some);
        (frame, large)
    }
}
