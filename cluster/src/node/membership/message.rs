//! Orders and answers as messages between nodes.

use std::time::Duration;

use peat_gateway_proto::cluster as proto;
use peat_gateway_proto::cluster::membership_request::Order as Wire;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::{Actor, codec};

use super::{Announced, Answer, Order, Request};
use crate::membership::{MembershipChanged, MembershipOrder};
use crate::wire::stored::member_to_stored;

pub(super) fn to_wire(request: &Request, timeout: Duration) -> proto::MembershipRequest {
    let order = match &request.order {
        Order::Asked(MembershipOrder::Add { peer_address, learner_only }) => {
            Wire::Add(proto::AddMember {
                peer_address: peer_address.clone(),
                learner_only: *learner_only,
            })
        }
        Order::Asked(MembershipOrder::Promote { node, replaces }) => {
            Wire::Promote(proto::PromoteMember {
                node_id: node.0,
                replaces: replaces.map_or(0, |node| node.0),
            })
        }
        Order::Asked(MembershipOrder::Remove { node, forced }) => {
            Wire::Remove(proto::RemoveMember {
                node_id: node.0,
                forced: forced.clone().unwrap_or_default(),
            })
        }
        Order::Asked(MembershipOrder::Transfer { to }) => {
            Wire::Transfer(proto::TransferLeadership { node_id: to.map_or(0, |node| node.0) })
        }
        Order::Join(node) => Wire::Join(proto::JoinMember {
            member: Some(member_to_stored(node.node_id, &node.member)),
            boot_id: node.boot_id,
        }),
        Order::Announce(node) => Wire::Announce(proto::AnnounceMember {
            member: Some(member_to_stored(node.node_id, &node.member)),
            boot_id: node.boot_id,
        }),
    };
    proto::MembershipRequest {
        principal: request.actor.principal.clone(),
        source: request.actor.source.clone(),
        request_id: request.actor.request_id.clone(),
        expected_membership: request.expected.unwrap_or_default(),
        timeout_ms: timeout.as_millis() as u64,
        order: Some(order),
    }
}

pub(super) fn from_wire(message: proto::MembershipRequest) -> Result<Request, String> {
    let node = |id: u64| (id != 0).then_some(NodeId(id));
    let order = match message.order.ok_or("the message has no order that this build knows")? {
        Wire::Add(add) => Order::Asked(MembershipOrder::Add {
            peer_address: add.peer_address,
            learner_only: add.learner_only,
        }),
        Wire::Promote(promote) => Order::Asked(MembershipOrder::Promote {
            node: NodeId(promote.node_id),
            replaces: node(promote.replaces),
        }),
        Wire::Remove(remove) => Order::Asked(MembershipOrder::Remove {
            node: NodeId(remove.node_id),
            forced: Some(remove.forced).filter(|reason| !reason.is_empty()),
        }),
        Wire::Transfer(transfer) => {
            Order::Asked(MembershipOrder::Transfer { to: node(transfer.node_id) })
        }
        Wire::Join(join) => Order::Join(announced(join.member, join.boot_id)?),
        Wire::Announce(node) => Order::Announce(announced(node.member, node.boot_id)?),
    };
    Ok(Request {
        order,
        actor: Actor {
            principal: message.principal,
            source: message.source,
            request_id: message.request_id,
        },
        expected: (message.expected_membership != 0).then_some(message.expected_membership),
    })
}

pub(crate) fn announced(
    member: Option<peat_gateway_proto::stored::Member>,
    boot_id: u64,
) -> Result<Announced, String> {
    let member = member.ok_or("the message has no member")?;
    Ok(Announced { node_id: member.node_id, member: member.into(), boot_id })
}

pub(super) fn answer_to_wire(answer: Answer) -> proto::MembershipResponse {
    use proto::membership_response::Result as Wire;
    let result = match answer {
        Answer::Changed(changed) => Wire::Changed(proto::MembershipChanged {
            membership_index: changed.membership,
            node_id: changed.node.0,
            index: changed.index,
        }),
        Answer::NotLeader(leader) => {
            Wire::NotLeader(proto::NotLeader { leader: leader.unwrap_or_default() })
        }
        Answer::Refused(refusal) => Wire::Refused(codec::encode(&refusal).into()),
        Answer::Nothing(reason) => Wire::Unavailable(reason),
        Answer::Unknown(reason) => Wire::Unknown(reason),
    };
    proto::MembershipResponse { result: Some(result) }
}

pub(crate) fn answer_from_wire(response: proto::MembershipResponse) -> Answer {
    use proto::membership_response::Result as Wire;
    match response.result {
        Some(Wire::Changed(changed)) => Answer::Changed(MembershipChanged {
            membership: changed.membership_index,
            node: NodeId(changed.node_id),
            index: changed.index,
        }),
        Some(Wire::NotLeader(other)) => {
            Answer::NotLeader((other.leader != 0).then_some(other.leader))
        }
        Some(Wire::Refused(bytes)) => match codec::decode(&bytes) {
            Ok(refusal) => Answer::Refused(refusal),
            Err(error) => Answer::Unknown(format!("could not read the leader's answer: {error}")),
        },
        Some(Wire::Unavailable(reason)) => Answer::Nothing(reason),
        Some(Wire::Unknown(reason)) => Answer::Unknown(reason),
        None => Answer::Unknown("the leader's answer is empty".to_owned()),
    }
}
