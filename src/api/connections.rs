//! Accepting, serving and draining connections.
//!
//! ```text
//!  one connection = one task:  read ─► a stream for each request, polled here ─► write all that are ready at once
//! ```
//!
//! Requests of an HTTP/2 connection run in the connection's own task. Tasks of their own would be woken and
//! moved between threads one by one, and each would have its answer written by itself; a proxy's many
//! connections use all processors all the same.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::DRAIN_TIMEOUT;

/// Most connections at once; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 8_192;
/// Most requests under way on one HTTP/2 connection; the client's further ones wait on its side.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// How long an HTTP/1.1 connection may be idle or in the middle of a request's head; longer than usual
/// proxies keep idle connections, so that the proxy closes them first.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// A quiet HTTP/2 connection is asked for a sign of life this often, and closed without one.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Pause after a failed accept, such as for want of file descriptors, so that it doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is cancelled, then lets requests finish for up to [`DRAIN_TIMEOUT`].
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok();
            listener.accept().await.map(|(stream, from)| (stream, from, place))
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, from, place)) => {
                let connection = connection(stream, from, router.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection.await;
                });
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!("requests were still running when the drain time was over");
    }
}

/// The connection was gone before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one connection to its end; after `shutdown` only what is under way.
async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        let answer = router.clone().call(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let started = Started::default();
    let mut builder = auto::Builder::new(started.clone());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    let connection = builder.serve_connection(TokioIo::new(Unvectored(stream)), service);
    let mut served = std::pin::pin!(Served {
        connection: Some(Box::pin(connection)),
        started,
        streams: FuturesUnordered::new(),
    });
    tokio::select! {
        () = served.as_mut() => return,
        () = shutdown.cancelled() => {}
    }
    if let Some(connection) = &mut served.connection {
        connection.as_mut().graceful_shutdown();
    }
    served.await;
}

/// A connection whose writes aren't vectored: then HTTP/2 copies answers of up to 1 KiB together and writes
/// many at once, instead of each by itself.
struct Unvectored(TcpStream);

impl AsyncRead for Unvectored {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Unvectored {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Takes a connection's new streams; their connection polls them.
#[derive(Clone, Default)]
struct Started(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl Started {
    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Started {
    fn execute(&self, stream: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

/// A connection with its streams.
struct Served<C> {
    /// `None` once it has ended.
    connection: Option<Pin<Box<C>>>,
    started: Started,
    streams: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<C, E: std::fmt::Display> Future for Served<C>
where
    C: Future<Output = Result<(), E>>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            // First the streams: what they answer is written by the connection in one go.
            while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(context) {}
            if let Some(connection) = &mut self.connection
                && let Poll::Ready(ended) = connection.as_mut().poll(context)
            {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                self.connection = None;
            }
            let started = self.started.take();
            if started.is_empty() {
                let ended = self.connection.is_none() && self.streams.is_empty();
                return if ended { Poll::Ready(()) } else { Poll::Pending };
            }
            self.streams.extend(started);
        }
    }
}

impl<C> Drop for Served<C> {
    fn drop(&mut self) {
        // A stream holds its executor, so one that was never polled would keep itself alive.
        drop(self.started.take());
    }
}
