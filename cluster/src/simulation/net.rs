//! Sockets as the crate's unit tests see them: of the simulated network in a simulation, else the
//! operating system's.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::codegen::Service;
use tonic::transport::Uri;
use turmoil::net::{TcpListener as SimulatedListener, TcpStream as SimulatedStream};

/// A connection.
pub(crate) enum TcpStream {
    Real(tokio::net::TcpStream),
    Simulated(SimulatedStream),
}

/// A listener; a simulated one listens on every address of the host that it runs on.
pub(crate) enum TcpListener {
    Real(tokio::net::TcpListener),
    Simulated(SimulatedListener),
}

impl TcpListener {
    pub(crate) async fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        if !super::active() {
            return tokio::net::TcpListener::bind(addresses).await.map(Self::Real);
        }
        let port = addresses.first().map_or(0, SocketAddr::port);
        SimulatedListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map(Self::Simulated)
    }

    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Real(listener) => {
                listener.accept().await.map(|(stream, from)| (TcpStream::Real(stream), from))
            }
            Self::Simulated(listener) => {
                listener.accept().await.map(|(stream, from)| (TcpStream::Simulated(stream), from))
            }
        }
    }
}

/// Finds addresses. In a simulation it is the host's own one: the product binds to loopback only where
/// it has no certificates.
pub(crate) async fn lookup_host(address: &str) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    if !super::active() {
        let found: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
        return Ok(found.into_iter());
    }
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.ok_or_else(|| io::Error::other(format!("{address} is no host:port")))?;
    Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))].into_iter())
}

/// Connects channels over the simulated network.
#[derive(Clone)]
pub(crate) struct Connector;

impl Service<Uri> for Connector {
    type Response = TokioIo<SimulatedStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(async move {
            let (Some(host), Some(port)) = (to.host(), to.port_u16()) else {
                return Err(io::Error::other(format!("{to} has no host or no port")));
            };
            SimulatedStream::connect((host, port)).await.map(TokioIo::new)
        })
    }
}

impl TcpStream {
    pub(crate) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match self {
            Self::Real(stream) => stream.set_nodelay(nodelay),
            Self::Simulated(stream) => stream.set_nodelay(nodelay),
        }
    }

    fn writer(self: Pin<&mut Self>) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream),
            Self::Simulated(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Simulated(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writer().poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Real(stream) => stream.is_write_vectored(),
            Self::Simulated(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_shutdown(context)
    }
}
