//! Three gateway nodes, as `serve` runs them, without TLS between them, as the etcd nodes beside them.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::cluster::{Cluster, fresh};
use super::load::create_records;
use super::protocol::{Protocol, VALUE_BYTES};
use super::servers::{Servers, free_ports, this_program};

/// Prepares three nodes with new data directories, starts them, and creates the clients' registers.
///
/// # Errors
/// They don't start.
pub(super) async fn start(directory: &Path, registers: usize) -> anyhow::Result<Cluster> {
    let mut cluster = prepare(directory, &["serve".into()])?;
    cluster.start().await?;
    create_records(&cluster.hosts, |number| format!("register-{number}"), registers, VALUE_BYTES)
        .await?;
    Ok(cluster)
}

/// Prepares three nodes with new data directories; `arguments` is what the program is told to be.
///
/// # Errors
/// A directory can't be made, or no port is free.
pub(super) fn prepare(directory: &Path, arguments: &[PathBuf]) -> anyhow::Result<Cluster> {
    fresh(directory)?;
    let ports = free_ports(6)?;
    let peers: Vec<_> = ports[3..].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let hosts: Vec<_> = ports[..3].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (mut key, mut token) = ([0; 32], [0; 32]);
    getrandom::fill(&mut key).context("could not make a key")?;
    getrandom::fill(&mut token).context("could not make a token")?;
    let mut servers = Servers::default();
    for node in 0..3 {
        let mut command = this_program()?;
        command
            .args(arguments)
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
            .env("PEAT_LOG", "warn,openraft=error");
        servers.add(command, directory.join(format!("node-{node}.log")))?;
    }
    Ok(Cluster { protocol: Protocol::Gateway, hosts, servers })
}
