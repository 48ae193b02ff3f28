//! The whole state as one snapshot.

use super::access::{Operation, authorize};
use super::cluster::SnapshotSource;
use super::{Call, Error, READ_TIMEOUT, Reply, Service};

impl Service {
    /// Returns a snapshot of this node's state, as new as the call demands, ready to be written.
    ///
    /// # Errors
    /// Who may not have it, and what a read refuses.
    pub async fn save_snapshot(&self, call: &Call) -> Result<Reply<SnapshotSource>, Error> {
        authorize(call.principal, Operation::SaveSnapshot)?;
        let source = self.cluster.snapshot(call.consistency, READ_TIMEOUT).await?;
        // Reads are not audited, but this one takes everything.
        tracing::info!(
            principal = call.principal.name(),
            source = call.source,
            request_id = call.request_id,
            index = source.index,
            "a snapshot of the whole state is read"
        );
        let index = source.index;
        Ok(Reply { value: source, index })
    }
}
