//! The whole job under fire: mesh nodes write, the leader is killed again and again, and every change
//! is in the journal exactly once and in every sink (INV-3, INV-4, INV-5, INV-8, INV-10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::cluster::Cluster;
use crate::support::field::Field;
use crate::support::nats::Nats;
use crate::support::random::Random;
use crate::support::webhook::Receiver;
use crate::support::{self, wait_for};

/// Changes that all mesh nodes write together.
const CHANGES: usize = 20_000;
/// Documents that they write into.
const DOCUMENTS: usize = 500;
/// Times that the leader is killed.
const KILLS: u32 = 8;
/// Mesh nodes.
const MESH_NODES: usize = 2;
/// How long the stream may take to drain once the nodes have stopped writing.
const DRAIN_LIMIT: Duration = Duration::from_secs(300);

#[test]
fn every_change_arrives_while_the_leader_is_killed_again_and_again() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut random = Random::announced("under fire");
        let nats = Nats::start().await;
        let receiver = Receiver::start().await;
        let mut cluster = Cluster::prepare(3);
        cluster.set("PEAT_CDC_NATS_URL", &nats.url);
        cluster.start_all();
        cluster.wait_ready().await;
        let any = cluster.any();
        let mut field =
            Field::start(&any, MESH_NODES, CHANGES / MESH_NODES, DOCUMENTS / MESH_NODES).await;
        let sinks = create_sinks(&any, &receiver).await;
        let watch = CursorWatch::start(any.clone(), sinks.values().cloned().collect());
        field.begin_writing();

        for kill in 1..=KILLS {
            let goal = journalled(&any).await + random.between(200, 1_500);
            wait_for("journalled changes", DRAIN_LIMIT, || async {
                match journalled(&any).await {
                    now if now >= goal.min(CHANGES as u64 - 1) => Ok(()),
                    now => Err(format!("{now} of {goal}")),
                }
            })
            .await;
            tokio::time::sleep(Duration::from_millis(random.between(0, 300))).await;
            let leader = cluster.leader().await;
            cluster.nodes[leader].kill();
            println!("kill {kill}: node {} at about {goal} changes", leader + 1);
            tokio::time::sleep(Duration::from_millis(random.between(0, 1_500))).await;
            cluster.nodes[leader].start();
            cluster.leader().await;
        }

        let truth = field.finish_writing().await;
        assert_eq!(truth.changes(), CHANGES);
        wait_for("all changes in the journal", DRAIN_LIMIT, || async {
            match journalled(&any).await {
                now if now >= CHANGES as u64 => Ok(()),
                now => Err(format!("{now} of {CHANGES}; {}", field.status())),
            }
        })
        .await;
        wait_for("all cursors at the end", DRAIN_LIMIT, || async {
            for (name, sink) in &sinks {
                let cursor = any.get_json(&format!("/orgs/acme/sinks/{sink}/cursor")).await?;
                if cursor["acknowledged"] != CHANGES {
                    return Err(format!("{name}: {cursor}"));
                }
            }
            Ok(())
        })
        .await;
        watch.finish().await;

        let journal = any.journal("acme").await;
        check_journal(&journal, &truth.documents);
        let expected: BTreeMap<String, String> = journal
            .iter()
            .map(|event| (text(event, "event_id"), text(event, "document_id")))
            .collect();
        let file = file_lines(&cluster.sinks);
        let webhook: Vec<_> = receiver.accepted().into_iter().map(|(_, body)| body).collect();
        let stream = nats.messages().await;
        let ids: BTreeSet<_> = stream.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), stream.len(), "NATS stored an event twice");
        assert_eq!(stream.len(), CHANGES);
        let stream: Vec<_> = stream.into_iter().map(|(_, payload)| payload).collect();
        let mut bodies = BTreeMap::new();
        for (name, events) in [("file", &file), ("webhook", &webhook), ("nats", &stream)] {
            check_sink(name, events, &expected, &mut bodies);
        }
        assert_eq!(receiver.rejected(), Vec::<String>::new(), "bad signatures");
        cluster.wait_equal().await;
        println!(
            "{CHANGES} changes, {KILLS} kills; deliveries: file {}, webhook {}, nats {}",
            file.len(),
            webhook.len(),
            stream.len()
        );
    });
}

#[test]
fn nothing_of_a_mesh_node_that_dies_right_after_its_answer_is_missing() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut random = Random::announced("last words");
        let mut cluster = Cluster::start(3).await;
        let any = cluster.any();
        for round in 1..=5 {
            let mut field = Field::start_named(&any, &format!("fleet-{round}"), 1, 200, 20).await;
            field.begin_writing();
            let wanted = random.between(20, 150) as usize;
            let answered = wait_for("answers", Duration::from_secs(90), || async {
                let answered = field.acknowledged();
                let count: usize = answered.values().map(BTreeSet::len).sum();
                if count >= wanted { Ok(answered) } else { Err(format!("{count} of {wanted}")) }
            })
            .await;
            let leader = cluster.leader().await;
            field.kill().await;
            cluster.nodes[leader].kill();
            cluster.leader().await;
            let journal = any.journal(&format!("fleet-{round}")).await;
            let have: BTreeSet<_> = journal
                .iter()
                .map(|event| (text(event, "document_id"), text(event, "change_hash")))
                .collect();
            for (document, hashes) in &answered {
                for hash in hashes {
                    let change = (document.clone(), hash.clone());
                    assert!(have.contains(&change), "round {round}: {change:?} was answered");
                }
            }
            cluster.nodes[leader].start();
            cluster.wait_ready().await;
        }
        cluster.wait_equal().await;
    });
}

/// Creates a sink of every kind; returns their ids by name.
async fn create_sinks(any: &Api, receiver: &Receiver) -> BTreeMap<&'static str, String> {
    let secret = format!("whsec_{}", STANDARD.encode([7u8; 32]));
    receiver.trust(&secret);
    let id = |sink: Value| text(&sink, "sink_id");
    let path = "/orgs/acme/sinks";
    let file = json!({ "sink_type": { "File": { "name": "events" } } });
    let nats = json!({ "sink_type": { "Nats": { "subject_prefix": "cdc" } } });
    let webhook = json!({
        "sink_type": { "Webhook": { "url": receiver.url } },
        "credentials": { "signing_secret": secret },
    });
    BTreeMap::from([
        ("file", id(any.create(path, &file).await)),
        ("nats", id(any.create(path, &nats).await)),
        ("webhook", id(any.create(path, &webhook).await)),
    ])
}

/// Sequence of the newest journalled event.
async fn journalled(any: &Api) -> u64 {
    wait_for("the journal's end", Duration::from_secs(60), || async {
        let sinks = any.get_json("/orgs/acme/sinks").await?;
        let sink = sinks[0]["sink_id"].as_str().ok_or("no sink")?.to_owned();
        let cursor = any.get_json(&format!("/orgs/acme/sinks/{sink}/cursor")).await?;
        cursor["head"].as_u64().ok_or_else(|| format!("no head in {cursor}"))
    })
    .await
}

/// Every change exactly once, sequences without gaps, per document in the order of its writer.
fn check_journal(journal: &[Value], truth: &BTreeMap<String, Vec<String>>) {
    let mut by_document: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for (place, event) in journal.iter().enumerate() {
        assert_eq!(event["sequence"], place as u64 + 1, "the sequence has a gap");
        assert!(ids.insert(text(event, "event_id")), "an event is journalled twice: {event}");
        let document = by_document.entry(text(event, "document_id")).or_default();
        document.push(text(event, "change_hash"));
        assert_eq!(event["document_sequence"], document.len() as u64, "{event}");
    }
    assert_eq!(by_document.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
    for (document, written) in truth {
        assert_eq!(&by_document[document], written, "{document}");
    }
}

/// Everything at least once, first deliveries per document in order, redeliveries byte for byte.
fn check_sink(
    name: &str,
    deliveries: &[Vec<u8>],
    expected: &BTreeMap<String, String>,
    bodies: &mut BTreeMap<String, Vec<u8>>,
) {
    let mut seen = BTreeSet::new();
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for body in deliveries {
        let event: Value = serde_json::from_slice(body).expect("every delivery is JSON");
        let id = text(&event, "event_id");
        let document = text(&event, "document_id");
        assert_eq!(expected.get(&id), Some(&document), "{name}: an event nobody wrote: {event}");
        let first = bodies.entry(id.clone()).or_insert_with(|| body.clone());
        assert!(first == body, "{name}: {id} was delivered with other bytes");
        let sequence = event["document_sequence"].as_u64().expect("a number");
        if seen.insert(id) {
            let newest = newest.entry(document.clone()).or_default();
            assert_eq!(sequence, *newest + 1, "{name}: {document} is out of order");
            *newest = sequence;
        }
    }
    assert_eq!(seen.len(), expected.len(), "{name}: events are missing");
}

/// The lines of all files of the file sink, in the order of the epochs that wrote them.
fn file_lines(root: &std::path::Path) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).expect("a directory").flatten() {
            match entry.path() {
                path if path.is_dir() => open.push(path),
                path => files.push(path),
            }
        }
    }
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let bytes = std::fs::read(file).expect("a readable file");
            let whole: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
            // A leader that was killed while it wrote leaves a torn last line; nobody acknowledged it.
            whole
                .into_iter()
                .filter_map(|line| line.strip_suffix(b"\n").map(<[u8]>::to_vec))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// Looks at all cursors all the time: none may ever go back.
struct CursorWatch {
    running: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl CursorWatch {
    fn start(any: Api, sinks: Vec<String>) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let go_on = running.clone();
        let task = tokio::spawn(async move {
            let mut newest: BTreeMap<String, u64> = BTreeMap::new();
            let mut looks = 0;
            while go_on.load(Ordering::SeqCst) {
                for sink in &sinks {
                    let path = format!("/orgs/acme/sinks/{sink}/cursor");
                    let Ok(cursor) = any.get_json(&path).await else { continue };
                    let now = cursor["acknowledged"].as_u64().expect("a number");
                    let before = newest.entry(sink.clone()).or_default();
                    assert!(now >= *before, "the cursor of {sink} went from {before} to {now}");
                    *before = now;
                    looks += 1;
                }
                tokio::time::sleep(support::POLL_INTERVAL).await;
            }
            looks
        });
        Self { running, task }
    }

    async fn finish(self) {
        self.running.store(false, Ordering::SeqCst);
        let looks = self.task.await.expect("no cursor went back");
        assert!(looks > 100, "cursors were looked at only {looks} times");
    }
}
