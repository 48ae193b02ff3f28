//! How the first members become a cluster, exactly once.
//!
//! ```text
//!  smallest address        others
//!  Identify ─────────────► who are you?   until all have answered and know the token
//!  mints the cluster id, writes it down
//!  Adopt ────────────────► write it down  a node of another cluster refuses, and all of it ends
//!  initialize (the membership is the first log entry)
//!  elected ──────────────► the log arrives by Raft
//! ```
//!
//! Each step is durable before the next and can be repeated, so a crash anywhere resumes. Two
//! bootstraps can't make two clusters of the same nodes: a node writes down one cluster id, once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use peat_gateway_proto::cluster as proto;
use tonic::{Code, Status};

use super::inner::Inner;
use super::versions::versions_from_wire;
use crate::error::StartError;
use crate::raft::Member;
use crate::transport::peers::Peers;
use crate::transport::token::{TokenKey, proves};

/// Pause between two rounds of asking; a node that isn't up yet is the normal case.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Every this many rounds what is missing is logged.
const ROUNDS_PER_LOG: u32 = 25;

/// What this node has to do.
pub(super) struct Bootstrap {
    pub(super) inner: Arc<Inner>,
    pub(super) peers: Arc<Peers>,
    pub(super) token: TokenKey,
    /// The other first members' addresses.
    pub(super) others: Vec<String>,
}

/// A first member, as it answered.
struct Found {
    address: String,
    node_id: u64,
    cluster_id: Option<[u8; 16]>,
    member: Member,
}

/// The first members without duplicates, smallest first.
///
/// # Errors
/// This node's own address isn't among them.
pub(super) fn first_members(peers: &[String], own: &str) -> Result<Vec<String>, StartError> {
    let mut sorted = peers.to_vec();
    sorted.sort();
    sorted.dedup();
    if sorted.iter().any(|address| address == own) {
        return Ok(sorted);
    }
    Err(StartError::Bootstrap(format!(
        "this node's peer address {own} is not among the initial peers {}; name it there exactly so",
        sorted.join(", ")
    )))
}

/// Mints a cluster id.
///
/// # Errors
/// The system gives no random numbers.
fn mint() -> Result<[u8; 16], StartError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| StartError::Bootstrap(error.to_string()))?;
    Ok(id)
}

/// Makes a cluster of this node alone, or finishes doing so.
///
/// The log comes before the cluster id here: a node that has an id and no log was adopted by others
/// and must wait for them.
pub(super) async fn alone(inner: &Arc<Inner>) -> Result<(), StartError> {
    if inner.cluster_id().is_some() {
        return Ok(());
    }
    initialize(inner, BTreeMap::from([(inner.node_id().0, inner.member().clone())])).await?;
    adopt_here(inner, mint()?).await?;
    tracing::info!("made a cluster of one node");
    Ok(())
}

impl Bootstrap {
    /// Makes the cluster. Returns when it is initialised.
    ///
    /// # Errors
    /// A first member belongs to another cluster, or the disk failed. Nothing cures that by waiting.
    pub(super) async fn run(self) -> Result<(), StartError> {
        let mut rounds = 0;
        loop {
            match self.round().await? {
                Ok(members) => {
                    let count = members.len();
                    initialize(&self.inner, members).await?;
                    tracing::info!(members = count, "initialised the cluster");
                    return Ok(());
                }
                Err(missing) => {
                    let waits_for = format!("the bootstrap waits for {missing}");
                    if rounds % ROUNDS_PER_LOG == 0 {
                        tracing::info!("{waits_for}");
                    }
                    rounds += 1;
                    self.inner.set_bootstrapping(Some(waits_for));
                }
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Asks all others and adopts them; `Ok(Err(..))` says who is missing, try again.
    async fn round(&self) -> Result<Result<BTreeMap<u64, Member>, String>, StartError> {
        let asked = self.others.iter().map(|address| self.identify(address));
        let mut found = Vec::new();
        for answer in futures_util::future::join_all(asked).await {
            match answer {
                Ok(node) => found.push(node),
                Err(missing) => return Ok(Err(missing)),
            }
        }
        let cluster_id = match self.inner.cluster_id() {
            Some(known) => known,
            None => {
                // A node with a cluster, and this one without: its disk was lost, or the list is
                // wrong. Either way a second cluster must not be made.
                if let Some(node) = found.iter().find(|node| node.cluster_id.is_some()) {
                    return Err(foreign(node, None));
                }
                adopt_here(&self.inner, mint()?).await?
            }
        };
        if let Some(node) =
            found.iter().find(|node| node.cluster_id.is_some_and(|id| id != cluster_id))
        {
            return Err(foreign(node, Some(cluster_id)));
        }
        let mut members = BTreeMap::new();
        members.insert(self.inner.node_id().0, self.inner.member().clone());
        for node in found {
            match self.adopt(&node, cluster_id).await {
                Ok(belongs_to) if belongs_to == cluster_id => {}
                Ok(other) => {
                    let node = Found { cluster_id: Some(other), ..node };
                    return Err(foreign(&node, Some(cluster_id)));
                }
                Err(status) => return Ok(Err(describe(&node.address, &status))),
            }
            if members.insert(node.node_id, node.member).is_some() {
                return Err(StartError::Bootstrap(format!(
                    "two of the initial peers lead to node {:016x}, one is {}",
                    node.node_id, node.address
                )));
            }
        }
        Ok(Ok(members))
    }

    /// Asks a node who it is; the error says what is missing.
    async fn identify(&self, address: &str) -> Result<Found, String> {
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge).map_err(|error| error.to_string())?;
        let mut client = self.peers.stranger(address)?;
        let call = client.identify(proto::IdentifyRequest {
            token_proof: self.token.identify(&challenge).as_bytes().to_vec().into(),
            challenge: challenge.to_vec().into(),
        });
        let answer = answer(call).await.map_err(|status| describe(address, &status))?;
        if !proves(&self.token.identified(&challenge, answer.node_id), &answer.token_proof) {
            return Err(format!("{address}: it doesn't know the cluster token"));
        }
        let member = answer.member.ok_or_else(|| format!("{address}: its answer is incomplete"))?;
        self.inner
            .admits_version(versions_from_wire(answer.versions))
            .map_err(|reason| format!("{address}: {reason}"))?;
        Ok(Found {
            address: address.to_owned(),
            node_id: answer.node_id,
            cluster_id: answer.cluster_id.as_ref().try_into().ok(),
            member: Member {
                // What the list says is what led to it.
                peer_address: address.to_owned(),
                http_address: member.http_address,
                name: member.name,
            },
        })
    }

    /// Has a node write the cluster id down; returns the cluster that it belongs to.
    async fn adopt(&self, node: &Found, cluster_id: [u8; 16]) -> Result<[u8; 16], Status> {
        let mut client = self.peers.stranger(&node.address).map_err(Status::internal)?;
        let call = client.adopt(proto::AdoptRequest {
            token_proof: self.token.adopt(&cluster_id, node.node_id).as_bytes().to_vec().into(),
            cluster_id: cluster_id.to_vec().into(),
            node_id: node.node_id,
        });
        let answer = answer(call).await?;
        <[u8; 16]>::try_from(answer.cluster_id.as_ref())
            .map_err(|_| Status::internal("its answer has no cluster id"))
    }
}

async fn answer<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(ASK_TIMEOUT, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

async fn adopt_here(inner: &Arc<Inner>, cluster_id: [u8; 16]) -> Result<[u8; 16], StartError> {
    let (identity, store) = (inner.identity().clone(), inner.store().clone());
    let adopted = tokio::task::spawn_blocking(move || identity.adopt(&store, cluster_id)).await;
    match adopted {
        Ok(belongs_to) => belongs_to.map_err(StartError::Bootstrap),
        Err(error) => Err(StartError::Bootstrap(error.to_string())),
    }
}

async fn initialize(inner: &Arc<Inner>, members: BTreeMap<u64, Member>) -> Result<(), StartError> {
    match inner.raft().initialize(members).await {
        // It was done before a crash.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(StartError::Bootstrap(error.to_string())),
    }
}

fn foreign(node: &Found, ours: Option<[u8; 16]>) -> StartError {
    let theirs = node.cluster_id.map(hex::encode).unwrap_or_default();
    StartError::Bootstrap(match ours {
        Some(ours) => format!(
            "the node at {} belongs to cluster {theirs}, not to {}; correct the initial peers",
            node.address,
            hex::encode(ours)
        ),
        None => format!(
            "the node at {} belongs to cluster {theirs} already and this node to none: its data \
             directory is new. Add it to that cluster instead of bootstrapping another",
            node.address
        ),
    })
}

fn describe(address: &str, status: &Status) -> String {
    // A status that the node itself sent has no cause on this side.
    let mut cause = std::error::Error::source(status);
    let mut why = match status.code() {
        Code::DeadlineExceeded => "it can't be reached in time".to_owned(),
        _ if cause.is_some() => "it can't be reached".to_owned(),
        _ => status.message().to_owned(),
    };
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    format!("{address}: {why}")
}

#[cfg(test)]
mod tests {
    use super::first_members;

    #[test]
    fn first_members_are_sorted_once_and_include_this_node() {
        let peers: Vec<String> = ["b:1", "a:1", "b:1"].map(str::to_owned).to_vec();
        assert_eq!(first_members(&peers, "b:1").expect("listed"), ["a:1", "b:1"]);
        assert!(first_members(&peers, "c:1").is_err());
    }
}
