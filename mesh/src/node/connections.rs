//! Keeps a node's links: dials, accepts, carries frames between links and the replica.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::replica::SessionId;
use super::{NodeConfig, NodeHandle, Pacing};
use crate::endpoint::{MeshEndpoint, PeerAddress};
use crate::formation_key::FormationKey;
use crate::link::{Link, LinkEvent, LinkSender};

/// How often everything is offered again.
const STOCK_POLL_INTERVAL: Duration = Duration::from_secs(5);
const UNLIMITED_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a peer that could not be reached is left alone: at first, and at most.
const REDIAL_DELAY_MIN: Duration = Duration::from_millis(250);
const REDIAL_DELAY_MAX: Duration = Duration::from_secs(5);
/// Most links that others may hold to the node; a further one is closed at once.
const ACCEPTED_LINKS_MAX: usize = 256;

/// Runs until it is dropped, which closes every link.
pub(super) async fn run(
    node: NodeHandle,
    endpoint: MeshEndpoint,
    key: FormationKey,
    config: Arc<NodeConfig>,
) {
    let mut dialling = JoinSet::new();
    for peer in &config.peers {
        dialling.spawn(dial(node.clone(), endpoint.clone(), key.clone(), peer.clone()));
    }
    let accepting = accept(node.clone(), &endpoint, key);
    tokio::join!(accepting, poll(node, config.pacing));
}

async fn poll(node: NodeHandle, pacing: Pacing) {
    let mut ticks = interval(match pacing {
        Pacing::Stock => STOCK_POLL_INTERVAL,
        Pacing::Unlimited => UNLIMITED_POLL_INTERVAL,
    });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        node.lock().poll();
    }
}

/// Keeps a link to one peer, unless the peer keeps one to us.
async fn dial(node: NodeHandle, endpoint: MeshEndpoint, key: FormationKey, peer: PeerAddress) {
    let mut delay = REDIAL_DELAY_MIN;
    loop {
        if !node.connected_peers().contains(&peer.id) {
            match endpoint.connect(&peer, &key).await {
                Ok(link) => {
                    delay = REDIAL_DELAY_MIN;
                    carry(node.clone(), link).await;
                }
                Err(error) => {
                    delay = (delay * 2).min(REDIAL_DELAY_MAX);
                    tracing::debug!(%error, peer = %peer.id.fmt_short(), "mesh peer not reached");
                }
            }
        }
        sleep(delay).await;
    }
}

async fn accept(node: NodeHandle, endpoint: &MeshEndpoint, key: FormationKey) {
    let mut acceptor = endpoint.acceptor(key);
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = acceptor.accept() => match accepted {
                None => return,
                Some(Ok(link)) if links.len() < ACCEPTED_LINKS_MAX => {
                    links.spawn(carry(node.clone(), link));
                }
                Some(Ok(link)) => link.close(0, "too many links"),
                Some(Err(error)) => tracing::debug!(%error, "mesh peer not accepted"),
            },
            Some(_) = links.join_next() => {}
        }
    }
}

/// Removes a session even if its task is dropped.
struct OpenSession {
    node: NodeHandle,
    id: SessionId,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.node.lock().close_session(self.id);
    }
}

/// Carries frames until the link ends.
async fn carry(node: NodeHandle, mut link: Link) {
    let (id, wake) = node.lock().open_session(link.peer_id());
    let session = OpenSession { node: node.clone(), id };
    let sender = link.sender();
    // Apart, so that receiving never waits for sending: two nodes that did would stop each other.
    tokio::select! {
        () = receive_all(&node, id, &mut link) => {}
        () = send_all(&node, id, &wake, &sender) => {}
    }
    drop(session);
}

async fn receive_all(node: &NodeHandle, id: SessionId, link: &mut Link) {
    while let Some(event) = link.recv().await {
        match event {
            LinkEvent::Frame(frame) => node.lock().receive(id, frame),
            LinkEvent::Malformed(error) => {
                node.lock().counts.malformed += 1;
                tracing::warn!(%error, "a mesh peer sent what is not a frame");
            }
        }
    }
}

async fn send_all(node: &NodeHandle, id: SessionId, wake: &Notify, sender: &LinkSender) {
    loop {
        let frame = node.lock().next_frame(id);
        match frame {
            None => wake.notified().await,
            Some(frame) => {
                if let Err(error) = sender.send(frame).await {
                    tracing::debug!(%error, "mesh link ends");
                    return;
                }
            }
        }
    }
}
