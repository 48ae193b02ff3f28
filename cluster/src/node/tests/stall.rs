use std::time::Duration;

use super::{alarms_are, alarms_seen, leads, other_leads};
use crate::config::ClusterConfig;
use crate::support::{Cluster, at_least, has, wait, write};

fn quick_watchdog(config: &mut ClusterConfig) {
    // Longer than a sync of a busy machine takes: only the held one counts.
    config.timing.storage.stall = Duration::from_millis(1_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leader_with_a_stuck_disk_stops_leading_and_serves_again_when_it_moves() {
    let cluster = Cluster::of_three_with(quick_watchdog).await;
    let stuck = cluster.leader().await;
    let handle = cluster.handle(stuck);
    write(&handle, "before").await.unwrap();

    let store = handle.inner.store().clone();
    let hold = store.syncs().hold();
    // Something must be written, or no sync is under way.
    write(&cluster.handle((stuck + 1) % 3), "meanwhile").await.ok();
    wait("the node says that its disk is stuck", || match handle.ready() {
        Err(reason) if reason.contains("a sync of the data directory") => Ok(()),
        other => Err(other),
    })
    .await;
    let new = other_leads(&cluster, stuck).await;
    assert!(!leads(&handle), "a node that isn't fit does no leader work");
    let through_other = write(&cluster.handle(new), "after").await.unwrap();
    alarms_seen(&cluster.handle(new), &handle, &["disk_stalled"]).await;

    drop(hold);
    alarms_are(&handle, &[]).await;
    cluster.wait_ready().await;
    cluster.wait_agreement().await;
    let view = handle.read(at_least(through_other.applied_index), super::PATIENCE).await.unwrap();
    assert!(has(&view, "before") && has(&view, "after"));
    write(&handle, "well").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn follower_with_a_stuck_disk_changes_nothing_for_the_others() {
    let cluster = Cluster::of_three_with(quick_watchdog).await;
    let leader = cluster.leader().await;
    let stuck = cluster.follower().await;
    let handle = cluster.handle(stuck);
    let term = handle.local_status().term;
    let store = handle.inner.store().clone();
    let hold = store.syncs().hold();
    for number in 0..20 {
        write(&cluster.handle(leader), &format!("org{number}")).await.unwrap();
    }
    alarms_are(&handle, &["disk_stalled"]).await;
    assert!(handle.ready().is_err());
    assert!(leads(&cluster.handle(leader)));
    drop(hold);
    cluster.wait_ready().await;
    cluster.wait_agreement().await;
    assert_eq!(cluster.handle(leader).local_status().term, term, "nobody campaigned");
}
