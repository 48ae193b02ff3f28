//! The cluster as it is now.

use std::time::Duration;

use peat_gateway_cluster::{MembershipView, NodeHealth, NodeStatus, Upgrade};
use peat_gateway_state::ids::NodeId;

use super::access::{Operation, authorize};
use super::{Call, Error, Reply, Service};

/// How long members may take to answer; one that doesn't is shown as down.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(1);

/// The nodes and who leads.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The cluster's id; `None` until this node belongs to one.
    pub cluster_id: Option<[u8; 16]>,
    /// The leader as this node knows it.
    pub leader: Option<NodeId>,
    /// The cluster's version, as applied on this node: commands up to it are used.
    pub version: u16,
    /// The upgrade that isn't finished; `None` where no member's build is newer than the cluster.
    pub upgrade: Option<Upgrade>,
    /// All members.
    pub nodes: Vec<NodeStatus>,
    /// The membership that an order may name, and who was removed.
    pub membership: MembershipView,
}

impl Service {
    /// Asks all members for their status.
    ///
    /// # Errors
    /// Only who may not ask.
    pub async fn cluster_status(&self, call: &Call) -> Result<Reply<ClusterStatus>, Error> {
        authorize(call.principal, Operation::ReadCluster)?;
        let nodes = self.cluster.members(MEMBERS_TIMEOUT).await;
        let value = ClusterStatus {
            cluster_id: self.cluster.cluster_id(),
            leader: self.cluster.leader(),
            version: self.cluster.cluster_version(),
            upgrade: self.cluster.upgrade(&nodes),
            nodes,
            membership: self.cluster.membership(),
        };
        Ok(Reply { value, index: self.applied_index() })
    }

    /// This node's own status, for its metrics; asks nobody.
    pub fn local_status(&self) -> NodeStatus {
        self.cluster.local_status()
    }

    /// The cluster's version, as applied on this node; asks nobody.
    pub fn cluster_version(&self) -> u16 {
        self.cluster.cluster_version()
    }

    /// What this node has applied.
    pub fn applied_index(&self) -> u64 {
        self.cluster.changes().borrow().applied
    }

    /// Whether this process works.
    ///
    /// # Errors
    /// What is stuck, so that only a restart can help.
    pub fn alive(&self) -> Result<(), String> {
        self.cluster.alive()
    }

    /// What watching this node's disk and data has found.
    pub fn node_health(&self) -> NodeHealth {
        self.cluster.health()
    }

    /// Whether this node is ready to serve.
    ///
    /// # Errors
    /// What it waits for.
    pub fn ready(&self) -> Result<(), String> {
        self.cluster.ready()
    }
}
