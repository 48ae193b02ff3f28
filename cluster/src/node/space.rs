//! A disk that fills up: writes are refused before it is full, reads go on, and it clears by itself.
//!
//! ```text
//!  every node:  free < low ─► alarm `no_space`        free < critical ─► the ballast is given up
//!  the leader:  short itself, another voter isn't ─► hands leadership on
//!               so many voters short that the rest is no quorum ─► alarm `quorum_no_space`
//!  either alarm on the leader ─► clients' writes and observed changes are refused, nothing happened
//! ```
//!
//! A follower that is short alone refuses nothing: the others have room. It says so in `cluster status`, and
//! what it does when its disk is really full is to end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peat_gateway_state::Command;
use peat_gateway_state::ids::NodeId;
use tokio_util::sync::CancellationToken;

use super::inner::Inner;
use crate::blocking::blocking;
use crate::config::StorageLimits;
use crate::handle::{NodeStatus, Role};
use crate::health::AlarmCode;
use crate::store::space::{SpaceLimits, measure};

/// Between two looks at the free space.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// The leader asks the others about theirs every so many looks.
const LOOKS_PER_QUESTION: u32 = 4;
/// How long the others may take to answer; who doesn't isn't counted as short.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);
/// How long another voter may take to take over.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

/// Watches until `shutdown`.
pub(super) async fn run(inner: Arc<Inner>, limits: StorageLimits, shutdown: CancellationToken) {
    if limits.free_bytes_min == 0 || limits.free_percent_min == 0 {
        return;
    }
    let root = inner.store.directory().root().to_owned();
    let mut looks: u32 = 0;
    loop {
        look(&inner, &root, &limits).await;
        if looks.is_multiple_of(LOOKS_PER_QUESTION) || inner.health.has(AlarmCode::NoSpace) {
            ask_others(&inner).await;
        }
        looks = looks.wrapping_add(1);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_PAUSE) => {}
        }
    }
}

/// Measures, and minds alarm and ballast.
async fn look(inner: &Arc<Inner>, root: &Path, limits: &StorageLimits) {
    // On a file system that is stuck the question may be, too: not on the runtime's threads.
    let (path, directory) = (root.to_owned(), inner.store.directory().clone());
    let (bytes_min, percent, ballast) =
        (limits.free_bytes_min, limits.free_percent_min, limits.ballast_bytes_max);
    let planted = inner.planted_space();
    let looked = blocking(move || {
        let space = planted.map_or_else(|| measure(&path), Ok)?;
        let limits = SpaceLimits::of(space.total_bytes, bytes_min, percent, ballast);
        let ballast = if space.free_bytes < limits.critical_bytes {
            directory.drop_ballast().map(|dropped| {
                if dropped {
                    tracing::warn!(free_bytes = space.free_bytes, "the ballast is given up");
                }
            })
        } else if space.free_bytes >= limits.clear_bytes + limits.ballast_bytes {
            directory.take_ballast(limits.ballast_bytes)
        } else {
            Ok(())
        };
        if let Err(error) = ballast {
            tracing::debug!(%error, "the ballast can't be minded");
        }
        std::io::Result::Ok((space, limits))
    });
    let (space, limits) = match looked.await {
        Ok(Ok(looked)) => looked,
        Ok(Err(error)) => {
            tracing::warn!(%error, "could not ask for the free space of the data directory");
            return;
        }
        Err(_) => return,
    };
    inner.set_space(space);
    let short = inner.health.has(AlarmCode::NoSpace);
    if space.free_bytes < limits.low_bytes {
        inner.health.raise(
            AlarmCode::NoSpace,
            // In steps, so that the text doesn't change with every byte.
            format!(
                "the data directory has {} MiB free, below {} MiB; free some space or enlarge the disk",
                space.free_bytes >> 20,
                limits.low_bytes >> 20
            ),
        );
    } else if short && space.free_bytes >= limits.clear_bytes {
        inner.health.clear(AlarmCode::NoSpace);
    }
}

/// What a leader does about its own and the others' disks.
async fn ask_others(inner: &Arc<Inner>) {
    if inner.leader() != Some(inner.node_id()) {
        inner.health.clear(AlarmCode::QuorumNoSpace);
        return;
    }
    let voters: Vec<u64> = {
        let metrics = inner.raft.server_metrics();
        let metrics = openraft::async_runtime::WatchReceiver::borrow_watched(&metrics);
        metrics.membership_config.voter_ids().collect()
    };
    let mut members = inner.members(QUESTION_TIMEOUT).await;
    members.retain(|member| voters.contains(&member.node_id.0));
    match decide(inner.node_id(), &members, voters.len()) {
        Decision::Nothing => inner.health.clear(AlarmCode::QuorumNoSpace),
        Decision::Refuse(short) => inner.health.raise(
            AlarmCode::QuorumNoSpace,
            format!(
                "the disks of {short} of {} voters are nearly full; free some space on them",
                voters.len()
            ),
        ),
        Decision::HandOn(to) => {
            inner.health.clear(AlarmCode::QuorumNoSpace);
            match inner.transfer_leadership(Some(to), TRANSFER_TIMEOUT).await {
                Ok(node) => {
                    tracing::warn!(%node, "this disk is nearly full: leadership is handed on")
                }
                Err(error) => tracing::warn!(%error, "could not hand on leadership"),
            }
        }
    }
}

/// What a leader should do.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    /// Too many are short: how many.
    Refuse(usize),
    /// It is short itself, this voter isn't.
    HandOn(NodeId),
}

fn decide(own: NodeId, voters: &[NodeStatus], voters_count: usize) -> Decision {
    let short = |voter: &NodeStatus| {
        voter.alarms.iter().any(|alarm| alarm.code == AlarmCode::NoSpace.name())
    };
    let short_count = voters.iter().filter(|voter| short(voter)).count();
    let quorum = voters_count / 2 + 1;
    if short_count > 0 && voters_count - short_count < quorum {
        return Decision::Refuse(short_count);
    }
    let is_short = voters.iter().any(|voter| voter.node_id == own && short(voter));
    let roomy = voters.iter().filter(|voter| {
        let well = voter.alarms.is_empty() && matches!(voter.role, Role::Follower);
        voter.node_id != own && well
    });
    match roomy.max_by_key(|voter| voter.last_log_index) {
        Some(voter) if is_short => Decision::HandOn(voter.node_id),
        _ => Decision::Nothing,
    }
}

/// Whether a client may ask for it while space is short: what makes room, by itself or soon.
pub(super) fn makes_room(command: &Command) -> bool {
    matches!(
        command,
        Command::DeleteOrganization(_)
            | Command::DeleteFormation(_)
            | Command::DeleteSink(_)
            | Command::UpdateSettings(_)
    )
}

/// Whether leader work makes the state grow with what clients or meshes send.
pub(super) fn grows(command: &Command) -> bool {
    matches!(command, Command::AppendChanges(_) | Command::StagePart(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Alarm;

    fn voter(id: u64, last_log_index: u64, short: bool) -> NodeStatus {
        let alarm = Alarm { code: "no_space".to_owned(), detail: String::new() };
        NodeStatus {
            node_id: NodeId(id),
            name: String::new(),
            http_address: String::new(),
            peer_address: String::new(),
            role: if id == 1 { Role::Leader } else { Role::Follower },
            term: 1,
            applied_index: 0,
            last_log_index,
            voter: true,
            reachable: true,
            matched_index: None,
            lag: None,
            last_contact_ms: None,
            versions: None,
            problem: None,
            state_hash: None,
            build_version: String::new(),
            alarms: if short { vec![alarm] } else { Vec::new() },
        }
    }

    #[test]
    fn leader_that_is_short_alone_hands_on_to_the_voter_closest_to_its_log() {
        let voters = [voter(1, 90, true), voter(2, 80, false), voter(3, 85, false)];
        assert_eq!(decide(NodeId(1), &voters, 3), Decision::HandOn(NodeId(3)));
    }

    #[test]
    fn follower_that_is_short_alone_changes_nothing() {
        let voters = [voter(1, 90, false), voter(2, 80, true), voter(3, 85, false)];
        assert_eq!(decide(NodeId(1), &voters, 3), Decision::Nothing);
    }

    #[test]
    fn leader_refuses_where_those_with_room_are_no_quorum() {
        let voters = [voter(1, 90, false), voter(2, 80, true), voter(3, 85, true)];
        assert_eq!(decide(NodeId(1), &voters, 3), Decision::Refuse(2));
        assert_eq!(decide(NodeId(1), &[voter(1, 90, true)], 1), Decision::Refuse(1));
        // Who doesn't answer isn't counted as short.
        assert_eq!(decide(NodeId(1), &voters[..2], 3), Decision::Nothing);
    }
}
