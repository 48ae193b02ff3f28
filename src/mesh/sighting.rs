//! A received frame, as what it says about one document.

use bytes::Bytes;
use peat_gateway_mesh::batch::SyncBatch;
use peat_gateway_mesh::frame::{Frame, FrameKind};
use peat_gateway_mesh::tombstone::Tombstone;

use super::metrics::Metrics;

/// What a node said about one document.
#[derive(Clone, Debug)]
pub(super) enum Sighting {
    /// An Automerge sync message.
    Sync {
        /// The document's key, not checked.
        key: String,
        /// The message.
        payload: Bytes,
    },
    /// A whole saved document.
    Snapshot {
        /// The document's key, not checked.
        key: String,
        /// Automerge's saved form.
        payload: Bytes,
    },
    /// A deletion.
    Tombstone {
        /// The document's key, not checked.
        key: String,
        /// The node that deleted it.
        deleted_by: String,
        /// The tombstone in the form in which it travels alone.
        payload: Bytes,
    },
    /// A frame that makes no sense; the text says why.
    Malformed(String),
}

/// Takes a frame apart, batches too; what the observer has no use for is counted and gone.
pub(super) fn sightings(frame: Frame, metrics: &Metrics) -> Vec<Sighting> {
    if frame.kind != FrameKind::SyncBatch {
        return single(frame, metrics);
    }
    match SyncBatch::decode(&frame.payload) {
        // A batch within a batch is no valid entry; `single` ignores it.
        Ok(batch) => batch.entries.into_iter().flat_map(|entry| single(entry, metrics)).collect(),
        Err(error) => vec![Sighting::Malformed(error.to_string())],
    }
}

fn single(frame: Frame, metrics: &Metrics) -> Vec<Sighting> {
    metrics.frames.inc();
    let Frame { key, kind, payload } = frame;
    match kind {
        FrameKind::DeltaSync => vec![Sighting::Sync { key, payload }],
        FrameKind::StateSnapshot => vec![Sighting::Snapshot { key, payload }],
        FrameKind::Tombstone => match Tombstone::decode(&payload) {
            Ok(tombstone) => vec![Sighting::Tombstone {
                key: tombstone.document_key(),
                deleted_by: tombstone.deleted_by,
                payload,
            }],
            Err(error) => vec![Sighting::Malformed(error.to_string())],
        },
        FrameKind::TombstoneBatch => match Tombstone::decode_batch(&payload) {
            Ok(tombstones) => tombstones.into_iter().map(from_batch).collect(),
            Err(error) => vec![Sighting::Malformed(error.to_string())],
        },
        FrameKind::WindowedHistory
        | FrameKind::TombstoneAck
        | FrameKind::SyncBatch
        | FrameKind::NegentropyInit
        | FrameKind::NegentropyResponse
        | FrameKind::NegentropyRequest => {
            metrics.frames_ignored.inc();
            Vec::new()
        }
    }
}

/// The identity of a tombstone is its payload, so one from a batch is written as it would travel alone.
fn from_batch(tombstone: Tombstone) -> Sighting {
    match tombstone.encode() {
        Ok(payload) => Sighting::Tombstone {
            key: tombstone.document_key(),
            deleted_by: tombstone.deleted_by,
            payload,
        },
        Err(error) => Sighting::Malformed(error.to_string()),
    }
}
