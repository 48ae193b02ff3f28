//! Which node this is, and of which cluster.

use std::sync::{Mutex, OnceLock};

use crate::store::Store;

/// This node's id, and its cluster's once it belongs to one.
pub(crate) struct Identity {
    node_id: u64,
    cluster_id: OnceLock<[u8; 16]>,
    /// Held while a cluster id is written, so that two bootstraps can't both succeed.
    adopting: Mutex<()>,
}

impl Identity {
    pub(crate) fn new(node_id: u64, cluster_id: Option<[u8; 16]>) -> Self {
        let known = OnceLock::new();
        if let Some(cluster_id) = cluster_id {
            known.get_or_init(|| cluster_id);
        }
        Self { node_id, cluster_id: known, adopting: Mutex::new(()) }
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.node_id
    }

    pub(crate) fn cluster_id(&self) -> Option<[u8; 16]> {
        self.cluster_id.get().copied()
    }

    /// Becomes part of a cluster, durably, unless this node belongs to one already.
    ///
    /// Returns the cluster that it belongs to afterwards. Blocks on the disk.
    ///
    /// # Errors
    /// The store could not write.
    pub(crate) fn adopt(&self, store: &Store, cluster_id: [u8; 16]) -> Result<[u8; 16], String> {
        let guard = self.adopting.lock();
        let belongs_to = match self.cluster_id.get() {
            Some(known) => *known,
            None => {
                store.adopt(cluster_id).map_err(|error| error.to_string())?;
                *self.cluster_id.get_or_init(|| cluster_id)
            }
        };
        drop(guard);
        Ok(belongs_to)
    }
}
