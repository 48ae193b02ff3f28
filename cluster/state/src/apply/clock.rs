//! The cluster's clock: the newest stamp applied, never below an earlier one.

use super::idempotency;
use super::overlay::Overlay;
use crate::keys;
use crate::query;
use crate::record::ClusterKey;
use crate::space::{ReadError, Space};

/// Moves the clock to an entry's stamp, forgets answers that expired, and returns the time.
pub(super) fn advance(overlay: &mut Overlay<'_>, time_ms: u64) -> Result<u64, ReadError> {
    let before = query::clock(overlay)?;
    let mut clock = before;
    clock.now = clock.now.max(time_ms);
    if clock.forgotten_before < clock.now {
        clock.forgotten_before =
            idempotency::forget_expired(overlay, clock.forgotten_before, clock.now)?;
    }
    if clock != before {
        overlay.put_record(Space::Cluster, keys::cluster(ClusterKey::Clock), &clock)?;
    }
    Ok(clock.now)
}
