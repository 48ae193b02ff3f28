//! Comparing the nodes' states: equal index, equal hash (INV-10).
//!
//! Each node asks all others for the hashes that they know, and judges itself where indexes meet. It needs no
//! leader, and nobody judges another: a node that the majority of voters contradicts takes itself out of
//! service. Without a majority all say that they differ, and each reads all of its own data, so that one whose
//! disk is at fault finds itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver;
use peat_gateway_proto::cluster as proto;
use peat_gateway_state::ids::Hash32;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use super::inner::Inner;
use super::scrub::ScrubTrigger;
use crate::health::AlarmCode;
use crate::transport::peers::Peer;

/// How long the others may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The hashes that a node knows, by index.
type Hashes = BTreeMap<u64, Hash32>;

/// What a comparison says of this node.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Equal wherever indexes met; the newest of them.
    Equal(Option<u64>),
    /// The majority has another hash at this index.
    Wrong { index: u64, own: Hash32, majority: Hash32 },
    /// Others differ at this index, and no majority says who is right.
    Undecided { index: u64 },
}

/// Compares every `interval` until `shutdown`.
pub(super) async fn run(
    inner: Arc<Inner>,
    interval: Duration,
    scrub: ScrubTrigger,
    shutdown: CancellationToken,
) {
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        compare(&inner, &scrub).await;
    }
}

async fn compare(inner: &Arc<Inner>, scrub: &ScrubTrigger) {
    let membership = inner.raft.server_metrics().borrow_watched().membership_config.clone();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let own_id = inner.node_id().0;
    let asked = membership.nodes().filter(|(node, _)| **node != own_id).map(|(node, member)| {
        let peer = inner.peers.peer(*node, &member.peer_address);
        async move {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask(&peer)).await;
            Some((*node, answer.ok()?.ok()?))
        }
    });
    let mut known: BTreeMap<u64, Hashes> = join_all(asked).await.into_iter().flatten().collect();
    // Own hashes last: so that they reach as far as what the others said.
    known.insert(own_id, inner.store.state_hashes().into_iter().collect());
    let counts = &inner.checks;
    match judge(own_id, &known, &voters) {
        Verdict::Equal(index) => {
            if let Some(index) = index {
                counts.comparisons.fetch_add(1, Ordering::Relaxed);
                counts.compared_index.fetch_max(index, Ordering::Relaxed);
                inner.health.clear(AlarmCode::StateDiffers);
            }
        }
        Verdict::Wrong { index, own, majority } => {
            let reason = format!(
                "its state at index {index} has the hash {own}, the majority of the voters has {majority}"
            );
            inner.take_out_of_service(reason).await;
        }
        Verdict::Undecided { index } => {
            inner.health.raise(
                AlarmCode::StateDiffers,
                format!(
                    "the nodes' states differ at index {index}, and no majority of voters says which is right; \
                     stop the writes, keep all data directories, and ask for help"
                ),
            );
            scrub.now();
        }
    }
}

/// Judges `own` by what all said.
fn judge(own: u64, known: &BTreeMap<u64, Hashes>, voters: &[u64]) -> Verdict {
    let quorum = voters.len() / 2 + 1;
    let Some(mine) = known.get(&own) else { return Verdict::Equal(None) };
    let mut newest_equal = None;
    let mut undecided = None;
    for (index, my_hash) in mine.iter().rev() {
        let said: Vec<_> =
            known.iter().filter_map(|(node, hashes)| Some((*node, *hashes.get(index)?))).collect();
        if said.len() < 2 {
            continue;
        }
        if said.iter().all(|(_, hash)| hash == my_hash) {
            newest_equal = newest_equal.or(Some(*index));
            continue;
        }
        let votes = |hash: &Hash32| {
            said.iter().filter(|(node, other)| voters.contains(node) && other == hash).count()
        };
        match said.iter().map(|(_, hash)| hash).find(|hash| votes(hash) >= quorum) {
            // Another node is wrong; it says so itself.
            Some(majority) if majority == my_hash => newest_equal = newest_equal.or(Some(*index)),
            Some(majority) => {
                return Verdict::Wrong { index: *index, own: *my_hash, majority: *majority };
            }
            None => undecided = Some(*index),
        }
    }
    match undecided {
        Some(index) => Verdict::Undecided { index },
        None => Verdict::Equal(newest_equal),
    }
}

async fn ask(peer: &Peer) -> Result<Hashes, Status> {
    let mut client = peer.cluster()?;
    let call = peer.request(proto::StateHashesRequest {})?;
    let answer = client.state_hashes(call).await.map(Response::into_inner)?;
    let read = |known: proto::IndexedHash| {
        let hash = <[u8; 32]>::try_from(known.hash.as_ref()).ok()?;
        Some((known.index, Hash32(hash)))
    };
    Ok(answer.hashes.into_iter().filter_map(read).collect())
}

/// What this node answers.
pub(crate) fn answer(hashes: Vec<(u64, Hash32)>) -> proto::StateHashesResponse {
    let write =
        |(index, hash): (u64, Hash32)| proto::IndexedHash { index, hash: hash.0.to_vec().into() };
    proto::StateHashesResponse { hashes: hashes.into_iter().map(write).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rows: &[(u64, &[(u64, u8)])]) -> BTreeMap<u64, Hashes> {
        let hashes = |row: &[(u64, u8)]| {
            row.iter().map(|(index, byte)| (*index, Hash32([*byte; 32]))).collect()
        };
        rows.iter().map(|(node, row)| (*node, hashes(row))).collect()
    }

    #[test]
    fn node_that_two_of_three_contradict_is_wrong_and_the_two_are_not() {
        let known = said(&[(1, &[(10, 1), (20, 2)]), (2, &[(20, 9)]), (3, &[(20, 2), (30, 3)])]);
        assert!(matches!(judge(2, &known, &[1, 2, 3]), Verdict::Wrong { index: 20, .. }));
        assert_eq!(judge(1, &known, &[1, 2, 3]), Verdict::Equal(Some(20)));
        assert_eq!(judge(3, &known, &[1, 2, 3]), Verdict::Equal(Some(20)));
    }

    #[test]
    fn without_a_majority_nobody_is_judged_and_all_say_so() {
        let known = said(&[(1, &[(20, 1)]), (2, &[(20, 9)])]);
        for node in [1, 2] {
            assert_eq!(judge(node, &known, &[1, 2, 3]), Verdict::Undecided { index: 20 });
        }
    }

    #[test]
    fn learners_are_judged_but_have_no_voice() {
        let known = said(&[(1, &[(20, 1)]), (4, &[(20, 9)]), (5, &[(20, 9)]), (2, &[(20, 1)])]);
        assert!(matches!(judge(4, &known, &[1, 2, 3]), Verdict::Wrong { index: 20, .. }));
        assert_eq!(judge(1, &known, &[1, 2, 3]), Verdict::Equal(Some(20)));
    }

    #[test]
    fn indexes_that_only_one_node_knows_say_nothing() {
        let known = said(&[(1, &[(10, 1)]), (2, &[(11, 2)]), (3, &[])]);
        assert_eq!(judge(1, &known, &[1, 2, 3]), Verdict::Equal(None));
    }
}
