//! What the service needs of a node: the seam that lets use cases be tested without consensus.

use std::io::Write;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use peat_gateway_cluster::backup::SnapshotError;
use peat_gateway_cluster::{
    Changes, Committed, Consistency, Handle, MembershipChanged, MembershipError, MembershipOrder,
    MembershipView, NodeHealth, NodeStatus, ProposeError, RaiseError, Raised, ReadIndexError,
    Upgrade,
};
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::{Actor, Envelope, Reader};
use tokio::sync::watch;

/// A view of the state at one index. Holds back the deletion of old rows: drop it soon.
pub struct Snapshot {
    reader: Box<dyn Reader + Send>,
    index: u64,
}

impl Snapshot {
    /// Wraps a reader and the index that it reflects.
    pub fn new(reader: Box<dyn Reader + Send>, index: u64) -> Self {
        Self { reader, index }
    }

    /// The rows.
    pub fn reader(&self) -> &dyn Reader {
        self.reader.as_ref()
    }

    /// The log index that they reflect.
    pub fn index(&self) -> u64 {
        self.index
    }
}

/// A snapshot of this node's state, before it is written.
pub struct SnapshotSource {
    /// The log index that it reflects.
    pub index: u64,
    /// Writes it; blocks for as long as the reader takes, and holds back the deletion of old rows.
    pub write: WriteSnapshot,
}

/// Writes a snapshot into a stream.
pub type WriteSnapshot = Box<dyn FnOnce(&mut dyn Write) -> Result<(), SnapshotError> + Send>;

/// A node, as the use cases see it. See [`Handle`] for what each promises.
pub trait Cluster: Send + Sync + 'static {
    /// Proposes a client's command.
    fn propose<'a>(
        &'a self,
        envelope: &'a Envelope,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Committed, ProposeError>>;

    /// Returns a view that is as new as asked.
    fn read(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Snapshot, ReadIndexError>>;

    /// Returns a snapshot of a view that is as new as asked.
    fn snapshot(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<SnapshotSource, ReadIndexError>>;

    /// Watches what was applied here.
    fn changes(&self) -> watch::Receiver<Changes>;

    /// This node.
    fn node_id(&self) -> NodeId;

    /// The cluster's id.
    fn cluster_id(&self) -> Option<[u8; 16]>;

    /// This node's own status.
    fn local_status(&self) -> NodeStatus;

    /// All members' status.
    fn members(&self, timeout: Duration) -> BoxFuture<'_, Vec<NodeStatus>>;

    /// The cluster's version, as applied here.
    fn cluster_version(&self) -> u16;

    /// The upgrade that these members are in.
    fn upgrade(&self, members: &[NodeStatus]) -> Option<Upgrade>;

    /// Raises the cluster's version.
    fn raise_version(
        &self,
        actor: Actor,
        without: Vec<NodeId>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Raised, RaiseError>>;

    /// Changes who belongs to the cluster, or hands leadership on.
    fn change_members(
        &self,
        order: MembershipOrder,
        actor: Actor,
        expected: Option<u64>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<MembershipChanged, MembershipError>>;

    /// The members as this node knows them.
    fn membership(&self) -> MembershipView;

    /// Makes the cluster that a waiting node's configuration describes.
    fn found(&self, timeout: Duration) -> BoxFuture<'_, Result<(), MembershipError>>;

    /// Has a waiting node ask members to be taken in.
    fn join<'a>(
        &'a self,
        addresses: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(), MembershipError>>;

    /// The leader as this node knows it.
    fn leader(&self) -> Option<NodeId>;

    /// Whether this process works; else what is stuck.
    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    /// What watching this node's disk and data has found.
    fn health(&self) -> NodeHealth {
        NodeHealth::default()
    }

    /// Whether this node is ready to serve; else what it waits for.
    fn ready(&self) -> Result<(), String>;
}

impl Cluster for Handle {
    fn propose<'a>(
        &'a self,
        envelope: &'a Envelope,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Committed, ProposeError>> {
        Handle::propose(self, envelope, timeout).boxed()
    }

    fn read(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Snapshot, ReadIndexError>> {
        async move {
            let view = Handle::read(self, consistency, timeout).await?;
            let index = view.applied_index();
            Ok(Snapshot::new(Box::new(view), index))
        }
        .boxed()
    }

    fn snapshot(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<SnapshotSource, ReadIndexError>> {
        async move {
            let view = Handle::read(self, consistency, timeout).await?;
            let handle = self.clone();
            let index = view.applied_index();
            let write: WriteSnapshot = Box::new(move |to| handle.write_snapshot(&view, to));
            Ok(SnapshotSource { index, write })
        }
        .boxed()
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        Handle::changes(self)
    }

    fn node_id(&self) -> NodeId {
        Handle::node_id(self)
    }

    fn cluster_id(&self) -> Option<[u8; 16]> {
        Handle::cluster_id(self)
    }

    fn local_status(&self) -> NodeStatus {
        Handle::local_status(self)
    }

    fn members(&self, timeout: Duration) -> BoxFuture<'_, Vec<NodeStatus>> {
        Handle::members(self, timeout).boxed()
    }

    fn cluster_version(&self) -> u16 {
        Handle::cluster_version(self)
    }

    fn upgrade(&self, members: &[NodeStatus]) -> Option<Upgrade> {
        Handle::upgrade(self, members)
    }

    fn raise_version(
        &self,
        actor: Actor,
        without: Vec<NodeId>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Raised, RaiseError>> {
        Handle::raise_version(self, actor, without, timeout).boxed()
    }

    fn change_members(
        &self,
        order: MembershipOrder,
        actor: Actor,
        expected: Option<u64>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<MembershipChanged, MembershipError>> {
        Handle::change_members(self, order, actor, expected, timeout).boxed()
    }

    fn membership(&self) -> MembershipView {
        Handle::membership(self)
    }

    fn found(&self, timeout: Duration) -> BoxFuture<'_, Result<(), MembershipError>> {
        Handle::found(self, timeout).boxed()
    }

    fn join<'a>(
        &'a self,
        addresses: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(), MembershipError>> {
        Handle::join(self, addresses, timeout).boxed()
    }

    fn leader(&self) -> Option<NodeId> {
        Handle::leader(self)
    }

    fn alive(&self) -> Result<(), String> {
        Handle::alive(self)
    }

    fn health(&self) -> NodeHealth {
        Handle::health(self)
    }

    fn ready(&self) -> Result<(), String> {
        Handle::ready(self)
    }
}
