//! Three running nodes of one side, whatever they are.

use std::path::Path;

use anyhow::anyhow;

use super::http::Connection;
use super::http2::{Http2, Method, Request};
use super::protocol::{ETCD_STATUS, Protocol, Workload};
use super::servers::{Servers, wait_until};

/// Three nodes.
pub(super) struct Cluster {
    pub(super) protocol: Protocol,
    /// `host:port` where each node takes clients' requests.
    pub(super) hosts: Vec<String>,
    pub(super) servers: Servers,
}

impl Cluster {
    /// Starts the nodes that don't run, and waits until each serves and one leads.
    ///
    /// # Errors
    /// They don't in time, or one ended.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        self.servers.start_all()?;
        for node in 0..self.hosts.len() {
            self.wait_ready(node).await?;
        }
        self.leader().await.map(drop)
    }

    /// Waits until a node serves.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub(super) async fn wait_ready(&mut self, node: usize) -> anyhow::Result<()> {
        let (host, protocol) = (self.hosts[node].clone(), self.protocol);
        wait_until(&mut self.servers, "a node to be ready", || is_ready(&host, protocol)).await
    }

    /// Creates something of the gateway's; asks again while the cluster can't take it.
    ///
    /// # Errors
    /// It is refused, or a node has ended.
    pub(super) async fn create(&mut self, path: &str, body: &str) -> anyhow::Result<()> {
        let host = self.hosts[0].clone();
        let created = wait_until(&mut self.servers, "something to be created", || async {
            let mut connection = Connection::open(&host).await.ok()?;
            match connection.send("POST", path, body).await.ok()? {
                201 | 409 => Some(Ok(())),
                429 | 503 | 504 => None,
                status => {
                    let answer = String::from_utf8_lossy(connection.body()).into_owned();
                    Some(Err(anyhow!("POST {path} gave {status}: {answer}")))
                }
            }
        });
        created.await?
    }

    /// Waits for a leader; returns its place.
    ///
    /// # Errors
    /// There is none in time.
    pub(super) async fn leader(&mut self) -> anyhow::Result<usize> {
        let (hosts, protocol) = (self.hosts.clone(), self.protocol);
        wait_until(&mut self.servers, "a leader", || find_leader(&hosts, protocol)).await
    }
}

/// Whether a node serves: the gateway says so, etcd takes a write.
async fn is_ready(host: &str, protocol: Protocol) -> Option<()> {
    let mut connection = Http2::open(host, false).await.ok()?;
    let ready = match protocol {
        Protocol::Gateway => {
            let path = "/readyz";
            let ask = Request { method: Method::Get, path, grpc: false, body: &[] };
            connection.exchange(ask).await.ok()?
        }
        Protocol::Etcd => {
            let stream = protocol.send(&mut connection, Workload::Write, "register-0", 0).ok()?;
            connection.answer(stream).await.ok()?
        }
    };
    ready.is_ok().then_some(())
}

/// Finds the node that leads, by what the nodes say of themselves.
async fn find_leader(hosts: &[String], protocol: Protocol) -> Option<usize> {
    for (place, host) in hosts.iter().enumerate() {
        match protocol {
            Protocol::Gateway => {
                let Ok(mut connection) = Connection::open(host).await else { continue };
                if connection.send("GET", "/cluster", "").await.ok() != Some(200) {
                    continue;
                }
                let body = connection.body();
                let Some(leader) = gateway_leader(body) else { continue };
                return hosts.iter().position(|host| leader.ends_with(&format!("//{host}")));
            }
            Protocol::Etcd => {
                let Ok(mut connection) = Http2::open(host, false).await else { continue };
                let (method, path) = (Method::Post, ETCD_STATUS);
                let ask = Request { method, path, grpc: true, body: &[] };
                let Ok(answer) = connection.exchange(ask).await else { continue };
                if Protocol::etcd_leads(&answer.body) == Some(true) {
                    return Some(place);
                }
            }
        }
    }
    None
}

/// The address of the node that leads, in the gateway's own words.
fn gateway_leader(body: &[u8]) -> Option<String> {
    let cluster: serde_json::Value = serde_json::from_slice(body).ok()?;
    let leader = cluster["leader"].as_str()?;
    let nodes = cluster["nodes"].as_array()?;
    let leads = |node: &&serde_json::Value| node["node_id"] == leader && node["role"] == "leader";
    nodes.iter().find(leads)?["address"].as_str().map(str::to_owned)
}

/// Makes a directory for a cluster, empty.
///
/// # Errors
/// It can't be made.
pub(super) fn fresh(directory: &Path) -> std::io::Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    std::fs::create_dir_all(directory)
}
