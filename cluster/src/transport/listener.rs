//! The peer listener: binds early, serves late, and can be cut like a cable.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::connection::{PeerStream, TcpListener, lookup_host};
use super::tls::PeerCertificates;
use crate::error::StartError;

/// Handshakes at once; further connections wait in the system's queue.
const HANDSHAKES_MAX: usize = 1_024;
/// Pause after a failed accept, such as for want of file descriptors, so that it doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the peer listener. Without TLS it binds to loopback only.
///
/// # Errors
/// The address is taken or wrong, or it is reachable from outside and there are no certificates.
pub(crate) async fn bind(address: &str, tls: bool) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { address: address.to_owned(), source };
    let found: Vec<SocketAddr> = lookup_host(address).await.map_err(failed)?.collect();
    if !tls && let Some(open) = found.iter().find(|found| !found.ip().is_loopback()) {
        return Err(StartError::Tls(format!(
            "the peer listener would be reachable at {open} without TLS; give it certificates \
             (peer TLS ca, cert and key) or bind it to a loopback address"
        )));
    }
    TcpListener::bind(found.as_slice()).await.map_err(failed)
}

/// Connections as they come, handshakes done, until `cut` is cancelled.
pub(crate) fn connections(
    listener: TcpListener,
    certificates: Option<Arc<PeerCertificates>>,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<PeerConnection>> {
    let (made, waiting) = mpsc::channel(1);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        tokio::select! {
            () = cut.cancelled() => {}
            () = accept(listener, certificates, places, made, &cut) => {}
        }
    });
    ReceiverStream::new(waiting).map(Ok)
}

/// Accepts until nobody takes connections any more. A handshake never holds up another one.
async fn accept(
    listener: TcpListener,
    certificates: Option<Arc<PeerCertificates>>,
    places: Arc<Semaphore>,
    made: mpsc::Sender<PeerConnection>,
    cut: &CancellationToken,
) {
    while !made.is_closed() {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = listener.accept().await;
        let accepted =
            accepted.and_then(|(stream, from)| stream.set_nodelay(true).map(|()| (stream, from)));
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a peer's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (certificates, made, cut) = (certificates.clone(), made.clone(), cut.clone());
        tokio::spawn(async move {
            let _place = place;
            let stream = match certificates {
                None => PeerStream::Plain(stream),
                Some(certificates) => match certificates.accept(stream).await {
                    Ok(stream) => PeerStream::Tls(Box::new(stream.into())),
                    Err(error) => {
                        tracing::debug!(%error, "a peer's TLS handshake failed");
                        return;
                    }
                },
            };
            let connection = PeerConnection { stream, from, cut: Box::pin(cut.cancelled_owned()) };
            made.send(connection).await.ok();
        });
    }
}

/// A connection that ends when the node does, whatever the other side and open streams think.
pub(crate) struct PeerConnection {
    stream: PeerStream,
    from: SocketAddr,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connected for PeerConnection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        // Of TLS, if there is any, tonic knows nothing: this is what its requests are asked for.
        TcpConnectInfo { local_addr: None, remote_addr: Some(self.from) }
    }
}

impl AsyncRead for PeerConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
