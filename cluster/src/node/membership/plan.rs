//! What each order checks, and what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use peat_gateway_state::command::{MemberRecord, MembershipChange};
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::outcome::{Refusal, RefusalKind, code as state_code};
use peat_gateway_state::{Actor, query};
use tokio::time::Instant;

use super::change::{Changes, Plan, Standing};
use super::{Announced, Answer, Order};
use crate::membership::{CAUGHT_UP_ENTRIES_MAX, MembershipChanged, MembershipOrder, code};
use crate::node::TransferError;
use crate::node::inner::Inner;
use crate::node::introduce::Found;
use crate::raft::Member;

/// How long another node may take to lead, where leadership is handed on before its holder is removed.
const HAND_ON_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest reason of a forced removal, bytes.
const REASON_BYTES_MAX: usize = 256;

pub(super) fn refused(kind: RefusalKind, code: &str, detail: impl Into<String>) -> Answer {
    Answer::Refused(Refusal::new(kind, code, detail))
}

pub(super) fn record_of(node: u64, member: &Member) -> MemberRecord {
    MemberRecord {
        node: NodeId(node),
        name: member.name.clone(),
        peer_address: member.peer_address.clone(),
    }
}

impl Inner {
    /// Checks an order against the membership, and carries it out.
    pub(super) async fn carry_out(
        &self,
        order: Order,
        standing: &Standing,
        actor: &Actor,
        deadline: Instant,
    ) -> Result<MembershipChanged, Answer> {
        let plan = match order {
            Order::Asked(MembershipOrder::Add { peer_address, learner_only }) => {
                self.plan_add(standing, &peer_address, learner_only).await?
            }
            Order::Asked(MembershipOrder::Promote { node, replaces }) => {
                let replaces = replaces.map(|old| old.0);
                self.plan_promote(standing, node.0, replaces).await?
            }
            Order::Asked(MembershipOrder::Remove { node, forced }) => {
                self.plan_remove(standing, node.0, forced).await?
            }
            Order::Asked(MembershipOrder::Transfer { to }) => {
                return self.transfer(standing, actor, to, deadline).await;
            }
            Order::Join(joins) => match self.plan_join(standing, joins).await? {
                Ok(plan) => plan,
                Err(node) => return Ok(unchanged(standing, node)),
            },
            Order::Announce(announced) => match self.hear(standing, announced).await? {
                Some(plan) => plan,
                None => return Ok(unchanged(standing, self.node_id().0)),
            },
        };
        self.make(standing, actor, plan, deadline).await
    }

    async fn plan_add(
        &self,
        standing: &Standing,
        address: &str,
        learner_only: bool,
    ) -> Result<Plan, Answer> {
        let found = self.introductions.identify(address).await.map_err(|why| {
            refused(
                RefusalKind::Conflict,
                code::UNREACHABLE_NODE,
                format!(
                    "could not add the node at {why}; it must run with PEAT_BOOTSTRAP=wait and this \
                     cluster's token"
                ),
            )
        })?;
        self.check_newcomer(standing, found.node_id)?;
        self.check_version(&found)?;
        let own = self.cluster_id().ok_or_else(|| Answer::Nothing("no cluster yet".to_owned()))?;
        let belongs_to =
            match found.cluster_id {
                Some(cluster) => cluster,
                None => self.introductions.adopt(address, found.node_id, own).await.map_err(
                    |status| Answer::Nothing(format!("{address}: {}", status.message())),
                )?,
            };
        check_cluster(&found, belongs_to, own)?;
        let mut member = found.member;
        // Where it says that the others find it elsewhere, it announces that as soon as it is a member.
        member.peer_address = address.to_owned();
        member.learner_only = learner_only;
        Ok(adding(found.node_id, member))
    }

    /// A node that asks to be taken in; `Err` with its id where it is a member already.
    async fn plan_join(
        &self,
        standing: &Standing,
        joins: Announced,
    ) -> Result<Result<Plan, u64>, Answer> {
        if standing.member(joins.node_id).is_some() {
            return Ok(Err(joins.node_id));
        }
        self.check_newcomer(standing, joins.node_id)?;
        self.check_reachable(&joins).await?;
        Ok(Ok(adding(joins.node_id, joins.member)))
    }

    /// Refuses who was a member once, or is one.
    fn check_newcomer(&self, standing: &Standing, node: u64) -> Result<(), Answer> {
        self.check_not_removed(node)?;
        if standing.member(node).is_some() {
            let detail = format!("node {} is a member already", NodeId(node));
            return Err(refused(RefusalKind::Conflict, code::ALREADY_MEMBER, detail));
        }
        Ok(())
    }

    /// Refuses a node whose build is too old for the cluster, or too new.
    fn check_version(&self, found: &Found) -> Result<(), Answer> {
        self.admits_version(found.versions).map_err(|why| {
            let detail = format!("could not take in the node at {}: {why}", found.address);
            refused(RefusalKind::Conflict, code::UNSUPPORTED_VERSION, detail)
        })
    }

    pub(super) fn check_not_removed(&self, node: u64) -> Result<(), Answer> {
        let removed = query::removed_node(&self.store.view(), NodeId(node));
        match removed.map_err(|error| Answer::Nothing(error.to_string()))? {
            None => Ok(()),
            Some(_) => Err(refused(
                RefusalKind::Conflict,
                state_code::NODE_REMOVED,
                format!(
                    "node {} was removed and can't come back under its id; empty its data directory \
                     and let it join as a new node: peat-gateway cluster join",
                    NodeId(node)
                ),
            )),
        }
    }

    /// Refuses a node that isn't found at the address that it names.
    pub(super) async fn check_reachable(&self, node: &Announced) -> Result<(), Answer> {
        let address = &node.member.peer_address;
        let why = match self.introductions.identify(address).await {
            Ok(found) if found.node_id == node.node_id && found.boot_id == node.boot_id => {
                return self.check_version(&found);
            }
            Ok(found) if found.node_id == node.node_id => {
                return Err(duplicate(node.node_id, address));
            }
            Ok(found) => format!("{address}: node {} answers there", NodeId(found.node_id)),
            Err(why) => why,
        };
        Err(refused(
            RefusalKind::Conflict,
            code::UNREACHABLE_NODE,
            format!(
                "the leader can't find node {} at its peer address {why}; correct PEAT_PEER_ADDRESS",
                NodeId(node.node_id)
            ),
        ))
    }

    async fn plan_promote(
        &self,
        standing: &Standing,
        node: u64,
        replaces: Option<u64>,
    ) -> Result<Plan, Answer> {
        member_or_refuse(standing, node)?;
        if !standing.is_learner(node) {
            let detail = format!("node {} has a vote already", NodeId(node));
            return Err(refused(RefusalKind::Conflict, code::NOT_A_LEARNER, detail));
        }
        self.check_caught_up(node)?;
        let mut changes = vec![Changes::AddVoterIds(BTreeSet::from([node]))];
        let mut record = None;
        if let Some(old) = replaces {
            let member = member_or_refuse(standing, old)?;
            let mut voters = standing.voters();
            if voters.remove(&old) {
                voters.insert(node);
                self.check_quorum(standing, &voters).await.map_err(|error| {
                    refused(RefusalKind::Conflict, code::WOULD_LOSE_QUORUM, error)
                })?;
            }
            self.hand_on_before_removal(standing, old).await?;
            changes.push(removing(standing, old));
            record = Some(record_of(old, member));
        }
        Ok(Plan {
            record: MembershipChange::Promote { node: NodeId(node), replaces: record },
            changes: Changes::Batch(changes),
            node,
        })
    }

    /// Refuses a learner that lacks too many entries.
    fn check_caught_up(&self, node: u64) -> Result<(), Answer> {
        let lag = self.lag_of(node);
        if lag.is_some_and(|lag| lag < CAUGHT_UP_ENTRIES_MAX) {
            return Ok(());
        }
        let lacks = lag.map_or_else(|| "all entries".to_owned(), |lag| format!("{lag} entries"));
        Err(refused(
            RefusalKind::Conflict,
            code::NOT_CAUGHT_UP,
            format!(
                "node {} lacks {lacks}, a voter may lack {CAUGHT_UP_ENTRIES_MAX}; wait until it has \
                 caught up: peat-gateway cluster status",
                NodeId(node)
            ),
        ))
    }

    /// Entries that a node lacks, as this leader knows it; `None` where nothing is known.
    pub(super) fn lag_of(&self, node: u64) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&node)?.as_ref()?.index;
        Some(metrics.last_log_index.unwrap_or_default().saturating_sub(matched))
    }

    async fn plan_remove(
        &self,
        standing: &Standing,
        node: u64,
        forced: Option<String>,
    ) -> Result<Plan, Answer> {
        let forced = forced.map(|reason| reason.trim().to_owned());
        if forced.as_ref().is_some_and(|r| r.is_empty() || r.len() > REASON_BYTES_MAX) {
            let detail =
                format!("a forced removal needs a reason of 1 to {REASON_BYTES_MAX} bytes");
            return Err(refused(RefusalKind::Invalid, code::INVALID_REASON, detail));
        }
        if standing.member(node).is_none() {
            self.check_not_removed(node)?;
        }
        let member = member_or_refuse(standing, node)?;
        let mut voters = standing.voters();
        if voters.remove(&node) {
            if voters.is_empty() {
                let detail = "the last voter can't be removed: the cluster would be gone";
                return Err(refused(RefusalKind::Conflict, code::LAST_VOTER, detail));
            }
            if forced.is_none() {
                self.check_quorum(standing, &voters).await.map_err(|error| {
                    let detail = format!(
                        "{error}; bring voters back first, or force it: peat-gateway cluster remove \
                         {} --force --reason WHY",
                        NodeId(node)
                    );
                    refused(RefusalKind::Conflict, code::WOULD_LOSE_QUORUM, detail)
                })?;
            }
            self.hand_on_before_removal(standing, node).await?;
        }
        Ok(Plan {
            record: MembershipChange::Remove { member: record_of(node, member), forced },
            changes: removing(standing, node),
            node,
        })
    }

    /// Where this leader itself is to go, another one leads first and makes the change.
    async fn hand_on_before_removal(&self, standing: &Standing, node: u64) -> Result<(), Answer> {
        if node != self.node_id().0 || standing.voters().len() == 1 {
            return Ok(());
        }
        match self.transfer_leadership(None, HAND_ON_TIMEOUT).await {
            Ok(leader) => Err(Answer::NotLeader(Some(leader.0))),
            // Nobody can take over: consensus lets it go without.
            Err(error) => {
                tracing::warn!(%error, "this leader is removed without handing leadership on");
                Ok(())
            }
        }
    }

    async fn transfer(
        &self,
        standing: &Standing,
        actor: &Actor,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<MembershipChanged, Answer> {
        if let Some(to) = to {
            member_or_refuse(standing, to.0)?;
            if to == self.node_id() {
                return Ok(unchanged(standing, to.0));
            }
            if !standing.voters().contains(&to.0) {
                let detail = format!("node {to} has no vote, so it can't lead; promote it first");
                return Err(refused(RefusalKind::Conflict, code::NOT_A_VOTER, detail));
            }
        }
        if standing.voters().len() == 1 {
            let detail = "no other node has a vote, so leadership stays here";
            return Err(refused(RefusalKind::Conflict, code::NOT_A_VOTER, detail));
        }
        let index = self.record(standing, actor, MembershipChange::Transfer { to }).await?;
        let timeout = deadline.saturating_duration_since(Instant::now()).min(HAND_ON_TIMEOUT);
        match self.transfer_leadership(to, timeout).await {
            Ok(leader) => {
                Ok(MembershipChanged { membership: standing.index(), node: leader, index })
            }
            Err(TransferError::NotLeader) => Err(Answer::NotLeader(None)),
            Err(error @ (TransferError::NotAVoter(_) | TransferError::NoOther)) => {
                Err(refused(RefusalKind::Conflict, code::NOT_A_VOTER, error.to_string()))
            }
            Err(error) => Err(Answer::Unknown(error.to_string())),
        }
    }
}

fn unchanged(standing: &Standing, node: u64) -> MembershipChanged {
    let membership = standing.index();
    MembershipChanged { membership, node: NodeId(node), index: membership }
}

fn adding(node: u64, member: Member) -> Plan {
    Plan {
        record: MembershipChange::Add(record_of(node, &member)),
        changes: Changes::AddNodes(BTreeMap::from([(node, member)])),
        node,
    }
}

/// What removes a member, whatever it is.
pub(super) fn removing(standing: &Standing, node: u64) -> Changes {
    let nodes = BTreeSet::from([node]);
    if standing.is_learner(node) {
        Changes::RemoveNodes(nodes)
    } else {
        Changes::RemoveVoters(nodes)
    }
}

fn member_or_refuse(standing: &Standing, node: u64) -> Result<&Member, Answer> {
    standing.member(node).ok_or_else(|| {
        let detail = format!("there is no member {}", NodeId(node));
        refused(RefusalKind::NotFound, state_code::NOT_FOUND, detail)
    })
}

fn check_cluster(found: &Found, belongs_to: [u8; 16], own: [u8; 16]) -> Result<(), Answer> {
    if belongs_to == own {
        return Ok(());
    }
    Err(refused(
        RefusalKind::Conflict,
        code::FOREIGN_CLUSTER,
        format!(
            "the node at {} belongs to cluster {}; stop it, empty its data directory, and start it \
             with PEAT_JOIN",
            found.address,
            hex::encode(belongs_to)
        ),
    ))
}

/// The refusal of a second process with the same id.
pub(super) fn duplicate(node: u64, address: &str) -> Answer {
    refused(
        RefusalKind::Conflict,
        code::DUPLICATE_NODE,
        format!(
            "node {} runs at {address} already: this data directory is a copy. Stop this process, \
             empty its data directory, and let it join as a new node: peat-gateway cluster join",
            NodeId(node)
        ),
    )
}
