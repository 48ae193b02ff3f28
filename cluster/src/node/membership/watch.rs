//! Keeps at hand what every call needs: where the members are, and whose calls are refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use peat_gateway_state::query;
use tokio_util::sync::CancellationToken;

use crate::node::inner::Inner;

/// How often what was applied is looked at; a new membership is seen at once.
const INTERVAL: Duration = Duration::from_millis(250);

/// Follows the membership and the removed nodes until `shutdown`.
pub(super) async fn run(inner: Arc<Inner>, shutdown: CancellationToken) {
    let mut metrics = inner.raft.server_metrics();
    let mut seen = None;
    loop {
        metrics.borrow_and_update();
        let configuration = inner.store.changes().borrow().configuration;
        let now =
            (configuration, *inner.membership().log_id(), inner.store.view().membership_index());
        if seen.as_ref() != Some(&now) {
            inner.follow_membership();
            seen = Some(now);
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

impl Inner {
    fn follow_membership(&self) {
        for (node, member) in self.membership().nodes() {
            // Clients that consensus keeps find the newest address by this.
            self.peers.peer(*node, &member.peer_address);
        }
        let view = self.store.view();
        match query::removed_nodes(&view) {
            // One that is still a member is being removed, and needed until that is done.
            Ok(removed) => {
                let members: BTreeSet<u64> = view.members().collect();
                let gone = removed.iter().map(|node| node.node.0);
                self.retired.replace(gone.filter(|node| !members.contains(node)).collect());
            }
            Err(error) => tracing::error!(%error, "could not read the removed nodes"),
        }
    }
}
