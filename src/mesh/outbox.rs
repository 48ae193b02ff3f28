//! Frames on their way to one mesh node.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peat_gateway_mesh::frame::Frame;
use tokio::sync::Notify;

/// Frames that may wait; above it nothing more is read from the node, so that only the answers to what was
/// read already are added.
const FRAMES_MAX: usize = 1024;

/// A queue with one reader, bounded by its writer's restraint. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Outbox {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    frames: Mutex<VecDeque<Frame>>,
    filled: Notify,
    drained: Notify,
}

impl Outbox {
    /// Adds a frame.
    pub(super) fn push(&self, frame: Frame) {
        self.frames().push_back(frame);
        self.inner.filled.notify_one();
    }

    /// Waits for the next frame. One task at a time.
    pub(super) async fn pop(&self) -> Frame {
        loop {
            let next = {
                let mut frames = self.frames();
                let next = frames.pop_front();
                if frames.len() < FRAMES_MAX {
                    self.inner.drained.notify_one();
                }
                next
            };
            match next {
                Some(frame) => return frame,
                None => self.inner.filled.notified().await,
            }
        }
    }

    /// Waits until fewer frames wait than may. One task at a time.
    pub(super) async fn has_room(&self) {
        while self.frames().len() >= FRAMES_MAX {
            self.inner.drained.notified().await;
        }
    }

    fn frames(&self) -> MutexGuard<'_, VecDeque<Frame>> {
        self.inner.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
