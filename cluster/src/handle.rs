//! What the rest of the gateway sees of the cluster: propose, read, watch. Cheap to clone.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use peat_gateway_state::ids::{Epoch, Hash32, NodeId};
use peat_gateway_state::{Actor, Envelope, Outcome};
use tokio::sync::watch;

use crate::backup::SnapshotError;
use crate::error::{ProposeError, RaiseError, ReadIndexError};
use crate::health::Alarm;
use crate::membership::{MembershipChanged, MembershipError, MembershipOrder, MembershipView};
use crate::node::WriteCounts;
use crate::node::inner::Inner;
use crate::node::membership::{Order, Request};
pub use crate::node::service::NodeHealth;
pub use crate::store::{StorageCounts, View};

/// A running node's handle.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inner: Arc<Inner>,
}

/// A command that the cluster decided: done or refused.
#[derive(Clone, Debug)]
pub struct Committed {
    /// What the state answered.
    pub outcome: Outcome,
    /// The log index of the entry that did it; an earlier one where this answers a retry.
    pub index: u64,
    /// An index that this answer is contained in: what a later read must demand to see it.
    pub applied_index: u64,
}

/// How new a read must be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consistency {
    /// Read what this node has, without asking the leader.
    pub stale: bool,
    /// With `stale`: refuse where the leader was last heard of longer ago.
    pub max_staleness: Option<Duration>,
    /// Refuse to answer from an index below this one (waits for it, up to the timeout).
    pub min_index: u64,
}

/// This node's part, as watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Another node leads, or none.
    #[default]
    Follower,
    /// This node leads, its epoch is committed and applied here: leader work may run.
    Leader {
        /// The Raft term.
        term: u64,
        /// The epoch that leader work carries.
        epoch: Epoch,
    },
}

/// Counters that move when something was applied; what waiters compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The newest applied index.
    pub applied: u64,
    /// Index of the newest change of organisations, formations, sinks or settings.
    pub configuration: u64,
    /// Index of the newest journal row.
    pub journal: u64,
    /// Index of the newest cursor change.
    pub cursors: u64,
}

/// A node's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Leads.
    Leader,
    /// Follows a leader and votes.
    Follower,
    /// Campaigns.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Is not reachable, or ended.
    Down,
}

/// A node as `GET /cluster` shows it.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its id.
    pub node_id: NodeId,
    /// What the operator calls it.
    pub name: String,
    /// URL of its HTTP API.
    pub http_address: String,
    /// `host:port` of its peer listener.
    pub peer_address: String,
    /// What it does.
    pub role: Role,
    /// Whether it has a vote.
    pub voter: bool,
    /// Whether it answered.
    pub reachable: bool,
    /// Its Raft term.
    pub term: u64,
    /// What it has applied.
    pub applied_index: u64,
    /// The end of its log.
    pub last_log_index: u64,
    /// Up to where its log is known to match the leader's; `None` where no leader says so.
    pub matched_index: Option<u64>,
    /// Entries that it lacks of the leader's log.
    pub lag: Option<u64>,
    /// Milliseconds since it last answered the leader's heartbeat; `None` on the leader itself.
    pub last_contact_ms: Option<u64>,
    /// Hash of its state at `applied_index`; `None` while it is down.
    pub state_hash: Option<Hash32>,
    /// The build it runs; empty while it is down.
    pub build_version: String,
    /// What that build understands; `None` while it is down.
    pub versions: Option<NodeVersions>,
    /// Why it didn't answer, and what to do.
    pub problem: Option<String>,
    /// What is wrong with it; empty while it is down.
    pub alarms: Vec<Alarm>,
}

/// The versions of commands and records that a node's build understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeVersions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
    /// How long until the node agrees that the cluster's version is raised without an operator.
    pub agrees_in: Duration,
}

/// An upgrade that isn't finished: a member supports a newer version than the cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The version that it leads to.
    pub to: u16,
    /// Who is in the way, a sentence each; empty where the version can be raised now.
    pub held_back_by: Vec<String>,
    /// When it is raised without an operator, if nothing gets in the way; `None` where it isn't.
    pub automatic_in: Option<Duration>,
}

/// What raising the cluster's version did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// The version before.
    pub from: u16,
    /// The version now; the same where there was nothing to raise.
    pub to: u16,
    /// An index that contains it.
    pub applied_index: u64,
}

impl Handle {
    /// Proposes a client's command: here if this node leads, else at the leader, one hop at most.
    ///
    /// # Errors
    /// See [`ProposeError`]: after `Unknown` only a retry with the same idempotency key is safe.
    /// Dropping the future leaves the outcome unknown.
    pub async fn propose(
        &self,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Committed, ProposeError> {
        self.inner.propose(envelope, timeout).await
    }

    /// Proposes leader work on this node, never forwarded.
    ///
    /// # Errors
    /// `NotLeader` where this node leads no more; else as [`Handle::propose`].
    pub async fn propose_leader_work(
        &self,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Committed, ProposeError> {
        self.inner.propose_leader_work(envelope, timeout).await
    }

    /// Returns a view of the state that is as new as `consistency` asks.
    ///
    /// A linearizable read asks the leader for its commit index in a round that began after this
    /// call, shared by all reads that wait, and waits until that index is applied here. (Raft §6.4)
    ///
    /// # Errors
    /// See [`ReadIndexError`]; the caller answers 503.
    pub async fn read(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> Result<View, ReadIndexError> {
        self.inner.read(consistency, timeout).await
    }

    /// Returns a view of what this node has applied, without any check of its age.
    pub fn local_view(&self) -> View {
        self.inner.local_view()
    }

    /// Writes a snapshot of a view of this node into a stream: the bytes of a snapshot file, never
    /// held as a whole. Blocks for as long as the reader takes.
    ///
    /// # Errors
    /// The disk failed, or `to` refuses. What was written is no snapshot then: its reader notices.
    pub fn write_snapshot(&self, view: &View, to: &mut dyn Write) -> Result<(), SnapshotError> {
        self.inner.store().stream_snapshot(view, to).map_err(|error| SnapshotError::of(&error))
    }

    /// What this node's storage has done since it was opened, for metrics.
    pub fn storage_counts(&self) -> StorageCounts {
        self.inner.storage_counts()
    }

    /// Whether this process works, whatever the cluster does. It fails when a sync has been stuck for so long
    /// that only a restart could help.
    ///
    /// # Errors
    /// What is stuck.
    pub fn alive(&self) -> Result<(), String> {
        self.inner.alive()
    }

    /// What watching this node's disk and data has found, for metrics and probes.
    pub fn health(&self) -> NodeHealth {
        self.inner.health()
    }

    /// What clients' writes do on this node now, and how many it refused, for metrics.
    pub fn write_counts(&self) -> WriteCounts {
        self.inner.write_counts()
    }

    /// Reads the peer certificates again; `false` where there are none, or the same. New connections
    /// use the new ones, open ones stay.
    ///
    /// # Errors
    /// They can't be used, or the other nodes would refuse them; the ones in use stay.
    pub async fn reload_peer_certificates(&self) -> Result<bool, String> {
        self.inner.reload_peer_certificates().await
    }

    /// When this node's peer certificate expires; `None` where it has none.
    pub fn peer_certificate_expires(&self) -> Option<SystemTime> {
        self.inner.peer_certificate_expires()
    }

    /// Takes another cluster token for what is asked from now on; `false` where it is the same.
    pub fn replace_cluster_token(&self, token: &str) -> bool {
        self.inner.replace_cluster_token(token)
    }

    /// Watches whether this node may do leader work.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership()
    }

    /// Watches what was applied on this node.
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.inner.changes()
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.inner.node_id()
    }

    /// The cluster's id; `None` until this node belongs to one.
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.inner.cluster_id()
    }

    /// This node's own status; never blocks on others.
    pub fn local_status(&self) -> NodeStatus {
        self.inner.local_status()
    }

    /// All members' status, asked for in parallel; members that don't answer in time are `Down`.
    pub async fn members(&self, timeout: Duration) -> Vec<NodeStatus> {
        self.inner.members(timeout).await
    }

    /// The cluster's version as this node has applied it: commands up to it may be proposed.
    ///
    /// It only grows. Leader work that needs more waits; see `peat_gateway_state::command::version`.
    pub fn cluster_version(&self) -> u16 {
        self.inner.cluster_version()
    }

    /// The newest version that all members support, for the first settings of a cluster.
    ///
    /// # Errors
    /// Which member didn't say in time.
    pub async fn common_version(&self, timeout: Duration) -> Result<u16, String> {
        self.inner.common_version(timeout).await
    }

    /// The upgrade that these members are in, `None` where no build is newer than the cluster.
    pub fn upgrade(&self, members: &[NodeStatus]) -> Option<Upgrade> {
        self.inner.upgrade(members)
    }

    /// Raises the cluster's version to the newest that every member supports: here if this node
    /// leads, else at the leader. There is no way back to an older build afterwards.
    ///
    /// Members that are down hold it back, but for those in `without`: lost for good, or sure to come
    /// back with a newer build.
    ///
    /// # Errors
    /// See [`RaiseError`]. Asking again is always safe.
    pub async fn raise_version(
        &self,
        actor: Actor,
        without: Vec<NodeId>,
        timeout: Duration,
    ) -> Result<Raised, RaiseError> {
        self.inner.raise_version(actor, without, timeout).await
    }

    /// Changes who belongs to the cluster, or hands leadership on: here if this node leads, else at the
    /// leader. `expected` is the membership's log index that the order was decided on.
    ///
    /// # Errors
    /// See [`MembershipError`]. Dropping the future leaves the outcome unknown.
    pub async fn change_members(
        &self,
        order: MembershipOrder,
        actor: Actor,
        expected: Option<u64>,
        timeout: Duration,
    ) -> Result<MembershipChanged, MembershipError> {
        let request = Request { order: Order::Asked(order), actor, expected };
        self.inner.change_members(request, timeout).await
    }

    /// The members as this node knows them.
    pub fn membership(&self) -> MembershipView {
        self.inner.membership_view()
    }

    /// Makes the cluster that a waiting node's configuration describes: of its first members, or of
    /// this node alone.
    ///
    /// # Errors
    /// Refused where this node belongs to a cluster; unavailable where others are missing still.
    pub async fn found(&self, timeout: Duration) -> Result<(), MembershipError> {
        self.inner.found_cluster(timeout).await
    }

    /// Has a waiting node ask the members at these addresses to be taken in.
    ///
    /// # Errors
    /// Refused where this node belongs to a cluster; unavailable where no member takes it in.
    pub async fn join(
        &self,
        addresses: &[String],
        timeout: Duration,
    ) -> Result<(), MembershipError> {
        self.inner.join_on_order(addresses, timeout).await
    }

    /// The leader as this node knows it.
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.leader()
    }

    /// Whether this node is ready to serve: recovered, and a leader was heard of within 3 election
    /// timeouts. The text says what is missing.
    ///
    /// # Errors
    /// What it waits for.
    pub fn ready(&self) -> Result<(), String> {
        self.inner.ready()
    }
}
