//! A cluster of one in memory for tests: the real `apply` over a map, without consensus.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use peat_gateway_cluster::backup::SnapshotError;
use peat_gateway_cluster::{
    Changes, Committed, Consistency, MembershipChanged, MembershipError, MembershipOrder,
    MembershipView, NodeStatus, NodeVersions, ProposeError, RaiseError, Raised, ReadIndexError,
    Role, Upgrade,
};
use peat_gateway_state::apply::Overlay;
use peat_gateway_state::command::{ClaimEpoch, Fence, InitializeCluster};
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::ids::{Epoch, NodeId};
use peat_gateway_state::record::ClusterSettings;
use peat_gateway_state::{
    Actor, Command, EntryPosition, Envelope, Outcome, ReadError, Reader, Refusal, RefusalKind,
    Space, VERSION, apply, codec,
};
use tokio::sync::watch;

use super::cluster::{Cluster, Snapshot, SnapshotSource, WriteSnapshot};

const TERM: u64 = 1;
const NODE: NodeId = NodeId(7);
/// What stands for a snapshot: only the store writes real ones.
pub(crate) static SNAPSHOT_BYTES: [u8; 3_000_000] = [7; 3_000_000];

#[derive(Clone, Default)]
struct Rows(BTreeMap<(Space, Vec<u8>), Vec<u8>>);

impl Reader for Rows {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.0.get(&(space, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        if start >= end {
            return Ok(());
        }
        let mut rows = self.0.range((space, start.to_vec())..(space, end.to_vec()));
        loop {
            let row = if reverse { rows.next_back() } else { rows.next() };
            match row {
                Some(((_, key), value)) if visit(key, value) => {}
                _ => return Ok(()),
            }
        }
    }
}

struct State {
    rows: Rows,
    hash: StateHash,
    index: u64,
}

/// The cluster.
pub(crate) struct Memory {
    state: Mutex<State>,
    changes: watch::Sender<Changes>,
    fence: Fence,
    /// While set, proposals are applied but answered as unknown.
    pub(crate) loses_answers: AtomicBool,
    /// While set, nothing is proposed or read.
    pub(crate) has_no_leader: AtomicBool,
}

impl Memory {
    /// Starts an initialised cluster.
    pub(crate) fn start() -> Self {
        let mut memory = Self {
            state: Mutex::new(State {
                rows: Rows::default(),
                hash: StateHash::default(),
                index: 0,
            }),
            changes: watch::Sender::new(Changes::default()),
            fence: Fence { term: TERM, epoch: None },
            loses_answers: AtomicBool::new(false),
            has_no_leader: AtomicBool::new(false),
        };
        let settings = ClusterSettings {
            cluster_id: [1; 16],
            seal_domain: [2; 16],
            version: VERSION,
            idempotency_retention_ms: 3_600_000,
            journal_retention_ms: 0,
            key_check: Vec::new(),
            upgrade: None,
        };
        memory.lead(Command::InitializeCluster(InitializeCluster { term: TERM, settings }));
        let claimed = memory.lead(Command::ClaimEpoch(ClaimEpoch { term: TERM, node: NODE }));
        let Outcome::EpochClaimed(epoch) = claimed else { panic!("{claimed:?}") };
        memory.fence.epoch = Some(Epoch(epoch.0));
        memory
    }

    /// What leader work carries.
    pub(crate) fn fence(&self) -> Fence {
        self.fence
    }

    /// Applies leader work.
    pub(crate) fn lead(&self, command: Command) -> Outcome {
        let principal = format!("node:{NODE}");
        let actor = Actor { principal, source: String::new(), request_id: String::new() };
        self.apply(&Envelope::new(actor, command)).outcome
    }

    fn apply(&self, envelope: &Envelope) -> Committed {
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        state.index += 1;
        let position = EntryPosition {
            index: state.index,
            term: TERM,
            time_ms: 1_700_000_000_000 + state.index,
        };
        let base = state.rows.clone();
        let mut overlay = Overlay::new(&base);
        let applied = apply(&mut overlay, &position, &codec::encode(envelope)).unwrap();
        for (space, key, value) in overlay.finish(&mut state.hash) {
            match value {
                Some(value) => state.rows.0.insert((space, key), value),
                None => state.rows.0.remove(&(space, key)),
            };
        }
        let index = state.index;
        self.changes.send_modify(|changes| {
            changes.applied = index;
            if applied.effects.journal {
                changes.journal = index;
            }
        });
        Committed { outcome: applied.outcome, index: applied.index, applied_index: index }
    }
}

impl Cluster for Memory {
    fn propose<'a>(
        &'a self,
        envelope: &'a Envelope,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Committed, ProposeError>> {
        async move {
            if self.has_no_leader.load(Ordering::Relaxed) {
                return Err(ProposeError::Unavailable("no leader is known".to_owned()));
            }
            let committed = self.apply(envelope);
            if self.loses_answers.load(Ordering::Relaxed) {
                return Err(ProposeError::Unknown("the connection was lost".to_owned()));
            }
            Ok(committed)
        }
        .boxed()
    }

    fn read(
        &self,
        consistency: Consistency,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<Snapshot, ReadIndexError>> {
        async move {
            if self.has_no_leader.load(Ordering::Relaxed) && !consistency.stale {
                return Err(ReadIndexError::Unavailable("no leader is known".to_owned()));
            }
            let state = self.state.lock().unwrap();
            if state.index < consistency.min_index {
                let (applied, demanded) = (state.index, consistency.min_index);
                return Err(ReadIndexError::Behind { applied, demanded });
            }
            Ok(Snapshot::new(Box::new(state.rows.clone()), state.index))
        }
        .boxed()
    }

    fn snapshot(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<SnapshotSource, ReadIndexError>> {
        async move {
            let index = self.read(consistency, timeout).await?.index();
            let fails = self.loses_answers.load(Ordering::Relaxed);
            let write: WriteSnapshot = Box::new(move |to| {
                let failed = |error: std::io::Error| SnapshotError::Failed(error.to_string());
                to.write_all(&SNAPSHOT_BYTES).map_err(failed)?;
                if fails {
                    return Err(SnapshotError::Failed("the disk failed".to_owned()));
                }
                to.flush().map_err(failed)
            });
            Ok(SnapshotSource { index, write })
        }
        .boxed()
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    fn node_id(&self) -> NodeId {
        NODE
    }

    fn cluster_id(&self) -> Option<[u8; 16]> {
        Some([1; 16])
    }

    fn local_status(&self) -> NodeStatus {
        let state = self.state.lock().unwrap();
        NodeStatus {
            node_id: NODE,
            name: "memory".to_owned(),
            http_address: "http://127.0.0.1:8080".to_owned(),
            peer_address: "127.0.0.1:7000".to_owned(),
            role: Role::Leader,
            voter: true,
            reachable: true,
            matched_index: Some(state.index),
            lag: Some(0),
            last_contact_ms: None,
            problem: None,
            term: TERM,
            applied_index: state.index,
            last_log_index: state.index,
            state_hash: Some(state.hash.digest()),
            build_version: "test".to_owned(),
            versions: Some(NodeVersions { min: 1, max: VERSION, agrees_in: Duration::ZERO }),
            alarms: Vec::new(),
        }
    }

    fn members(&self, _timeout: Duration) -> BoxFuture<'_, Vec<NodeStatus>> {
        async move { vec![self.local_status()] }.boxed()
    }

    fn cluster_version(&self) -> u16 {
        VERSION
    }

    fn upgrade(&self, _members: &[NodeStatus]) -> Option<Upgrade> {
        None
    }

    fn raise_version(
        &self,
        _actor: Actor,
        _without: Vec<NodeId>,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<Raised, RaiseError>> {
        let raised = match self.has_no_leader.load(Ordering::Relaxed) {
            true => Err(RaiseError::Unavailable("no leader is known".to_owned())),
            false => {
                let applied_index = self.state.lock().unwrap().index;
                Ok(Raised { from: VERSION, to: VERSION, applied_index })
            }
        };
        async move { raised }.boxed()
    }

    /// There is nobody to change; the condition is checked as the leader does.
    fn change_members(
        &self,
        order: MembershipOrder,
        _actor: Actor,
        expected: Option<u64>,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<MembershipChanged, MembershipError>> {
        async move {
            let index = self.membership().index;
            if expected.is_some_and(|expected| expected != index) {
                return Err(MembershipError::Refused(Refusal::new(
                    RefusalKind::PreconditionFailed,
                    "precondition_failed",
                    "the membership is another one",
                )));
            }
            let node = match order {
                MembershipOrder::Add { .. } => NodeId(8),
                MembershipOrder::Promote { node, .. } | MembershipOrder::Remove { node, .. } => {
                    node
                }
                MembershipOrder::Transfer { to } => to.unwrap_or(NODE),
            };
            Ok(MembershipChanged { membership: index + 1, node, index: index + 1 })
        }
        .boxed()
    }

    fn membership(&self) -> MembershipView {
        MembershipView { index: 1, joint: false, removed: Vec::new() }
    }

    fn found(&self, _timeout: Duration) -> BoxFuture<'_, Result<(), MembershipError>> {
        async { Ok(()) }.boxed()
    }

    fn join<'a>(
        &'a self,
        _addresses: &'a [String],
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<(), MembershipError>> {
        async { Ok(()) }.boxed()
    }

    fn leader(&self) -> Option<NodeId> {
        (!self.has_no_leader.load(Ordering::Relaxed)).then_some(NODE)
    }

    fn ready(&self) -> Result<(), String> {
        match self.has_no_leader.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err("no leader was heard of".to_owned()),
        }
    }
}
