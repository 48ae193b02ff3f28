//! The whole state, streamed: what `peat-gateway snapshot save` reads.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use peat_gateway_cluster::backup::SnapshotError;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::layers::INDEX;
use super::problem::Failure;
use super::request::Ask;
use super::{Api, SNAPSHOTS_MAX};
use crate::service::{Error, Kind, SnapshotSource};

/// Bytes of the snapshot in one chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait for the client; then reading the state waits.
const CHUNKS_AHEAD: usize = 4;
/// How long a client may take for one chunk: a snapshot that nobody reads holds old rows on the disk.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_snapshot))
}

/// Streams a snapshot of the whole state, as new as the request demands; secrets in it are sealed.
/// The stream checks itself: `peat-gateway snapshot inspect` says whether all of it arrived.
#[utoipa::path(
    get,
    path = "/cluster/snapshot",
    tag = "cluster",
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"))
)]
async fn get_snapshot(State(api): State<Api>, ask: Ask<()>) -> Result<Response, Failure> {
    let place = api.shared.snapshots.clone().try_acquire_owned().map_err(|_| {
        let detail = format!(
            "{SNAPSHOTS_MAX} snapshots are being read from this node; try again, or ask another node"
        );
        Error::new(Kind::TooMany, "overloaded", detail)
    })?;
    let reply = api.service.save_snapshot(&ask.call).await?;
    let index = reply.index;
    let (chunks, body) = mpsc::channel(CHUNKS_AHEAD);
    let to = Chunks {
        buffer: Vec::with_capacity(CHUNK_BYTES),
        chunks,
        runtime: Handle::current(),
        shutdown: api.shared.shutdown.clone(),
    };
    tokio::task::spawn_blocking(move || stream(reply.value, to, place));
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(body)));
    let headers = response.headers_mut();
    headers.insert(INDEX, index.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let name = format!("attachment; filename=\"peat-gateway-{index}.snapshot\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Writes the snapshot into the body. A failure breaks the connection off: the status is gone already.
fn stream(source: SnapshotSource, mut to: Chunks, _place: OwnedSemaphorePermit) {
    let index = source.index;
    match (source.write)(&mut to) {
        Ok(()) => {}
        Err(error) => {
            let (SnapshotError::Refused(reason) | SnapshotError::Failed(reason)) = &error;
            tracing::warn!(index, reason, "a snapshot was not read to its end");
            // A client that went away has no use for it.
            to.send(Err(io::Error::other(error))).ok();
        }
    }
}

/// The body as a writer. Its thread waits for the client, the runtime doesn't.
struct Chunks {
    buffer: Vec<u8>,
    chunks: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
    shutdown: CancellationToken,
}

impl Chunks {
    fn send(&self, chunk: io::Result<Bytes>) -> io::Result<()> {
        self.runtime.block_on(async {
            tokio::select! {
                sent = tokio::time::timeout(STALL_TIMEOUT, self.chunks.send(chunk)) => match sent {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(io::Error::other("the client went away")),
                    Err(_) => Err(io::Error::other("the client stopped reading")),
                },
                () = self.shutdown.cancelled() => Err(io::Error::other("the node is stopping")),
            }
        })
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let next = Vec::with_capacity(CHUNK_BYTES);
        let full = std::mem::replace(&mut self.buffer, next);
        self.send(Ok(full.into()))
    }
}
