//! Without any network but loopback nothing is warned about: nobody looks for relays, names or routers.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use peat_gateway_mesh::node::{Change, MeshNode, NodeConfig};
use support::wait::until;
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nodes_without_a_network_warn_about_nothing() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("warn"))
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let config = |name: &str| NodeConfig::new(name, "acme", Zeroizing::new([1; 32]));
    let first = MeshNode::start(config("a")).await.unwrap();
    let mut second = config("b");
    second.peers = vec![first.address()];
    let second = MeshNode::start(second).await.unwrap();
    let fields = serde_json::Map::from_iter([("x".to_owned(), 1.into())]);
    first.write(&Change::Put { key: "docs:1".to_owned(), fields }).unwrap();
    until("sync", async || second.documents().len(), |count| *count == 1).await;
    // Long enough for what an endpoint does in the background at its start.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    second.stop().await;
    first.stop().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.is_empty(), "{log}");
}
