//! What goes wrong, and how it is put right.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ServerState;
use peat_gateway_state::ids::NodeId;

use super::clients::actor;
use super::host;
use super::random::Random;
use super::run::{Run, Wake};
use super::{disk, entropy};
use crate::membership::MembershipOrder;

/// A kind of fault or of an operator's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// One node's power is cut.
    Crash,
    /// Several or all nodes' power is cut at once.
    CrashMany,
    /// A node stops in order and starts again.
    Restart,
    /// A node is cut off from all others.
    Isolate,
    /// Messages of one direction between two nodes are lost.
    OneWay,
    /// Two nodes don't reach each other, the others do.
    CutLink,
    /// A link delivers nothing for a while, then everything.
    Hold,
    /// A link is slow.
    SlowLink,
    /// A link loses messages.
    Loss,
    /// A disk syncs slowly.
    SlowDisk,
    /// The wall clocks jump.
    ClockJump,
    /// An operator hands leadership to another node.
    Transfer,
    /// A node campaigns without need.
    Elect,
    /// A node makes a snapshot now.
    Snapshot,
    /// An operator adds or removes voters.
    Membership,
}

impl Fault {
    pub(super) const ALL: [Self; 15] = [
        Self::Crash,
        Self::CrashMany,
        Self::Restart,
        Self::Isolate,
        Self::OneWay,
        Self::CutLink,
        Self::Hold,
        Self::SlowLink,
        Self::Loss,
        Self::SlowDisk,
        Self::ClockJump,
        Self::Transfer,
        Self::Elect,
        Self::Snapshot,
        Self::Membership,
    ];

    /// Some of all kinds, so that runs differ in what they mix.
    pub(super) fn some(random: &mut Random) -> Vec<Self> {
        let some: Vec<Self> = Self::ALL.into_iter().filter(|_| random.chance(55)).collect();
        if some.is_empty() { vec![Self::Crash] } else { some }
    }
}

/// Waits for the outcome of a change of membership.
const MEMBERSHIP_TIMEOUT: Duration = Duration::from_secs(3);

impl Run<'_> {
    /// Makes something go wrong; what must be put right later is scheduled.
    pub(super) fn inflict(&mut self, fault: Fault) {
        let place = self.any_place();
        let other = self.other_place(place);
        let duration = self.random.of(50..2_500);
        let (a, b) = (host::name(place), host::name(other));
        self.count(&format!("{fault:?}"));
        match fault {
            Fault::Crash => self.crash(&[place]),
            Fault::CrashMany => {
                let everybody = self.random.chance(40);
                let mut places: Vec<usize> = (0..self.hosts.len()).collect();
                places.retain(|_| everybody || self.random.chance(60));
                self.crash(&places);
            }
            Fault::Restart => self.stop_in_order(place),
            Fault::Isolate => {
                self.note(&format!("isolate node {place} for {duration} ms"));
                for third in (0..self.hosts.len()).filter(|third| *third != place) {
                    self.sim.partition(a.as_str(), host::name(third).as_str());
                    self.schedule(duration, Wake::HealLink(place, third));
                }
            }
            Fault::OneWay => {
                self.note(&format!("cut node {place} -> node {other} for {duration} ms"));
                self.sim.partition_oneway(a.as_str(), b.as_str());
                self.schedule(duration, Wake::HealLink(place, other));
            }
            Fault::CutLink => {
                self.note(&format!("cut node {place} <-> node {other} for {duration} ms"));
                self.sim.partition(a.as_str(), b.as_str());
                self.schedule(duration, Wake::HealLink(place, other));
            }
            Fault::Hold => {
                self.note(&format!("hold node {place} <-> node {other} for {duration} ms"));
                self.sim.hold(a.as_str(), b.as_str());
                self.schedule(duration, Wake::HealLink(place, other));
            }
            Fault::SlowLink => {
                let ms = self.random.of(20..200);
                self.note(&format!(
                    "node {place} <-> node {other} takes {ms} ms for {duration} ms"
                ));
                self.sim.set_link_latency(a.as_str(), b.as_str(), Duration::from_millis(ms));
                self.schedule(duration, Wake::NormalLink(place, other));
            }
            Fault::Loss => {
                let percent = self.random.of(1..20);
                self.note(&format!("node {place} <-> node {other} loses {percent} % for a while"));
                let rate = percent as f64 / 100.0;
                self.sim.set_link_fail_rate(a.as_str(), b.as_str(), rate);
                self.schedule(duration, Wake::NormalLink(place, other));
            }
            Fault::SlowDisk => {
                let ms = self.random.of(20..700);
                self.note(&format!("the disk of node {place} takes {ms} ms for {duration} ms"));
                disk::set_speed(place, ms);
                self.schedule(duration, Wake::NormalDisk(place));
            }
            Fault::ClockJump => {
                let offset = Duration::from_secs(self.random.of(0..80_000));
                self.note(&format!("the wall clocks jump to {offset:?} late"));
                entropy::set_wall_offset(offset);
            }
            Fault::Transfer => self.transfer(),
            Fault::Elect => {
                self.note(&format!("node {place} campaigns"));
                self.on_node(place, |handle| async move {
                    handle.inner.raft().trigger().elect(false).await.ok();
                });
            }
            Fault::Snapshot => {
                self.note(&format!("node {place} makes a snapshot"));
                self.on_node(place, |handle| async move {
                    handle.inner.raft().trigger().snapshot().await.ok();
                });
            }
            Fault::Membership => self.change_membership(),
        }
    }

    fn crash(&mut self, places: &[usize]) {
        // A machine without power says no farewell to its connections.
        let silently = self.random.chance(50);
        for place in places {
            if !self.is_up(*place) {
                continue;
            }
            let down_ms = self.random.of(20..3_000);
            self.note(&format!("cut the power of node {place} for {down_ms} ms"));
            self.cut_power(*place, silently);
            self.schedule(down_ms, Wake::Start(*place));
        }
    }

    fn transfer(&mut self) {
        let Some(leader) = self.leader() else { return };
        let to = self.other_place(leader);
        let to_id = self.seen.nodes[to].node_id;
        if to_id == 0 {
            return;
        }
        self.note(&format!("hand leadership from node {leader} to node {to}"));
        self.on_node(leader, move |handle| async move {
            handle.inner.raft().trigger().transfer_leader(to_id).await.ok();
        });
    }

    /// Gives an order about members, or has consensus change the voters by itself.
    fn change_membership(&mut self) {
        let Some(leader) = self.leader() else { return };
        let voters: BTreeSet<u64> =
            self.seen.nodes[leader].voters.iter().flatten().copied().collect();
        let known: Vec<u64> =
            self.seen.nodes.iter().map(|node| node.node_id).filter(|id| *id != 0).collect();
        let learners: Vec<u64> = known.iter().copied().filter(|id| !voters.contains(id)).collect();
        let node = NodeId(self.random.choose(&known));
        let order = match self.random.of(0..100) {
            0..35 if voters.len() > 2 => return self.demote(leader, &voters),
            _ if !learners.is_empty() && (voters.len() < 3 || self.random.chance(50)) => {
                let node = NodeId(self.random.choose(&learners));
                MembershipOrder::Promote { node, replaces: None }
            }
            _ if voters.len() > 2 && self.random.chance(60) => {
                MembershipOrder::Remove { node, forced: None }
            }
            _ => MembershipOrder::Transfer { to: Some(node) },
        };
        let place = self.any_place();
        self.note(&format!("order at node {place}: {order:?}"));
        self.on_node(place, move |handle| async move {
            handle.change_members(order, actor(), None, MEMBERSHIP_TIMEOUT).await.ok();
        });
    }

    /// Makes a voter a learner, which no order does; the leader promotes it again.
    fn demote(&mut self, leader: usize, voters: &BTreeSet<u64>) {
        let candidates: Vec<u64> = voters.iter().copied().collect();
        let mut wanted = voters.clone();
        wanted.remove(&self.random.choose(&candidates));
        if wanted.len() > 3 && self.random.chance(50) {
            wanted.remove(&self.random.choose(&candidates));
        }
        self.note(&format!("change voters from {voters:x?} to {wanted:x?}"));
        self.on_node(leader, move |handle| async move {
            let change = handle.inner.raft().change_membership(wanted, true);
            tokio::time::timeout(MEMBERSHIP_TIMEOUT, change).await.ok();
        });
    }

    /// The place of a node that leads, the newest where an older one doesn't know yet.
    pub(super) fn leader(&self) -> Option<usize> {
        let leaders = self.seen.running().filter(|node| node.state == Some(ServerState::Leader));
        leaders.max_by_key(|node| node.term).map(|node| node.place)
    }
}
