//! A node whose disk or data fails, among others that are well. Here and not in `cluster/tests`, because the
//! faults are planted behind the seams.

mod data;
mod ended;
mod space;
mod stall;

use std::time::Duration;

use crate::handle::{Handle, Leadership};
use crate::support::{Cluster, wait};

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = crate::support::PATIENCE;

fn leads(handle: &Handle) -> bool {
    matches!(*handle.leadership().borrow(), Leadership::Leader { .. })
}

/// Waits until another node than the one at `place` leads; returns its place.
async fn other_leads(cluster: &Cluster, place: usize) -> usize {
    wait("another node leads", || {
        (0..cluster.nodes.len())
            .find(|other| {
                *other != place && cluster.nodes[*other].is_some() && leads(&cluster.handle(*other))
            })
            .ok_or("none does")
    })
    .await
}

fn codes(handle: &Handle) -> Vec<String> {
    handle.local_status().alarms.into_iter().map(|alarm| alarm.code).collect()
}

/// Waits until a node's alarms are these.
async fn alarms_are(handle: &Handle, wanted: &[&str]) {
    wait(&format!("the alarms are {wanted:?}"), || {
        let codes = codes(handle);
        if codes == wanted { Ok(()) } else { Err(codes) }
    })
    .await;
}

/// Waits until `asked` sees these alarms of `of`.
async fn alarms_seen(asked: &Handle, of: &Handle, wanted: &[&str]) {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let members = asked.members(Duration::from_secs(2)).await;
        let node = members.into_iter().find(|node| node.node_id == of.node_id());
        let codes: Vec<_> =
            node.into_iter().flat_map(|node| node.alarms).map(|alarm| alarm.code).collect();
        if codes == wanted {
            return;
        }
        assert!(std::time::Instant::now() < end, "waited for {wanted:?}, seen: {codes:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
