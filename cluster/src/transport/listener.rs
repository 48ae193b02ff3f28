//! The peer listener: binds early, serves late, and can be cut like a cable.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(not(test))]
pub(crate) use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::config::PeerTls;
use crate::error::StartError;
#[cfg(test)]
pub(crate) use crate::simulation::net::{TcpListener, TcpStream, lookup_host};

/// How long a peer may take for its TLS handshake; then the connection is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept, such as for want of file descriptors, so that it doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Both sides' TLS: a node presents one certificate as a server and as a client.
pub(crate) struct TlsConfigs {
    pub(crate) server: ServerTlsConfig,
    pub(crate) client: ClientTlsConfig,
}

/// Reads the certificates. Every peer must present one that the authority signed.
///
/// # Errors
/// Names the file that can't be used.
pub(crate) fn load_tls(files: &PeerTls) -> Result<TlsConfigs, StartError> {
    // Another library may have enabled a second provider; rustls then wants to be told.
    rustls::crypto::ring::default_provider().install_default().ok();
    let read = |path: &Path| {
        let bytes = std::fs::read(path)
            .map_err(|error| StartError::Tls(format!("{}: {error}", path.display())))?;
        if bytes.windows(5).any(|part| part == b"-----") {
            return Ok(bytes);
        }
        Err(StartError::Tls(format!("{}: this is no PEM file", path.display())))
    };
    let authority = Certificate::from_pem(read(&files.ca)?);
    let identity = Identity::from_pem(read(&files.cert)?, read(&files.key)?);
    Ok(TlsConfigs {
        server: ServerTlsConfig::new()
            .identity(identity.clone())
            .client_ca_root(authority.clone())
            .timeout(HANDSHAKE_TIMEOUT),
        client: ClientTlsConfig::new()
            .identity(identity)
            .ca_certificate(authority)
            .timeout(HANDSHAKE_TIMEOUT),
    })
}

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

/// Connections as they come, until `cut` is cancelled.
pub(crate) fn connections(
    listener: TcpListener,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<PeerConnection>> {
    futures_util::stream::unfold((listener, cut), |(listener, cut)| async move {
        loop {
            let accepted = tokio::select! {
                () = cut.cancelled() => return None,
                accepted = listener.accept() => accepted,
            };
            match accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => {
                    let connection =
                        PeerConnection { stream, cut: Box::pin(cut.clone().cancelled_owned()) };
                    return Some((Ok(connection), (listener, cut)));
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a peer's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A connection that ends when the node does, whatever the other side and open streams think.
pub(crate) struct PeerConnection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connected for PeerConnection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
