//! A mesh node: the counterpart that the gateway observes, for tests and for `peat-gateway mesh-node`.
//!
//! ```text
//!   Workload / NodeHandle::write ──► Replica: documents, tombstones, a session per link
//!                                       │ outbox: what to initiate, what to answer
//!   dial, accept ──► Link ──────────────┤
//!        ▲ receive ─────────────────────┘ ──► send, one frame per stream
//! ```
//!
//! It runs the stock Automerge sync and keeps the habits of published nodes, the bad ones included:
//! initiated syncs go through a token bucket and what exceeds it is dropped, so that the first push
//! stops after 100 documents; only a negentropy request gets everything; a document's sync state is
//! forgotten at every local change; tombstones are sent in full at every poll. In two points it is
//! kinder: it refuses snapshots of documents that were deleted, and it has no circuit breaker.

pub mod collections;
mod connections;
pub mod document;
mod limiter;
mod negotiate;
mod replica;
mod saved;
mod session;
pub mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use automerge::ChangeHash;
use iroh::{EndpointId, SecretKey};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::endpoint::{BindError, MeshEndpoint, PeerAddress};
use crate::formation_key::{FormationKey, FormationKeyError};
use crate::identity;
use crate::tombstone::Tombstone;
use collections::Collections;
use document::DocumentError;
use replica::Replica;
use saved::Saver;
use workload::Workload;

/// How long a node that comes back tries to get its UDP port again.
const REBIND_ATTEMPTS_MAX: u32 = 50;
const REBIND_DELAY: Duration = Duration::from_millis(100);

/// How fast a node syncs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pacing {
    /// As published nodes: 100 tokens per peer, 10 more every 100 ms, 100 ms between two syncs of one
    /// document, a full pass every 5 s; what exceeds it is dropped.
    #[default]
    Stock,
    /// No limiter; a full pass every second.
    Unlimited,
}

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name; its endpoint id is derived from it.
    pub node_name: String,
    /// The formation's id.
    pub formation_id: String,
    /// The formation's secret.
    pub formation_secret: Zeroizing<[u8; 32]>,
    /// UDP address to listen on; port 0 chooses one.
    pub bind: SocketAddr,
    /// Peers to dial until there is a link to each.
    pub peers: Vec<PeerAddress>,
    /// Which collections are synced how.
    pub collections: Collections,
    /// How fast it syncs.
    pub pacing: Pacing,
    /// Whether every frame travels in a batch of its own, as nodes since 0.9.0-rc.25 send them.
    pub batched: bool,
    /// What it writes by itself.
    pub workload: Option<Workload>,
    /// Where its documents are kept between runs; without it they are gone with it. Its own alone.
    pub state_directory: Option<PathBuf>,
}

impl NodeConfig {
    /// Returns a configuration with stock pacing, no peers and no workload, on a free loopback port.
    #[must_use]
    pub fn new(
        node_name: impl Into<String>,
        formation_id: impl Into<String>,
        formation_secret: Zeroizing<[u8; 32]>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            formation_id: formation_id.into(),
            formation_secret,
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers: Vec::new(),
            collections: Collections::default(),
            pacing: Pacing::Stock,
            batched: false,
            workload: None,
            state_directory: None,
        }
    }
}

/// A node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its formation id is no good.
    #[error(transparent)]
    Key(#[from] FormationKeyError),
    /// Its endpoint could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its saved documents cannot be read.
    #[error("start the mesh node: its saved state in {directory} cannot be read")]
    Saved {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a node writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Makes the document's root these fields: sets each, and deletes root keys that are missing.
    Put {
        /// The document, `<collection>:<id>`.
        key: String,
        /// Its fields.
        fields: serde_json::Map<String, Value>,
    },
    /// Deletes softly: an update with `_deleted`, `_deleted_at` and `_deleted_reason`.
    SoftDelete {
        /// The document.
        key: String,
        /// Why.
        reason: String,
    },
    /// Deletes with a tombstone, which spreads.
    Delete {
        /// The document.
        key: String,
        /// Why, if it is said.
        reason: Option<String>,
    },
}

/// A document as a node has it.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentState {
    /// Its heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// Its value.
    pub json: Value,
}

/// What a node has done since it started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// Documents it has.
    pub documents: usize,
    /// Tombstones it knows.
    pub tombstones: usize,
    /// Open links.
    pub links: usize,
    /// Changes it wrote itself.
    pub written: u64,
    /// Frames it sent.
    pub pushed: u64,
    /// Changes of documents with full history that at least one peer has confirmed.
    pub acknowledged: u64,
    /// Syncs that its limiter or a full queue dropped.
    pub dropped: u64,
    /// Frames and payloads it could not read.
    pub malformed: u64,
}

impl std::fmt::Display for Status {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "links {} documents {} tombstones {} written {} pushed {} acknowledged {} dropped {} \
             malformed {}",
            self.links,
            self.documents,
            self.tombstones,
            self.written,
            self.pushed,
            self.acknowledged,
            self.dropped,
            self.malformed,
        )
    }
}

/// Reads and writes a node's documents. Cheap to clone; outlives the node, then without links.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    replica: Arc<Mutex<Replica>>,
}

impl NodeHandle {
    fn lock(&self) -> MutexGuard<'_, Replica> {
        // A panic in a test node is a bug to be seen where it happened; the others may go on.
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a change and pushes it to every peer. Returns the document's new heads.
    ///
    /// # Errors
    /// The document was deleted with a tombstone, does not exist, or has no valid key.
    pub fn write(&self, change: &Change) -> Result<Vec<ChangeHash>, DocumentError> {
        self.lock().write(change)
    }

    /// Returns every document.
    #[must_use]
    pub fn documents(&self) -> BTreeMap<String, DocumentState> {
        self.lock().documents()
    }

    /// Returns one document.
    #[must_use]
    pub fn document(&self, key: &str) -> Option<DocumentState> {
        self.lock().document(key)
    }

    /// Returns the hashes of all changes of a document, in causal order; none if it does not exist.
    #[must_use]
    pub fn all_change_hashes(&self, key: &str) -> Vec<ChangeHash> {
        self.lock().all_change_hashes(key)
    }

    /// Returns, by document, every change that `peer` has confirmed: those it named as its heads in a
    /// sync message, and their ancestors. Survives links; only documents with full history are in it.
    #[must_use]
    pub fn acknowledged(&self, peer: &EndpointId) -> BTreeMap<String, BTreeSet<ChangeHash>> {
        self.lock().acknowledged(peer)
    }

    /// Returns every tombstone it knows, by document.
    #[must_use]
    pub fn tombstones(&self) -> Vec<Tombstone> {
        self.lock().tombstones()
    }

    /// Returns the peers to which there is a link.
    #[must_use]
    pub fn connected_peers(&self) -> Vec<EndpointId> {
        self.lock().connected_peers()
    }

    /// Returns what it has done.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status()
    }

    /// Asks every connected peer for everything it has, as an observer would.
    pub fn ask_for_everything(&self) {
        self.lock().ask_for_everything();
    }
}

/// A running node. Dropping it ends it at once: nobody waits for peers to know, and what was not yet
/// saved is lost.
#[derive(Debug)]
pub struct MeshNode {
    handle: NodeHandle,
    config: Arc<NodeConfig>,
    key: FormationKey,
    secret: SecretKey,
    /// Where it listens, or listened when it was last online.
    address: SocketAddr,
    online: Option<Online>,
    writing: Option<JoinHandle<()>>,
    saving: Option<JoinHandle<()>>,
    shutdown: CancellationToken,
    saver: Option<Saver>,
}

/// What exists while a node is online.
#[derive(Debug)]
struct Online {
    endpoint: MeshEndpoint,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// A node can do whatever its handle can.
impl Deref for MeshNode {
    type Target = NodeHandle;

    fn deref(&self) -> &NodeHandle {
        &self.handle
    }
}

impl MeshNode {
    /// Starts a node, online.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let key = FormationKey::from_secret(&*config.formation_id, &config.formation_secret)?;
        let secret =
            identity::endpoint_secret(config.formation_secret.as_slice(), &config.node_name);
        let mut replica =
            Replica::new(config.node_name.clone(), config.collections.clone(), config.pacing);
        replica.set_batched(config.batched);
        let saver = match &config.state_directory {
            None => None,
            Some(directory) => Some(
                Saver::load(directory.clone(), &mut replica)
                    .map_err(|source| NodeError::Saved { directory: directory.clone(), source })?,
            ),
        };
        let handle = NodeHandle { replica: Arc::new(Mutex::new(replica)) };
        let shutdown = CancellationToken::new();
        let mut node = Self {
            address: config.bind,
            config: Arc::new(config),
            handle,
            key,
            secret,
            online: None,
            writing: None,
            saving: None,
            shutdown,
            saver,
        };
        node.go_online().await?;
        node.start_background();
        Ok(node)
    }

    fn start_background(&mut self) {
        if let Some(workload) = self.config.workload.clone() {
            self.writing = Some(self.spawn(workload.run(self.handle.clone())));
        }
        if let Some(saver) = self.saver.clone() {
            self.saving = Some(self.spawn(saver.run(self.handle.clone())));
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            shutdown.run_until_cancelled(work).await;
        })
    }

    /// Returns a handle that others may keep.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Returns the node's endpoint id.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.secret.public()
    }

    /// Returns where peers on this machine reach the node; the same after it was offline.
    #[must_use]
    pub fn address(&self) -> PeerAddress {
        PeerAddress { id: self.id(), sockets: vec![self.address] }
    }

    /// Takes the node off the network or brings it back, on the same port. It keeps writing meanwhile.
    ///
    /// # Errors
    /// Its port was taken meanwhile: it stays offline.
    pub async fn set_online(&mut self, online: bool) -> Result<(), NodeError> {
        match (online, self.online.is_some()) {
            (true, false) => self.go_online().await,
            (false, true) => {
                self.go_offline().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ends the workload, if there is one; the node goes on.
    pub async fn stop_writing(&mut self) {
        if let Some(writing) = self.writing.take() {
            writing.abort();
            // It is aborted; a panic has been printed where it happened.
            drop(writing.await);
        }
    }

    /// Ends the node: closes its links and saves its documents.
    pub async fn stop(mut self) {
        self.go_offline().await;
        self.stop_writing().await;
        self.shutdown.cancel();
        if let Some(saving) = self.saving.take() {
            // It ends by itself; a panic has been printed where it happened.
            drop(saving.await);
        }
        if let Some(saver) = self.saver.take() {
            saver.save_now(&self.handle).await;
        }
    }

    async fn go_online(&mut self) -> Result<(), NodeError> {
        let endpoint = self.bind().await?;
        self.address = endpoint.local_addrs().first().copied().unwrap_or(self.address);
        let shutdown = self.shutdown.child_token();
        let running = connections::run(
            self.handle.clone(),
            endpoint.clone(),
            self.key.clone(),
            Arc::clone(&self.config),
        );
        let until = shutdown.clone();
        let task = tokio::spawn(async move {
            until.run_until_cancelled(running).await;
        });
        self.online = Some(Online { endpoint, shutdown, task });
        Ok(())
    }

    /// Opens the endpoint; again on the same port if that is not yet free after being offline.
    async fn bind(&self) -> Result<MeshEndpoint, NodeError> {
        let is_chosen_by_us = self.address != self.config.bind;
        let mut attempt = 1;
        loop {
            match MeshEndpoint::bind(self.secret.clone(), self.address).await {
                Err(_) if is_chosen_by_us && attempt < REBIND_ATTEMPTS_MAX => {
                    attempt += 1;
                    tokio::time::sleep(REBIND_DELAY).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn go_offline(&mut self) {
        let Some(Online { endpoint, shutdown, task }) = self.online.take() else { return };
        shutdown.cancel();
        // It is cancelled; a panic has been printed where it happened.
        drop(task.await);
        endpoint.close().await;
    }
}

impl Drop for MeshNode {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
