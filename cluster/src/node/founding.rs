//! How a node with a new data directory gets its cluster.
//!
//! ```text
//!  PEAT_BOOTSTRAP=wait   waits for an operator: cluster init, cluster join, or cluster add elsewhere
//!  PEAT_JOIN             asks members to be taken in
//!  PEAT_DISCOVER         expect-N: all whom the names lead to must be new
//!  PEAT_INITIAL_PEERS    all on the list must be new
//!  nothing               a cluster of one
//! ```

use std::sync::Arc;
use std::time::Duration;

use peat_gateway_state::outcome::{RefusalKind, code as state_code};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::bootstrap::{self, Bootstrap, Ending, Seeds};
use super::inner::Inner;
use super::membership::{Answer, answer_from_wire};
use crate::config::ClusterConfig;
use crate::error::StartError;
use crate::membership::{MembershipError, code};
use crate::wire::stored::member_to_stored;

/// Pause between two rounds of asking to be taken in.
const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// Every this many rounds what is missing is logged.
const ROUNDS_PER_LOG: u32 = 10;

/// What a new node is told to do.
pub(super) enum Founding {
    Alone,
    Together(Seeds),
    Join(Vec<String>),
    Wait,
}

impl Founding {
    /// Reads the configuration.
    ///
    /// # Errors
    /// It names other nodes, but this one can't be reached, or isn't among them.
    pub(super) fn of(config: &ClusterConfig) -> Result<Self, StartError> {
        let membership = &config.membership;
        let listed = if config.initial_peers.is_empty() {
            Vec::new()
        } else {
            bootstrap::first_members(&config.initial_peers, &config.peer_address)?
        };
        let several = !membership.join.is_empty()
            || !membership.discover.is_empty()
            || membership.wait
            || listed.len() > 1;
        if config.peer_bind.is_none() && several {
            return Err(StartError::Bootstrap(
                "the configuration names other nodes, but this node has no peer listener; set its \
                 peer bind address"
                    .to_owned(),
            ));
        }
        Ok(if membership.wait { Self::Wait } else { Self::at_once(config, listed) })
    }

    fn at_once(config: &ClusterConfig, mut listed: Vec<String>) -> Self {
        let membership = &config.membership;
        if !membership.join.is_empty() {
            return Self::Join(membership.join.clone());
        }
        if !membership.discover.is_empty() {
            let names = membership.discover.clone();
            return Self::Together(Seeds::Named { names, expect: membership.expect });
        }
        if listed.len() <= 1 {
            return Self::Alone;
        }
        let begins = (listed[0] != config.peer_address).then(|| listed[0].clone());
        listed.retain(|address| *address != config.peer_address);
        Self::Together(Seeds::Listed { others: listed, begins })
    }
}

/// Founds or joins in the background; a failure that waiting can't cure ends the node.
pub(super) async fn run(
    founding: Founding,
    inner: Arc<Inner>,
    failure: watch::Sender<Option<String>>,
    shutdown: CancellationToken,
) {
    let work = async {
        match founding {
            Founding::Together(seeds) => {
                match (Bootstrap { inner: inner.clone(), seeds }).run().await? {
                    Ending::Made => Ok(()),
                    Ending::Join(addresses) => inner.join_cluster(&addresses).await,
                }
            }
            Founding::Join(addresses) => inner.join_cluster(&addresses).await,
            Founding::Alone | Founding::Wait => Ok(()),
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        done = work => if let Err(error) = done {
            tracing::error!(%error, "this node can't become part of a cluster");
            failure.send_replace(Some(error.to_string()));
        }
    }
}

impl Inner {
    /// Asks members to take this node in, until one has and the log arrives.
    async fn join_cluster(self: &Arc<Self>, addresses: &[String]) -> Result<(), StartError> {
        let mut rounds = 0;
        while !self.raft.is_initialized().await.unwrap_or(false) {
            let missing = match self.ask_to_join(addresses).await? {
                Ok(()) => "the log from the leader".to_owned(),
                Err(missing) => missing,
            };
            let waits_for = format!("this node waits for {missing}");
            if rounds % ROUNDS_PER_LOG == 0 {
                tracing::info!("{waits_for}");
            }
            rounds += 1;
            self.set_bootstrapping(Some(waits_for));
            tokio::time::sleep(JOIN_PAUSE).await;
        }
        Ok(())
    }

    /// Asks each address once; the inner error says what is missing.
    async fn ask_to_join(
        self: &Arc<Self>,
        addresses: &[String],
    ) -> Result<Result<(), String>, StartError> {
        let mut missing = String::new();
        for address in addresses {
            let found = match self.introductions.identify(address).await {
                Ok(found) => found,
                Err(why) => {
                    missing = why;
                    continue;
                }
            };
            if found.node_id == self.node_id().0 {
                missing = format!("a member: {address} is this node itself");
                continue;
            }
            let Some(cluster_id) = found.cluster_id.filter(|_| !found.members.is_empty()) else {
                missing = format!("{address}, which belongs to no cluster yet");
                continue;
            };
            let own = bootstrap::adopt_here(self, cluster_id).await?;
            if own != cluster_id {
                return Err(StartError::Bootstrap(format!(
                    "this data directory belongs to cluster {}, the node at {address} to cluster {}; \
                     empty it to join that one, or correct PEAT_JOIN",
                    hex::encode(own),
                    hex::encode(cluster_id)
                )));
            }
            let member = member_to_stored(self.node_id().0, &self.member);
            let asked = self.introductions.join(address, cluster_id, member, self.boot_id).await;
            match asked.map(answer_from_wire) {
                Ok(Answer::Changed(_)) => return Ok(Ok(())),
                Ok(Answer::Refused(refusal)) if refusal.code == state_code::NODE_REMOVED => {
                    self.leave().await;
                    return Ok(Err(refusal.detail));
                }
                Ok(Answer::Refused(refusal)) => missing = refusal.detail,
                Ok(Answer::Nothing(why) | Answer::Unknown(why)) => {
                    missing = format!("{address}: {why}");
                }
                Ok(Answer::NotLeader(_)) => missing = format!("{address}: no leader is known"),
                Err(status) => missing = format!("{address}: {}", status.message()),
            }
        }
        Ok(Err(missing))
    }

    /// Makes the cluster that the configuration describes, on an operator's word.
    pub(crate) async fn found_cluster(
        self: &Arc<Self>,
        timeout: Duration,
    ) -> Result<(), MembershipError> {
        self.check_waiting().await?;
        let made = async {
            match self.founding.clone() {
                Some(others) => {
                    let seeds = Seeds::Listed { others, begins: None };
                    match (Bootstrap { inner: self.clone(), seeds }).run().await? {
                        Ending::Made => Ok(()),
                        Ending::Join(addresses) => self.join_cluster(&addresses).await,
                    }
                }
                None => bootstrap::alone(self).await,
            }
        };
        self.operators_word(made, timeout).await
    }

    /// Joins a cluster on an operator's word.
    pub(crate) async fn join_on_order(
        self: &Arc<Self>,
        addresses: &[String],
        timeout: Duration,
    ) -> Result<(), MembershipError> {
        self.check_waiting().await?;
        self.operators_word(self.join_cluster(addresses), timeout).await
    }

    async fn check_waiting(&self) -> Result<(), MembershipError> {
        if !self.raft.is_initialized().await.unwrap_or(true) {
            return Ok(());
        }
        let cluster = self.cluster_id().map(hex::encode).unwrap_or_default();
        Err(MembershipError::refused(
            RefusalKind::Conflict,
            code::ALREADY_IN_A_CLUSTER,
            format!(
                "this node belongs to cluster {cluster}; to take it elsewhere, remove it there and \
                 start it with an empty data directory"
            ),
        ))
    }

    /// Bounds what an operator asked for. What was begun is durable and can be asked for again.
    async fn operators_word(
        &self,
        work: impl Future<Output = Result<(), StartError>>,
        timeout: Duration,
    ) -> Result<(), MembershipError> {
        match tokio::time::timeout(timeout, work).await {
            Ok(Ok(())) => {
                self.set_bootstrapping(None);
                Ok(())
            }
            Ok(Err(error)) => Err(MembershipError::refused(
                RefusalKind::Conflict,
                code::FOREIGN_CLUSTER,
                error.to_string(),
            )),
            Err(_) => Err(MembershipError::Unavailable(
                self.ready().err().unwrap_or_else(|| "the time ran out".to_owned()),
            )),
        }
    }
}
