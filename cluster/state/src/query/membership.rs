//! Reads of nodes that were removed.

use super::record;
use crate::codec;
use crate::ids::NodeId;
use crate::keys;
use crate::record::RemovedNode;
use crate::space::{ReadError, Reader, Space};

/// Returns a removed node, `None` where this id was never removed.
pub fn removed_node(reader: &dyn Reader, node: NodeId) -> Result<Option<RemovedNode>, ReadError> {
    record(reader, Space::RemovedNode, &keys::removed_node(node))
}

/// Returns all removed nodes in the order of their ids.
pub fn removed_nodes(reader: &dyn Reader) -> Result<Vec<RemovedNode>, ReadError> {
    let (start, end) = keys::whole_space();
    let mut found = Vec::new();
    let mut fault = None;
    reader.scan(Space::RemovedNode, &start, &end, false, &mut |_, value| {
        match codec::decode(value) {
            Ok(node) => found.push(node),
            Err(reason) => fault = Some(reason),
        }
        fault.is_none()
    })?;
    match fault {
        Some(reason) => Err(ReadError::Decode { space: Space::RemovedNode.name(), reason }),
        None => Ok(found),
    }
}
