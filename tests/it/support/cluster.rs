//! Gateway nodes as processes of their own, as in production: mutual TLS, one key, one token.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::api::Api;
use super::certificates::{self, Authority};
use super::net::Network;
use super::{ports, wait_for};

/// The binary of this build.
pub const BINARY: &str = env!("CARGO_BIN_EXE_peat-gateway");
/// The admin token of every test cluster.
pub const ADMIN_TOKEN: &str = "canary-admin-token-6f1d2c";
/// The key that all nodes of a test cluster seal with.
pub const KEK: &str = "8d1f0c7be2a94356a7c1d0e4f98b2736451e0fd3c2b1a09f8e7d6c5b4a392817";

/// A cluster under test.
pub struct Cluster {
    /// The nodes, in order.
    pub nodes: Vec<NodeProcess>,
    /// Directory that all nodes' file sinks share.
    pub sinks: PathBuf,
    /// Where logs, certificates and, unless told otherwise, data directories are. Goes with it, and last:
    /// nodes of a failed test show their logs when they go.
    root: tempfile::TempDir,
}

/// One gateway node.
pub struct NodeProcess {
    /// Its HTTP port.
    pub http_port: u16,
    /// Its peer port.
    pub peer_port: u16,
    /// Its data directory.
    pub data: PathBuf,
    /// Its log file; appended to over restarts.
    pub log: PathBuf,
    /// What it runs from its next start on.
    pub binary: PathBuf,
    /// What its command begins with, such as the way into a network namespace.
    pub through: Vec<String>,
    host: String,
    environment: BTreeMap<String, String>,
    child: Option<Child>,
}

/// Where a node runs.
pub struct Place {
    /// Its address.
    pub host: String,
    /// Its data directory.
    pub data: PathBuf,
    /// What its command begins with.
    pub through: Vec<String>,
}

impl Cluster {
    /// Prepares `count` nodes with data directories under the root, without starting them.
    pub fn prepare(count: usize) -> Self {
        Self::prepare_with(count, |root, number| root.join(format!("node-{number}")))
    }

    /// Prepares nodes whose data directories `place` chooses from the root and the node's number.
    pub fn prepare_with(count: usize, place: impl Fn(&Path, usize) -> PathBuf) -> Self {
        Self::prepare_at(count, |root, number| Place {
            host: "127.0.0.1".to_owned(),
            data: place(root, number),
            through: Vec::new(),
        })
    }

    /// Prepares a node at each address of a network.
    pub fn prepare_in(network: &Network) -> Self {
        Self::prepare_at(network.nodes(), |root, number| Place {
            host: Network::address(number),
            data: root.join(format!("node-{number}")),
            through: network.enter(number),
        })
    }

    /// Prepares nodes where `place` says, from the root and the node's number.
    pub fn prepare_at(count: usize, place: impl Fn(&Path, usize) -> Place) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let sinks = root.path().join("sinks");
        std::fs::create_dir_all(&sinks).expect("the sink directory");
        let numbered: Vec<_> = (1..=count)
            .map(|number| {
                let place = place(root.path(), number);
                (number, place, ports::free(), ports::free(), ports::free())
            })
            .collect();
        let hosts: Vec<_> = numbered.iter().map(|(_, place, ..)| place.host.clone()).collect();
        let authority = Authority::new("test cluster");
        certificates::write(root.path(), certificates::CA, &authority.pem);
        authority.sign_for(&hosts, 2100).write(root.path());
        let peers: Vec<_> = numbered
            .iter()
            .map(|(_, place, _, peer, _)| format!("{}:{peer}", place.host))
            .collect();
        let nodes = numbered
            .into_iter()
            .map(|(number, place, http_port, peer_port, mesh_port)| {
                let Place { host, data, through } = place;
                let tls = |name: &str| root.path().join(name).display().to_string();
                let environment = BTreeMap::from(
                    [
                        ("PEAT_GATEWAY_BIND", format!("{host}:{http_port}")),
                        ("PEAT_HTTP_ADVERTISE", format!("http://{host}:{http_port}")),
                        ("PEAT_GATEWAY_DATA_DIR", data.display().to_string()),
                        ("PEAT_NODE_NAME", format!("node-{number}")),
                        ("PEAT_ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
                        ("PEAT_KEK", KEK.to_owned()),
                        ("PEAT_PEER_BIND", format!("{host}:{peer_port}")),
                        ("PEAT_PEER_ADDRESS", format!("{host}:{peer_port}")),
                        ("PEAT_INITIAL_PEERS", peers.join(",")),
                        ("PEAT_CLUSTER_TOKEN", "canary-cluster-token-93ab".to_owned()),
                        ("PEAT_PEER_CA", tls("ca.pem")),
                        ("PEAT_PEER_CERT", tls("node.pem")),
                        ("PEAT_PEER_KEY", tls("node.key")),
                        ("PEAT_MESH_BIND", format!("{host}:{mesh_port}")),
                        ("PEAT_FILE_SINK_DIR", sinks.display().to_string()),
                        ("PEAT_WEBHOOK_ALLOW_PRIVATE", "true".to_owned()),
                        ("PEAT_DRAIN_LEAD_MS", "0".to_owned()),
                    ]
                    .map(|(name, value)| (name.to_owned(), value)),
                );
                NodeProcess {
                    http_port,
                    peer_port,
                    data,
                    log: root.path().join(format!("node-{number}.log")),
                    binary: PathBuf::from(BINARY),
                    through,
                    host,
                    environment,
                    child: None,
                }
            })
            .collect();
        Self { root, nodes, sinks }
    }

    /// Prepares, starts and waits until a leader does its work.
    pub async fn start(count: usize) -> Self {
        let mut cluster = Self::prepare(count);
        cluster.start_all();
        cluster.wait_ready().await;
        cluster
    }

    /// Where the certificates are, and logs.
    pub fn directory(&self) -> &Path {
        self.root.path()
    }

    /// Sets an environment variable of all nodes, for their next start.
    pub fn set(&mut self, name: &str, value: &str) {
        for node in &mut self.nodes {
            node.environment.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Starts the nodes that don't run.
    pub fn start_all(&mut self) {
        self.nodes.iter_mut().for_each(NodeProcess::start);
    }

    /// Waits until every running node is ready and one leads.
    pub async fn wait_ready(&mut self) {
        for number in 0..self.nodes.len() {
            let api = self.api(number);
            wait_for(&format!("node {} to be ready", number + 1), FORM_LIMIT, || async {
                let answer = api.get("/readyz").await?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
            })
            .await;
        }
        self.leader().await;
    }

    /// A client of one node, by its position from 0.
    pub fn api(&self, position: usize) -> Api {
        Api::new(vec![self.nodes[position].url()])
    }

    /// A client that tries all nodes in turn, as one behind a load balancer would.
    pub fn any(&self) -> Api {
        Api::new(self.nodes.iter().map(NodeProcess::url).collect())
    }

    /// Waits for a leader that a quorum agrees on; returns its position.
    pub async fn leader(&self) -> usize {
        let any = self.any();
        wait_for("a leader", FORM_LIMIT, || async {
            let cluster = any.get_json("/cluster").await?;
            let leader = cluster["leader"].as_str().ok_or("no leader")?.to_owned();
            let address = cluster["nodes"]
                .as_array()
                .ok_or("no nodes")?
                .iter()
                .find(|node| node["node_id"] == leader && node["role"] == "leader")
                .and_then(|node| node["address"].as_str().map(str::to_owned))
                .ok_or_else(|| format!("leader {leader} does not lead: {cluster}"))?;
            self.nodes
                .iter()
                .position(|node| node.url() == address && node.runs())
                .ok_or_else(|| format!("no running node at {address}"))
        })
        .await
    }

    /// Waits until all nodes, which are those that run, have applied the same index and have the same
    /// state hash.
    pub async fn wait_equal(&self) {
        let running: Vec<_> = self.nodes.iter().filter(|node| node.runs()).collect();
        let any = Api::new(running.iter().map(|node| node.url()).collect());
        wait_for("equal state on all nodes", Duration::from_secs(30), || async {
            let cluster = any.get_json("/cluster").await?;
            let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
            let seen: Vec<_> = nodes
                .iter()
                .map(|node| (node["applied_index"].clone(), node["state_hash"].clone()))
                .collect();
            let equal = seen.len() == running.len()
                && seen.iter().all(|row| *row == seen[0] && row.1.is_string());
            if equal { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }
}

/// How long a cluster may take to form or to find a leader.
const FORM_LIMIT: Duration = Duration::from_secs(60);

impl NodeProcess {
    /// URL of its API.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.http_port)
    }

    /// Sets an environment variable for its next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Removes an environment variable for its next start.
    pub fn unset(&mut self, name: &str) {
        self.environment.remove(name);
    }

    /// Keeps its data in another directory from its next start on.
    pub fn place(&mut self, data: PathBuf) {
        self.set("PEAT_GATEWAY_DATA_DIR", &data.display().to_string());
        self.data = data;
    }

    /// Starts it unless it runs.
    pub fn start(&mut self) {
        if self.runs() {
            return;
        }
        let log = File::options().create(true).append(true).open(&self.log).expect("the log file");
        let mut command = command_through(&self.through, &self.binary);
        command.arg("serve").envs(&self.environment);
        if self.binary != Path::new(BINARY) {
            // The build before this one refuses what it doesn't know.
            command.env_remove("PEAT_DRAIN_LEAD_MS");
        }
        self.child = Some(
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("the log file twice"))
                .stderr(log)
                .spawn()
                .expect("the gateway starts"),
        );
    }

    /// Whether its process was started and not ended by us.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `host:port` at which the other nodes reach it.
    pub fn peer_address(&self) -> String {
        format!("{}:{}", self.host, self.peer_port)
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        match self.child.as_mut().map(Child::try_wait) {
            Some(status) => status.expect("the process can be asked").is_some(),
            None => true,
        }
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the process can be killed");
            child.wait().expect("the process ends");
        }
    }

    /// SIGSTOP: the process does nothing more until it is killed or goes on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: a frozen process goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGHUP: look at the files of certificates and tokens.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGTERM, without waiting; see [`NodeProcess::wait_exit`].
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.child.take().map(|mut child| child.wait().expect("the process ends"))
    }

    /// Waits until the process ends by itself.
    pub async fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the process was started");
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("the process can be asked") {
                self.child = None;
                return status;
            }
            assert!(start.elapsed() < limit, "the node still runs; its log:\n{}", self.log_tail());
            tokio::time::sleep(super::POLL_INTERVAL).await;
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let pid = Pid::from_raw(child.id() as i32).expect("a process id");
            rustix::process::kill_process(pid, signal).expect("the process can be signalled");
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log_tail());
        }
        self.kill();
    }
}

/// The gateway's binary with an environment that holds nothing of ours yet.
pub fn command() -> Command {
    command_through(&[], Path::new(BINARY))
}

/// A build's binary as the last argument of another command, which must become it: a signal to the
/// child is meant for the gateway.
fn command_through(through: &[String], binary: &Path) -> Command {
    let mut command = match through {
        [] => Command::new(binary),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(binary);
            command
        }
    };
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PEAT_")) {
        command.env_remove(name);
    }
    command
}
