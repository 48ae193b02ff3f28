//! The whole job under fire: mesh nodes write, the leader is killed again and again, and every change
//! is in the journal exactly once and in every sink (INV-3, INV-4, INV-5, INV-8, INV-10).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use crate::support::api::Api;
use crate::support::cluster::Cluster;
use crate::support::deliveries::{
    CursorWatch, check_journal, check_sink, create_file_and_webhook, file_lines, text,
};
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
    let mut sinks = create_file_and_webhook(any, receiver).await;
    let nats = json!({ "sink_type": { "Nats": { "subject_prefix": "cdc" } } });
    sinks.insert("nats", text(&any.create("/orgs/acme/sinks", &nats).await, "sink_id"));
    sinks
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
