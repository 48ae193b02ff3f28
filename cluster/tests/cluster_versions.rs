//! The version gate between real nodes: what waits for an upgrade, and how it is finished.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use peat_gateway_cluster::{Handle, ProposeError, RaiseError};
use peat_gateway_state::command::UpdateSettings;
use peat_gateway_state::record::{AuditAction, Upgrade};
use peat_gateway_state::{Command, Envelope, Outcome, VERSION, query};
use support::{Cluster, TIMEOUT, actor, at_least, wait, write};

/// A command that needs version 2.
async fn hold_upgrades(handle: &Handle) -> Result<Outcome, ProposeError> {
    let upgrade = Some(Upgrade::Manual);
    let command = Command::UpdateSettings(UpdateSettings { upgrade, ..UpdateSettings::default() });
    let committed = handle.propose(&Envelope::new(actor(), command), TIMEOUT).await?;
    Ok(committed.outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn command_of_version_2_is_proposed_only_after_an_operator_has_finished_the_upgrade() {
    let mut cluster = Cluster::of_three_at(1, |_| {}).await;
    let members = cluster.handle(0).members(TIMEOUT).await;
    let upgrade = cluster.handle(0).upgrade(&members).expect("an upgrade");
    assert_eq!((upgrade.to, upgrade.held_back_by.len()), (VERSION, 0));
    let wait_s = upgrade.automatic_in.expect("it is automatic").as_secs();
    assert!((80_000..=86_400).contains(&wait_s), "{wait_s}");

    for place in 0..3 {
        let handle = cluster.handle(place);
        cluster.wait_agreement().await;
        assert_eq!(handle.cluster_version(), 1);
        let before = handle.local_status().last_log_index;
        let refused = hold_upgrades(&handle).await.expect_err("the cluster has version 1");
        let ProposeError::TooNew { needed: 2, version: 1, held_back } = refused else {
            panic!("{refused}")
        };
        assert!(held_back.contains("cluster upgrade"), "{held_back}");
        assert_eq!(handle.local_status().last_log_index, before, "it was proposed");
        // What version 1 knows goes on.
        write(&handle, &format!("org{place}")).await.unwrap();
    }

    // A member that is down holds it back, and is named.
    let follower = cluster.follower().await;
    let name = cluster.configs[follower].name.clone();
    let leader = cluster.handle(cluster.leader().await);
    cluster.stop(follower).await;
    let held_back =
        leader.raise_version(actor(), Vec::new(), TIMEOUT).await.expect_err("one is down");
    let RaiseError::HeldBack(reason) = held_back else { panic!("{held_back}") };
    assert!(reason.contains(&name) && reason.contains("down"), "{reason}");
    let refused = hold_upgrades(&leader).await.expect_err("the cluster has version 1");
    assert!(refused.to_string().contains(&name), "{refused}");
    cluster.start(follower).await;
    cluster.wait_ready().await;

    // Asked of a follower, done by the leader.
    let follower = cluster.handle(cluster.follower().await);
    let raised = loop {
        match follower.raise_version(actor(), Vec::new(), TIMEOUT).await {
            Ok(raised) => break raised,
            // It has just come back, and counts as down until it answers.
            Err(RaiseError::HeldBack(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((raised.from, raised.to), (1, VERSION));
    for handle in cluster.running() {
        // Also through a node that hasn't applied it yet.
        assert_eq!(hold_upgrades(&handle).await.unwrap(), Outcome::Done);
        handle.read(at_least(raised.applied_index), TIMEOUT).await.unwrap();
        assert_eq!(handle.cluster_version(), VERSION);
        assert_eq!(handle.upgrade(&handle.members(TIMEOUT).await), None);
    }
    let again = follower.raise_version(actor(), Vec::new(), TIMEOUT).await.unwrap();
    assert_eq!((again.from, again.to), (VERSION, VERSION));
    let entries = query::audit_entries(&follower.local_view(), None, None, usize::MAX).unwrap();
    let raises: Vec<_> =
        entries.iter().filter(|entry| entry.action == AuditAction::RaiseVersion).collect();
    assert_eq!(raises.len(), 1, "{raises:?}");
    assert_eq!(raises[0].actor, actor(), "the operator stands in the audit log");
    cluster.wait_agreement().await;
    for config in &cluster.configs {
        wait("the directory is closed to older builds", || {
            let text = std::fs::read_to_string(config.data_dir.join("FORMAT")).unwrap();
            if text.contains("format 2\ncluster version 2\n") { Ok(()) } else { Err(text) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_is_finished_without_an_operator_once_every_member_agrees() {
    let delays = [Duration::ZERO, Duration::ZERO, Duration::from_secs(3600)];
    let mut cluster = Cluster::configured(3, |_| {});
    for (config, delay) in cluster.configs.iter_mut().zip(delays) {
        config.timing.upgrade_delay = delay;
    }
    for place in 0..3 {
        cluster.start(place).await;
    }
    cluster.wait_ready().await;
    support::initialize_at(&cluster.running(), 1).await;
    let leader = cluster.handle(cluster.leader().await);
    let upgrade = leader.upgrade(&leader.members(TIMEOUT).await).expect("an upgrade");
    let automatic_in = upgrade.automatic_in.expect("it is automatic");
    assert!(automatic_in > Duration::from_secs(3000), "the last one counts: {automatic_in:?}");
    assert_eq!(leader.cluster_version(), 1);
    // A handle keeps its node's data directory open, and the leader may be the one that stops.
    drop(leader);

    cluster.configs[2].timing.upgrade_delay = Duration::ZERO;
    cluster.stop(2).await;
    cluster.start(2).await;
    for handle in cluster.running() {
        wait("the version is raised", || match handle.cluster_version() {
            VERSION => Ok(()),
            other => Err(other),
        })
        .await;
    }
    cluster.wait_agreement().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_leaves_out_a_lost_member_by_its_id_and_nobody_who_answers() {
    let mut cluster = Cluster::of_three_at(1, |_| {}).await;
    let leader = cluster.handle(cluster.leader().await);
    let lost = cluster.follower().await;
    let lost_id = cluster.handle(lost).node_id();
    cluster.stop(lost).await;
    let others = cluster.running().iter().map(Handle::node_id).collect();
    let held_back = leader.raise_version(actor(), others, TIMEOUT).await.expect_err("one is down");
    let RaiseError::HeldBack(reason) = held_back else { panic!("{held_back}") };
    assert!(reason.contains(&format!("--without {lost_id}")), "{reason}");
    let raised = leader.raise_version(actor(), vec![lost_id], TIMEOUT).await.unwrap();
    assert_eq!((raised.from, raised.to), (1, VERSION));
    // It wasn't lost after all, and its build knows the version.
    cluster.start(lost).await;
    cluster.wait_ready().await;
    cluster.wait_agreement().await;
    assert_eq!(cluster.handle(lost).cluster_version(), VERSION);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_cluster_begins_with_what_all_its_members_support() {
    let mut cluster = Cluster::configured(3, |_| {});
    for place in 0..3 {
        cluster.start(place).await;
    }
    cluster.wait_ready().await;
    let leader = cluster.handle(cluster.leader().await);
    assert_eq!(leader.common_version(TIMEOUT).await, Ok(VERSION));
    let follower = cluster.follower().await;
    cluster.stop(follower).await;
    let missing = leader.common_version(TIMEOUT).await.expect_err("one is down");
    assert!(missing.contains(&cluster.configs[follower].name), "{missing}");
}
