//! Three etcd nodes with etcd's own defaults.

use std::path::Path;

use super::cluster::{Cluster, fresh};
use super::http2::Http2;
use super::protocol::{Protocol, Workload};
use super::servers::{Servers, foreign, free_ports, wait_until};

/// Prepares three nodes with new data directories, starts them, and writes the clients' registers.
///
/// # Errors
/// They don't start.
pub(super) async fn start(
    binary: &Path,
    directory: &Path,
    registers: usize,
) -> anyhow::Result<Cluster> {
    fresh(directory)?;
    let ports = free_ports(6)?;
    let peer = |node: usize| format!("http://127.0.0.1:{}", ports[node + 3]);
    let client = |node: usize| format!("http://127.0.0.1:{}", ports[node]);
    let members: Vec<_> = (0..3).map(|node| format!("n{node}={}", peer(node))).collect();
    let mut servers = Servers::default();
    for node in 0..3 {
        let mut command = foreign(binary);
        command
            .arg(format!("--name=n{node}"))
            .arg(format!("--data-dir={}", directory.join(format!("n{node}")).display()))
            .arg(format!("--listen-client-urls={}", client(node)))
            .arg(format!("--advertise-client-urls={}", client(node)))
            .arg(format!("--listen-peer-urls={}", peer(node)))
            .arg(format!("--initial-advertise-peer-urls={}", peer(node)))
            .arg(format!("--initial-cluster={}", members.join(",")))
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH);
        servers.add(command, directory.join(format!("n{node}.log")))?;
    }
    let hosts = ports[..3].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut cluster = Cluster { protocol: Protocol::Etcd, hosts, servers };
    cluster.start().await?;
    for number in 0..registers {
        let key = format!("register-{number}");
        let (host, protocol) = (cluster.hosts[0].clone(), cluster.protocol);
        let written = || async {
            let mut connection = Http2::open(&host, false).await.ok()?;
            let stream = protocol.send(&mut connection, Workload::Write, &key, 0).ok()?;
            connection.answer(stream).await.ok()?.is_ok().then_some(())
        };
        wait_until(&mut cluster.servers, "a register to be written", written).await?;
    }
    Ok(cluster)
}
