//! Reads of what belongs to the cluster as a whole.

use super::record;
use crate::keys;
use crate::record::{
    ClusterClock, ClusterEpoch, ClusterKey, ClusterOrigin, ClusterSettings, IdempotencyRecord,
};
use crate::space::{ReadError, Reader, Space};

/// Returns the cluster's settings, `None` before it is initialised.
pub fn settings(reader: &dyn Reader) -> Result<Option<ClusterSettings>, ReadError> {
    record(reader, Space::Cluster, &keys::cluster(ClusterKey::Settings))
}

/// Returns the newest epoch, `None` before the first.
pub fn epoch(reader: &dyn Reader) -> Result<Option<ClusterEpoch>, ReadError> {
    record(reader, Space::Cluster, &keys::cluster(ClusterKey::Epoch))
}

/// Returns the cluster's clock; zero before the first entry.
pub fn clock(reader: &dyn Reader) -> Result<ClusterClock, ReadError> {
    Ok(record(reader, Space::Cluster, &keys::cluster(ClusterKey::Clock))?.unwrap_or_default())
}

/// Returns where the state came from, `None` where the cluster was made empty.
pub fn origin(reader: &dyn Reader) -> Result<Option<ClusterOrigin>, ReadError> {
    record(reader, Space::Cluster, &keys::cluster(ClusterKey::Origin))
}

/// Returns the answer that is kept for a principal's idempotency key.
pub fn idempotency_record(
    reader: &dyn Reader,
    principal: &str,
    key: &str,
) -> Result<Option<IdempotencyRecord>, ReadError> {
    record(reader, Space::Idempotency, &keys::idempotency(principal, key))
}
