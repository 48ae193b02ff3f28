//! The file sink: NDJSON files on the leader, one per epoch.
//!
//! ```text
//!  <root>/<org>/<name>/00000000000000000042.ndjson      the epoch's first file
//!                      00000000000000000042-1.ndjson    after 256 MiB, or after a failed write
//! ```
//!
//! One lane keeps the organisation's sequence. A batch is acknowledged after `fdatasync`, and a new
//! file's directory is synced before its first batch. The epoch in the name keeps leaders apart, even
//! where several nodes share a directory. Readers take whole lines and deduplicate by `event_id`.

mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use peat_gateway_state::ids::{Epoch, OrgId};

use super::{BuildError, Delivery, Destination, Failure, FailureClass, Receipt, Shape};
use writer::Writer;

/// Most events that are written before one `fdatasync`.
const BATCH_EVENTS_MAX: usize = 4096;
/// Most bytes that are written before one `fdatasync`.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A directory of NDJSON files.
pub(crate) struct FileDestination {
    writer: Arc<Mutex<Writer>>,
}

impl FileDestination {
    /// Checks the name. Nothing is opened before the first batch.
    ///
    /// # Errors
    /// The name is no single safe path component.
    pub(crate) fn new(
        root: &Path,
        org: &OrgId,
        name: &str,
        epoch: Epoch,
    ) -> Result<Self, BuildError> {
        // Both become path components: the id rules exclude separators and dots.
        OrgId::parse(org.as_str()).map_err(|error| BuildError(error.to_string()))?;
        OrgId::parse(name).map_err(|error| BuildError(format!("file sink name: {error}")))?;
        let directory = root.join(org.as_str()).join(name);
        Ok(Self::over(Writer::new(directory, epoch)))
    }

    fn over(writer: Writer) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)) }
    }
}

impl Destination for FileDestination {
    fn shape(&self) -> Shape {
        Shape {
            lanes: 1,
            attempts_max: 1,
            batch_events: BATCH_EVENTS_MAX,
            batch_bytes: BATCH_BYTES_MAX,
        }
    }

    fn deliver<'a>(&'a self, batch: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, Failure>> {
        let mut lines = Vec::with_capacity(batch.iter().map(|one| one.body.len() + 1).sum());
        for delivery in batch {
            lines.extend_from_slice(&delivery.body);
            lines.push(b'\n');
        }
        let writer = Arc::clone(&self.writer);
        Box::pin(async move {
            let writing = tokio::task::spawn_blocking(move || {
                // A writer that panicked holds no file, so its next append opens one anew.
                writer.lock().unwrap_or_else(PoisonError::into_inner).append(&lines)
            });
            let reason = match writing.await {
                Ok(Ok(())) => return Ok(Receipt::default()),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            // Whatever a disk refuses, it refuses for all events alike.
            Err(Failure::new(FailureClass::Down, reason))
        })
    }
}
