//! What runs only on the leader, under its epoch.

use std::time::Duration;

use peat_gateway_cluster::{Committed, Handle, ProposeError};
use peat_gateway_state::command::Fence;
use peat_gateway_state::{Actor, Command, Envelope};
use tokio_util::sync::CancellationToken;

use crate::keys::Keyring;

/// How long a proposal of leader work may take before its outcome counts as unknown.
pub const LEADER_PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);

/// What leader work is given. Cancelled when the epoch is lost; nothing it proposes later counts.
#[derive(Clone)]
pub struct LeaderWork {
    /// The cluster.
    pub handle: Handle,
    /// What every command of this work carries.
    pub fence: Fence,
    /// Opens what was sealed.
    pub keyring: Keyring,
    /// Ends the work.
    pub shutdown: CancellationToken,
}

impl LeaderWork {
    /// Proposes a command of leader work.
    ///
    /// # Errors
    /// See [`ProposeError`]. `NotLeader`: the work is over. `Unknown`: it may have happened.
    pub async fn propose(&self, command: Command) -> Result<Committed, ProposeError> {
        let actor = Actor {
            principal: format!("node:{}", self.handle.node_id()),
            source: String::new(),
            request_id: String::new(),
        };
        let envelope = Envelope::new(actor, command);
        self.handle.propose_leader_work(&envelope, LEADER_PROPOSAL_TIMEOUT).await
    }
}
