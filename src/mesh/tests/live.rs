//! The running observer against nodes that behave as published ones, over QUIC on loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use peat_gateway_mesh::endpoint::PeerAddress;
use peat_gateway_mesh::identity;
use peat_gateway_mesh::json;
use peat_gateway_mesh::node::{Change, MeshNode, NodeConfig};
use peat_gateway_state::ids::{AppId, DocumentKey, OrgId};
use peat_gateway_state::record::{EnrollmentPolicy, Formation, FormationStatus};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::fake_journal::{FakeJournal, Mode, SECRET};
use crate::mesh::journal::Journal;
use crate::mesh::metrics::Metrics;
use crate::mesh::organization::Organization;
use crate::mesh::peers::Peers;
use crate::mesh::proposer::Proposer;
use crate::mesh::replica::materialize;

const PATIENCE: Duration = Duration::from_secs(60);
const APP: &str = "alpha";

struct Observer {
    journal: FakeJournal,
    metrics: Metrics,
    peers: Peers,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    _formations: watch::Sender<Vec<Formation>>,
}

fn org() -> OrgId {
    OrgId::from_trusted("acme")
}

fn app() -> AppId {
    AppId::from_trusted(APP)
}

impl Observer {
    fn start(journal: FakeJournal, static_peers: Vec<String>) -> Self {
        let formation = Formation {
            org_id: org(),
            app_id: app(),
            mesh_id: "0123ABCD".into(),
            enrollment_policy: EnrollmentPolicy::Open,
            status: FormationStatus::Active,
            created_at: 1,
            revision: 1,
            static_peers,
            documents: 0,
        };
        let (formations, receiver) = watch::channel(vec![formation]);
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let peers = Peers::default();
        let shutdown = CancellationToken::new();
        let organization = Organization {
            proposer: Proposer { org: org(), journal: journal.clone(), metrics: metrics.clone() },
            bind: ([127, 0, 0, 1], 0).into(),
            node_name: "gateway".into(),
            peers: peers.clone(),
        };
        let task = tokio::spawn(organization.run(receiver, shutdown.clone()));
        Self { journal, metrics, peers, shutdown, task, _formations: formations }
    }

    async fn stop(self) {
        let began = Instant::now();
        self.shutdown.cancel();
        self.task.await.unwrap();
        assert!(began.elapsed() <= Duration::from_secs(3), "it took {:?}", began.elapsed());
    }

    /// The journal's documents as JSON; deleted ones are null.
    fn documents(&self) -> BTreeMap<String, Value> {
        let keys: Vec<DocumentKey> = {
            let stored = self.journal.stored.lock().unwrap();
            stored.documents.keys().map(|(_, key)| key.clone()).collect()
        };
        keys.into_iter()
            .map(|key| {
                let stored = self.journal.stored_document(&org(), &app(), &key).unwrap().unwrap();
                let value = if stored.deleted {
                    Value::Null
                } else {
                    json::document(&materialize(&stored).unwrap())
                };
                (key.to_string(), value)
            })
            .collect()
    }

    async fn holds(&self, node: &MeshNode, what: &str) {
        let began = Instant::now();
        loop {
            let mut wanted: BTreeMap<String, Value> =
                node.documents().into_iter().map(|(key, state)| (key, state.json)).collect();
            for tombstone in node.tombstones() {
                wanted.insert(tombstone.document_key(), Value::Null);
            }
            let ours = self.documents();
            if ours == wanted {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: {} of {} documents; node {}; frames {} answers {} malformed {} restarts {}",
                ours.len(),
                wanted.len(),
                node.status(),
                self.metrics.frames.get(),
                self.metrics.answers.get(),
                self.metrics.frames_malformed.get(),
                self.metrics.restarts.get(),
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn node(name: &str, adapt: impl FnOnce(&mut NodeConfig)) -> MeshNode {
    let mut config = NodeConfig::new(name, APP, Zeroizing::new(SECRET));
    adapt(&mut config);
    MeshNode::start(config).await.unwrap()
}

fn static_peer(name: &str, node: &MeshNode) -> String {
    let PeerAddress { id, sockets } = node.address();
    assert_eq!(id, identity::endpoint_id(&SECRET, name));
    format!("{name}@{}", sockets[0])
}

fn put(node: &MeshNode, key: String, value: u64) {
    let Value::Object(fields) = json!({"n": value, "text": format!("value {value}")}) else {
        unreachable!("an object")
    };
    node.write(&Change::Put { key, fields }).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_documents_updates_and_deletions_arrive_and_a_failover_repeats_no_event() {
    let mut node_a = node("node-a", |_| {}).await;
    for number in 0..500 {
        let collection = if number % 10 == 0 { "beacons" } else { "docs" };
        put(&node_a, format!("{collection}:{number}"), number);
    }
    let journal = FakeJournal::new();
    let observer = Observer::start(journal.clone(), vec![static_peer("node-a", &node_a)]);
    observer.holds(&node_a, "first transfer").await;
    assert_eq!(observer.peers.connected(&org(), &app()).len(), 1);

    for number in 0..50 {
        put(&node_a, format!("docs:{}", number * 10 + 1), 1000 + number);
    }
    for number in 0..5 {
        let key = format!("docs:{}", number * 10 + 2);
        node_a.write(&Change::Delete { key, reason: None }).unwrap();
    }
    observer.holds(&node_a, "updates and deletions").await;

    node_a.set_online(false).await.unwrap();
    for number in 0..30 {
        put(&node_a, format!("docs:late-{number}"), number);
    }
    node_a.set_online(true).await.unwrap();
    observer.holds(&node_a, "after it was offline").await;
    observer.stop().await;

    // Another leader: all that is committed stays, what is new arrives, nothing is journalled twice.
    let events = journal.stored.lock().unwrap().events.len();
    put(&node_a, "docs:after-failover".into(), 1);
    let observer = Observer::start(journal.clone(), vec![static_peer("node-a", &node_a)]);
    observer.holds(&node_a, "after the failover").await;
    assert_eq!(journal.stored.lock().unwrap().events.len(), events + 1);
    assert_eq!(observer.metrics.changes_known.get(), 0, "nothing known was proposed again");
    assert_eq!(observer.metrics.frames_malformed.get(), 0);
    observer.stop().await;
    node_a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_relayed_between_two_nodes_and_both_are_observed() {
    let node_a = node("node-a", |_| {}).await;
    let node_b = node("node-b", |config| config.batched = true).await;
    put(&node_a, "docs:a".into(), 1);
    put(&node_a, "docs:shared".into(), 2);
    put(&node_b, "docs:b".into(), 3);
    put(&node_b, "docs:shared".into(), 4);
    let peers = vec![static_peer("node-a", &node_a), static_peer("node-b", &node_b)];
    let observer = Observer::start(FakeJournal::new(), peers);
    let began = Instant::now();
    let shared = DocumentKey::from_trusted("docs:shared");
    while observer.documents().len() < 3 || observer.journal.hashes(&app(), &shared).len() < 2 {
        assert!(began.elapsed() < PATIENCE, "{:?}", observer.documents());
        sleep(Duration::from_millis(50)).await;
    }
    // A further round on both links would carry whatever could be relayed.
    put(&node_a, "docs:shared".into(), 5);
    put(&node_b, "docs:shared".into(), 6);
    while observer.journal.hashes(&app(), &shared).len() < 4 {
        assert!(began.elapsed() < PATIENCE, "{:?}", observer.documents());
        sleep(Duration::from_millis(50)).await;
    }
    assert!(node_a.document("docs:b").is_none() && node_b.document("docs:a").is_none());
    assert_eq!(node_a.all_change_hashes("docs:shared").len(), 2);
    assert_eq!(node_b.all_change_hashes("docs:shared").len(), 2);
    observer.stop().await;
    node_a.stop().await;
    node_b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_closes_the_links_and_everything_arrives_afterwards() {
    let node_a = node("node-a", |_| {}).await;
    let journal = FakeJournal::new();
    journal.set_mode(Mode::Unknown);
    let observer = Observer::start(journal.clone(), vec![static_peer("node-a", &node_a)]);
    put(&node_a, "docs:a".into(), 1);
    let began = Instant::now();
    while observer.metrics.restarts.get() < 2 {
        assert!(began.elapsed() < PATIENCE, "node {}", node_a.status());
        sleep(Duration::from_millis(20)).await;
    }
    let gateway = identity::endpoint_id(&SECRET, "gateway");
    assert!(node_a.acknowledged(&gateway).values().all(|hashes| hashes.is_empty()));
    journal.set_mode(Mode::Decides);
    observer.holds(&node_a, "after the outcome is known again").await;
    observer.stop().await;
    node_a.stop().await;
}
