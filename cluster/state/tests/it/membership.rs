//! Changes of members are recorded before they are made, and a removed id never comes back.

use peat_gateway_state::command::{ClaimEpoch, MembershipChange};
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::outcome::code;
use peat_gateway_state::query;
use peat_gateway_state::record::AuditAction;
use peat_gateway_state::space::Space;
use peat_gateway_state::{Command, Outcome};

use crate::support::Cluster;
use crate::support::make;

fn record(cluster: &Cluster, change: MembershipChange) -> Command {
    Command::RecordMembership(make::record_membership(cluster.fence(), change))
}

#[test]
fn every_change_of_members_has_one_entry_in_the_clusters_chain() {
    let mut cluster = Cluster::new();
    let (joins, old) = (make::member_record(8), make::member_record(7));
    let changes = [
        (MembershipChange::Add(joins.clone()), AuditAction::AddMember, "node/0000000000000008"),
        (
            MembershipChange::Promote { node: NodeId(8), replaces: Some(old) },
            AuditAction::PromoteMember,
            "node/0000000000000008 replaces node/0000000000000007",
        ),
        (MembershipChange::Update(joins), AuditAction::UpdateMember, "node/0000000000000008"),
        (make::removal(9), AuditAction::RemoveMember, "forced: its disk burnt"),
        (MembershipChange::Finish, AuditAction::FinishMembership, "cluster"),
        (
            MembershipChange::Transfer { to: Some(NodeId(8)) },
            AuditAction::TransferLeadership,
            "node/0000000000000008",
        ),
    ];
    for (change, action, target) in changes {
        let before = query::audit_head(&cluster.rows, None).unwrap().number;
        cluster.done(record(&cluster, change));
        let entry = query::audit_entries(&cluster.rows, None, None, 1).unwrap().remove(0);
        assert_eq!((entry.number, entry.action), (before + 1, action));
        assert!(entry.target.contains(target), "{entry:?}");
        assert_eq!((entry.result.as_str(), entry.actor), ("decided", make::actor("admin")));
    }
    let removed: Vec<_> = query::removed_nodes(&cluster.rows).unwrap();
    assert_eq!(removed.iter().map(|node| node.node.0).collect::<Vec<_>>(), [7, 9]);
}

#[test]
fn a_removed_id_is_kept_and_never_added_again() {
    let mut cluster = Cluster::new();
    cluster.done(record(&cluster, make::removal(9)));
    let kept = query::removed_node(&cluster.rows, NodeId(9)).unwrap().expect("it is kept");
    assert_eq!((kept.name.as_str(), kept.removed_at), ("node-9", cluster.now));
    for change in [
        MembershipChange::Add(make::member_record(9)),
        MembershipChange::Update(make::member_record(9)),
    ] {
        let before = cluster.rows.of(Space::Audit).len();
        assert_eq!(cluster.refused(record(&cluster, change)), code::NODE_REMOVED);
        assert_eq!(cluster.rows.of(Space::Audit).len(), before);
    }
    cluster.now += 60_000;
    cluster.done(record(&cluster, make::removal(9)));
    assert_eq!(query::removed_node(&cluster.rows, NodeId(9)).unwrap(), Some(kept));
    assert_eq!(query::removed_node(&cluster.rows, NodeId(8)).unwrap(), None);
}

#[test]
fn a_deposed_leader_records_no_change_of_members() {
    let mut cluster = Cluster::new();
    let late = record(&cluster, make::removal(9));
    let claimed = cluster.send(Command::ClaimEpoch(ClaimEpoch { term: 1, node: NodeId(8) }));
    assert!(matches!(claimed.outcome, Outcome::EpochClaimed(_)));
    assert_eq!(cluster.refused(late), code::STALE_EPOCH);
    assert!(query::removed_nodes(&cluster.rows).unwrap().is_empty());
}
