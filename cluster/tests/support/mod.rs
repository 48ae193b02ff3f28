//! Real nodes in this process, on free loopback ports, each with a temporary data directory.
#![allow(dead_code, reason = "each test file uses a part")]

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use peat_gateway_cluster::config::Timing;
use peat_gateway_cluster::{
    ClusterConfig, Committed, Consistency, Handle, Leadership, MembershipChanged, MembershipConfig,
    MembershipError, MembershipOrder, Node, NodeStatus, ProposeError, Role, StartError, View,
    WriteLimits,
};
use peat_gateway_state::command::{CreateOrganization, InitializeCluster};
use peat_gateway_state::ids::OrgId;
use peat_gateway_state::record::{AuditAction, ClusterSettings, OrganizationQuotas};
use peat_gateway_state::{Actor, Command, Envelope, Outcome, VERSION};
use tempfile::TempDir;

/// How long a condition may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long one proposal or read may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Nodes of one cluster, some of them running.
pub(crate) struct Cluster {
    pub(crate) configs: Vec<ClusterConfig>,
    pub(crate) nodes: Vec<Option<Node>>,
    directories: Vec<TempDir>,
}

/// Free loopback addresses.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// A node's configuration for tests: slow enough elections for a busy machine.
pub(crate) fn config(directory: &Path, address: &str, peers: &[String]) -> ClusterConfig {
    ClusterConfig {
        data_dir: directory.to_owned(),
        name: format!("node at {address}"),
        peer_bind: Some(address.to_owned()),
        peer_address: address.to_owned(),
        http_address: format!("http://{address}/"),
        initial_peers: peers.to_vec(),
        cluster_token: "token of the tests".to_owned(),
        peer_tls: None,
        timing: Timing {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_millis(1000),
            ..Timing::default()
        },
        membership: MembershipConfig {
            promote_after: Duration::from_millis(500),
            ..MembershipConfig::default()
        },
        writes: WriteLimits::default(),
    }
}

impl Cluster {
    /// Configures nodes without starting them.
    pub(crate) fn configured(count: usize, change: impl Fn(&mut ClusterConfig)) -> Self {
        let addresses = free_addresses(count);
        let directories: Vec<TempDir> = (0..count).map(|_| TempDir::new().unwrap()).collect();
        let configs = directories
            .iter()
            .zip(&addresses)
            .map(|(directory, address)| {
                let mut config = config(directory.path(), address, &addresses);
                change(&mut config);
                config
            })
            .collect();
        Self { configs, nodes: (0..count).map(|_| None).collect(), directories }
    }

    /// Starts three nodes, waits for the bootstrap and initialises the state.
    pub(crate) async fn of_three() -> Self {
        Self::of_three_with(|_| {}).await
    }

    pub(crate) async fn of_three_with(change: impl Fn(&mut ClusterConfig)) -> Self {
        Self::of_three_at(VERSION, change).await
    }

    pub(crate) async fn of_three_at(version: u16, change: impl Fn(&mut ClusterConfig)) -> Self {
        let mut cluster = Self::configured(3, change);
        for place in 0..3 {
            cluster.start(place).await;
        }
        cluster.wait_ready().await;
        initialize_at(&cluster.running(), version).await;
        cluster
    }

    /// Starts one node, waits for its cluster of one and initialises the state.
    pub(crate) async fn of_one() -> Self {
        let mut cluster = Self::configured(1, |config| config.initial_peers.clear());
        cluster.start(0).await;
        cluster.wait_ready().await;
        initialize(&cluster.running()).await;
        cluster
    }

    /// Configures one more node with an empty data directory, without starting it; returns its place.
    pub(crate) fn configure_one_more(&mut self, change: impl Fn(&mut ClusterConfig)) -> usize {
        let directory = TempDir::new().unwrap();
        let address = free_addresses(1).remove(0);
        let mut config = config(directory.path(), &address, &[]);
        change(&mut config);
        self.directories.push(directory);
        self.configs.push(config);
        self.nodes.push(None);
        self.nodes.len() - 1
    }

    /// Configures and starts one more node that asks the members at these places to be taken in.
    pub(crate) async fn join(&mut self, members: &[usize]) -> usize {
        let join: Vec<_> =
            members.iter().map(|place| self.configs[*place].peer_address.clone()).collect();
        let place = self.configure_one_more(|config| config.membership.join = join.clone());
        self.start(place).await;
        place
    }

    /// Gives a node an empty data directory, as one whose disk was lost.
    pub(crate) fn wipe(&mut self, place: usize) {
        let directory = TempDir::new().unwrap();
        self.configs[place].data_dir = directory.path().to_owned();
        self.directories.push(directory);
    }

    /// Waits until the leader sees exactly so many voters and learners, all answering, and no change
    /// under way.
    pub(crate) async fn wait_members(&self, voters: usize, learners: usize) -> Vec<NodeStatus> {
        let end = Instant::now() + PATIENCE;
        loop {
            let handle = self.running().remove(0);
            let members = handle.members(Duration::from_secs(2)).await;
            let view = handle.membership();
            let have = members.iter().filter(|member| member.voter).count();
            let answering = members.iter().all(|member| member.reachable);
            let leads = members.iter().any(|member| member.role == Role::Leader);
            let as_wanted = have == voters && members.len() == voters + learners;
            if as_wanted && answering && leads && !view.joint {
                return members;
            }
            assert!(Instant::now() < end, "{voters} voters, {learners} learners: {members:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Orders a change of members through a node.
    pub(crate) async fn order(
        &self,
        through: usize,
        order: MembershipOrder,
    ) -> Result<MembershipChanged, MembershipError> {
        self.handle(through).change_members(order, actor(), None, TIMEOUT).await
    }

    /// Starts a node; waits for the data directory where the node that had it is still ending.
    pub(crate) async fn start(&mut self, place: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            match Node::start(self.configs[place].clone()).await {
                Ok(node) => {
                    self.nodes[place] = Some(node);
                    return;
                }
                Err(error @ (StartError::DataDirectory { .. } | StartError::Listen { .. })) => {
                    assert!(Instant::now() < end, "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn handle(&self, place: usize) -> Handle {
        self.nodes[place].as_ref().unwrap().handle()
    }

    pub(crate) fn running(&self) -> Vec<Handle> {
        self.nodes.iter().flatten().map(Node::handle).collect()
    }

    pub(crate) async fn stop(&mut self, place: usize) {
        self.nodes[place].take().unwrap().stop().await;
    }

    /// Pulls the plug.
    pub(crate) fn kill(&mut self, place: usize) {
        drop(self.nodes[place].take().unwrap());
    }

    pub(crate) async fn wait_ready(&self) {
        for handle in self.running() {
            wait("the node is ready", || handle.ready()).await;
        }
    }

    /// The place of the node that leads with an epoch.
    pub(crate) async fn leader(&self) -> usize {
        let leads = |node: &Option<Node>| {
            let leadership = node.as_ref().map(|node| *node.handle().leadership().borrow());
            matches!(leadership, Some(Leadership::Leader { .. }))
        };
        wait("a node leads", || self.nodes.iter().position(leads).ok_or("none does")).await
    }

    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        (0..self.nodes.len()).find(|p| *p != leader && self.nodes[*p].is_some()).unwrap()
    }

    /// Waits until all running nodes have applied the same index and agree on the state's hash.
    pub(crate) async fn wait_agreement(&self) -> u64 {
        let handles = self.running();
        wait("the nodes agree", || {
            let all: Vec<_> = handles
                .iter()
                .map(|handle| handle.local_status())
                .map(|status| (status.applied_index, status.state_hash))
                .collect();
            match all.iter().all(|one| *one == all[0]) {
                true => Ok(all[0].0),
                false => Err(format!("{all:?}")),
            }
        })
        .await
    }
}

/// The code of a refused order.
pub(crate) fn refusal_code(done: Result<MembershipChanged, MembershipError>) -> String {
    match done {
        Err(MembershipError::Refused(refusal)) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

/// The cluster's audit chain, oldest first: what was done to which nodes.
pub(crate) fn audit(handle: &Handle) -> Vec<(AuditAction, String)> {
    let view = handle.local_view();
    let mut entries = peat_gateway_state::query::audit_entries(&view, None, None, 1_000).unwrap();
    entries.reverse();
    entries.into_iter().map(|entry| (entry.action, entry.target)).collect()
}

/// Waits for a condition; fails with its last status.
pub(crate) async fn wait<T, E: std::fmt::Debug>(
    what: &str,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(status) if Instant::now() > end => panic!("waited for '{what}', last: {status:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

pub(crate) fn actor() -> Actor {
    Actor { principal: "admin".into(), source: "127.0.0.1".into(), request_id: String::new() }
}

/// Writes the cluster's settings by its first leader, as the gateway does.
pub(crate) async fn initialize(handles: &[Handle]) {
    initialize_at(handles, VERSION).await;
}

/// Writes the settings of a cluster of a version.
pub(crate) async fn initialize_at(handles: &[Handle], version: u16) {
    let (handle, term) = wait("a node leads", || {
        let leading = handles.iter().find_map(|handle| match *handle.leadership().borrow() {
            Leadership::Leader { term, .. } => Some((handle.clone(), term)),
            Leadership::Follower => None,
        });
        leading.ok_or("none does")
    })
    .await;
    let settings = ClusterSettings {
        cluster_id: handle.cluster_id().unwrap(),
        seal_domain: [1; 16],
        version,
        idempotency_retention_ms: 600_000,
        journal_retention_ms: 0,
        key_check: Vec::new(),
        upgrade: None,
    };
    let command = Command::InitializeCluster(InitializeCluster { term, settings });
    let done = handle.propose_leader_work(&Envelope::new(actor(), command), TIMEOUT).await;
    assert_eq!(done.unwrap().outcome, Outcome::Done);
}

pub(crate) fn create(name: &str) -> Envelope {
    let command = CreateOrganization {
        org_id: OrgId::parse(name).unwrap(),
        display_name: name.to_owned(),
        quotas: OrganizationQuotas::default(),
    };
    Envelope::new(actor(), Command::CreateOrganization(command))
}

/// Creates an organisation through a node.
pub(crate) async fn write(handle: &Handle, name: &str) -> Result<Committed, ProposeError> {
    let committed = handle.propose(&create(name), TIMEOUT).await?;
    assert!(matches!(committed.outcome, Outcome::Organization(_)), "{:?}", committed.outcome);
    Ok(committed)
}

pub(crate) fn has(view: &View, name: &str) -> bool {
    let org = OrgId::parse(name).unwrap();
    peat_gateway_state::query::organization(view, &org).unwrap().is_some()
}

pub(crate) fn at_least(min_index: u64) -> Consistency {
    Consistency { stale: true, max_staleness: None, min_index }
}
