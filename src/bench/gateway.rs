//! Three gateway nodes, loaded over HTTP as clients do it: `PATCH` and `GET` of organisations.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::clients::{Client, Workload, drive};
use super::http::Connection;
use super::servers::{Servers, free_ports, wait_until};
use super::{BenchArguments, MEASUREMENTS, Samples, VALUE_BYTES, pipeline, wanted};

/// Three running nodes.
pub(super) struct Nodes {
    /// `host:port` of each node's API.
    pub(super) hosts: Vec<String>,
    pub(super) servers: Servers,
}

/// Starts three nodes, measures every row, ends them.
pub(super) async fn measure(
    directory: &Path,
    load: Duration,
    arguments: &BenchArguments,
) -> anyhow::Result<Samples> {
    let mut nodes = start(directory).await?;
    let rows: Vec<_> = MEASUREMENTS.iter().filter(|row| wanted(arguments, row.name)).collect();
    let registers = rows.iter().map(|row| row.clients).max().unwrap_or(0);
    create_registers(&mut nodes, registers).await?;
    let mut samples = Vec::new();
    for row in rows {
        let mut clients = Vec::new();
        for number in 0..row.clients {
            let connection = Connection::open(&nodes.hosts[number % 3]).await?;
            clients.push(GatewayClient { connection, path: format!("/orgs/register-{number}") });
        }
        samples.push((row.name.to_owned(), "op/s", drive(clients, row.workload, load).await));
        nodes.servers.check()?;
    }
    if wanted(arguments, pipeline::NAME) {
        let sample = pipeline::measure(&mut nodes, directory, load).await?;
        samples.push((pipeline::NAME.to_owned(), "changes/s", sample));
    }
    Ok(samples)
}

/// Starts three nodes without TLS between them, as the etcd nodes beside them.
async fn start(directory: &Path) -> anyhow::Result<Nodes> {
    std::fs::create_dir_all(directory)?;
    let binary = std::env::current_exe().context("could not find this program's file")?;
    let ports = free_ports(6)?;
    let peers: Vec<_> = ports[3..].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let hosts: Vec<_> = ports[..3].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (mut key, mut token) = ([0; 32], [0; 32]);
    getrandom::fill(&mut key).context("could not make a key")?;
    getrandom::fill(&mut token).context("could not make a token")?;
    let mut servers = Servers::default();
    for node in 0..3 {
        servers.spawn(
            Command::new(&binary)
                .arg("serve")
                .env("PEAT_GATEWAY_BIND", &hosts[node])
                .env("PEAT_HTTP_ADVERTISE", format!("http://{}", hosts[node]))
                .env("PEAT_GATEWAY_DATA_DIR", directory.join(format!("node-{node}")))
                .env("PEAT_NODE_NAME", format!("node-{node}"))
                .env("PEAT_KEK", hex::encode(key))
                .env("PEAT_PEER_BIND", &peers[node])
                .env("PEAT_PEER_ADDRESS", &peers[node])
                .env("PEAT_INITIAL_PEERS", peers.join(","))
                .env("PEAT_CLUSTER_TOKEN", hex::encode(token))
                .env("PEAT_MESH_BIND", "127.0.0.1:0")
                .env("PEAT_FILE_SINK_DIR", directory.join("sinks"))
                .env("PEAT_LOG", "warn"),
            &directory.join(format!("node-{node}.log")),
        )?;
    }
    for host in &hosts {
        wait_until(&mut servers, "the gateway to be ready", || async {
            let mut connection = Connection::open(host).await.ok()?;
            let status = connection.send("GET", "/readyz", "").await.ok()?;
            (status == 200).then_some(())
        })
        .await?;
    }
    servers.check()?;
    Ok(Nodes { hosts, servers })
}

/// Creates the organisations whose display names are the registers.
async fn create_registers(nodes: &mut Nodes, count: usize) -> anyhow::Result<()> {
    let host = nodes.hosts[0].clone();
    for number in 0..count {
        let body = format!(r#"{{"org_id":"register-{number}","display_name":"new"}}"#);
        wait_until(&mut nodes.servers, "an organisation to be created", || async {
            let mut connection = Connection::open(&host).await.ok()?;
            let status = connection.send("POST", "/orgs", &body).await.ok()?;
            matches!(status, 201 | 409).then_some(())
        })
        .await?;
    }
    Ok(())
}

struct GatewayClient {
    connection: Connection,
    path: String,
}

impl Client for GatewayClient {
    async fn request(&mut self, workload: Workload, number: u64) -> bool {
        let sent = match workload {
            Workload::Write => {
                let body = format!(r#"{{"display_name":"{number:0VALUE_BYTES$}"}}"#);
                self.connection.send("PATCH", &self.path, &body).await
            }
            Workload::Read => self.connection.send("GET", &self.path, "").await,
            Workload::StaleRead => {
                let path = format!("{}?consistency=stale", self.path);
                self.connection.send("GET", &path, "").await
            }
        };
        matches!(sent, Ok(200))
    }
}
