//! Who is connected now, for the API of the leader; and who is remembered for the next leader.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use peat_gateway_state::Command;
use peat_gateway_state::command::RememberPeers;
use peat_gateway_state::ids::{AppId, OrgId};
use peat_gateway_state::record::Peer;
use serde::Serialize;

use super::journal::Journal;
use super::proposer::Proposer;

/// Most peers in one command, as the state allows.
const REMEMBERED_AT_ONCE_MAX: usize = 64;

/// A mesh node that is connected now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectedPeer {
    /// Its endpoint id: 64 lower-case hex characters.
    pub peer_id: String,
    /// The UDP address at which it is reached; `None` where the connection doesn't say.
    pub address: Option<String>,
    /// Unix time in ms.
    pub connected_since: u64,
}

type ByLink = BTreeMap<u64, ConnectedPeer>;

/// The connected mesh nodes of all formations; empty on a node that doesn't lead. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    links: Arc<RwLock<BTreeMap<(OrgId, AppId), ByLink>>>,
}

impl Peers {
    /// Returns a formation's connected nodes by id, each once however many connections it has.
    pub fn connected(&self, org: &OrgId, app: &AppId) -> Vec<ConnectedPeer> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let mut peers = BTreeMap::new();
        for peer in links.get(&(org.clone(), app.clone())).into_iter().flat_map(BTreeMap::values) {
            // Links are in the order of their numbers: the oldest says since when, the newest where.
            peers
                .entry(peer.peer_id.clone())
                .and_modify(|known: &mut ConnectedPeer| known.address.clone_from(&peer.address))
                .or_insert_with(|| peer.clone());
        }
        peers.into_values().collect()
    }

    pub(super) fn add(&self, org: &OrgId, app: &AppId, link: u64, peer: ConnectedPeer) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.entry((org.clone(), app.clone())).or_default().insert(link, peer);
    }

    pub(super) fn remove(&self, org: &OrgId, app: &AppId, link: u64) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(formation) = links.get_mut(&(org.clone(), app.clone())) {
            formation.remove(&link);
        }
    }

    pub(super) fn clear(&self, org: &OrgId, app: &AppId) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.remove(&(org.clone(), app.clone()));
    }
}

/// Unix time in ms by this node's clock; for people, never for decisions.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes connected nodes into the state, so that a new leader dials them at once.
///
/// What fails is written again in the next round; the formation goes on without.
pub(super) async fn remember<J: Journal>(
    proposer: &Proposer<J>,
    app: &AppId,
    connected: &[ConnectedPeer],
) {
    let peers: Vec<Peer> = connected
        .iter()
        .filter_map(|peer| {
            let address = peer.address.clone()?;
            let peer_id = peer.peer_id.clone();
            Some(Peer { peer_id, addresses: vec![address], last_seen: unix_ms() })
        })
        .collect();
    for peers in peers.chunks(REMEMBERED_AT_ONCE_MAX) {
        let command = Command::RememberPeers(RememberPeers {
            fence: proposer.journal.fence(),
            org_id: proposer.org.clone(),
            app_id: app.clone(),
            peers: peers.to_vec(),
        });
        if let Err(error) = proposer.propose(&command).await {
            tracing::debug!(%error, %app, "could not remember peers");
            return;
        }
    }
}
