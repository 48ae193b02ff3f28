use std::time::Duration;

use crate::error::{ProposeError, ReadIndexError};
use crate::handle::Consistency;
use crate::support::{Cluster, TIMEOUT, create};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_has_ended_says_so_instead_of_looking_for_a_leader() {
    let mut cluster = Cluster::of_three().await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let handle = cluster.handle(follower);
    // It ends first: for it the leader stays the leader, also when nothing answers there any more.
    cluster.stop(follower).await;
    for place in (0..3).filter(|place| ![leader, follower].contains(place)) {
        cluster.stop(place).await;
    }
    cluster.stop(leader).await;
    let refused = handle.propose(&create("late"), TIMEOUT).await;
    let ending = |reason: &str| reason.contains("this node is ending");
    let refused_why = match &refused {
        // The way to the leader it knew is closed: whether it got the proposal isn't told.
        Err(ProposeError::Unavailable(why) | ProposeError::Unknown(why)) => why.as_str(),
        _ => "",
    };
    assert!(ending(refused_why), "{refused:?}");
    // It could go on looking for a leader for an hour.
    let read = handle.read(Consistency::default(), Duration::from_secs(3_600));
    let unread = tokio::time::timeout(TIMEOUT, read).await.expect("it answers at once").err();
    assert!(matches!(&unread, Some(ReadIndexError::Unavailable(why)) if ending(why)), "{unread:?}");
}
