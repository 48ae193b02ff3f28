//! Mesh nodes in the field: real QUIC, the stock sync, the pacing of published nodes, and a ledger of
//! what each wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use peat_gateway_mesh::credentials::Credentials;
use peat_gateway_mesh::identity::{self, EndpointId};
use peat_gateway_mesh::node::{Change, MeshNode, NodeConfig, NodeHandle};
use serde_json::{Value, json};

use super::api::Api;
use super::{ports, wait_for};

/// The formation that fields use in their organisation.
pub const FORMATION: &str = "field";
/// Writes per second of one node.
const WRITES_PER_SECOND: u64 = 400;
/// Writes between two pauses of a writer.
const WRITES_AT_ONCE: usize = 20;

/// Mesh nodes of one formation.
pub struct Field {
    nodes: Vec<MeshNode>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    ledger: Arc<Mutex<Ledger>>,
    gateway: EndpointId,
    changes: usize,
    documents: usize,
}

/// What was written: hashes per document, in order.
#[derive(Clone, Default)]
pub struct Ledger {
    /// Change hashes in hex by document key.
    pub documents: BTreeMap<String, Vec<String>>,
}

impl Ledger {
    /// How many changes that is.
    pub fn changes(&self) -> usize {
        self.documents.values().map(Vec::len).sum()
    }
}

impl Field {
    /// Makes organisation `acme` with its formation, and starts mesh nodes that write nothing yet.
    pub async fn start(any: &Api, nodes: usize, changes: usize, documents: usize) -> Self {
        Self::start_named(any, "acme", nodes, changes, documents).await
    }

    /// The same with the mesh nodes at another address than loopback.
    pub async fn start_at(
        any: &Api,
        host: &str,
        nodes: usize,
        changes: usize,
        documents: usize,
    ) -> Self {
        Self::start_with(any, host, "acme", nodes, changes, documents).await
    }

    /// The same in another organisation. `changes` and `documents` are those of one node.
    pub async fn start_named(
        any: &Api,
        org: &str,
        nodes: usize,
        changes: usize,
        documents: usize,
    ) -> Self {
        Self::start_with(any, "127.0.0.1", org, nodes, changes, documents).await
    }

    async fn start_with(
        any: &Api,
        host: &str,
        org: &str,
        nodes: usize,
        changes: usize,
        documents: usize,
    ) -> Self {
        let host: IpAddr = host.parse().expect("an address");
        let binds: Vec<_> = (0..nodes).map(|_| SocketAddr::new(host, ports::free())).collect();
        let peers: Vec<_> =
            binds.iter().enumerate().map(|(node, bind)| format!("unit-{node}@{bind}")).collect();
        any.create("/orgs", &json!({ "org_id": org, "display_name": org })).await;
        let formation = json!({ "app_id": FORMATION, "static_peers": peers });
        any.create(&format!("/orgs/{org}/formations"), &formation).await;
        let path = format!("/orgs/{org}/formations/{FORMATION}/credentials");
        let answer = wait_for("credentials", Duration::from_secs(20), || any.get_json(&path)).await;
        let bytes = answer["credentials"].as_str().expect("credentials in base64");
        let bytes = STANDARD.decode(bytes).expect("base64");
        let credentials = Credentials::decode(&bytes).expect("credentials");
        let secret = credentials.formation_secret().clone();
        let gateway = identity::endpoint_id(&secret[..], GATEWAY_NAME);
        let mut started = Vec::new();
        for (node, bind) in binds.into_iter().enumerate() {
            let mut config = NodeConfig::new(format!("unit-{node}"), FORMATION, secret.clone());
            config.bind = bind;
            config.batched = node % 2 == 0;
            started.push(MeshNode::start(config).await.expect("a mesh node starts"));
        }
        Self {
            nodes: started,
            writers: Vec::new(),
            ledger: Arc::default(),
            gateway,
            changes,
            documents,
        }
    }

    /// Starts the writers.
    pub fn begin_writing(&mut self) {
        for (number, node) in self.nodes.iter().enumerate() {
            let writer =
                write(node.handle(), number, self.changes, self.documents, self.ledger.clone());
            self.writers.push(tokio::spawn(writer));
        }
    }

    /// Waits until everything is written; returns the ledger.
    pub async fn finish_writing(&mut self) -> Ledger {
        for writer in self.writers.drain(..) {
            writer.await.expect("a writer doesn't panic");
        }
        self.ledger.lock().expect("no panic under the lock").clone()
    }

    /// What the gateway has confirmed to any of the nodes.
    pub fn acknowledged(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in &self.nodes {
            for (document, hashes) in node.handle().acknowledged(&self.gateway) {
                let hashes = hashes.iter().map(ToString::to_string);
                all.entry(document).or_default().extend(hashes);
            }
        }
        all
    }

    /// Ends the nodes for good, as a crash would: their documents are gone.
    pub async fn kill(self) {
        self.writers.iter().for_each(tokio::task::JoinHandle::abort);
        for node in self.nodes {
            drop(node);
        }
    }

    /// What the nodes say of themselves.
    pub fn status(&self) -> String {
        self.nodes.iter().map(|node| format!("[{}] ", node.handle().status())).collect()
    }
}

/// The name under which gateways join meshes unless they are told another.
const GATEWAY_NAME: &str = "peat-gateway";

/// Writes `changes` changes into `documents` documents, round and round.
async fn write(
    node: NodeHandle,
    number: usize,
    changes: usize,
    documents: usize,
    ledger: Arc<Mutex<Ledger>>,
) {
    let pause = Duration::from_millis(1_000 * WRITES_AT_ONCE as u64 / WRITES_PER_SECOND);
    for step in 0..changes {
        let key = format!("sensors:unit-{number}-{}", step % documents);
        let fields =
            json!({ "reading": step, "unit": number, "place": { "lat": 48.1, "lon": 11.5 } });
        let Value::Object(fields) = fields else { unreachable!("an object was written above") };
        let change = Change::Put { key: key.clone(), fields };
        let hashes = node.write(&change).expect("a mesh node takes its own change");
        assert_eq!(hashes.len(), 1, "one update is one change");
        ledger
            .lock()
            .expect("no panic under the lock")
            .documents
            .entry(key)
            .or_default()
            .push(hashes[0].to_string());
        if step % WRITES_AT_ONCE == WRITES_AT_ONCE - 1 {
            tokio::time::sleep(pause).await;
        }
    }
}
