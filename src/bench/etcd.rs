//! Three etcd nodes, loaded over gRPC: the two calls that are needed, written from its public API.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

use super::clients::{Client, Workload, drive};
use super::servers::{Servers, free_ports, wait_until};
use super::{BenchArguments, MEASUREMENTS, Samples, VALUE_BYTES, wanted};

/// HTTP/2 connections of each measurement, shared by its clients; etcd's own load tool does the same.
const CONNECTIONS_MAX: usize = 16;

/// Starts three nodes, measures every row, ends them.
pub(super) async fn measure(
    binary: &Path,
    directory: &Path,
    load: Duration,
    arguments: &BenchArguments,
) -> anyhow::Result<Samples> {
    std::fs::create_dir_all(directory)?;
    let ports = free_ports(6)?;
    let peer = |node: usize| format!("http://127.0.0.1:{}", ports[node + 3]);
    let client = |node: usize| format!("http://127.0.0.1:{}", ports[node]);
    let members: Vec<_> = (0..3).map(|node| format!("n{node}={}", peer(node))).collect();
    let mut servers = Servers::default();
    for node in 0..3 {
        servers.spawn(
            Command::new(binary)
                .arg(format!("--name=n{node}"))
                .arg(format!("--data-dir={}", directory.join(format!("n{node}")).display()))
                .arg(format!("--listen-client-urls={}", client(node)))
                .arg(format!("--advertise-client-urls={}", client(node)))
                .arg(format!("--listen-peer-urls={}", peer(node)))
                .arg(format!("--initial-advertise-peer-urls={}", peer(node)))
                .arg(format!("--initial-cluster={}", members.join(",")))
                .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH),
            &directory.join(format!("n{node}.log")),
        )?;
    }
    for node in 0..3 {
        let url = client(node);
        wait_until(&mut servers, "etcd to answer", || async {
            let channel = Endpoint::from_shared(url.clone()).ok()?.connect().await.ok()?;
            EtcdClient::new(channel, 0).request(Workload::Write, 0).await.then_some(())
        })
        .await?;
    }
    servers.check()?;
    let mut samples = Vec::new();
    for row in MEASUREMENTS.iter().filter(|row| wanted(arguments, row.name)) {
        let mut channels = Vec::new();
        for number in 0..row.clients.min(CONNECTIONS_MAX) {
            let endpoint = Endpoint::from_shared(client(number % 3))?;
            channels.push(endpoint.connect().await.context("could not connect to etcd")?);
        }
        let clients: Vec<_> = (0..row.clients)
            .map(|number| EtcdClient::new(channels[number % channels.len()].clone(), number))
            .collect();
        samples.push((row.name.to_owned(), "op/s", drive(clients, row.workload, load).await));
    }
    Ok(samples)
}

struct EtcdClient {
    grpc: Grpc<Channel>,
    key: Bytes,
}

impl EtcdClient {
    fn new(channel: Channel, number: usize) -> Self {
        Self { grpc: Grpc::new(channel), key: Bytes::from(format!("register-{number}")) }
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> bool
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        if self.grpc.ready().await.is_err() {
            return false;
        }
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        self.grpc.unary(tonic::Request::new(request), path, codec).await.is_ok()
    }
}

impl Client for EtcdClient {
    async fn request(&mut self, workload: Workload, number: u64) -> bool {
        let key = self.key.clone();
        match workload {
            Workload::Write => {
                let value = Bytes::from(format!("{number:0VALUE_BYTES$}"));
                self.call::<_, Ignored>("/etcdserverpb.KV/Put", Put { key, value }).await
            }
            Workload::Read | Workload::StaleRead => {
                let serializable = workload == Workload::StaleRead;
                self.call::<_, Ignored>("/etcdserverpb.KV/Range", Range { key, serializable }).await
            }
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

/// An answer of which nothing is needed: every field is skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct Ignored {}
