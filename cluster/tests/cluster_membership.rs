//! Growing, shrinking and repairing a cluster while it runs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use peat_gateway_cluster::membership::code;
use peat_gateway_cluster::{Consistency, MembershipOrder, Node, Role, StartError};
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::record::AuditAction;
use support::{Cluster, PATIENCE, TIMEOUT, actor, audit, has, refusal_code, wait, write};

fn promote(node: NodeId) -> MembershipOrder {
    MembershipOrder::Promote { node, replaces: None }
}

fn remove(node: NodeId) -> MembershipOrder {
    MembershipOrder::Remove { node, forced: None }
}

fn count(entries: &[(AuditAction, String)], action: AuditAction) -> usize {
    entries.iter().filter(|(found, _)| *found == action).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_of_one_grows_to_three_by_nodes_that_join() {
    let mut cluster = Cluster::of_one().await;
    write(&cluster.handle(0), "before").await.unwrap();
    let second = cluster.join(&[0]).await;
    cluster.wait_members(2, 0).await;
    // The third asks a follower, which passes it on.
    let third = cluster.join(&[second]).await;
    cluster.wait_members(3, 0).await;
    for place in [0, second, third] {
        write(&cluster.handle(place), &format!("through{place}")).await.unwrap();
    }
    cluster.wait_agreement().await;
    let view = cluster.handle(third).local_view();
    assert!(has(&view, "before") && has(&view, "through0"));
    let entries = audit(&cluster.handle(third));
    assert_eq!(count(&entries, AuditAction::AddMember), 2, "{entries:?}");
    assert_eq!(count(&entries, AuditAction::PromoteMember), 2, "{entries:?}");
    // Three voters go on without any one of them.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    let other = cluster.leader().await;
    write(&cluster.handle(other), "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn join_is_audited_with_the_address_it_came_from() {
    let mut cluster = Cluster::of_one().await;
    let joined = cluster.join(&[0]).await;
    cluster.wait_members(2, 0).await;
    let view = cluster.handle(0).local_view();
    let entries = peat_gateway_state::query::audit_entries(&view, None, None, 100).unwrap();
    let added = entries.iter().find(|entry| entry.action == AuditAction::AddMember).unwrap();
    assert_eq!(added.actor.principal, format!("node:{}", cluster.handle(joined).node_id()));
    assert_eq!(added.actor.source, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn learner_only_gets_the_log_and_no_vote_until_it_is_promoted() {
    let mut cluster = Cluster::of_one().await;
    let join = vec![cluster.configs[0].peer_address.clone()];
    let learner = cluster.configure_one_more(|config| {
        config.membership.join = join.clone();
        config.membership.learner_only = true;
    });
    cluster.start(learner).await;
    cluster.wait_members(1, 1).await;
    let committed = write(&cluster.handle(learner), "forwarded").await.unwrap();
    let handle = cluster.handle(learner);
    let view = handle.read(support::at_least(committed.applied_index), TIMEOUT).await.unwrap();
    assert!(has(&view, "forwarded"));
    // Longer than it takes to promote one that may be.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    cluster.wait_members(1, 1).await;
    let node = cluster.handle(learner).node_id();
    assert_eq!(
        refusal_code(cluster.order(0, MembershipOrder::Transfer { to: Some(node) }).await),
        code::NOT_A_VOTER
    );
    cluster.order(learner, promote(node)).await.unwrap();
    cluster.wait_members(2, 0).await;
    assert_eq!(refusal_code(cluster.order(0, promote(node)).await), code::NOT_A_LEARNER);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_node_is_added_from_a_member_and_founds_nothing_itself() {
    let mut cluster = Cluster::of_one().await;
    let waiting = cluster.configure_one_more(|config| config.membership.wait = true);
    cluster.start(waiting).await;
    let reason = cluster.handle(waiting).ready().unwrap_err();
    assert!(reason.contains("cluster init") && reason.contains("cluster add"), "{reason}");
    assert_eq!(cluster.handle(waiting).cluster_id(), None);
    let address = cluster.configs[waiting].peer_address.clone();
    let add = MembershipOrder::Add { peer_address: address.clone(), learner_only: false };
    let added = cluster.order(0, add.clone()).await.unwrap();
    assert_eq!(added.node, cluster.handle(waiting).node_id());
    cluster.wait_members(2, 0).await;
    cluster.wait_ready().await;
    assert_eq!(refusal_code(cluster.order(0, add).await), code::ALREADY_MEMBER);
    let nowhere = support::free_addresses(1).remove(0);
    let add = MembershipOrder::Add { peer_address: nowhere, learner_only: false };
    assert_eq!(refusal_code(cluster.order(0, add).await), code::UNREACHABLE_NODE);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_nodes_found_a_cluster_and_join_it_on_an_operators_word() {
    let mut cluster = Cluster::configured(2, |config| {
        config.initial_peers.clear();
        config.membership.wait = true;
    });
    cluster.start(0).await;
    cluster.start(1).await;
    cluster.handle(0).found(TIMEOUT).await.unwrap();
    support::initialize(&[cluster.handle(0)]).await;
    let again = cluster.handle(0).found(TIMEOUT).await.unwrap_err();
    assert!(again.to_string().contains("belongs to cluster"), "{again}");
    let member = cluster.configs[0].peer_address.clone();
    cluster.handle(1).join(&[member], PATIENCE).await.unwrap();
    cluster.wait_members(2, 0).await;
    assert_eq!(cluster.handle(0).cluster_id(), cluster.handle(1).cluster_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn order_that_names_an_old_membership_is_refused() {
    let cluster = Cluster::of_three().await;
    let node = cluster.handle(2).node_id();
    let seen = cluster.handle(0).membership().index;
    let order = remove(node);
    let handle = cluster.handle(0);
    let stale = handle.change_members(order.clone(), actor(), Some(seen + 1), TIMEOUT).await;
    assert_eq!(refusal_code(stale), "precondition_failed");
    assert_eq!(count(&audit(&cluster.handle(0)), AuditAction::RemoveMember), 0);
    cluster.handle(0).change_members(order, actor(), Some(seen), TIMEOUT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_node_ends_and_its_directory_is_never_used_again() {
    let mut cluster = Cluster::of_three().await;
    let gone = cluster.follower().await;
    let through = (gone + 1) % 3;
    let node = cluster.handle(gone).node_id();
    let removed = cluster.nodes[gone].as_ref().unwrap().removed();
    cluster.order(through, remove(node)).await.unwrap();
    tokio::time::timeout(PATIENCE, removed).await.expect("it learns of it");
    cluster.stop(gone).await;
    let refused = restart_refused(&cluster, gone).await;
    assert!(refused.contains("cluster join"), "{refused}");
    cluster.wait_members(2, 0).await;
    let view = cluster.handle(through).membership();
    assert_eq!(view.removed.iter().map(|gone| gone.node).collect::<Vec<_>>(), [node]);
    assert_eq!(refusal_code(cluster.order(through, remove(node)).await), "node_removed");
    assert_eq!(count(&audit(&cluster.handle(through)), AuditAction::RemoveMember), 1);
    // The machine comes back as a new node.
    cluster.wipe(gone);
    cluster.configs[gone].membership.join = vec![cluster.configs[through].peer_address.clone()];
    cluster.start(gone).await;
    cluster.wait_members(3, 0).await;
    assert_ne!(cluster.handle(gone).node_id(), node);
}

/// Starts a node that was removed; returns why it is refused.
async fn restart_refused(cluster: &Cluster, place: usize) -> String {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match Node::start(cluster.configs[place].clone()).await {
            Err(error @ StartError::Removed { .. }) => return error.to_string(),
            Err(StartError::DataDirectory { .. }) if std::time::Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => panic!("not refused as removed: {:?}", other.err().map(|e| e.to_string())),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_was_down_when_it_was_removed_learns_of_it_later() {
    let mut cluster = Cluster::of_three().await;
    let gone = cluster.follower().await;
    let node = cluster.handle(gone).node_id();
    cluster.kill(gone);
    let leader = cluster.leader().await;
    cluster.order(leader, remove(node)).await.unwrap();
    write(&cluster.handle(leader), "without-it").await.unwrap();
    cluster.start(gone).await;
    let removed = cluster.nodes[gone].as_ref().unwrap().removed();
    tokio::time::timeout(PATIENCE, removed).await.expect("it learns of it");
    cluster.stop(gone).await;
    restart_refused(&cluster, gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_that_would_break_the_quorum_is_refused() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let down = (leader + 1) % 3;
    let up = (leader + 2) % 3;
    let node = cluster.handle(up).node_id();
    let down_id = cluster.handle(down).node_id();
    cluster.kill(down);
    assert_eq!(refusal_code(cluster.order(up, remove(node)).await), code::WOULD_LOSE_QUORUM);
    let unreasoned = MembershipOrder::Remove { node, forced: Some("  ".into()) };
    assert_eq!(refusal_code(cluster.order(up, unreasoned).await), code::INVALID_REASON);
    // The one that is down can go: two of two answer.
    cluster.order(up, remove(down_id)).await.unwrap();
    cluster.wait_members(2, 0).await;
    let last = Cluster::of_one().await;
    let own = last.handle(0).node_id();
    assert_eq!(refusal_code(last.order(0, remove(own)).await), code::LAST_VOTER);
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_is_removed_and_another_one_leads() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let node = cluster.handle(leader).node_id();
    let removed = cluster.nodes[leader].as_ref().unwrap().removed();
    cluster.order(leader, remove(node)).await.unwrap();
    tokio::time::timeout(PATIENCE, removed).await.expect("it learns of it");
    let others: Vec<_> = (0..3).filter(|place| *place != leader).collect();
    write(&cluster.handle(others[0]), "after").await.unwrap();
    let members = cluster.handle(others[1]).members(TIMEOUT).await;
    assert_eq!(members.len(), 2);
    assert!(members.iter().all(|member| member.node_id != node && member.reachable));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_an_operator_sends_it() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let to = (leader + 1) % 3;
    let node = cluster.handle(to).node_id();
    let through = (leader + 2) % 3;
    let done = cluster.order(through, MembershipOrder::Transfer { to: Some(node) }).await.unwrap();
    assert_eq!(done.node, node);
    assert_eq!(cluster.leader().await, to);
    write(&cluster.handle(leader), "after").await.unwrap();
    let entries = audit(&cluster.handle(to));
    assert_eq!(count(&entries, AuditAction::TransferLeadership), 1, "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_lost_its_disk_joins_as_a_learner_and_takes_its_old_place_in_one_change() {
    let mut cluster = Cluster::of_three().await;
    let lost = cluster.follower().await;
    let old = cluster.handle(lost).node_id();
    cluster.kill(lost);
    write(&cluster.handle(cluster.leader().await), "meanwhile").await.unwrap();
    cluster.wipe(lost);
    cluster.start(lost).await;
    let new = cluster.handle(lost).node_id();
    let other = (lost + 1) % 3;
    let problem = wait_problem(&cluster, other, old).await;
    assert!(problem.contains(&format!("--replaces {old}")), "{problem}");
    // It isn't promoted by itself: the lost one's vote would count on.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let members = cluster.handle(other).members(TIMEOUT).await;
    assert!(members.iter().any(|member| member.node_id == new && !member.voter), "{members:?}");
    wait("it has caught up", || match cluster.handle(lost).ready() {
        Ok(()) => Ok(()),
        Err(reason) => Err(reason),
    })
    .await;
    let replace = MembershipOrder::Promote { node: new, replaces: Some(old) };
    cluster.order(other, replace).await.unwrap();
    let members = cluster.wait_members(3, 0).await;
    assert!(members.iter().all(|member| member.node_id != old));
    let view = cluster.handle(lost).read(Consistency::default(), TIMEOUT).await.unwrap();
    assert!(has(&view, "meanwhile"));
    assert_eq!(cluster.handle(other).membership().removed[0].node, old);
}

/// Waits until a node's status says what is wrong with a member.
async fn wait_problem(cluster: &Cluster, through: usize, node: NodeId) -> String {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let members = cluster.handle(through).members(TIMEOUT).await;
        let found = members.iter().find(|member| member.node_id == node).unwrap();
        if let Some(problem) = found.problem.as_ref().filter(|text| text.contains("--replaces")) {
            return problem.clone();
        }
        assert!(std::time::Instant::now() < end, "{members:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_comes_back_at_another_address_is_found_there() {
    let mut cluster = Cluster::of_three().await;
    for role in [Role::Follower, Role::Leader] {
        let leader = cluster.leader().await;
        let moved = if role == Role::Leader { leader } else { (leader + 1) % 3 };
        cluster.stop(moved).await;
        let address = support::free_addresses(1).remove(0);
        cluster.configs[moved].peer_bind = Some(address.clone());
        cluster.configs[moved].peer_address = address.clone();
        cluster.configs[moved].initial_peers.clear();
        cluster.configs[moved].name = format!("moved {role:?}");
        cluster.start(moved).await;
        let members = cluster.wait_members(3, 0).await;
        let node = cluster.handle(moved).node_id();
        let found = members.iter().find(|member| member.node_id == node).unwrap();
        assert_eq!((&found.peer_address, &found.name), (&address, &cluster.configs[moved].name));
        write(&cluster.handle(moved), &format!("from-{role:?}")).await.unwrap();
        cluster.wait_agreement().await;
    }
    let entries = audit(&cluster.handle(0));
    assert_eq!(count(&entries, AuditAction::UpdateMember), 2, "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_process_with_a_copy_of_a_data_directory_ends_and_the_first_goes_on() {
    let mut cluster = Cluster::of_three().await;
    let original = cluster.follower().await;
    write(&cluster.handle(original), "before").await.unwrap();
    cluster.wait_agreement().await;
    cluster.stop(original).await;
    let copy = cluster.configure_one_more(|_| {});
    copy_directory(&cluster.configs[original].data_dir, &cluster.configs[copy].data_dir);
    cluster.start(original).await;
    cluster.wait_ready().await;
    write(&cluster.handle(original), "since-the-copy").await.unwrap();
    cluster.start(copy).await;
    let mut duplicate = cluster.nodes[copy].take().unwrap();
    let reason = tokio::time::timeout(PATIENCE, duplicate.failed()).await.expect("it ends");
    assert!(reason.contains("is a copy") && reason.contains("cluster join"), "{reason}");
    duplicate.stop().await;
    let members = cluster.wait_members(3, 0).await;
    let address = &cluster.configs[original].peer_address;
    assert!(members.iter().any(|member| member.peer_address == *address));
    write(&cluster.handle(original), "after").await.unwrap();
    cluster.wait_agreement().await;
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
