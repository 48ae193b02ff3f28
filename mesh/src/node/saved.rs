//! A node's documents between runs: a file each.
//!
//! ```text
//!   <directory>/<SHA-256 of the key>.frame     a frame: state snapshot, or tombstone
//! ```

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use automerge::AutoCommit;
use bytes::Bytes;

use super::NodeHandle;
use super::replica::Replica;
use crate::frame::{Frame, FrameKind};
use crate::negentropy::item_id;
use crate::tombstone::Tombstone;

/// How often changed documents are saved; a crash loses what changed since.
const SAVE_INTERVAL: Duration = Duration::from_millis(200);
const EXTENSION: &str = "frame";

/// Saves what changed.
#[derive(Clone, Debug)]
pub(super) struct Saver {
    directory: PathBuf,
}

impl Saver {
    /// Reads what an earlier run saved.
    pub(super) fn load(directory: PathBuf, replica: &mut Replica) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let frame = Frame::decode(&Bytes::from(fs::read(&path)?)).map_err(invalid)?;
            match frame.kind {
                FrameKind::StateSnapshot => {
                    let document = AutoCommit::load(&frame.payload).map_err(invalid)?;
                    replica.documents.insert(frame.key, document);
                }
                FrameKind::Tombstone => {
                    replica.bury(Tombstone::decode(&frame.payload).map_err(invalid)?);
                }
                kind => return Err(io::Error::other(format!("{kind:?} is never saved"))),
            }
        }
        replica.unsaved.clear();
        Ok(Self { directory })
    }

    /// Saves changes as they come, until it is dropped.
    pub(super) async fn run(self, node: NodeHandle) {
        loop {
            tokio::time::sleep(SAVE_INTERVAL).await;
            self.save_now(&node).await;
        }
    }

    /// Saves what has changed until now. What fails is tried again with the next change.
    pub(super) async fn save_now(&self, node: &NodeHandle) {
        let frames = frames(&mut node.lock());
        let saver = self.clone();
        let saved = tokio::task::spawn_blocking(move || {
            frames.iter().try_for_each(|(key, frame)| saver.write(key, frame))
        });
        match saved.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, directory = %self.directory.display(), "documents not saved");
            }
            Err(error) => tracing::warn!(%error, "documents not saved"),
        }
    }

    /// Replaces a document's file. A crash leaves the old or the new one.
    fn write(&self, key: &str, frame: &Frame) -> io::Result<()> {
        let name = hex::encode(item_id(key));
        let path = self.directory.join(&name).with_extension(EXTENSION);
        let partial = path.with_extension("partial");
        fs::write(&partial, frame.encode().map_err(invalid)?)?;
        fs::rename(partial, path)
    }
}

/// Takes the frames of all unsaved documents and tombstones, with the key of their document.
fn frames(replica: &mut Replica) -> Vec<(String, Frame)> {
    let mut frames = Vec::new();
    for key in std::mem::take(&mut replica.unsaved) {
        let frame = match (replica.tombstones.get(&key), replica.documents.get_mut(&key)) {
            (Some(tombstone), _) => tombstone.to_frame().ok(),
            (None, Some(document)) => Some(Frame {
                key: key.clone(),
                kind: FrameKind::StateSnapshot,
                payload: document.save().into(),
            }),
            (None, None) => None,
        };
        frames.extend(frame.map(|frame| (key, frame)));
    }
    frames
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
