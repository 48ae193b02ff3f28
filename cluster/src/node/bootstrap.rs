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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::errors::{InitializeError, RaftError};

use super::inner::Inner;
use super::introduce::{Found, describe};
use crate::blocking::blocking;
use crate::error::StartError;
use crate::raft::Member;

/// Pause between two rounds of asking; a node that isn't up yet is the normal case.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Every this many rounds what is missing is logged.
const ROUNDS_PER_LOG: u32 = 25;

/// What this node has to do.
pub(super) struct Bootstrap {
    pub(super) inner: Arc<Inner>,
    pub(super) seeds: Seeds,
}

/// Where the other first members are.
pub(super) enum Seeds {
    /// At these addresses.
    Listed {
        others: Vec<String>,
        /// Who begins, where it isn't this node.
        begins: Option<String>,
    },
    /// Wherever these names lead.
    Named { names: Vec<String>, expect: usize },
}

/// How a bootstrap ended.
pub(super) enum Ending {
    /// The cluster exists, with this node in it.
    Made,
    /// It exists without this node, which must ask its members to be taken in.
    Join(Vec<String>),
}

/// What one round of asking gave.
enum Round {
    /// These are the first members, and all have agreed.
    Agreed(BTreeMap<u64, Member>),
    /// What is missing; try again.
    Missing(String),
    Join(Vec<String>),
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
    /// Makes the cluster, or finds it made.
    ///
    /// # Errors
    /// A first member belongs to another cluster, there are more than expected, or the disk failed.
    /// Nothing cures that by waiting.
    pub(super) async fn run(self) -> Result<Ending, StartError> {
        let mut rounds = 0;
        loop {
            // Another node may have begun it, or added this one.
            if self.inner.raft().is_initialized().await.unwrap_or(false) {
                return Ok(Ending::Made);
            }
            match self.round().await? {
                Round::Agreed(members) => {
                    let count = members.len();
                    initialize(&self.inner, members).await?;
                    tracing::info!(members = count, "initialised the cluster");
                    return Ok(Ending::Made);
                }
                Round::Join(addresses) => return Ok(Ending::Join(addresses)),
                Round::Missing(missing) => {
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

    async fn round(&self) -> Result<Round, StartError> {
        match &self.seeds {
            Seeds::Listed { others, begins: None } => {
                let found = match self.ask(others).await {
                    Ok(found) => found,
                    Err(missing) => return Ok(Round::Missing(missing)),
                };
                let listed = found.into_iter().map(|node| {
                    // What the list says is what led to it.
                    let peer_address = node.address.clone();
                    Found { member: Member { peer_address, ..node.member.clone() }, ..node }
                });
                self.agree(listed.collect(), false).await
            }
            Seeds::Listed { others, begins: Some(begins) } => {
                // Whoever answers may tell of a cluster that exists; the bootstrap itself is another's.
                for node in self.ask_any(others).await {
                    if let Some(ending) = self.existing(&node, false)? {
                        return Ok(ending);
                    }
                }
                Ok(Round::Missing(format!("{begins}, which begins it")))
            }
            Seeds::Named { names, expect } => self.named(names, *expect).await,
        }
    }

    /// Asks everybody whom the names lead to; begins where all are there and this node is the first.
    async fn named(&self, names: &[String], expect: usize) -> Result<Round, StartError> {
        let addresses = match resolve(names).await {
            Ok(addresses) => addresses,
            Err(missing) => return Ok(Round::Missing(missing)),
        };
        let own = self.inner.node_id().0;
        let mut nodes: BTreeMap<u64, Found> = BTreeMap::new();
        // What is missing by address family: a name may have addresses of one that nobody listens on.
        let mut missing: [Option<String>; 2] = [None, None];
        let asked = addresses.iter().map(|address| async move {
            (address, self.inner.introductions().identify(address).await)
        });
        for (address, answer) in join_all(asked).await {
            match answer {
                Ok(node) => drop(nodes.insert(node.node_id, node)),
                Err(why) => missing[usize::from(address.starts_with('['))] = Some(why),
            }
        }
        for node in nodes.values() {
            if let Some(ending) = self.existing(node, true)? {
                return Ok(ending);
            }
        }
        if nodes.len() > expect {
            return Err(StartError::Bootstrap(format!(
                "the names {} lead to {} new nodes, {expect} are expected; no cluster was made. Take \
                 nodes away, or set PEAT_EXPECT to their number on all",
                names.join(", "),
                nodes.len()
            )));
        }
        let heard = |v6: bool| {
            let named = addresses.iter().any(|address| address.starts_with('[') == v6);
            named && missing[usize::from(v6)].is_none()
        };
        if !heard(false) && !heard(true) {
            let missing = missing.into_iter().flatten().next();
            return Ok(Round::Missing(
                missing.unwrap_or_else(|| "the names to lead anywhere".into()),
            ));
        }
        if nodes.len() < expect || !nodes.contains_key(&own) {
            let found = nodes.len();
            let names = names.join(", ");
            let own_is_there =
                if nodes.contains_key(&own) { "" } else { ", this one not among them" };
            return Ok(Round::Missing(format!(
                "{expect} nodes: the names {names} lead to {found}{own_is_there}"
            )));
        }
        if let Some((first, node)) = nodes.first_key_value()
            && *first != own
        {
            return Ok(Round::Missing(format!("{}, which begins it", node.member.peer_address)));
        }
        nodes.remove(&own);
        self.agree(nodes.into_values().collect(), true).await
    }

    async fn ask(&self, addresses: &[String]) -> Result<Vec<Found>, String> {
        let asked = addresses.iter().map(|address| self.inner.introductions().identify(address));
        join_all(asked).await.into_iter().collect()
    }

    async fn ask_any(&self, addresses: &[String]) -> Vec<Found> {
        let asked = addresses.iter().map(|address| self.inner.introductions().identify(address));
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// What follows where a node is a member of a cluster that runs without this node.
    ///
    /// With names, whoever is found by them belongs together: this node asks to be taken in. A list
    /// names the first members only: a node whose address is a member's has lost its disk and asks to
    /// be taken in too, another one is not meant.
    fn existing(&self, node: &Found, named: bool) -> Result<Option<Round>, StartError> {
        let own = self.inner.node_id().0;
        if node.node_id == own
            || node.members.is_empty()
            || node.members.iter().any(|(id, _)| *id == own)
        {
            return Ok(None);
        }
        if self.inner.cluster_id().is_some_and(|own| Some(own) != node.cluster_id) {
            return Err(foreign(node, self.inner.cluster_id()));
        }
        let address = &self.inner.member().peer_address;
        let lost = node.members.iter().find(|(_, member)| member.peer_address == *address);
        if let Some((id, _)) = lost {
            tracing::warn!(
                "this node's data directory is new, but its address {address} is that of member \
                 {id:016x}: that one's disk is lost. This node joins as a learner; when it has caught \
                 up, give it the lost one's place: peat-gateway cluster promote {:016x} --replaces \
                 {id:016x}",
                own
            );
        } else if !named {
            return Err(foreign(node, None));
        }
        let mut addresses: Vec<String> = vec![node.address.clone()];
        addresses.extend(node.members.iter().map(|(_, member)| member.peer_address.clone()));
        addresses.retain(|other| other != address);
        Ok(Some(Round::Join(addresses)))
    }

    /// Has all others write one cluster id down.
    async fn agree(&self, found: Vec<Found>, named: bool) -> Result<Round, StartError> {
        for node in &found {
            if let Some(ending) = self.existing(node, named)? {
                return Ok(ending);
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
            if let Err(why) = self.inner.admits_version(node.versions) {
                return Ok(Round::Missing(format!("{}: {why}", node.address)));
            }
            let adopting =
                self.inner.introductions().adopt(&node.address, node.node_id, cluster_id);
            match adopting.await {
                Ok(belongs_to) if belongs_to == cluster_id => {}
                Ok(other) => {
                    let node = Found { cluster_id: Some(other), ..node };
                    return Err(foreign(&node, Some(cluster_id)));
                }
                Err(status) => return Ok(Round::Missing(describe(&node.address, &status))),
            }
            if members.insert(node.node_id, node.member).is_some() {
                return Err(StartError::Bootstrap(format!(
                    "two of the initial peers lead to node {:016x}, one is {}",
                    node.node_id, node.address
                )));
            }
        }
        Ok(Round::Agreed(members))
    }
}

/// All addresses that names lead to now, each once.
async fn resolve(names: &[String]) -> Result<BTreeSet<String>, String> {
    let mut addresses = BTreeSet::new();
    for name in names {
        match tokio::net::lookup_host(name).await {
            Ok(found) => addresses.extend(found.map(|address| address.to_string())),
            Err(error) => return Err(format!("the name {name}: {error}")),
        }
    }
    Ok(addresses)
}

pub(super) async fn adopt_here(
    inner: &Arc<Inner>,
    cluster_id: [u8; 16],
) -> Result<[u8; 16], StartError> {
    let (identity, store) = (inner.identity().clone(), inner.store().clone());
    let adopted = blocking(move || identity.adopt(&store, cluster_id)).await;
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
             directory is new. If it is to be a member there, start it with PEAT_JOIN={} instead of a \
             list of first members",
            node.address, node.address
        ),
    })
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
