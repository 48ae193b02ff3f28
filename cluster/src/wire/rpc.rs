//! Raft's calls as `cluster.v1` messages.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use peat_gateway_proto::cluster as proto;

use super::entry;
use super::stored::{
    InvalidMessage, log_id_from_stored, log_id_to_stored, vote_from_stored, vote_to_stored,
};
use crate::raft::{LogId, TypeConfig, Vote};

type StoredLogId = peat_gateway_proto::stored::LogId;
type StoredVote = peat_gateway_proto::stored::Vote;

/// Encodes an append.
pub(crate) fn append_to_wire(request: &AppendEntriesRequest<TypeConfig>) -> proto::AppendRequest {
    proto::AppendRequest {
        vote: Some(vote_to_stored(&request.vote)),
        previous: position_to_wire(&request.prev_log_id),
        entries: request.entries.iter().map(entry::encode).collect(),
        committed: position_to_wire(&request.leader_commit),
    }
}

/// Decodes an append.
///
/// # Errors
/// The vote is missing, or an entry is damaged or newer than this build.
pub(crate) fn append_from_wire(
    request: &proto::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, InvalidMessage> {
    let entries = request
        .entries
        .iter()
        .map(|bytes| entry::decode(bytes).map_err(|error| InvalidMessage(error.to_string())))
        .collect::<Result<_, _>>()?;
    Ok(AppendEntriesRequest {
        vote: required_vote(request.vote.as_ref())?,
        prev_log_id: position_from_wire(request.previous.as_ref()),
        entries,
        leader_commit: position_from_wire(request.committed.as_ref()),
    })
}

/// Returns the positions before the first and of the last entry of an append.
pub(crate) fn append_range(
    request: &AppendEntriesRequest<TypeConfig>,
) -> (Option<LogId>, Option<LogId>) {
    let last = request.entries.last().map(|entry| entry.log_id);
    (request.prev_log_id, last.or(request.prev_log_id))
}

/// Encodes the answer to an append.
pub(crate) fn append_result_to_wire(
    result: &StreamAppendResult<TypeConfig>,
) -> proto::AppendResponse {
    use proto::append_response::Result as Wire;
    let wire = match result {
        Ok(matching) => Wire::Accepted(proto::Accepted { matching: position_to_wire(matching) }),
        Err(StreamAppendError::Conflict(expected)) => {
            Wire::Conflict(proto::Conflict { expected: Some(log_id_to_stored(expected)) })
        }
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_to_stored(vote)),
    };
    proto::AppendResponse { result: Some(wire) }
}

/// Decodes the answer to an append.
///
/// # Errors
/// It says nothing that this build knows.
pub(crate) fn append_result_from_wire(
    response: &proto::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, InvalidMessage> {
    use proto::append_response::Result as Wire;
    match &response.result {
        Some(Wire::Accepted(accepted)) => Ok(Ok(position_from_wire(accepted.matching.as_ref()))),
        Some(Wire::Conflict(conflict)) => {
            let expected = conflict.expected.as_ref().map(log_id_from_stored);
            let expected = expected.ok_or_else(|| missing("the conflicting position"))?;
            Ok(Err(StreamAppendError::Conflict(expected)))
        }
        Some(Wire::HigherVote(vote)) => {
            Ok(Err(StreamAppendError::HigherVote(vote_from_stored(vote))))
        }
        None => Err(missing("the result of an append")),
    }
}

/// Encodes a request for a vote.
pub(crate) fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> proto::VoteRequest {
    proto::VoteRequest {
        vote: Some(vote_to_stored(&request.vote)),
        last_log: position_to_wire(&request.last_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

/// Decodes a request for a vote.
///
/// # Errors
/// The vote is missing.
pub(crate) fn vote_request_from_wire(
    request: &proto::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, InvalidMessage> {
    let vote = required_vote(request.vote.as_ref())?;
    let mut decoded = VoteRequest::new(vote, position_from_wire(request.last_log.as_ref()));
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

/// Encodes the answer to a request for a vote.
pub(crate) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> proto::VoteResponse {
    proto::VoteResponse {
        vote: Some(vote_to_stored(&response.vote)),
        granted: response.vote_granted,
        last_log: position_to_wire(&response.last_log_id),
    }
}

/// Decodes the answer to a request for a vote.
///
/// # Errors
/// The vote is missing.
pub(crate) fn vote_response_from_wire(
    response: &proto::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, InvalidMessage> {
    let vote = required_vote(response.vote.as_ref())?;
    let last_log = position_from_wire(response.last_log.as_ref());
    Ok(VoteResponse::new(vote, last_log, response.granted))
}

/// Encodes a leader's word that another node shall lead.
pub(crate) fn transfer_to_wire(
    request: &TransferLeaderRequest<TypeConfig>,
) -> proto::TransferLeaderRequest {
    proto::TransferLeaderRequest {
        from_leader: Some(vote_to_stored(request.from_leader())),
        to_node_id: *request.to_node_id(),
        last_log: request.last_log_id().map(log_id_to_stored),
    }
}

/// Decodes a leader's word that another node shall lead.
///
/// # Errors
/// The leader's vote is missing.
pub(crate) fn transfer_from_wire(
    request: &proto::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, InvalidMessage> {
    let from = required_vote(request.from_leader.as_ref())?;
    let last_log = position_from_wire(request.last_log.as_ref());
    Ok(TransferLeaderRequest::new(from, request.to_node_id, last_log))
}

/// Decodes a vote that every message of its kind has.
///
/// # Errors
/// It is missing.
pub(crate) fn required_vote(vote: Option<&StoredVote>) -> Result<Vote, InvalidMessage> {
    vote.map(vote_from_stored).ok_or_else(|| missing("the vote"))
}

fn position_to_wire(position: &Option<LogId>) -> Option<StoredLogId> {
    position.as_ref().map(log_id_to_stored)
}

fn position_from_wire(position: Option<&StoredLogId>) -> Option<LogId> {
    position.map(log_id_from_stored)
}

fn missing(what: &str) -> InvalidMessage {
    InvalidMessage(format!("the message lacks {what}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::EntryPayload;
    use openraft::raft::{AppendEntriesRequest, StreamAppendError, VoteRequest, VoteResponse};

    use super::*;
    use crate::raft::{Entry, LogCommand};
    use crate::wire::stored::log_id;

    fn vote(term: u64) -> Vote {
        vote_from_stored(&StoredVote { term, node_id: 9, committed: true })
    }

    #[test]
    fn append_keeps_its_entries_and_positions() {
        let command = LogCommand { time_ms: 5, envelope: Bytes::from_static(b"envelope") };
        let entries = vec![
            Entry { log_id: log_id(3, 8), payload: EntryPayload::Blank },
            Entry { log_id: log_id(3, 9), payload: EntryPayload::Normal(command) },
        ];
        let request = AppendEntriesRequest {
            vote: vote(3),
            prev_log_id: Some(log_id(2, 7)),
            entries,
            leader_commit: Some(log_id(2, 6)),
        };
        let back = append_from_wire(&append_to_wire(&request)).expect("decoded");
        assert_eq!(back.vote, request.vote);
        assert_eq!(back.entries, request.entries);
        assert_eq!(back.leader_commit, request.leader_commit);
        assert_eq!(append_range(&back), (Some(log_id(2, 7)), Some(log_id(3, 9))));
    }

    #[test]
    fn append_answers_survive_the_round_trip() {
        let answers: [StreamAppendResult<TypeConfig>; 4] = [
            Ok(None),
            Ok(Some(log_id(1, 2))),
            Err(StreamAppendError::Conflict(log_id(1, 2))),
            Err(StreamAppendError::HigherVote(vote(4))),
        ];
        for answer in answers {
            let back = append_result_from_wire(&append_result_to_wire(&answer));
            assert_eq!(back.expect("decoded"), answer);
        }
    }

    #[test]
    fn votes_survive_the_round_trip() {
        let mut request = VoteRequest::new(vote(4), Some(log_id(3, 9)));
        request.leadership_transfer = true;
        let back = vote_request_from_wire(&vote_request_to_wire(&request));
        assert_eq!(back.expect("decoded"), request);
        let response = VoteResponse::new(vote(4), None, true);
        let back = vote_response_from_wire(&vote_response_to_wire(&response));
        assert_eq!(back.expect("decoded"), response);
        let transfer = TransferLeaderRequest::new(vote(4), 7, Some(log_id(3, 9)));
        let back = transfer_from_wire(&transfer_to_wire(&transfer));
        assert_eq!(back.expect("decoded"), transfer);
    }

    #[test]
    fn empty_messages_are_refused() {
        assert!(append_from_wire(&proto::AppendRequest::default()).is_err());
        assert!(append_result_from_wire(&proto::AppendResponse::default()).is_err());
        assert!(vote_request_from_wire(&proto::VoteRequest::default()).is_err());
        assert!(vote_response_from_wire(&proto::VoteResponse::default()).is_err());
        assert!(transfer_from_wire(&proto::TransferLeaderRequest::default()).is_err());
        let damaged = proto::AppendRequest {
            vote: Some(vote_to_stored(&vote(1))),
            entries: vec![Bytes::from_static(b"no entry")],
            ..Default::default()
        };
        assert!(append_from_wire(&damaged).is_err());
    }
}
