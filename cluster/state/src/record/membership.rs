//! Nodes that were members and never will be again.

use minicbor::{Decode, Encode};

use crate::ids::NodeId;

/// A removed node. Kept for ever: its id never comes back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RemovedNode {
    /// Its id.
    #[n(0)]
    pub node: NodeId,
    /// What the operator called it.
    #[n(1)]
    pub name: String,
    /// `host:port` of its peer listener.
    #[n(2)]
    pub peer_address: String,
    /// Unix time in ms of the removal.
    #[n(3)]
    pub removed_at: u64,
    /// Log index of the command that retired it.
    #[n(4)]
    pub index: u64,
}
