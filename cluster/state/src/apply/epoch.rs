//! Claiming an epoch: the first entry of a new leader.

use super::audit;
use super::work::{Decided, Work};
use crate::command::{Actor, ClaimEpoch};
use crate::ids::Epoch;
use crate::keys;
use crate::outcome::Outcome;
use crate::record::{AuditAction, ClusterEpoch, ClusterKey};
use crate::space::Space;

/// Makes the entry's index the epoch, and drops what older epochs staged and never used.
pub(super) fn claim(work: &mut Work<'_>, actor: &Actor, command: &ClaimEpoch) -> Decided {
    let epoch = Epoch(work.entry.index);
    let record = ClusterEpoch { epoch, node: command.node, term: command.term };
    work.rows.put_record(Space::Cluster, keys::cluster(ClusterKey::Epoch), &record)?;
    work.rows.delete_range(Space::ChangePart, &keys::whole_space(), &|_| true)?;
    let target = format!("node/{}", command.node);
    audit::record_done(&mut work.rows, &work.entry, actor, AuditAction::ClaimEpoch, &target)?;
    Ok(Outcome::EpochClaimed(epoch))
}
