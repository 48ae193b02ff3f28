//! Sockets as the crate's unit tests see them: of the simulated network in a simulation, else the
//! operating system's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Real(listener) => listener.local_addr(),
            Self::Simulated(listener) => listener.local_addr(),
        }
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

impl TcpStream {
    pub(crate) async fn connect(address: &str) -> io::Result<Self> {
        if super::active() {
            SimulatedStream::connect(address).await.map(Self::Simulated)
        } else {
            tokio::net::TcpStream::connect(address).await.map(Self::Real)
        }
    }

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
