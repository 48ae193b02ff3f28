use std::time::Duration;

use peat_gateway_state::command::DeleteOrganization;
use peat_gateway_state::ids::OrgId;
use peat_gateway_state::{Command, Envelope, Outcome};

use super::{alarms_are, alarms_seen, other_leads};
use crate::error::ProposeError;
use crate::handle::Handle;
use crate::store::space::Space;
use crate::support::{Cluster, TIMEOUT, actor, has, wait, write};

const FULL: Space = Space { free_bytes: 1 << 20, total_bytes: 1 << 30 };
const ROOMY: Space = Space { free_bytes: 1 << 29, total_bytes: 1 << 30 };

fn plant(handle: &Handle, space: Space) {
    handle.inner.plant_space(space);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leader_that_is_short_of_space_hands_on_while_others_have_some() {
    let cluster = Cluster::of_three_with(|_| {}).await;
    let short = cluster.leader().await;
    let handle = cluster.handle(short);
    plant(&handle, FULL);
    let new = other_leads(&cluster, short).await;
    write(&cluster.handle(new), "written").await.unwrap();
    // A follower that is short alone refuses nothing, and is seen.
    write(&handle, "through-the-short-one").await.unwrap();
    alarms_seen(&cluster.handle(new), &handle, &["no_space"]).await;
    assert_eq!(handle.ready(), Ok(()), "it can serve");
    plant(&handle, ROOMY);
    alarms_are(&handle, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_are_refused_where_no_quorum_has_space_and_taken_again_when_it_has() {
    let cluster = Cluster::of_three_with(|_| {}).await;
    write(&cluster.handle(0), "before").await.unwrap();
    for place in 0..2 {
        plant(&cluster.handle(place), FULL);
    }
    let mut number = 0;
    for place in 0..3 {
        // The leader asks the others from time to time, so the refusal may take a while.
        let end = std::time::Instant::now() + super::PATIENCE;
        loop {
            number += 1;
            match write(&cluster.handle(place), &format!("org{number}")).await {
                Err(ProposeError::NoSpace(reason)) => {
                    assert!(reason.contains("free"), "{reason}");
                    break;
                }
                other => assert!(std::time::Instant::now() < end, "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let view = cluster.handle(2).read(Default::default(), TIMEOUT).await.unwrap();
    assert!(has(&view, "before"), "reads go on");
    let org_id = OrgId::parse("before").unwrap();
    let delete =
        Command::DeleteOrganization(DeleteOrganization { org_id, expected_revision: None });
    let deleted = cluster.handle(2).propose(&Envelope::new(actor(), delete), TIMEOUT).await;
    assert!(!matches!(deleted.unwrap().outcome, Outcome::Refused(_)), "what makes room is taken");
    for place in 0..2 {
        plant(&cluster.handle(place), ROOMY);
    }
    wait("no alarm is left", || {
        let left: Vec<_> = cluster.running().iter().flat_map(super::codes).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    write(&cluster.handle(0), "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn log_is_purged_by_its_bytes_long_before_its_number_of_entries() {
    const BYTES_MAX: u64 = 8 << 10;
    let cluster =
        Cluster::of_three_with(|config| config.timing.storage.log_bytes_max = BYTES_MAX).await;
    let leader = cluster.handle(cluster.leader().await);
    for number in 0..300 {
        write(&leader, &format!("org{number}")).await.unwrap();
    }
    for handle in cluster.running() {
        wait("the log is short", || {
            let (first, last) = handle.inner.store().log_bounds();
            let bytes = handle.health().log_bytes;
            let short = first > 1 && bytes <= BYTES_MAX;
            if short { Ok(()) } else { Err((first, last, bytes)) }
        })
        .await;
    }
    cluster.wait_agreement().await;
}
