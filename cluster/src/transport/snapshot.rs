//! Snapshots between nodes: a start message, then the file in chunks.
//!
//! The receiver writes the file beside its own, checks all of it, and only then gives it to consensus.
//! A transfer that breaks off leaves nothing behind and begins anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::Snapshot;
use openraft::raft::SnapshotResponse;
use openraft::type_config::alias::SnapshotOf;
use peat_gateway_proto::cluster as proto;
use peat_gateway_proto::cluster::snapshot_chunk::Part;
use tonic::{Response, Status, Streaming};

use super::peers::{Lane, Peer};
use crate::raft::{TypeConfig, Vote};
use crate::store::{IncomingSnapshot, Machine, SnapshotData, SnapshotFile, Store};
use crate::wire::rpc;
use crate::wire::stored::{vote_from_stored, vote_to_stored};

/// Bytes of the file in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// Sends a snapshot and waits until it is installed there.
///
/// # Errors
/// The node can't be reached or refused it, the file can't be read, or nothing moved for `stall`.
pub(crate) async fn send(
    peer: &Peer,
    vote: &Vote,
    snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    stall: Duration,
) -> Result<SnapshotResponse<TypeConfig>, Status> {
    let file = snapshot.snapshot.into_file().await;
    let file = file.map_err(|error| Status::internal(error.to_string()))?;
    let sent_bytes = Arc::new(AtomicU64::new(0));
    let start = proto::SnapshotChunk {
        part: Some(Part::Start(proto::SnapshotStart {
            vote: Some(vote_to_stored(vote)),
            header: Some(file.header().clone()),
            size: file.bytes(),
        })),
    };
    tracing::info!(node = peer.node_id(), bytes = file.bytes(), "sending a snapshot");
    let first = futures_util::stream::once(std::future::ready(start));
    let messages = first.chain(chunks(file, sent_bytes.clone()));
    let mut client = peer.raft(Lane::Snapshot)?;
    let call = client.install_snapshot(peer.request(messages)?);
    let mut call = std::pin::pin!(call);
    let mut seen_bytes = 0;
    let answer = loop {
        match tokio::time::timeout(stall, &mut call).await {
            Ok(answer) => break answer.map(Response::into_inner)?,
            Err(_) => {
                let now_bytes = sent_bytes.load(Ordering::Relaxed);
                if now_bytes == seen_bytes {
                    return Err(Status::deadline_exceeded("a snapshot transfer has stalled"));
                }
                seen_bytes = now_bytes;
            }
        }
    };
    let vote = rpc::required_vote(answer.vote.as_ref());
    vote.map(SnapshotResponse::new).map_err(|error| Status::internal(error.to_string()))
}

/// The file in chunks. A file that can't be read ends them early; the receiver then refuses it.
fn chunks(
    file: SnapshotFile,
    sent_bytes: Arc<AtomicU64>,
) -> impl Stream<Item = proto::SnapshotChunk> + Send + 'static {
    futures_util::stream::unfold((file, 0), move |(file, offset)| {
        let sent_bytes = sent_bytes.clone();
        async move {
            match file.read_chunk(offset, CHUNK_BYTES).await {
                Ok(data) if data.is_empty() => None,
                Ok(data) => {
                    let next = offset + data.len() as u64;
                    sent_bytes.store(next, Ordering::Relaxed);
                    Some((proto::SnapshotChunk { part: Some(Part::Data(data)) }, (file, next)))
                }
                Err(error) => {
                    tracing::error!(%error, "could not read a snapshot to send it");
                    None
                }
            }
        }
    })
}

/// Receives a snapshot and gives it to consensus.
///
/// # Errors
/// It is damaged, incomplete or not of this cluster: the state is as before.
pub(crate) async fn receive(
    raft: &openraft::Raft<TypeConfig, Machine>,
    store: &Store,
    mut chunks: Streaming<proto::SnapshotChunk>,
) -> Result<proto::SnapshotResponse, Status> {
    let first = chunks.next().await.transpose()?.and_then(|chunk| chunk.part);
    let Some(Part::Start(start)) = first else {
        return Err(Status::invalid_argument("a snapshot begins with its start message"));
    };
    let vote = start.vote.as_ref().map(vote_from_stored);
    let vote = vote.ok_or_else(|| Status::invalid_argument("the start message lacks the vote"))?;
    let mut incoming = blocking({
        let store = store.clone();
        move || store.receive_snapshot().map_err(failed)
    })
    .await?;
    let mut received_bytes = 0;
    while let Some(chunk) = chunks.next().await.transpose()? {
        let Some(Part::Data(data)) = chunk.part else {
            return Err(Status::invalid_argument("a snapshot has only one start message"));
        };
        received_bytes += data.len() as u64;
        incoming = blocking(move || write(incoming, &data)).await?;
    }
    if received_bytes != start.size {
        return Err(Status::data_loss(format!(
            "the snapshot has {} bytes, {received_bytes} arrived",
            start.size
        )));
    }
    let data = incoming.finish().await.map_err(failed)?;
    let meta = data.meta().map_err(failed)?;
    tracing::info!(bytes = received_bytes, "received a snapshot");
    let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: data }).await;
    let answer = installed.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(proto::SnapshotResponse { vote: Some(vote_to_stored(&answer.vote)) })
}

fn write(mut incoming: IncomingSnapshot, data: &[u8]) -> Result<IncomingSnapshot, Status> {
    incoming.write(data).map(|()| incoming).map_err(failed)
}

/// Runs disk work beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = crate::blocking::blocking(work).await;
    done.map_err(|error| Status::internal(error.to_string())).and_then(|result| result)
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::failed_precondition(format!("could not take the snapshot: {error}"))
}
