//! The life of a node: open, bootstrap or rejoin, run, stop.

use std::time::Duration;

use peat_gateway_state::Envelope;
use peat_gateway_state::ids::NodeId;
use tokio::sync::watch;

use crate::config::ClusterConfig;
use crate::error::{ProposeError, ReadIndexError, StartError};
use crate::handle::{Changes, Committed, Consistency, Handle, Leadership, NodeStatus, View};

/// A running node. Dropping it without [`Node::stop`] is like pulling the plug.
pub struct Node {
    handle: Handle,
}

impl Node {
    /// Opens the data directory, starts transport and consensus, and bootstraps or rejoins.
    ///
    /// Returns when the node runs; a leader may not be known yet.
    ///
    /// # Errors
    /// See [`StartError`]; each says what to do.
    pub async fn start(_config: ClusterConfig) -> Result<Node, StartError> {
        unimplemented!("seam")
    }

    /// The handle for the rest of the gateway.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Resolves when the node can't go on: a storage error, or consensus ended. The process must end.
    pub async fn failed(&mut self) -> String {
        unimplemented!("seam")
    }

    /// Hands leadership on, stops serving peers, and closes the store.
    pub async fn stop(self) {
        unimplemented!("seam")
    }
}

/// What a handle shares.
pub(crate) struct Inner {}

#[allow(unused_variables, clippy::unused_async, reason = "seam")]
impl Inner {
    pub(crate) async fn propose(
        &self,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Committed, ProposeError> {
        unimplemented!("seam")
    }
    pub(crate) async fn propose_leader_work(
        &self,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Committed, ProposeError> {
        unimplemented!("seam")
    }
    pub(crate) async fn read(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> Result<View, ReadIndexError> {
        unimplemented!("seam")
    }
    pub(crate) fn local_view(&self) -> View {
        unimplemented!("seam")
    }
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        unimplemented!("seam")
    }
    pub(crate) fn changes(&self) -> watch::Receiver<Changes> {
        unimplemented!("seam")
    }
    pub(crate) fn node_id(&self) -> NodeId {
        unimplemented!("seam")
    }
    pub(crate) fn cluster_id(&self) -> Option<[u8; 16]> {
        unimplemented!("seam")
    }
    pub(crate) fn local_status(&self) -> NodeStatus {
        unimplemented!("seam")
    }
    pub(crate) async fn members(&self, timeout: Duration) -> Vec<NodeStatus> {
        unimplemented!("seam")
    }
    pub(crate) fn leader(&self) -> Option<NodeId> {
        unimplemented!("seam")
    }
    pub(crate) fn ready(&self) -> Result<(), String> {
        unimplemented!("seam")
    }
}
