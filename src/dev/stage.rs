//! All that runs: the nodes, the mesh node, and what is known of them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::certificates::Secrets;
use super::directory::Directory;
use super::facts::Facts;
use super::plan::Plan;
use super::process::{Process, tail_of};
use super::setup::MESH_NODE;
use super::sink_tail::SinkTail;
use super::{Arguments, DevError};
use crate::cli::{CallError, Client, output};

/// Messages kept for the screen.
const MESSAGES_KEPT: usize = 50;
/// Lines of the sink that are printed each second in plain mode.
const SINK_LINES_PRINTED: usize = 3;

/// The processes and what is shown of them.
pub(super) struct Stage {
    pub(super) directory: PathBuf,
    pub(super) nodes: Vec<Process>,
    pub(super) mesh_node: Option<Process>,
    /// Asks all nodes in turn.
    pub(super) client: Client,
    /// Where the mesh node listens.
    pub(super) mesh_node_port: u16,
    /// Whether there is to be a mesh node, and how fast it writes.
    pub(super) rate: Option<u32>,
    pub(super) facts: Facts,
    pub(super) sink: SinkTail,
    /// Id of the file sink, once there is one.
    pub(super) sink_id: String,
    urls: Vec<String>,
    messages: VecDeque<String>,
    /// Whether messages are printed at once; on a screen they are only kept.
    printing: bool,
    sink_shown: u64,
}

impl Stage {
    /// Prepares everything and starts nothing.
    ///
    /// # Errors
    /// Files can't be made.
    pub(super) fn new(
        directory: &Directory,
        plan: &Plan,
        http_ports: Vec<u16>,
        arguments: &Arguments,
    ) -> Result<Self, DevError> {
        let secrets = Secrets::find_or_make(directory, arguments.nodes)?;
        let sink = directory.subdirectory("sink")?;
        let urls: Vec<String> =
            http_ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let mut nodes = Vec::new();
        for (node, http_port) in (1u16..).zip(http_ports) {
            let home = directory.subdirectory(&format!("node-{node}"))?;
            nodes.push(gateway_node(node, http_port, home, &sink, plan, &secrets));
        }
        let client = Client::new(&urls, None)
            .map_err(|source| DevError::Step { step: "make a client", source })?;
        Ok(Self {
            directory: directory.path().to_owned(),
            nodes,
            mesh_node: None,
            client,
            mesh_node_port: plan.mesh_node_port,
            rate: (!arguments.no_mesh).then_some(arguments.rate),
            facts: Facts::default(),
            sink: SinkTail::new(sink),
            sink_id: String::new(),
            urls,
            messages: VecDeque::new(),
            printing: true,
            sink_shown: 0,
        })
    }

    /// The nodes' URLs, in order.
    pub(super) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Newest messages, oldest first.
    pub(super) fn messages(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.messages.iter().map(String::as_str)
    }

    /// Tells the user something.
    pub(super) fn say(&mut self, message: &str) {
        if self.printing {
            // A closed stdout must not end the nodes; whoever closed it has lost interest.
            drop(output::write(&format!("{message}\n")));
        }
        self.messages.push_back(message.to_owned());
        if self.messages.len() > MESSAGES_KEPT {
            self.messages.pop_front();
        }
    }

    /// From here on a screen shows the messages.
    pub(super) fn enter_screen(&mut self) {
        self.printing = false;
    }

    /// From here on messages are printed again.
    pub(super) fn leave_screen(&mut self) {
        self.printing = true;
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.nodes.iter_mut().chain(self.mesh_node.as_mut())
    }

    /// Reports the first process that has died, as an error of the setup.
    ///
    /// # Errors
    /// Shows the end of its log.
    pub(super) fn nothing_died(&mut self) -> Result<(), DevError> {
        for process in self.processes() {
            if let Some(how) = process.died() {
                return Err(DevError::Died {
                    name: process.name().to_owned(),
                    how,
                    log: process.log(),
                    tail: process.log_tail(),
                });
            }
        }
        Ok(())
    }

    /// Brings everything that is shown up to date, and says who died.
    pub(super) async fn refresh(&mut self) {
        let dead: Vec<String> = self
            .processes()
            .filter_map(|process| {
                let how = process.died()?;
                let message = format!("{} {how}; `r` starts it again", process.name());
                if process.was_killed() {
                    return Some(message);
                }
                Some(format!("{message}. The end of its log:\n{}", process.log_tail()))
            })
            .collect();
        for message in dead {
            self.say(&message);
        }
        self.facts.fetch(&self.client, &self.sink_id).await;
        self.sink.poll();
        let written = self.mesh_node.as_ref().map_or(0, |node| written_by(&node.log()));
        self.facts.sample(written, self.sink.total());
    }

    /// Kills the leading node with SIGKILL.
    pub(super) fn kill_leader(&mut self) {
        let leader =
            self.facts.leader().and_then(|address| self.urls.iter().position(|url| url == address));
        let Some(leader) = leader else {
            self.say("nobody leads just now; try again");
            return;
        };
        let node = &mut self.nodes[leader];
        let name = node.name().to_owned();
        if node.kill() {
            self.say(&format!("killed {name}, the leader, with SIGKILL"));
        } else {
            self.say(&format!("{name} is dead already"));
        }
    }

    /// Starts what is dead again.
    pub(super) fn restart_dead(&mut self) {
        let mut said = Vec::new();
        for process in self.processes().filter(|process| process.pid().is_none()) {
            said.push(match process.start() {
                Ok(()) => format!("started {} again", process.name()),
                Err(error) => crate::cli::chain(&error),
            });
        }
        if said.is_empty() {
            said.push("everything runs".into());
        }
        for message in said {
            self.say(&message);
        }
    }

    /// Ends all processes: the mesh node first, so that what it wrote is still delivered.
    pub(super) async fn stop(&mut self) {
        if let Some(mut mesh_node) = self.mesh_node.take() {
            mesh_node.terminate();
            self.report_end(&mut mesh_node).await;
        }
        for node in &mut self.nodes {
            node.terminate();
        }
        let mut nodes = std::mem::take(&mut self.nodes);
        for node in &mut nodes {
            self.report_end(node).await;
        }
    }

    async fn report_end(&mut self, process: &mut Process) {
        if let Some(wrong) = process.wait().await {
            self.say(&format!("{} {wrong}", process.name()));
        }
    }

    /// Prints the same facts as the screen shows, as lines.
    ///
    /// # Errors
    /// Stdout can't be written.
    pub(super) fn print_facts(&mut self) -> io::Result<()> {
        let rates = self.facts.rates();
        let (mesh, journal, sink) = self.facts.totals();
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .zip(&self.urls)
            .map(|(process, url)| {
                let node = self.facts.node(url).cloned().unwrap_or_default();
                let (name, term, applied) = (process.name(), node.term, node.applied_index);
                match process.pid() {
                    Some(pid) => {
                        format!("{name} {} term={term} applied={applied} pid={pid}", node.role)
                    }
                    None => format!("{name} dead"),
                }
            })
            .collect();
        let mut text = format!(
            "{} | changes/s mesh={:.0} journal={:.0} sink={:.0} | total mesh={mesh} journal={journal} sink={sink}\n",
            nodes.join(", "),
            rates.mesh,
            rates.journal,
            rates.sink,
        );
        let new = usize::try_from(sink - self.sink_shown.min(sink)).unwrap_or(usize::MAX);
        self.sink_shown = sink;
        for line in self.sink.newest(new.min(SINK_LINES_PRINTED)) {
            text.push_str("sink: ");
            text.push_str(line);
            text.push('\n');
        }
        output::write(&text)
    }
}

/// Describes a gateway node; nodes count from 1.
fn gateway_node(
    node: u16,
    http_port: u16,
    home: PathBuf,
    sink: &Path,
    plan: &Plan,
    secrets: &Secrets,
) -> Process {
    let local = |port: &u16| format!("127.0.0.1:{port}");
    let peers: Vec<String> = plan.peer_ports.iter().map(local).collect();
    let own = peers[usize::from(node) - 1].clone();
    let environment: Vec<(&'static str, OsString)> = vec![
        ("PEAT_GATEWAY_BIND", local(&http_port).into()),
        ("PEAT_GATEWAY_DATA_DIR", home.join("data").into()),
        ("PEAT_NODE_NAME", format!("node-{node}").into()),
        ("PEAT_PEER_BIND", own.clone().into()),
        ("PEAT_PEER_ADDRESS", own.into()),
        ("PEAT_INITIAL_PEERS", peers.join(",").into()),
        ("PEAT_CLUSTER_TOKEN_FILE", secrets.cluster_token.clone().into()),
        ("PEAT_KEK_FILE", secrets.kek.clone().into()),
        ("PEAT_PEER_CA", secrets.authority().into()),
        ("PEAT_PEER_CERT", secrets.certificate(node).into()),
        ("PEAT_PEER_KEY", secrets.key(node).into()),
        ("PEAT_MESH_BIND", "127.0.0.1:0".into()),
        ("PEAT_FILE_SINK_DIR", sink.into()),
        ("PEAT_WEBHOOK_ALLOW_PRIVATE", "true".into()),
        // Nothing here follows /readyz.
        ("PEAT_DRAIN_LEAD_MS", "0".into()),
    ];
    Process::new(format!("node-{node}"), vec!["serve".into()], environment, home)
}

impl Stage {
    /// Describes the mesh node; its credentials are in `home` by then.
    pub(super) fn describe_mesh_node(&self, home: PathBuf, rate: u32) -> Process {
        let arguments: Vec<OsString> = vec![
            "mesh-node".into(),
            "--name".into(),
            MESH_NODE.into(),
            "--credentials".into(),
            home.join("credentials").into(),
            "--bind".into(),
            format!("127.0.0.1:{}", self.mesh_node_port).into(),
            "--rate".into(),
            rate.to_string().into(),
            "--state".into(),
            home.join("state").into(),
            "--output".into(),
            "json".into(),
        ];
        Process::new("mesh-node".into(), arguments, Vec::new(), home)
    }

    /// Makes a client of one node, to ask whether it is ready.
    pub(super) fn client_of(&self, node: usize) -> Result<Client, CallError> {
        Client::new(std::slice::from_ref(&self.urls[node]), None)
    }
}

/// How many changes the mesh node has written, earlier runs included: the newest status line says it.
fn written_by(log: &Path) -> u64 {
    let tail = tail_of(log).unwrap_or_default();
    let status = tail.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    status.and_then(|status| status.get("written_in_all_runs")?.as_u64()).unwrap_or(0)
}
