//! What a leader leaves half-done is finished by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use openraft::Membership;
use peat_gateway_state::command::MembershipChange;
use peat_gateway_state::query;
use peat_gateway_state::record::AuditAction;
use tempfile::TempDir;

use super::change::Standing;
use super::plan::record_of;
use crate::config::{ClusterConfig, Timing, WriteLimits};
use crate::handle::Leadership;
use crate::membership::MembershipConfig;
use crate::node::Node;

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a joint membership may stay once somebody leads.
const JOINT_MAX: Duration = Duration::from_secs(10);

struct Three {
    nodes: Vec<Option<Node>>,
    configs: Vec<ClusterConfig>,
    _directories: Vec<TempDir>,
}

impl Three {
    async fn start() -> Self {
        let held: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> =
            held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        drop(held);
        let directories: Vec<_> = (0..3).map(|_| TempDir::new().unwrap()).collect();
        let configs: Vec<_> = directories
            .iter()
            .zip(&addresses)
            .map(|(directory, address)| ClusterConfig {
                data_dir: directory.path().to_owned(),
                name: address.clone(),
                peer_bind: Some(address.clone()),
                peer_address: address.clone(),
                http_address: String::new(),
                initial_peers: addresses.clone(),
                cluster_token: "token".to_owned(),
                peer_tls: None,
                timing: Timing {
                    election_timeout_min: Duration::from_millis(500),
                    election_timeout_max: Duration::from_millis(1000),
                    ..Timing::default()
                },
                membership: MembershipConfig::default(),
                writes: WriteLimits::default(),
            })
            .collect();
        let mut nodes = Vec::new();
        for config in &configs {
            nodes.push(Some(Node::start(config.clone()).await.unwrap()));
        }
        let three = Self { nodes, configs, _directories: directories };
        three.leader().await;
        let handles: Vec<_> = three.nodes.iter().flatten().map(Node::handle).collect();
        crate::support::initialize(&handles).await;
        three
    }

    /// Waits for a node that leads with an epoch.
    async fn leader(&self) -> usize {
        let leads = |node: &Option<Node>| {
            node.as_ref().is_some_and(|node| {
                matches!(*node.inner.leadership.borrow(), Leadership::Leader { .. })
            })
        };
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.nodes.iter().position(leads) {
                return place;
            }
            assert!(Instant::now() < end, "no node leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn node(&self, place: usize) -> &Node {
        self.nodes[place].as_ref().unwrap()
    }

    /// The standing of the leader, once its membership is committed.
    async fn standing(&self, leader: usize) -> Standing {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.node(leader).inner.standing().await {
                Ok(standing) => return standing,
                Err(answer) => assert!(Instant::now() < end, "{answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn restart(&mut self, place: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            match Node::start(self.configs[place].clone()).await {
                Ok(node) => break self.nodes[place] = Some(node),
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the membership that a leader knows has these voters and no others, in one set.
    async fn wait_uniform(&self, voters: &BTreeSet<u64>, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            let leader = self.leader().await;
            let membership = self.node(leader).inner.membership();
            let sets = membership.membership().get_joint_config().clone();
            if sets == std::slice::from_ref(voters) {
                return;
            }
            assert!(Instant::now() < end, "{sets:?} instead of {voters:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joint_membership_that_a_dead_leader_left_is_finished_by_the_next() {
    let mut three = Three::start().await;
    let leader = three.leader().await;
    let standing = three.standing(leader).await;
    let inner = three.node(leader).inner.clone();
    let own = inner.node_id().0;
    // The leader itself finishes nothing: it dies between the two steps.
    let held = inner.changing.lock().await;
    let (old, mut new) = (standing.voters(), standing.voters());
    new.remove(&own);
    let nodes: BTreeMap<_, _> =
        standing.membership.nodes().map(|(node, member)| (*node, member.clone())).collect();
    let joint = Membership::new(vec![old, new.clone()], nodes).unwrap();
    let blank = openraft::EntryPayload::Blank;
    inner.raft.append_membership(joint, blank, []).await.unwrap();
    assert!(three.standing(leader).await.is_joint());
    drop(three.nodes[leader].take());
    drop(held);
    drop(inner);

    let next = three.leader().await;
    three.wait_uniform(&new, JOINT_MAX).await;
    let next = three.node(next).handle();
    let entries = query::audit_entries(&next.local_view(), None, None, 100).unwrap();
    let finished = entries.iter().filter(|entry| entry.action == AuditAction::FinishMembership);
    assert_eq!(finished.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_that_was_recorded_is_made_by_the_next_leader_once_a_quorum_would_stay() {
    let mut three = Three::start().await;
    let leader = three.leader().await;
    let standing = three.standing(leader).await;
    let inner = three.node(leader).inner.clone();
    let held = inner.changing.lock().await;
    let goes = three.node((leader + 1) % 3).inner.node_id().0;
    let member = record_of(goes, standing.member(goes).unwrap());
    let change = MembershipChange::Remove { member, forced: None };
    inner.record(&standing, &inner.own_actor(), change).await.unwrap();
    drop(three.nodes[leader].take());
    drop(held);
    let own = inner.node_id().0;
    drop(inner);

    // Without the dead leader the voters that stay are no quorum: nothing is begun.
    let next = three.leader().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let membership = three.node(next).inner.membership();
    assert_eq!(membership.membership().get_joint_config().len(), 1);
    assert!(membership.membership().get_node(&goes).is_some());
    three.restart(leader).await;
    let mut left = standing.voters();
    left.remove(&goes);
    assert!(left.contains(&own));
    three.wait_uniform(&left, PATIENCE).await;
}
