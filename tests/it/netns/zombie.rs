//! A leader that others have replaced without its knowing, while its deliveries are under way (INV-3, INV-4,
//! INV-5).
//!
//! Its sinks may see a repetition, with the same id and bytes. Nothing that it delivers from then on
//! counts: cursors are moved by the new leader only, so every event is also in what was delivered by others,
//! or before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{finish, leader_of, scenario, start};
use crate::support::api::Api;
use crate::support::cluster::Cluster;
use crate::support::deliveries::{
    CursorWatch, check_journal, check_sink, create_file_and_webhook, lines, sink_files, text,
};
use crate::support::field::Field;
use crate::support::net::Network;
use crate::support::random::Random;
use crate::support::registers::Registers;
use crate::support::wait_for;
use crate::support::webhook::Receiver;

/// Changes that the mesh nodes write.
const CHANGES: usize = 1_200;
const DOCUMENTS: usize = 40;
/// Journalled before the leader is taken out.
const BEFORE: u64 = 300;
/// How long everything may take to arrive.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// What happens to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It does nothing until it is thawed.
    Frozen,
    /// It works, but the other nodes don't hear it, nor it them. The sinks do.
    CutOff,
}

#[test]
fn a_leader_frozen_with_a_batch_in_flight_moves_no_cursor_when_it_thaws() {
    let test = "a_leader_frozen_with_a_batch_in_flight_moves_no_cursor_when_it_thaws";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        replaced(&network, Fate::Frozen, &mut random).await;
    });
}

#[test]
fn a_leader_cut_off_from_its_peers_but_not_from_its_sinks_moves_no_cursor() {
    let test = "a_leader_cut_off_from_its_peers_but_not_from_its_sinks_moves_no_cursor";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        replaced(&network, Fate::CutOff, &mut random).await;
    });
}

async fn replaced(network: &Network, fate: Fate, random: &mut Random) {
    let cluster = start(network, |_| {}).await;
    let any = cluster.any();
    let receiver = Receiver::start_at(&Network::client()).await;
    let mut field = Field::start_at(&any, &Network::client(), 2, CHANGES / 2, DOCUMENTS / 2).await;
    let sinks = create_file_and_webhook(&any, &receiver).await;
    let registers = Registers::start(&cluster, random).await;
    let watch = CursorWatch::start(any.clone(), sinks.values().cloned().collect());
    field.begin_writing();
    let webhook = &sinks["webhook"];
    wait_for("the first deliveries", DRAIN_LIMIT, || async {
        let cursor = cursor(&any, webhook).await?;
        if cursor >= BEFORE { Ok(()) } else { Err(format!("{cursor} acknowledged")) }
    })
    .await;
    receiver.hold();
    wait_for("a delivery in flight", DRAIN_LIMIT, || async {
        if receiver.waiting() > 0 { Ok(()) } else { Err("none") }
    })
    .await;

    let (old, old_term) = leader_of(&cluster, &[1, 2, 3]).await;
    let others: Vec<_> = (1..=3).filter(|node| *node != old).collect();
    println!("node {old} leads in term {old_term}; it is {fate:?}");
    match fate {
        Fate::Frozen => cluster.nodes[old - 1].freeze(),
        Fate::CutOff => network.isolate(old),
    }
    let files_then = contents(&cluster);
    let api = Api::new(others.iter().map(|node| cluster.nodes[node - 1].url()).collect());
    let (new, new_term) = leader_of(&cluster, &others).await;
    assert!(new_term > old_term && new != old);
    receiver.release();
    // The new leader delivers what the old one had in flight, and moves the cursor past it.
    let then = cursor(&api, webhook).await.expect("a cursor");
    wait_for("the new leader's deliveries", DRAIN_LIMIT, || async {
        let now = cursor(&api, webhook).await?;
        if now > then || now == CHANGES as u64 { Ok(()) } else { Err(format!("still at {now}")) }
    })
    .await;
    match fate {
        Fate::Frozen => cluster.nodes[old - 1].thaw(),
        Fate::CutOff => network.heal(),
    }

    let truth = field.finish_writing().await;
    wait_for("all cursors at the end", DRAIN_LIMIT, || async {
        for (name, sink) in &sinks {
            let cursor = cursor(&any, sink).await?;
            if cursor != CHANGES as u64 {
                return Err(format!("{name}: {cursor} of {CHANGES}; {}", field.status()));
            }
        }
        Ok(())
    })
    .await;
    watch.finish().await;
    let journal = any.journal("acme").await;
    check_journal(&journal, &truth.documents);
    let expected: BTreeMap<String, String> =
        journal.iter().map(|event| (text(event, "event_id"), text(event, "document_id"))).collect();
    let files_now = contents(&cluster);
    let file: Vec<_> = files_now.values().flat_map(|bytes| lines(bytes)).collect();
    let hooks: Vec<_> = receiver.accepted().into_iter().map(|(_, body)| body).collect();
    let mut bodies = BTreeMap::new();
    for (name, events) in [("file", &file), ("webhook", &hooks)] {
        check_sink(name, events, &expected, &mut bodies);
    }
    assert_eq!(receiver.rejected(), Vec::<String>::new(), "bad signatures");
    without_late_work(&files_then, &files_now, &expected);
    finish(&cluster, registers).await;
    println!(
        "{CHANGES} changes; file {} lines, webhook {} deliveries; the leader changed from {old} to {new}",
        file.len(),
        hooks.len()
    );
}

/// What the old leader's file got after it was replaced counts for nothing: every event is in the rest.
fn without_late_work(
    then: &BTreeMap<String, Vec<u8>>,
    now: &BTreeMap<String, Vec<u8>>,
    expected: &BTreeMap<String, String>,
) {
    assert!(
        now.len() > then.len(),
        "the new leader's epoch has no file of its own: {:?}",
        now.keys()
    );
    let counted: BTreeSet<String> = now
        .iter()
        .flat_map(|(name, bytes)| lines(then.get(name).unwrap_or(bytes)))
        .map(|line| text(&serde_json::from_slice(&line).expect("every line is JSON"), "event_id"))
        .collect();
    let missing: Vec<_> = expected.keys().filter(|id| !counted.contains(*id)).collect();
    assert!(missing.is_empty(), "only the deposed leader delivered {missing:?}");
}

/// All files of the file sink by path.
fn contents(cluster: &Cluster) -> BTreeMap<String, Vec<u8>> {
    let files = sink_files(&cluster.sinks).into_iter();
    files
        .map(|path| {
            let bytes = std::fs::read(&path).expect("a readable file");
            (path.display().to_string(), bytes)
        })
        .collect()
}

async fn cursor(api: &Api, sink: &str) -> Result<u64, String> {
    let cursor = api.get_json(&format!("/orgs/acme/sinks/{sink}/cursor")).await?;
    cursor["acknowledged"].as_u64().ok_or_else(|| format!("no number in {cursor}"))
}
