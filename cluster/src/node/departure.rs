//! Leaving the cluster for good: written down first, so that the directory is never used again.

use peat_gateway_state::ids::NodeId;
use tonic::Status;

use super::inner::Inner;
use crate::blocking::blocking;
use crate::membership::Departure;
use crate::transport::admission;

impl Inner {
    /// Notes that this node was removed, where a member's refusal says so.
    ///
    /// Returns whether it did.
    pub(crate) async fn note_removal(&self, status: &Status) -> bool {
        let removed = admission::removed_node(status) == Some(self.node_id().0);
        if removed {
            self.leave().await;
        }
        removed
    }

    /// Writes into the data directory that this node was removed, and has the process end.
    pub(super) async fn leave(&self) {
        let store = self.store.clone();
        let reason = removed_reason(self.node_id());
        let written = blocking(move || store.mark_removed(&reason)).await;
        match written {
            Ok(Ok(())) => tracing::info!("this node was removed from its cluster and ends"),
            // It ends all the same: the members refuse its id whatever its disk says.
            Ok(Err(error)) => tracing::error!(%error, "could not write down the removal"),
            Err(error) => tracing::error!(%error, "could not write down the removal"),
        }
        self.departure.send_replace(Some(Departure::Removed));
    }
}

fn removed_reason(node: NodeId) -> String {
    format!("node {node} was removed from its cluster\n")
}
