//! Mesh nodes among themselves, over real QUIC on loopback.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use peat_gateway_mesh::node::document::DocumentError;
use peat_gateway_mesh::node::workload::Workload;
use peat_gateway_mesh::node::{Change, DocumentState, MeshNode, NodeConfig, NodeHandle, Pacing};
use serde_json::{Value, json};
use support::vectors::vector_file;
use support::wait::until;
use zeroize::Zeroizing;

fn config(name: &str) -> NodeConfig {
    NodeConfig::new(name, "acme.alpha", Zeroizing::new([7; 32]))
}

/// Starts a node that others dial, and one that dials it.
async fn pair(change: impl Fn(&mut NodeConfig)) -> (MeshNode, MeshNode) {
    let mut first = config("node-a");
    change(&mut first);
    let first = MeshNode::start(first).await.unwrap();
    let mut second = config("node-b");
    second.peers = vec![first.address()];
    change(&mut second);
    (first, MeshNode::start(second).await.unwrap())
}

fn put(node: &NodeHandle, key: &str, fields: Value) {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    node.write(&Change::Put { key: key.to_owned(), fields }).unwrap();
}

async fn linked(first: &NodeHandle, second: &NodeHandle) {
    let look = async || (first.connected_peers().len(), second.connected_peers().len());
    until("linking", look, |peers| *peers == (1, 1)).await;
}

/// Waits until both nodes have the same documents and tombstones; returns the documents.
async fn converged(first: &NodeHandle, second: &NodeHandle) -> BTreeMap<String, DocumentState> {
    let look = async || {
        let (ours, theirs) = (first.documents(), second.documents());
        let keys = |node: &NodeHandle| -> Vec<String> {
            node.tombstones().iter().map(|tombstone| tombstone.document_key()).collect()
        };
        let different: Vec<String> = ours
            .iter()
            .filter(|(key, state)| theirs.get(*key) != Some(*state))
            .map(|(key, _)| key.clone())
            .chain(theirs.keys().filter(|key| !ours.contains_key(*key)).cloned())
            .collect();
        (different, keys(first) == keys(second), first.status(), second.status())
    };
    until("convergence", look, |seen| seen.0.is_empty() && seen.1).await;
    first.documents()
}

#[tokio::test]
async fn nodes_converge_in_both_modes_and_confirm_every_change() {
    for batched in [false, true] {
        let (first, second) = pair(|config| config.batched = batched).await;
        linked(&first, &second).await;
        for number in 0..5 {
            put(&first, "sensors:s-1", json!({"reading": number}));
            put(&first, "platforms:p-1", json!({"position": [number, 2]}));
            put(&second, "sensors:s-2", json!({"reading": number}));
            put(&second, "platforms:p-2", json!({"position": [number, 3]}));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let documents = converged(&first, &second).await;
        assert_eq!(documents.len(), 4, "{documents:?}");
        assert_eq!(documents["sensors:s-2"].json, json!({"reading": 4}));
        assert_eq!(documents["platforms:p-1"].json, json!({"position": [4, 2]}));

        let written = first.all_change_hashes("sensors:s-1");
        assert_eq!(written.len(), 5);
        let look = async || first.acknowledged(&second.id());
        let confirmed = until("confirmation", look, |acknowledged| {
            acknowledged.get("sensors:s-1").is_some_and(|hashes| hashes.len() == written.len())
        })
        .await;
        assert!(written.iter().all(|hash| confirmed["sensors:s-1"].contains(hash)));
        // Snapshots are confirmed by nobody.
        assert!(!confirmed.contains_key("platforms:p-1"));
        assert_eq!(first.status().malformed + second.status().malformed, 0);
        first.stop().await;
        second.stop().await;
    }
}

#[tokio::test]
async fn concurrent_changes_of_one_document_merge() {
    let (mut first, second) = pair(|_| {}).await;
    linked(&first, &second).await;
    put(&first, "reports:r-1", json!({"a": 0, "b": 0}));
    converged(&first, &second).await;
    first.set_online(false).await.unwrap();
    put(&first, "reports:r-1", json!({"a": 1, "b": 0, "first": true}));
    put(&second, "reports:r-1", json!({"a": 0, "b": 2, "second": true}));
    first.set_online(true).await.unwrap();
    let documents = converged(&first, &second).await;
    let merged = &documents["reports:r-1"].json;
    assert_eq!((&merged["first"], &merged["second"]), (&json!(true), &json!(true)));
    assert_eq!(documents["reports:r-1"].heads.len(), 2);
}

#[tokio::test]
async fn deletions_spread_as_tombstones_or_as_updates() {
    let (first, second) = pair(|_| {}).await;
    linked(&first, &second).await;
    put(&first, "tracks:t-1", json!({"x": 1}));
    put(&first, "messages:m-1", json!({"text": "hi"}));
    put(&first, "commands:c-1", json!({"do": "stop"}));
    converged(&first, &second).await;
    let delete =
        |key: &str| Change::Delete { key: key.to_owned(), reason: Some("lost".to_owned()) };
    second.write(&delete("tracks:t-1")).unwrap();
    // One-way tombstones travel with the next poll only.
    second.write(&delete("commands:c-1")).unwrap();
    let soft = Change::SoftDelete { key: "messages:m-1".to_owned(), reason: "read".to_owned() };
    second.write(&soft).unwrap();
    let documents = converged(&first, &second).await;
    assert_eq!(documents.keys().collect::<Vec<_>>(), ["messages:m-1"]);
    assert_eq!(documents["messages:m-1"].json["_deleted"], json!(true));
    assert_eq!(documents["messages:m-1"].json["text"], json!("hi"));
    let tombstones = first.tombstones();
    assert_eq!(tombstones.len(), 2);
    assert_eq!(tombstones[1].deleted_by, "node-b");
    assert_eq!(tombstones[1].reason.as_deref(), Some("lost"));
    // A deleted document does not come back, on either node.
    let again = Change::Put { key: "tracks:t-1".to_owned(), fields: serde_json::Map::new() };
    for node in [&first, &second] {
        assert!(matches!(node.write(&again), Err(DocumentError::Deleted { .. })));
    }
}

#[tokio::test]
async fn only_a_hundred_documents_are_pushed_but_a_negentropy_init_gets_all() {
    let (mut first, second) = pair(|_| {}).await;
    first.set_online(false).await.unwrap();
    for number in 0..500 {
        let collection = if number % 2 == 0 { "beacons" } else { "docs" };
        put(&first, &format!("{collection}:{number:03}"), json!({"number": number}));
    }
    first.set_online(true).await.unwrap();
    let count = async || second.documents().len();
    until("the first push", count, |count| *count >= 100).await;
    assert!(second.documents().len() < 250, "{}", second.documents().len());
    assert!(first.status().dropped >= 250, "{}", first.status());
    second.ask_for_everything();
    let documents = converged(&first, &second).await;
    assert_eq!(documents.len(), 500);
}

#[tokio::test]
async fn a_node_that_was_offline_catches_up_on_the_same_address() {
    let (mut first, second) = pair(|_| {}).await;
    linked(&first, &second).await;
    let address = first.address();
    first.set_online(false).await.unwrap();
    let look = async || second.connected_peers();
    until("the link's end", look, Vec::is_empty).await;
    for number in 0..20 {
        put(&first, &format!("docs:a-{number}"), json!({"from": "a"}));
        put(&second, &format!("docs:b-{number}"), json!({"from": "b"}));
    }
    assert_eq!(first.documents().len(), 20);
    first.set_online(true).await.unwrap();
    assert_eq!(first.address(), address);
    assert_eq!(converged(&first, &second).await.len(), 40);
}

#[tokio::test]
async fn a_restarted_node_has_its_documents_and_tombstones() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = config("node-a");
    settings.state_directory = Some(directory.path().to_owned());
    let node = MeshNode::start(settings.clone()).await.unwrap();
    put(&node, "docs:1", json!({"x": 1}));
    put(&node, "docs:1", json!({"x": 2}));
    put(&node, "tracks:1", json!({"x": 1}));
    node.write(&Change::Delete { key: "tracks:1".to_owned(), reason: None }).unwrap();
    let (documents, tombstones) = (node.documents(), node.tombstones());
    let hashes = node.all_change_hashes("docs:1");
    node.stop().await;
    let node = MeshNode::start(settings.clone()).await.unwrap();
    assert_eq!((node.documents(), node.tombstones()), (documents, tombstones));
    assert_eq!(node.all_change_hashes("docs:1"), hashes);
    node.stop().await;

    std::fs::write(directory.path().join("bad.frame"), [1, 2, 3]).unwrap();
    let error = MeshNode::start(settings).await.unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[tokio::test]
async fn workloads_on_both_sides_converge() {
    let (mut first, mut second) = pair(|config| {
        config.pacing = Pacing::Unlimited;
        config.workload = Some(Workload {
            seed: 11,
            writes_per_second: 100,
            units: 4,
            prefix: config.node_name.clone(),
        });
    })
    .await;
    let look = async || (first.status(), second.status());
    until("writing", look, |(ours, theirs)| ours.written > 150 && theirs.written > 150).await;
    first.set_online(false).await.unwrap();
    second.set_online(false).await.unwrap();
    let kept: Vec<NodeHandle> = vec![first.handle(), second.handle()];
    let written: Vec<u64> = kept.iter().map(|node| node.status().written).collect();
    // They go on writing while they are offline.
    let look = async || kept.iter().map(|node| node.status().written).collect::<Vec<_>>();
    until("writing offline", look, |now| now[0] > written[0] && now[1] > written[1]).await;
    first.set_online(true).await.unwrap();
    second.set_online(true).await.unwrap();
    linked(&first, &second).await;
    until("writing on", look, |now| now.iter().all(|count| *count > 400)).await;
    first.stop_writing().await;
    second.stop_writing().await;
    let documents = converged(&first, &second).await;
    for collection in ["platforms:", "sensors:", "messages:", "tracks:"] {
        let has_some = documents.keys().any(|key| key.starts_with(collection));
        assert!(has_some, "{collection} {:?}", documents.keys());
    }
    assert_eq!(first.status().malformed + second.status().malformed, 0);
}

#[tokio::test]
async fn json_is_written_as_published_nodes_do_and_invalid_writes_are_refused() {
    let node = MeshNode::start(config("node-a")).await.unwrap();
    let file = vector_file("sync");
    put(&node, "docs:1", file["json_roundtrip"]["in"].clone());
    let state = node.document("docs:1").unwrap();
    assert_eq!(state.json, file["json_roundtrip"]["out"]);
    // Keys that are missing from an update are deleted.
    put(&node, "docs:1", json!({"s": "other"}));
    assert_eq!(node.document("docs:1").unwrap().json, json!({"s": "other"}));

    for key in ["", "docs", ":1", "docs:"] {
        let change = Change::Put { key: key.to_owned(), fields: serde_json::Map::new() };
        let refused = node.write(&change);
        assert!(matches!(refused, Err(DocumentError::InvalidKey { .. })), "{key} {refused:?}");
    }
    let missing = Change::Delete { key: "docs:2".to_owned(), reason: None };
    assert!(matches!(node.write(&missing), Err(DocumentError::Missing { .. })));
    assert_eq!(node.status().written, 2);
    node.stop().await;
}
