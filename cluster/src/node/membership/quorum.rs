//! Whether the voters that answer now would be a quorum.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use super::change::Standing;
use crate::node::inner::Inner;
use crate::node::status;

/// How long a voter may take to answer; one that doesn't counts as down.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

impl Inner {
    /// Asks the voters of a membership to be whether they answer.
    ///
    /// # Errors
    /// Those that do are no majority.
    pub(super) async fn check_quorum(
        &self,
        standing: &Standing,
        voters: &BTreeSet<u64>,
    ) -> Result<(), String> {
        let asked = voters.iter().map(|node| async move {
            if *node == self.node_id().0 {
                return true;
            }
            let Some(member) = standing.member(*node) else { return false };
            let peer = self.peers.peer(*node, &member.peer_address);
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, status::ask(&peer)).await;
            matches!(answer, Ok(Ok(_)))
        });
        let answering = join_all(asked).await.into_iter().filter(|answers| *answers).count();
        let needed = voters.len() / 2 + 1;
        if answering >= needed && !voters.is_empty() {
            return Ok(());
        }
        Err(format!(
            "of the {} voters that would be left {answering} answer, {needed} are needed: the cluster \
             would stand still",
            voters.len()
        ))
    }
}
