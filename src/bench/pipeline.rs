//! Mesh → journal → file sink: what a change takes from a mesh node's write to a synced line.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peat_gateway_mesh::credentials::Credentials;
use peat_gateway_mesh::node::{Change, MeshNode, NodeConfig, Pacing};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::http::Connection;
use super::sample::{Measured, Sample};
use super::servers::{free_ports, wait_until};

/// Documents that are written into, round and round.
const DOCUMENTS: usize = 500;
/// Bytes of text in every change.
const TEXT_BYTES: usize = 512;
/// Changes written before the writer looks at what has arrived.
const BURST: usize = 100;
/// Changes that may be on their way; the writer waits beyond, as the mesh would.
const UNDELIVERED_MAX: usize = 20_000;
/// How long the last changes may take to arrive.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Lets one mesh node without a limiter write as fast as its changes arrive, for `load`.
pub(super) async fn measure(
    nodes: &mut Cluster,
    directory: &Path,
    load: Duration,
) -> anyhow::Result<Sample> {
    let bind = SocketAddr::from(([127, 0, 0, 1], free_ports(1)?[0]));
    let credentials = prepare(nodes, bind).await?;
    let secret = credentials.formation_secret().clone();
    let mut config = NodeConfig::new("unit", "field", secret);
    config.bind = bind;
    config.pacing = Pacing::Unlimited;
    config.batched = true;
    let node = MeshNode::start(config).await.context("could not start the mesh node")?;
    let handle = node.handle();
    wait_until(&mut nodes.servers, "the gateway to reach the mesh node", || async {
        (!handle.connected_peers().is_empty()).then_some(())
    })
    .await?;

    let mut tail = Tail::new(directory.join("sinks"));
    let mut written: HashMap<String, Instant> = HashMap::new();
    let mut latencies = Vec::new();
    let text = "x".repeat(TEXT_BYTES);
    let (start, mut step) = (Instant::now(), 0usize);
    let mut last = start;
    while start.elapsed() < load || (!written.is_empty() && last.elapsed() < DRAIN_LIMIT) {
        if start.elapsed() < load && written.len() < UNDELIVERED_MAX {
            for _ in 0..BURST {
                let key = format!("messages:{}", step % DOCUMENTS);
                let Value::Object(fields) = json!({ "step": step, "text": text }) else {
                    bail!("an object was written above");
                };
                let now = Instant::now();
                for hash in handle.write(&Change::Put { key, fields })? {
                    written.insert(hash.to_string(), now);
                }
                step += 1;
            }
        }
        for line in tail.lines()? {
            let event: Value = serde_json::from_slice(&line).context("a line is no JSON")?;
            let hash = event["change_hash"].as_str().unwrap_or_default();
            if let Some(began) = written.remove(hash) {
                last = Instant::now();
                latencies.push(last.duration_since(began));
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    node.stop().await;
    let measured = Measured {
        requests: latencies.len() as u64,
        latencies,
        failed: written.len() as u64,
        seconds: last.duration_since(start).as_secs_f64(),
    };
    Ok(measured.sample())
}

/// Makes an organisation with a formation that dials `bind`, and a file sink; returns the formation's
/// credentials.
async fn prepare(nodes: &mut Cluster, bind: SocketAddr) -> anyhow::Result<Credentials> {
    let formation = json!({ "app_id": "field", "static_peers": [format!("unit@{bind}")] });
    let sink = json!({ "sink_type": { "File": { "name": "bench" } } });
    for (path, body) in [
        ("/orgs", json!({ "org_id": "mesh", "display_name": "Mesh" })),
        ("/orgs/mesh/formations", formation),
        ("/orgs/mesh/sinks", sink),
    ] {
        nodes.create(path, &body.to_string()).await?;
    }
    let mut connection = Connection::open(&nodes.hosts[0]).await?;
    let status = connection.send("GET", "/orgs/mesh/formations/field/credentials", "").await?;
    let answer: Value = serde_json::from_slice(connection.body()).unwrap_or_default();
    let Some(text) = answer["credentials"].as_str().filter(|_| status == 200) else {
        bail!("reading the formation's credentials gave {status}");
    };
    let bytes = STANDARD.decode(text).context("the credentials are not base64")?;
    Credentials::decode(&bytes).context("the credentials can't be read")
}

/// Reads whole new lines of all files below a directory.
struct Tail {
    root: PathBuf,
    read: HashMap<PathBuf, u64>,
}

impl Tail {
    fn new(root: PathBuf) -> Self {
        Self { root, read: HashMap::new() }
    }

    fn lines(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        let mut open = vec![self.root.clone()];
        while let Some(next) = open.pop() {
            // The directory appears with the first event.
            let Ok(entries) = std::fs::read_dir(&next) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let from = self.read.entry(path.clone()).or_default();
                let mut file = std::fs::File::open(&path)?;
                file.seek(SeekFrom::Start(*from))?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    if let Some(whole) = line.strip_suffix(b"\n") {
                        *from += line.len() as u64;
                        lines.push(whole.to_vec());
                    }
                }
            }
        }
        Ok(lines)
    }
}
