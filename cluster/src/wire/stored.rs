//! Votes, log positions and memberships as `stored.v1` messages.
//!
//! Nothing that openraft serialises reaches a disk or a wire: its layouts change between releases.

use std::collections::{BTreeMap, BTreeSet};

use openraft::Membership;
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::leader_id_std::CommittedLeaderId;
use peat_gateway_proto::stored as proto;
use thiserror::Error;

use crate::raft::{LogId, Member, StoredMembership, Vote};

/// The membership as openraft carries it.
pub(crate) type MemberSet = Membership<u64, Member>;

/// Bytes that are no valid consensus message; the text says why.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct InvalidMessage(pub String);

/// Builds a log position.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

/// Encodes a log position.
pub(crate) fn log_id_to_stored(id: &LogId) -> proto::LogId {
    proto::LogId { term: id.leader_id.term, index: id.index }
}

/// Decodes a log position; every message is one.
pub(crate) fn log_id_from_stored(id: &proto::LogId) -> LogId {
    log_id(id.term, id.index)
}

/// Encodes a vote.
pub(crate) fn vote_to_stored(vote: &Vote) -> proto::Vote {
    proto::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

/// Decodes a vote; every message is one.
pub(crate) fn vote_from_stored(vote: &proto::Vote) -> Vote {
    Vote {
        leader_id: LeaderId { term: vote.term, voted_for: vote.node_id },
        committed: vote.committed,
    }
}

/// Encodes a member.
pub(crate) fn member_to_stored(node_id: u64, member: &Member) -> proto::Member {
    proto::Member {
        node_id,
        peer_address: member.peer_address.clone(),
        http_address: member.http_address.clone(),
        name: member.name.clone(),
        learner_only: member.learner_only,
    }
}

impl From<proto::Member> for Member {
    fn from(stored: proto::Member) -> Self {
        Self {
            peer_address: stored.peer_address,
            http_address: stored.http_address,
            name: stored.name,
            learner_only: stored.learner_only,
        }
    }
}

/// Encodes a membership.
pub(crate) fn membership_to_stored(membership: &MemberSet) -> proto::Membership {
    proto::Membership {
        voter_sets: membership
            .get_joint_config()
            .iter()
            .map(|voters| proto::VoterSet { node_ids: voters.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(node_id, member)| member_to_stored(*node_id, member))
            .collect(),
    }
}

/// Decodes a membership.
///
/// # Errors
/// A voter set is empty, or a voter is no member.
pub(crate) fn membership_from_stored(
    stored: proto::Membership,
) -> Result<MemberSet, InvalidMessage> {
    let voter_sets: Vec<BTreeSet<u64>> =
        stored.voter_sets.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let members: BTreeMap<u64, Member> =
        stored.members.into_iter().map(|member| (member.node_id, member.into())).collect();
    Membership::new(voter_sets, members).map_err(|error| InvalidMessage(error.to_string()))
}

/// Encodes a membership with the position of its entry.
pub(crate) fn stored_membership_to_stored(
    membership: &StoredMembership,
) -> proto::StoredMembership {
    proto::StoredMembership {
        log_id: membership.log_id().as_ref().map(log_id_to_stored),
        membership: Some(membership_to_stored(membership.membership())),
    }
}

/// Decodes a membership with the position of its entry.
///
/// # Errors
/// See [`membership_from_stored`].
pub(crate) fn stored_membership_from_stored(
    stored: proto::StoredMembership,
) -> Result<StoredMembership, InvalidMessage> {
    let membership = membership_from_stored(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(stored.log_id.as_ref().map(log_id_from_stored), membership))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_positions_and_memberships_survive_the_round_trip() {
        let vote = Vote { leader_id: LeaderId { term: 7, voted_for: 9 }, committed: true };
        assert_eq!(vote_from_stored(&vote_to_stored(&vote)), vote);
        let id = log_id(3, 12);
        assert_eq!(log_id_from_stored(&log_id_to_stored(&id)), id);
        let member = Member {
            peer_address: "a:1".into(),
            http_address: "http://a".into(),
            name: "a".into(),
            learner_only: true,
        };
        let members: BTreeMap<u64, Member> =
            [(1, member.clone()), (2, Member::default()), (3, member)].into();
        let joint = vec![BTreeSet::from([1, 2]), BTreeSet::from([1])];
        let stored = StoredMembership::new(Some(id), Membership::new(joint, members).unwrap());
        let back = stored_membership_from_stored(stored_membership_to_stored(&stored)).unwrap();
        assert_eq!(back, stored);
        let empty = StoredMembership::default();
        let back = stored_membership_from_stored(stored_membership_to_stored(&empty)).unwrap();
        assert_eq!(back, empty);
    }

    #[test]
    fn a_voter_without_a_member_is_refused() {
        let stored = proto::Membership {
            voter_sets: vec![proto::VoterSet { node_ids: vec![1] }],
            members: vec![],
        };
        assert!(membership_from_stored(stored).is_err());
        let stored = proto::Membership {
            voter_sets: vec![proto::VoterSet { node_ids: vec![] }],
            members: vec![],
        };
        assert!(membership_from_stored(stored).is_err());
    }
}
