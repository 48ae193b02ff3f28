//! Backups with real processes: saved under load, restored into a new cluster, recovered from one disk
//! (INV-1, INV-3, INV-4, INV-5, INV-7).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::cli::{self, run, text};
use crate::support::cluster::{Cluster, command};
use crate::support::field::{FORMATION, Field};
use crate::support::load::Load;
use crate::support::random::Random;
use crate::support::webhook::Receiver;
use crate::support::{self, wait_for};

/// By how much a restore raises every number.
const RAISE: u64 = 1_000_000_000;
/// Changes that the mesh node writes before the backup, and again after the restore.
const CHANGES: usize = 400;
const DOCUMENTS: usize = 40;
const LIMIT: Duration = Duration::from_secs(120);

/// Takes back what a restore adds to every document's sequence.
fn lower(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(lower),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match value.as_u64() {
            Some(number) if name == "document_sequence" && number >= RAISE => {
                *value = (number - RAISE).into();
            }
            _ => lower(value),
        }),
        _ => {}
    }
}

/// What the API shows of everything that must survive.
async fn everything(api: &Api) -> BTreeMap<String, Value> {
    let mut paths = vec!["/orgs".to_owned(), "/cluster/settings".to_owned()];
    let orgs = wait_for("organisations", LIMIT, || api.get_json("/orgs?limit=1000")).await;
    for org in orgs.as_array().expect("a list") {
        let org = org["org_id"].as_str().expect("an id");
        for what in ["", "/formations", "/sinks", "/audit?limit=1000", "/journal?limit=1000"] {
            paths.push(format!("/orgs/{org}{what}"));
        }
    }
    let formation = format!("/orgs/acme/formations/{FORMATION}");
    paths.push(format!("{formation}/documents?limit=1000"));
    // Only with the key can the genesis be opened.
    paths.push(format!("{formation}/credentials"));
    for number in 0..DOCUMENTS {
        paths.push(format!("{formation}/documents/sensors%3Aunit-0-{number}"));
    }
    let mut found = BTreeMap::new();
    for path in paths {
        let shown = wait_for(&path, LIMIT, || api.get_json(&path)).await;
        found.insert(path, shown);
    }
    found
}

async fn cursor(api: &Api, sink: &str) -> (u64, u64) {
    let path = format!("/orgs/acme/sinks/{sink}/cursor");
    let cursor = wait_for("a cursor", LIMIT, || api.get_json(&path)).await;
    let number = |field: &str| cursor[field].as_u64().expect("a number");
    (number("acknowledged"), number("head"))
}

async fn wait_delivered(api: &Api, sinks: &[String], at_least: u64) {
    wait_for("all events in all sinks", LIMIT, || async {
        for sink in sinks {
            let (acknowledged, head) = cursor(api, sink).await;
            if head < at_least || acknowledged < head {
                return Err(format!("{sink}: {acknowledged} of {head}, wanted {at_least}"));
            }
        }
        Ok(())
    })
    .await;
}

/// A prepared node that will run on a data directory made elsewhere.
fn one_node_on(data: &Path) -> Cluster {
    let data = data.to_owned();
    Cluster::prepare_with(1, move |_, _| data.clone())
}

fn organizations_of(file: &Path) -> u64 {
    let inspected = run(&["snapshot", "inspect", text(file), "-o", "json"]).json();
    let spaces = inspected["spaces"].as_array().expect("key spaces");
    let organizations = spaces.iter().find(|space| space["space"] == "organization");
    organizations.map_or(0, |space| space["rows"].as_u64().expect("a number"))
}

#[test]
fn a_backup_becomes_a_new_cluster_in_which_everything_goes_on() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let receiver = Receiver::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::start(3).await;
        let any = cluster.any();
        let mut field = Field::start(&any, 1, CHANGES, DOCUMENTS).await;
        let secret = format!("whsec_{}", STANDARD.encode([7u8; 32]));
        receiver.trust(&secret);
        let mut sinks = Vec::new();
        for sink in [
            json!({ "sink_type": { "File": { "name": "events" } } }),
            json!({
                "sink_type": { "Webhook": { "url": receiver.url } },
                "credentials": { "signing_secret": secret },
            }),
        ] {
            let made = any.create("/orgs/acme/sinks", &sink).await;
            sinks.push(made["sink_id"].as_str().expect("an id").to_owned());
        }
        field.begin_writing();
        field.finish_writing().await;
        wait_delivered(&any, &sinks, CHANGES as u64).await;
        let before = everything(&any).await;
        let old = wait_for("the cluster", LIMIT, || any.get_json("/cluster")).await;

        let file = folder.path().join("acme.snapshot");
        let follower = (cluster.leader().await + 1) % 3;
        let url = cluster.nodes[follower].url();
        let saved = run(&["snapshot", "save", text(&file), "--url", &url, "-o", "json"]);
        assert!(saved.stderr.contains("saving: ") && saved.stderr.contains("100 %"), "{saved:?}");
        let saved = saved.json();
        assert_eq!(saved["cluster_id"], old["cluster_id"]);
        cluster.nodes.iter_mut().for_each(support::cluster::NodeProcess::kill);

        let data = folder.path().join("restored");
        let made = run(&["snapshot", "restore", text(&file), "--data-dir", text(&data)]);
        assert_eq!(made.code, 0, "{made:?}");
        let mut new = one_node_on(&data);
        new.start_all();
        new.wait_ready().await;
        let api = new.any();
        let shown = wait_for("the cluster", LIMIT, || api.get_json("/cluster")).await;
        assert_ne!(shown["cluster_id"], old["cluster_id"]);
        assert_eq!(shown["nodes"].as_array().map(Vec::len), Some(1));
        assert_eq!(shown["nodes"][0]["name"], "node-1");
        assert!(shown["nodes"][0]["applied_index"].as_u64().expect("a number") > RAISE);
        let mut after = everything(&api).await;
        after.values_mut().for_each(lower);
        for (path, value) in &before {
            assert_eq!(after.get(path), Some(value), "{path}");
        }
        let chain = api.read("/cluster/audit?limit=20").await;
        let entry = chain
            .as_array()
            .expect("a list")
            .iter()
            .find(|entry| entry["action"] == "restore_cluster");
        let target = entry.expect("the restore is audited")["target"].to_string();
        assert!(target.contains(old["cluster_id"].as_str().expect("an id")), "{target}");
        for sink in &sinks {
            assert_eq!(cursor(&api, sink).await, (RAISE + CHANGES as u64, RAISE + CHANGES as u64));
        }

        // The mesh goes on, and so do the sinks.
        field.begin_writing();
        field.finish_writing().await;
        wait_delivered(&api, &sinks, RAISE + 2 * CHANGES as u64).await;
        let journal = api.read(&format!("/orgs/acme/journal?after={RAISE}&limit=1000")).await;
        let sequences: Vec<u64> = journal
            .as_array()
            .expect("a list")
            .iter()
            .map(|event| event["sequence"].as_u64().expect("a number"))
            .collect();
        let first = RAISE + CHANGES as u64 + 1;
        assert_eq!(sequences, (first..first + CHANGES as u64).collect::<Vec<_>>());
        assert_eq!(receiver.rejected(), Vec::<String>::new(), "bad signatures");
        let events: Vec<Value> = receiver
            .accepted()
            .iter()
            .map(|(_, body)| serde_json::from_slice(body).expect("JSON"))
            .collect();
        let ids: std::collections::BTreeSet<_> =
            events.iter().map(|event| event["event_id"].to_string()).collect();
        assert_eq!(ids.len(), 2 * CHANGES);
        let documents: Vec<u64> = events
            .iter()
            .filter(|event| event["document_id"] == "sensors:unit-0-0")
            .map(|event| event["document_sequence"].as_u64().expect("a number"))
            .collect();
        let per_document = (CHANGES / DOCUMENTS) as u64;
        assert_eq!(documents.iter().filter(|at| **at > RAISE).count() as u64, per_document);
        assert!(documents.is_sorted(), "{documents:?}");
    });
}

#[test]
fn a_snapshot_under_load_holds_what_was_acknowledged_before_it() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = Cluster::start(3).await;
        let any = cluster.any();
        let load = Load::start(&any, 6).await;
        wait_for("some load", LIMIT, || async {
            match load.acknowledged() {
                count if count > 300 => Ok(()),
                count => Err(count),
            }
        })
        .await;
        let file = folder.path().join("load.snapshot");
        let floors = load.floors();
        let url: Vec<_> = cluster.nodes.iter().map(|node| node.url()).collect();
        let (target, urls) = (file.clone(), url.join(","));
        // Beside the writers, which go on meanwhile.
        let saving = tokio::task::spawn_blocking(move || {
            run(&["snapshot", "save", text(&target), "--url", &urls])
        });
        let saved = saving.await.expect("the command runs");
        assert_eq!(saved.code, 0, "{saved:?}");
        let again = run(&["snapshot", "save", text(&file), "--url", &url[0]]).failed(4);
        assert!(again.contains("--overwrite"), "{again}");
        load.check(&any).await;
        load.stop().await;
        cluster.wait_equal().await;
        assert_eq!(organizations_of(&file), 6);

        let data = folder.path().join("restored");
        let made = run(&["snapshot", "restore", text(&file), "--data-dir", text(&data)]);
        assert_eq!(made.code, 0, "{made:?}");
        let mut new = one_node_on(&data);
        new.start_all();
        new.wait_ready().await;
        let api = new.any();
        for (org, floor) in floors {
            let path = format!("/orgs/{org}");
            let shown = wait_for("a read", LIMIT, || api.get_json(&path)).await;
            let value: u64 = shown["display_name"].as_str().unwrap().parse().unwrap();
            assert!(value >= floor, "{org}: acknowledged {floor} before the snapshot, has {value}");
        }
    });
}

#[test]
fn the_old_cluster_and_the_restored_one_refuse_each_other_and_say_what_to_do() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::start(3).await;
        let any = cluster.any();
        any.create("/orgs", &json!({ "org_id": "acme", "display_name": "Acme" })).await;
        let file = folder.path().join("a.snapshot");
        let url = cluster.nodes[0].url();
        assert_eq!(run(&["snapshot", "save", text(&file), "--url", &url]).code, 0);
        let old_id = any.read("/cluster").await["cluster_id"].clone();
        // The third node's place is taken by a restored one: the same addresses, token and peers.
        cluster.nodes[2].stop();
        let data = folder.path().join("restored");
        let made = run(&["snapshot", "restore", text(&file), "--data-dir", text(&data)]);
        assert_eq!(made.code, 0, "{made:?}");
        let old_data = cluster.nodes[2].data.clone();
        cluster.nodes[2].set("PEAT_GATEWAY_DATA_DIR", text(&data));
        cluster.nodes[2].start();
        let (old, new) = (Api::new(vec![url, cluster.nodes[1].url()]), cluster.api(2));
        let logs: Vec<_> = cluster.nodes.iter().map(|node| node.log.clone()).collect();
        let says = |positions: std::ops::Range<usize>, what: &'static str| {
            let logs = logs[positions].to_vec();
            async move {
                wait_for(what, LIMIT, || async {
                    let texts = logs.iter().map(|log| std::fs::read_to_string(log).expect("a log"));
                    let all = texts.collect::<String>();
                    let line = all.lines().find(|line| line.contains(what)).map(str::to_owned);
                    line.ok_or("not said yet")
                })
                .await
            }
        };
        // One of the first two leads the old cluster and calls the third member's address.
        for line in [
            says(0..2, "belongs to another cluster and refuses").await,
            says(2..3, "refused a call from a node of another cluster").await,
        ] {
            assert!(line.contains("peat-gateway cluster join"), "{line}");
            assert!(line.contains(old_id.as_str().expect("an id")), "{line}");
        }
        // Both go on, apart.
        old.create("/orgs", &json!({ "org_id": "old", "display_name": "Old" })).await;
        wait_for("the restored node", LIMIT, || new.get_json("/cluster/settings")).await;
        new.create("/orgs", &json!({ "org_id": "new", "display_name": "New" })).await;
        let ids = |shown: Value| -> Vec<String> {
            let orgs = shown.as_array().expect("a list").clone();
            orgs.iter().map(|org| org["org_id"].as_str().expect("an id").to_owned()).collect()
        };
        assert_eq!(ids(old.read("/orgs").await), ["acme", "old"]);
        assert_eq!(ids(new.read("/orgs").await), ["acme", "new"]);
        let shown = new.read("/cluster").await;
        assert_ne!(shown["cluster_id"], old_id);
        assert_eq!(shown["nodes"].as_array().map(Vec::len), Some(1));
        // The old node's own directory still is one of the old cluster, and comes back into it.
        cluster.nodes[2].stop();
        cluster.nodes[2].set("PEAT_GATEWAY_DATA_DIR", text(&old_data));
        cluster.nodes[2].start();
        wait_for("the old node to be back", LIMIT, || async {
            let orgs = cluster.api(2).get_json("/orgs").await?;
            if ids(orgs) == ["acme", "old"] { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
    });
}

#[test]
fn two_of_three_disks_are_lost_and_the_third_goes_on_as_a_new_cluster() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let mut load = Load::start(&cluster.any(), 4).await;
        wait_for("some load", LIMIT, || async {
            match load.acknowledged() {
                count if count > 200 => Ok(()),
                count => Err(count),
            }
        })
        .await;
        let any = cluster.any();
        load.stop_writing().await;
        cluster.wait_equal().await;
        let old = any.read("/cluster").await;
        cluster.nodes.iter_mut().for_each(support::cluster::NodeProcess::kill);
        for lost in 0..2 {
            std::fs::remove_dir_all(&cluster.nodes[lost].data).expect("the disk can be lost");
        }
        let data = cluster.nodes[2].data.clone();
        let recover = |more: &[&str]| {
            let arguments = ["cluster", "recover", "--data-dir", text(&data), "-o", "json"];
            run(&[&arguments, more].concat())
        };
        // What it shows is what it will do; nothing happens until the loss is accepted.
        let looked = recover(&["--keep-unconfirmed-entries"]);
        let survey: Value = serde_json::from_str(&looked.stdout).expect("the survey");
        assert_eq!(survey["cluster_id"], old["cluster_id"]);
        assert_eq!(survey["members"].as_array().map(Vec::len), Some(3));
        let stderr = looked.failed(4);
        let typed: String = survey["kept_hash"].as_str().unwrap().chars().take(12).collect();
        assert!(stderr.contains(&format!("--i-accept-data-loss={typed}")), "{stderr}");
        let wrong = recover(&["--keep-unconfirmed-entries", "--i-accept-data-loss=0123456789ab"]);
        assert!(wrong.failed(4).contains("state's hash"));
        let accept = format!("--i-accept-data-loss={typed}");
        let made = recover(&["--keep-unconfirmed-entries", &accept]).json();
        assert_ne!(made["cluster_id"], old["cluster_id"]);

        cluster.nodes[2].start();
        let api = cluster.api(2);
        wait_for("the recovered node", LIMIT, || async {
            let answer = api.get("/readyz").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        })
        .await;
        load.check(&api).await;
        api.create("/orgs", &json!({ "org_id": "after", "display_name": "After" })).await;
        let shown = api.read("/cluster").await;
        assert_eq!(shown["cluster_id"], made["cluster_id"]);
        // What was put aside never runs again.
        let retired = made["retired"].as_str().expect("where the old data is");
        let mut aside = one_node_on(Path::new(retired));
        aside.start_all();
        let status = aside.nodes[0].wait_exit(LIMIT).await;
        assert_eq!(status.code(), Some(1), "{}", aside.nodes[0].log_tail());
        let said = aside.nodes[0].log_tail();
        assert!(said.contains("must never run again"), "{said}");
        load.stop().await;
    });
}

#[test]
fn a_restore_that_was_killed_is_no_half_cluster_and_is_done_again() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut random = Random::announced("killed restores");
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::start(1).await;
        let any = cluster.any();
        for number in 0..50 {
            let name = "x".repeat(1_000);
            let body = json!({ "org_id": format!("org-{number}"), "display_name": name });
            any.create("/orgs", &body).await;
        }
        let file = folder.path().join("a.snapshot");
        let url = cluster.nodes[0].url();
        assert_eq!(run(&["snapshot", "save", text(&file), "--url", &url]).code, 0);
        cluster.nodes[0].kill();
        let mut interrupted = 0;
        for round in 0..8 {
            let data = folder.path().join(format!("restored-{round}"));
            let mut restoring = command();
            restoring.args(["snapshot", "restore", text(&file), "--data-dir", text(&data)]);
            restoring.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let mut child = restoring.spawn().expect("the restore starts");
            // At work is a restore between its first file and the removal of its mark.
            while !data.join("UNFINISHED").exists() {
                let ended = child.try_wait().expect("it can be asked");
                assert_eq!(ended, None, "the restore ended and was never seen at work");
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_micros(round * random.between(0, 10_000)));
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
            if data.join("UNFINISHED").exists() {
                interrupted += 1;
                let mut node = one_node_on(&data);
                node.start_all();
                let status = node.nodes[0].wait_exit(LIMIT).await;
                assert_eq!(status.code(), Some(1));
                let said = node.nodes[0].log_tail();
                assert!(said.contains("run `peat-gateway snapshot restore` on it again"), "{said}");
            }
            if data.join("UNFINISHED").exists() || !data.join("FORMAT").exists() {
                let again = run(&["snapshot", "restore", text(&file), "--data-dir", text(&data)]);
                assert_eq!(again.code, 0, "round {round}: {again:?}");
            }
            let mut node = one_node_on(&data);
            node.start_all();
            node.wait_ready().await;
            let api = node.any();
            let orgs = wait_for("orgs", LIMIT, || api.get_json("/orgs?limit=1000")).await;
            assert_eq!(orgs.as_array().map(Vec::len), Some(50));
        }
        println!("{interrupted} of 8 restores were killed at work");
        assert!(interrupted > 0, "the first was killed right after its beginning");
    });
}

#[test]
fn the_commands_refuse_what_they_can_not_use_and_change_nothing() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = Cluster::start(1).await;
        let url = cluster.nodes[0].url();
        let file = folder.path().join("a.snapshot");
        let mut save = command();
        save.args(["snapshot", "save", text(&file), "--url", &url, "--token", "wrong"]);
        assert!(cli::finish(save).failed(5).contains("unauthenticated"));
        assert!(!file.exists());
        assert_eq!(run(&["snapshot", "save", text(&file), "--url", "http://127.0.0.1:9"]).code, 6);
        let nowhere = folder.path().join("none/a.snapshot");
        let said = run(&["snapshot", "save", text(&nowhere), "--url", &url]).failed(1);
        assert!(said.contains("could not write"), "{said}");
        assert_eq!(run(&["snapshot", "save", text(&file), "--url", &url]).code, 0);
        assert!(run(&["snapshot", "inspect", text(&file)]).stdout.contains("audit_head"));

        let mut bytes = std::fs::read(&file).expect("the snapshot");
        let middle = (128 << 10) + 100;
        bytes[middle] ^= 1;
        let damaged = folder.path().join("damaged.snapshot");
        std::fs::write(&damaged, &bytes).expect("a file");
        assert!(run(&["snapshot", "inspect", text(&damaged)]).failed(4).contains("damaged"));
        let data = folder.path().join("data");
        let restore = |file: &Path, data: &Path| {
            run(&["snapshot", "restore", text(file), "--data-dir", text(data)])
        };
        assert!(restore(&damaged, &data).failed(4).contains("damaged"));
        assert!(!data.exists(), "a refused restore makes nothing");
        let used = restore(&file, &cluster.nodes[0].data).failed(4);
        assert!(used.contains("another process uses it"), "{used}");
        let none = run(&["cluster", "recover", "--data-dir", text(&data)]).failed(4);
        assert!(none.contains("no data directory"), "{none}");
        assert_eq!(run(&["snapshot", "restore", text(&file)]).code, 2);
    });
}
