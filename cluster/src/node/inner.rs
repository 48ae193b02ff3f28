//! What a handle shares: the work behind `propose`, `read` and `watch`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use peat_gateway_state::command::ENVELOPE_BYTES_MAX;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::{Envelope, codec};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::contact::LeaderContact;
use super::fairness::{FairPlaces, WriteCounts, organization};
use super::forward::Forwarder;
use super::identity::Identity;
use super::introduce::Introductions;
use super::propose::{Attempt, ProposalLane};
use super::read::{FindLeader, ReadRounds};
use super::service::Checks;
use super::space;
use super::versions::KnownVersion;
use crate::config::Timing;
use crate::error::{ProposeError, ReadIndexError};
use crate::handle::{Changes, Committed, Consistency, Leadership, View};
use crate::health::Health;
use crate::membership::{Departure, MembershipConfig};
use crate::raft::{Member, TypeConfig};
#[cfg(test)]
use crate::simulation::{Bug, planted};
use crate::store::{Machine, StorageCounts, Store};
use crate::transport::admission::Retired;
use crate::transport::peers::{Peer, Peers};
use crate::transport::proposals::ProposalStreams;
use crate::transport::tls::PeerCertificates;
use crate::transport::token::TokenKey;

/// Leader work that may be under way; it has places of its own, so that clients can't starve it.
pub(crate) const LEADER_PROPOSALS_MAX: usize = 1_024;
/// How long a proposal waits for a leader that takes it, if its own time is longer.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pause before asking again who leads; a change of leader ends it.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// A leader is known if it was heard of within this many of the longest election timeouts.
const READY_TIMEOUTS: u32 = 3;

/// Consensus has ended here: nothing changes any more, so there is nothing to wait for.
const ENDING: &str = "this node is ending";

/// Consensus on this node.
pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// A running node's parts.
pub(crate) struct Inner {
    pub(super) raft: Raft,
    pub(super) store: Store,
    pub(super) identity: Arc<Identity>,
    pub(super) peers: Arc<Peers>,
    pub(super) contact: Arc<LeaderContact>,
    pub(super) member: Member,
    pub(super) timing: Timing,
    pub(super) lane: ProposalLane,
    pub(super) forwarder: Forwarder,
    pub(super) reads: ReadRounds,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) writes: FairPlaces,
    pub(super) apply_lag_max: u64,
    pub(super) leader_proposals: Semaphore,
    /// What is wrong with this node.
    pub(super) health: Arc<Health>,
    /// What watching the data has found.
    pub(super) checks: Checks,
    /// Other nodes' proposals.
    pub(super) forwarded: ProposalStreams,
    pub(super) certificates: Option<Arc<PeerCertificates>>,
    pub(super) token: TokenKey,
    /// What this node had committed before it started is applied again.
    pub(super) recovered: AtomicBool,
    /// When this node's build began to run, and the newest cluster version that it has seen.
    pub(super) known_version: KnownVersion,
    /// What the bootstrap waits for; `None` once the cluster exists.
    pub(super) bootstrap: Mutex<Option<String>>,
    /// Made at this start; tells two processes with one data directory apart.
    pub(super) boot_id: u64,
    pub(super) introductions: Introductions,
    /// The other first members, for an operator who founds the cluster; `None`: there are none.
    pub(super) founding: Option<Vec<String>>,
    pub(super) promotion: MembershipConfig,
    /// Held by the one change of members that this leader makes.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Removed nodes that have left the membership.
    pub(super) retired: Arc<Retired>,
    /// The start of each member that this leader has found to be the only one.
    pub(super) boots: Mutex<BTreeMap<u64, u64>>,
    /// Why this node is no part of its cluster any more.
    pub(super) departure: watch::Sender<Option<Departure>>,
}

/// Who leads, for the read rounds.
pub(super) struct LeaderFinder {
    pub(super) raft: Raft,
    pub(super) peers: Arc<Peers>,
}

impl FindLeader for LeaderFinder {
    fn find(&self) -> Result<Option<Arc<Peer>>, String> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.ok_or_else(|| "no leader is known".to_owned())?;
        if leader == metrics.id {
            return Ok(None);
        }
        let member = metrics.membership_config.get_node(&leader);
        let member = member.ok_or_else(|| "the leader is no member".to_owned())?;
        Ok(Some(self.peers.peer(leader, &member.peer_address)))
    }
}

impl Inner {
    pub(crate) async fn propose(
        &self,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Committed, ProposeError> {
        if envelope.command.is_leader_work() {
            return self.propose_leader_work(envelope, timeout).await;
        }
        if let Some(reason) = self.damaged() {
            return Err(ProposeError::Unavailable(reason));
        }
        self.admit(&envelope.command).await?;
        let bytes = encode(envelope)?;
        if let Err(behind) = self.check_apply_lag() {
            self.writes.count_refused_lag();
            return Err(behind);
        }
        let deadline = Instant::now() + timeout;
        let give_up_at = Instant::now() + timeout.min(LEADER_WAIT_MAX);
        let _place = self.writes.enter(organization(&envelope.command), give_up_at).await?;
        let mut changes = self.raft.server_metrics();
        loop {
            changes.borrow_and_update();
            let nothing = match self.attempt(bytes.clone(), deadline).await {
                Attempt::Decided(committed) => return Ok(committed),
                Attempt::NoSpace(reason) => return Err(ProposeError::NoSpace(reason)),
                #[cfg(test)]
                Attempt::Unknown(reason) if planted(Bug::UnknownTriedAgain) => reason,
                Attempt::Unknown(reason) => return Err(ProposeError::Unknown(reason)),
                Attempt::NotLeader(_) => "the node asked leads no more".to_owned(),
                Attempt::Nothing(reason) => reason,
            };
            // Nothing happened so far, so another try is safe, at whoever leads then.
            let pause_end = Instant::now() + RETRY_PAUSE;
            if pause_end >= give_up_at {
                return Err(ProposeError::Unavailable(nothing));
            }
            if let Ok(Err(_)) = tokio::time::timeout_at(pause_end, changes.changed()).await {
                return Err(ProposeError::Unavailable(ENDING.to_owned()));
            }
        }
    }

    /// Refuses writes while this node has too much to apply: they would be the last to be done.
    fn check_apply_lag(&self) -> Result<(), ProposeError> {
        let limit = self.apply_lag_max;
        let lag = self.store.last_log_index().saturating_sub(self.store.applied_index());
        if lag <= limit { Ok(()) } else { Err(ProposeError::Behind { lag, limit }) }
    }

    pub(crate) fn write_counts(&self) -> WriteCounts {
        self.writes.counts()
    }

    /// Tries once at the leader, as it is known now.
    async fn attempt(&self, envelope: Bytes, deadline: Instant) -> Attempt {
        let finder = LeaderFinder { raft: self.raft.clone(), peers: self.peers.clone() };
        match finder.find() {
            Ok(None) => match self.refused_here(&envelope) {
                Some(refused) => refused,
                None => self.lane.propose(envelope, None, deadline).await,
            },
            Ok(Some(leader)) => self.forwarder.propose(&leader, envelope, deadline).await,
            Err(reason) => Attempt::Nothing(reason),
        }
    }

    /// Proposes what another node forwarded: here or nowhere.
    pub(crate) async fn propose_here(&self, envelope: Bytes, timeout: Duration) -> Attempt {
        if envelope.len() > ENVELOPE_BYTES_MAX {
            return Attempt::Nothing("the command is too large".to_owned());
        }
        if let Err(reason) = self.admit_envelope(&envelope) {
            return Attempt::Nothing(reason);
        }
        if let Err(behind) = self.check_apply_lag() {
            return Attempt::Nothing(behind.to_string());
        }
        match self.leader() {
            Some(leader) if leader == self.node_id() => {
                if let Some(refused) = self.refused_here(&envelope) {
                    return refused;
                }
                self.lane.propose(envelope, None, Instant::now() + timeout).await
            }
            leader => Attempt::NotLeader(leader.map(|leader| leader.0)),
        }
    }

    pub(crate) async fn propose_leader_work(
        &self,
        envelope: &Envelope,
        timeout: Duration,
    ) -> Result<Committed, ProposeError> {
        let fence = envelope.command.fence().ok_or(ProposeError::NotLeader)?;
        self.admit(&envelope.command).await?;
        let bytes = encode(envelope)?;
        let leader = self.raft.as_leader().map_err(|_| ProposeError::NotLeader)?;
        #[cfg(test)]
        if planted(Bug::OldEpochAccepted) {
            return match self.lane.propose(bytes, None, Instant::now() + timeout).await {
                Attempt::Decided(committed) => Ok(committed),
                _ => Err(ProposeError::NotLeader),
            };
        }
        if leader.term() != fence.term {
            return Err(ProposeError::NotLeader);
        }
        if space::grows(&envelope.command)
            && let Some(reason) = self.health.no_space()
        {
            return Err(ProposeError::NoSpace(reason));
        }
        let _place = self.leader_proposals.try_acquire().map_err(|_| ProposeError::Overloaded)?;
        let leadership = Some(leader.to_committed_leader_id());
        match self.lane.propose(bytes, leadership, Instant::now() + timeout).await {
            Attempt::Decided(committed) => Ok(committed),
            Attempt::NotLeader(_) => Err(ProposeError::NotLeader),
            Attempt::NoSpace(reason) => Err(ProposeError::NoSpace(reason)),
            Attempt::Nothing(reason) => Err(ProposeError::Unavailable(reason)),
            Attempt::Unknown(reason) => Err(ProposeError::Unknown(reason)),
        }
    }

    pub(crate) async fn read(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> Result<View, ReadIndexError> {
        self.check_in_service()?;
        #[cfg(test)]
        let stale = consistency.stale || planted(Bug::StaleReadAsLinearizable);
        #[cfg(test)]
        let consistency = Consistency { stale, ..consistency };
        let deadline = Instant::now() + timeout;
        let mut demanded = consistency.min_index;
        if !consistency.stale {
            demanded = demanded.max(self.newest_index(deadline).await?);
        } else if let Some(limit) = consistency.max_staleness {
            let age = self.leader_age();
            if age.is_none_or(|age| age > limit) {
                return Err(ReadIndexError::Stale {
                    age_ms: age.map_or(u64::MAX, |age| age.as_millis() as u64),
                    limit_ms: limit.as_millis() as u64,
                });
            }
        }
        self.wait_applied(demanded, deadline).await?;
        // Damage that was found meanwhile counts: what is read now could be wrong.
        self.check_in_service()?;
        Ok(self.store.view())
    }

    /// The rounds of linearizable reads, for other nodes' questions.
    pub(crate) fn reads(&self) -> &ReadRounds {
        &self.reads
    }

    /// Asks rounds for the newest index until one answers or the time is up.
    async fn newest_index(&self, deadline: Instant) -> Result<u64, ReadIndexError> {
        let mut changes = None;
        loop {
            if let Some(reason) = self.stuck_leader() {
                return Err(ReadIndexError::Unavailable(reason));
            }
            let reason = match self.reads.index(deadline).await {
                Ok(index) => return Ok(index),
                Err(reason) => reason,
            };
            let pause_end = Instant::now() + RETRY_PAUSE;
            if pause_end >= deadline {
                return Err(ReadIndexError::Unavailable(reason));
            }
            let changes = changes.get_or_insert_with(|| self.raft.server_metrics());
            if let Ok(Err(_)) = tokio::time::timeout_at(pause_end, changes.changed()).await {
                return Err(ReadIndexError::Unavailable(ENDING.to_owned()));
            }
        }
    }

    async fn wait_applied(&self, demanded: u64, deadline: Instant) -> Result<(), ReadIndexError> {
        if self.store.applied_index() >= demanded {
            return Ok(());
        }
        let mut changes = self.store.changes();
        let applied = |changes: &mut watch::Receiver<Changes>| changes.borrow_and_update().applied;
        while applied(&mut changes) < demanded {
            let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                let applied = applied(&mut changes);
                if applied >= demanded {
                    break;
                }
                return Err(ReadIndexError::Behind { applied, demanded });
            }
        }
        Ok(())
    }

    pub(crate) fn local_view(&self) -> View {
        self.store.view()
    }

    pub(crate) fn storage_counts(&self) -> StorageCounts {
        self.store.counts()
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Changes> {
        self.store.changes()
    }

    pub(crate) fn node_id(&self) -> NodeId {
        NodeId(self.identity.node_id())
    }

    pub(crate) fn cluster_id(&self) -> Option<[u8; 16]> {
        self.identity.cluster_id()
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader.map(NodeId)
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The members' ids, voters and learners, for the simulation.
    #[cfg(test)]
    pub(crate) fn member_ids(&self) -> std::collections::BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(node_id, _)| *node_id).collect()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    pub(crate) fn boot_id(&self) -> u64 {
        self.boot_id
    }

    pub(super) fn introductions(&self) -> &Introductions {
        &self.introductions
    }

    pub(crate) fn ready(&self) -> Result<(), String> {
        if let Some(reason) = self.health.unfit() {
            return Err(reason);
        }
        if let Some(waits_for) = self.bootstrapping() {
            return Err(waits_for);
        }
        if !self.recovered.load(Ordering::Relaxed) {
            return Err("what was committed before the start is not applied yet".to_owned());
        }
        let limit = self.timing.election_timeout_max * READY_TIMEOUTS;
        match self.leader_age() {
            Some(age) if age <= limit => Ok(()),
            Some(age) => Err(format!("no leader was heard of for {} ms", age.as_millis())),
            None => Err("no leader was heard of since the start".to_owned()),
        }
    }

    /// What the bootstrap waits for.
    fn bootstrapping(&self) -> Option<String> {
        self.bootstrap.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the bootstrap waits for; `None` ends it.
    pub(super) fn set_bootstrapping(&self, waits_for: Option<String>) {
        *self.bootstrap.lock().unwrap_or_else(PoisonError::into_inner) = waits_for;
    }

    /// How long ago a leader was heard of; on the leader, when a quorum last answered it.
    pub(super) fn leader_age(&self) -> Option<Duration> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            drop(metrics);
            return self.contact.age();
        }
        if metrics.membership_config.voter_ids().count() == 1 {
            return Some(Duration::ZERO);
        }
        drop(metrics);
        let data = self.raft.data_metrics();
        let acknowledged = data.borrow_watched().last_quorum_acked?;
        Some(acknowledged.into_inner().elapsed())
    }
}

fn encode(envelope: &Envelope) -> Result<Bytes, ProposeError> {
    let bytes = codec::encode(envelope);
    if bytes.len() > ENVELOPE_BYTES_MAX {
        let (bytes, limit) = (bytes.len(), ENVELOPE_BYTES_MAX);
        return Err(ProposeError::TooLarge { bytes, limit });
    }
    Ok(bytes.into())
}
