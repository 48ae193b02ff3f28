use std::time::Duration;

use super::{alarms_are, alarms_seen, codes, other_leads};
use crate::config::ClusterConfig;
use crate::error::{ReadIndexError, StartError};
use crate::handle::{Consistency, Handle};
use crate::node::Node;
use crate::support::{Cluster, TIMEOUT, at_least, wait, write};

fn compares_often(config: &mut ClusterConfig) {
    config.timing.storage.comparison_interval = Duration::from_millis(200);
    config.timing.storage.scrub_interval = Duration::ZERO;
}

fn scrubs_often(config: &mut ClusterConfig) {
    config.timing.storage.comparison_interval = Duration::ZERO;
    config.timing.storage.scrub_interval = Duration::from_millis(200);
}

/// A node out of service serves nothing, and its directory is refused from now on.
async fn is_out_of_service(cluster: &mut Cluster, place: usize, because: &str) {
    let handle = cluster.handle(place);
    alarms_are(&handle, &["damaged"]).await;
    for consistency in [Consistency::default(), at_least(0)] {
        let refused = handle.read(consistency, TIMEOUT).await.err();
        assert!(matches!(refused, Some(ReadIndexError::OutOfService(_))), "{refused:?}");
    }
    let reason = handle.ready().unwrap_err();
    assert!(reason.contains(because) && reason.contains("remove this node"), "{reason}");
    let path = cluster.configs[place].data_dir.join("OUT-OF-SERVICE");
    wait("the directory is marked", || path.metadata().map(drop)).await;
    drop(handle);
    cluster.kill(place);
    let end = std::time::Instant::now() + super::PATIENCE;
    let refused = loop {
        match Node::start(cluster.configs[place].clone()).await {
            Ok(_) => panic!("a directory out of service was opened"),
            Err(StartError::DataDirectory { reason, .. }) if reason.contains("out of service") => {
                break reason;
            }
            // The node that had it is still ending.
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(refused.contains(because), "{refused}");
}

fn plant_row(handle: &Handle, honest: bool) {
    handle.inner.store().plant_row(b"planted", b"row", honest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn node_whose_state_differs_from_the_majority_takes_itself_out_of_service() {
    let mut cluster = Cluster::of_three_with(compares_often).await;
    let wrong = cluster.follower().await;
    write(&cluster.handle(wrong), "before").await.unwrap();
    cluster.wait_agreement().await;
    plant_row(&cluster.handle(wrong), true);
    is_out_of_service(&mut cluster, wrong, "the majority of the voters has").await;
    let leader = cluster.leader().await;
    write(&cluster.handle(leader), "after").await.unwrap();
    assert!(cluster.running().iter().all(|handle| codes(handle).is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leader_whose_state_differs_stops_leading() {
    let mut cluster = Cluster::of_three_with(compares_often).await;
    let wrong = cluster.leader().await;
    write(&cluster.handle(wrong), "before").await.unwrap();
    cluster.wait_agreement().await;
    plant_row(&cluster.handle(wrong), true);
    let new = other_leads(&cluster, wrong).await;
    write(&cluster.handle(new), "after").await.unwrap();
    alarms_seen(&cluster.handle(new), &cluster.handle(wrong), &["damaged"]).await;
    is_out_of_service(&mut cluster, wrong, "the majority of the voters has").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_majority_all_nodes_say_that_they_differ_and_go_on() {
    let mut cluster = Cluster::of_three_with(compares_often).await;
    let wrong = cluster.follower().await;
    cluster.wait_agreement().await;
    let away = (0..3).find(|place| *place != wrong && *place != 0).unwrap_or(0);
    let away = if away == cluster.leader().await {
        (0..3).find(|place| *place != wrong && *place != away).unwrap()
    } else {
        away
    };
    cluster.stop(away).await;
    plant_row(&cluster.handle(wrong), true);
    for handle in cluster.running() {
        alarms_are(&handle, &["state_differs"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_that_nobody_wrote_are_found_by_the_scrub() {
    let mut cluster = Cluster::of_three_with(scrubs_often).await;
    let damaged = cluster.follower().await;
    write(&cluster.handle(damaged), "before").await.unwrap();
    cluster.wait_agreement().await;
    let handle = cluster.handle(damaged);
    wait("a pass was made", || match handle.health() {
        health if health.scrubs > 0 && health.scrubbed_rows > 0 => Ok(()),
        health => Err(format!("{health:?}")),
    })
    .await;
    assert_eq!(handle.health().scrub_failures, 0);
    plant_row(&handle, false);
    drop(handle);
    is_out_of_service(&mut cluster, damaged, "the rows of the state").await;
    let leader = cluster.leader().await;
    write(&cluster.handle(leader), "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_are_well_compare_equal_while_writes_go_on() {
    let cluster = Cluster::of_three_with(compares_often).await;
    let leader = cluster.leader().await;
    let handle = cluster.handle(leader);
    for number in 0..50 {
        write(&handle, &format!("org{number}")).await.unwrap();
    }
    let applied = handle.local_status().applied_index;
    for handle in cluster.running() {
        wait("states were compared at the newest index", || match handle.health() {
            health if health.compared_index >= applied => Ok(()),
            health => Err((health.compared_index, health.comparisons)),
        })
        .await;
        assert!(codes(&handle).is_empty());
    }
}
