//! Finishing an upgrade.

use std::time::Duration;

use peat_gateway_cluster::{RaiseError, Raised};
use peat_gateway_state::ids::NodeId;

use super::access::{Operation, authorize};
use super::{Call, Error, Kind, Reply, Service};

/// How long raising the version may take: members are asked, and a command is proposed.
const RAISE_TIMEOUT: Duration = Duration::from_secs(10);

impl Service {
    /// Raises the cluster's version to the newest that every member supports, but for those of
    /// `without` that are down.
    ///
    /// # Errors
    /// `upgrade_held_back` names the members that don't support it, or don't answer.
    pub async fn finish_upgrade(
        &self,
        call: &Call,
        without: Vec<NodeId>,
    ) -> Result<Reply<Raised>, Error> {
        authorize(call.principal, Operation::FinishUpgrade)?;
        let raised = self.cluster.raise_version(call.actor(), without, RAISE_TIMEOUT).await;
        let value = raised.map_err(|error| {
            let (kind, code) = match &error {
                RaiseError::HeldBack(_) => (Kind::Conflict, "upgrade_held_back"),
                RaiseError::Unavailable(_) => (Kind::Unavailable, "unavailable"),
                RaiseError::Unknown(_) => (Kind::UnknownOutcome, "unknown_outcome"),
            };
            Error::new(kind, code, error.to_string())
        })?;
        Ok(Reply { value, index: value.applied_index })
    }
}
