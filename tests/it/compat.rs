//! Data directories of earlier builds, opened by this one (INV-1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::cluster::Cluster;
use crate::support::{self, wait_for};

/// The key that the directories were sealed with; `tests/fixtures/compat/make` has it too.
const KEK: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
/// How long nodes may take to start and to join on a busy machine.
const JOIN_LIMIT: Duration = Duration::from_secs(90);
/// The directories' cluster token.
const TOKEN: &str = "token-of-the-compat-fixture";

/// Folders of `tests/fixtures/compat`, one per build whose formats have changed since.
fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compat");
    let entries = fs::read_dir(root).expect("the fixtures").map(|entry| entry.expect("one").path());
    let found: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(!found.is_empty(), "there are no data directories of earlier builds");
    found
}

/// Checks that `found` has everything that `expected` has; this build may show more.
fn has_all_of(path: &str, expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, value) in expected {
                has_all_of(&format!("{path} {name}"), value, &found[name]);
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            assert_eq!(expected.len(), found.len(), "{path}");
            for (number, (expected, found)) in expected.iter().zip(found).enumerate() {
                has_all_of(&format!("{path} [{number}]"), expected, found);
            }
        }
        _ => assert_eq!(expected, found, "{path}"),
    }
}

/// Waits until a node is ready.
async fn ready(api: &Api) {
    wait_for("the node to be ready", JOIN_LIMIT, || async {
        let answer = api.get("/readyz").await?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[test]
fn data_directory_of_an_earlier_build_is_opened_with_everything_in_it_and_new_nodes_join() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        for fixture in fixtures() {
            let mut cluster = Cluster::prepare(3);
            let parent = cluster.nodes[0].data.parent().expect("a parent").to_owned();
            let unpacked = Command::new("tar")
                .args(["-xzf".as_ref(), fixture.join("data.tar.gz").as_os_str()])
                .args(["-C".as_ref(), parent.as_os_str()])
                .status();
            assert!(unpacked.expect("tar runs").success());
            fs::rename(parent.join("data"), &cluster.nodes[0].data).expect("the directory moves");
            cluster.set("PEAT_KEK", KEK);
            cluster.set("PEAT_CLUSTER_TOKEN", TOKEN);
            cluster.set("PEAT_PROMOTE_AFTER_MS", "1000");
            let member = format!("127.0.0.1:{}", cluster.nodes[0].peer_port);
            cluster.nodes[0].start();
            let api = cluster.api(0);
            ready(&api).await;

            let answers = fs::read_to_string(fixture.join("answers.json")).expect("the answers");
            let answers: Value = serde_json::from_str(&answers).expect("JSON");
            let answers = answers.as_object().expect("answers by path");
            assert!(answers.len() > 20, "only {} answers", answers.len());
            for (path, expected) in answers {
                let found = api.read(path).await;
                has_all_of(path, expected, &found);
            }

            // It is of version 1 until somebody finishes the upgrade, and is used as before.
            let shown = api.read("/cluster").await;
            assert_eq!((&shown["version"], &shown["upgrade"]["to"]), (&json!(1), &json!(2)));
            let new = json!({ "org_id": "new", "display_name": "New" });
            api.create("/orgs", &new).await;
            let raised =
                wait_for("the upgrade to be finished", Duration::from_secs(30), || async {
                    let answer =
                        api.send(reqwest::Method::POST, "/cluster/upgrade", None, &[]).await?;
                    if answer.status == 200 {
                        Ok(answer.json())
                    } else {
                        Err(format!("{answer:?}"))
                    }
                })
                .await;
            assert_eq!(raised, json!({ "from": 1, "to": 2 }));

            // The raised state, from the log and from a snapshot, is what the next start finds.
            cluster.nodes[0].kill();
            cluster.nodes[0].start();
            ready(&api).await;
            let shown = api.read("/cluster").await;
            assert_eq!((&shown["version"], &shown["upgrade"]), (&json!(2), &Value::Null));
            assert_eq!(api.read("/orgs/new").await["display_name"], "New");

            // New nodes join it and have everything too.
            for node in &mut cluster.nodes[1..] {
                node.unset("PEAT_INITIAL_PEERS");
                node.set("PEAT_JOIN", &member);
                node.start();
            }
            wait_for("three voters", JOIN_LIMIT, || async {
                let cluster = api.get_json("/cluster").await?;
                let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
                match nodes.iter().filter(|node| node["voter"] == true).count() {
                    3 => Ok(()),
                    _ => Err(cluster.to_string()),
                }
            })
            .await;
            cluster.wait_ready().await;
            cluster.wait_equal().await;
            let joined = cluster.api(2);
            for (path, expected) in answers {
                if !["/orgs", "/cluster/settings"].contains(&path.as_str()) {
                    let found = joined.read(path).await;
                    has_all_of(path, expected, &found);
                }
            }
        }
    });
}
