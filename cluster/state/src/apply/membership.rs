//! Recording changes of the cluster's members; the change itself is consensus' business.

use super::audit;
use super::work::{Decided, Work, refuse};
use crate::command::{Actor, MemberRecord, MembershipChange, RecordMembership};
use crate::keys;
use crate::outcome::{Outcome, RefusalKind, code};
use crate::query;
use crate::record::{AuditAction, RemovedNode};
use crate::space::Space;

/// The result in the entry: the change follows, and isn't known to be made yet.
const DECIDED: &str = "decided";

/// Writes the audit entry, and retires the id of a node that is removed.
pub(super) fn record(work: &mut Work<'_>, actor: &Actor, command: RecordMembership) -> Decided {
    let (action, target) = match command.change {
        MembershipChange::Add(member) => {
            check_not_removed(work, &member)?;
            (AuditAction::AddMember, shown(&member))
        }
        MembershipChange::Promote { node, replaces: None } => {
            (AuditAction::PromoteMember, format!("node/{node}"))
        }
        MembershipChange::Promote { node, replaces: Some(old) } => {
            retire(work, &old)?;
            (AuditAction::PromoteMember, format!("node/{node} replaces {}", shown(&old)))
        }
        MembershipChange::Remove { member, forced } => {
            retire(work, &member)?;
            let target = match forced {
                Some(reason) => format!("{}, forced: {reason}", shown(&member)),
                None => shown(&member),
            };
            (AuditAction::RemoveMember, target)
        }
        MembershipChange::Update(member) => {
            check_not_removed(work, &member)?;
            (AuditAction::UpdateMember, shown(&member))
        }
        MembershipChange::Finish => (AuditAction::FinishMembership, "cluster".to_owned()),
        MembershipChange::Transfer { to } => {
            let target =
                to.map_or_else(|| "closest node".to_owned(), |node| format!("node/{node}"));
            (AuditAction::TransferLeadership, target)
        }
    };
    work.effects.configuration = true;
    let new = audit::NewEntry { actor, action, target: &target, result: DECIDED, count: 1 };
    audit::append(&mut work.rows, &work.entry, None, new)?;
    Ok(Outcome::Done)
}

fn shown(member: &MemberRecord) -> String {
    format!("node/{} {} at {}", member.node, member.name, member.peer_address)
}

fn check_not_removed(work: &Work<'_>, member: &MemberRecord) -> Decided<()> {
    match query::removed_node(&work.rows, member.node)? {
        None => Ok(()),
        Some(_) => refuse(
            RefusalKind::Conflict,
            code::NODE_REMOVED,
            format!(
                "node {} was removed and can't come back under its id; empty its data directory \
                 and let it join as a new node: peat-gateway cluster join",
                member.node
            ),
        ),
    }
}

/// Notes that the id never comes back; done again it changes nothing.
fn retire(work: &mut Work<'_>, member: &MemberRecord) -> Decided<()> {
    if query::removed_node(&work.rows, member.node)?.is_some() {
        return Ok(());
    }
    let removed = RemovedNode {
        node: member.node,
        name: member.name.clone(),
        peer_address: member.peer_address.clone(),
        removed_at: work.entry.now,
        index: work.entry.index,
    };
    Ok(work.rows.put_record(Space::RemovedNode, keys::removed_node(member.node), &removed)?)
}
