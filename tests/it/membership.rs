//! Growing, shrinking and repairing a cluster of real processes, and the pages that say how.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::cli;
use crate::support::cluster::{Cluster, command};
use crate::support::load::Load;
use crate::support::{self, wait_for};

/// How long a change of members may take on a busy machine.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

/// Waits until a node that answers sees so many voters, all reachable, and a leader.
async fn wait_voters(api: &support::api::Api, count: usize) -> Value {
    wait_for(&format!("{count} voters"), CHANGE_LIMIT, || async {
        let cluster = api.get_json("/cluster").await?;
        let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
        let well = nodes.iter().filter(|node| node["voter"] == true && node["reachable"] == true);
        let as_wanted = well.count() == count
            && nodes.len() == count
            && cluster["joint"] == false
            && cluster["leader"].is_string();
        if as_wanted { Ok(cluster) } else { Err(cluster.to_string()) }
    })
    .await
}

fn id_of(cluster: &Value, url: &str) -> String {
    let nodes = cluster["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|node| node["address"] == url);
    node.and_then(|node| node["node_id"].as_str()).expect("the node is a member").to_owned()
}

#[test]
fn three_grow_to_five_and_shrink_again_under_load_and_nothing_acknowledged_is_lost() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::prepare(5);
        cluster.set("PEAT_PROMOTE_AFTER_MS", "1000");
        let peers: Vec<_> =
            cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.peer_port)).collect();
        for (place, node) in cluster.nodes.iter_mut().enumerate() {
            node.unset("PEAT_INITIAL_PEERS");
            if place < 3 {
                node.set("PEAT_INITIAL_PEERS", &peers[..3].join(","));
                node.start();
            } else {
                node.set("PEAT_JOIN", &peers[..3].join(","));
            }
        }
        let stays = cluster.api(0);
        wait_voters(&stays, 3).await;
        let load = Load::start(&stays, 4).await;
        for place in 3..5 {
            cluster.nodes[place].start();
            wait_voters(&stays, place + 1).await;
        }
        let five = wait_voters(&stays, 5).await;
        for (left, place) in [(4, 1), (3, 2)] {
            let node = id_of(&five, &cluster.nodes[place].url());
            let path = format!("/cluster/members/{node}");
            wait_for("a removal", CHANGE_LIMIT, || async {
                let answer = stays.send(Method::DELETE, &path, None, &[]).await?;
                // An answer that was lost is followed by one that says that it was removed.
                match answer.status {
                    200 | 409 => Ok(()),
                    status => Err(format!("{status} {}", answer.body)),
                }
            })
            .await;
            let status = cluster.nodes[place].wait_exit(CHANGE_LIMIT).await;
            assert_eq!(status.code(), Some(0), "{}", cluster.nodes[place].log_tail());
            wait_voters(&stays, left).await;
            cluster.nodes[place].start();
            let again = cluster.nodes[place].wait_exit(CHANGE_LIMIT).await;
            assert_eq!(again.code(), Some(78), "{}", cluster.nodes[place].log_tail());
        }
        let before = load.acknowledged();
        wait_for("writes to go on", CHANGE_LIMIT, || async {
            if load.acknowledged() > before { Ok(()) } else { Err(before) }
        })
        .await;
        for place in [0, 3, 4] {
            load.check(&cluster.api(place)).await;
        }
        println!("{} writes acknowledged", load.stop().await);
    });
}

#[test]
fn restored_cluster_of_one_grows_by_joins_and_every_new_node_has_everything() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, data) = (folder.path().join("a.snapshot"), folder.path().join("restored"));
        {
            let cluster = Cluster::start(1).await;
            let load = Load::start(&cluster.any(), 4).await;
            wait_for("some writes", CHANGE_LIMIT, || async {
                if load.acknowledged() > 50 { Ok(()) } else { Err("not yet") }
            })
            .await;
            let url = cluster.nodes[0].url();
            let saved = cli::run(&["snapshot", "save", cli::text(&file), "--url", &url]);
            assert_eq!(saved.code, 0, "{saved:?}");
            load.stop().await;
        }
        let made =
            cli::run(&["snapshot", "restore", cli::text(&file), "--data-dir", cli::text(&data)]);
        assert_eq!(made.code, 0, "{made:?}");

        let mut cluster = Cluster::prepare(3);
        cluster.set("PEAT_PROMOTE_AFTER_MS", "1000");
        let first = format!("127.0.0.1:{}", cluster.nodes[0].peer_port);
        cluster.nodes[0].place(data);
        for node in &mut cluster.nodes {
            node.unset("PEAT_INITIAL_PEERS");
        }
        cluster.nodes[0].start();
        let restored = cluster.api(0);
        let before = restored.read("/orgs").await;
        for place in [1, 2] {
            cluster.nodes[place].set("PEAT_JOIN", &first);
            cluster.nodes[place].start();
            wait_voters(&restored, place + 1).await;
        }
        cluster.wait_equal().await;
        // They are a quorum without the node that was restored.
        cluster.nodes[0].kill();
        let joined = support::api::Api::new(vec![cluster.nodes[1].url(), cluster.nodes[2].url()]);
        assert_eq!(joined.read("/orgs").await, before);
        joined.create("/orgs", &json!({ "org_id": "after", "display_name": "After" })).await;
    });
}

#[test]
fn order_with_an_old_tag_gets_412_and_changes_nothing() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let cluster = Cluster::start(3).await;
        let any = cluster.api(0);
        let before = wait_voters(&any, 3).await;
        let tag = any.get("/cluster").await.expect("an answer").header("etag").map(str::to_owned);
        assert_eq!(tag, Some(format!("\"{}\"", before["membership"])));
        let node = id_of(&before, &cluster.nodes[2].url());
        let path = format!("/cluster/members/{node}");
        let stale = [("if-match", "\"1\"")];
        let answer = any.send(Method::DELETE, &path, None, &stale).await.expect("an answer");
        assert_eq!((answer.status, &answer.json()["code"]), (412, &json!("precondition_failed")));
        assert_eq!(wait_voters(&any, 3).await["membership"], before["membership"]);
        let forced = json!({ "force": true });
        let answer = any.send(Method::DELETE, &path, Some(&forced), &[]).await.expect("an answer");
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_reason")));
    });
}

#[test]
fn page_on_making_a_cluster_runs_as_written() {
    run_page("bootstrap.md");
}

#[test]
fn page_on_adding_a_node_runs_as_written() {
    run_page("add.md");
}

#[test]
fn page_on_removing_a_node_runs_as_written() {
    run_page("remove.md");
}

#[test]
fn page_on_replacing_a_node_runs_as_written() {
    run_page("replace.md");
}

/// Runs the commands of a page's console blocks in one shell, in a network namespace of their own.
fn run_page(page: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    run_page_in(page, directory.path(), &[("PEAT_PROMOTE_AFTER_MS", "1000")]);
}

/// The same in a directory that holds what the page takes for granted, with these variables.
pub fn run_page_in(page: &str, directory: &Path, environment: &[(&str, &str)]) {
    let _alone = support::alone();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations").join(page);
    let text = std::fs::read_to_string(path).expect("the page");
    let commands = commands_of(&text);
    assert!(commands.lines().count() > 10, "only few commands were found in {page}:\n{commands}");
    let script = format!(
        "set -eu -o pipefail\nip link set lo up\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT\nset -x\n{commands}"
    );
    std::fs::write(directory.join("page.sh"), script).expect("the script");
    let binary = Path::new(env!("CARGO_BIN_EXE_peat-gateway"));
    let search = std::env::var("PATH").unwrap_or_default();
    let search = format!("{}:{search}", binary.parent().expect("a directory").display());
    let mut shell = Command::new("timeout");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PEAT_")) {
        shell.env_remove(name);
    }
    let ended = shell
        .args(["180", "unshare", "--net", "--mount", "--map-root-user", "bash", "page.sh"])
        .current_dir(directory)
        .env("PATH", search)
        .envs(environment.iter().copied())
        .output()
        .expect("timeout and unshare are installed");
    let logs = || -> String {
        let files = std::fs::read_dir(directory).expect("readable").flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        logs.map(|file| {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(15).collect();
            let last: Vec<_> = lines.into_iter().rev().collect();
            format!("--- {} ---\n{}\n", file.path().display(), last.join("\n"))
        })
        .collect()
    };
    assert!(
        ended.status.success(),
        "{page} ended with {}:\n{}\n{}\n{}",
        ended.status,
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
        logs()
    );
}

/// The lines after `$ ` and `> ` of all console blocks.
fn commands_of(page: &str) -> String {
    let mut inside = false;
    let mut commands = String::new();
    for line in page.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if inside => {
                let command = line.strip_prefix("$ ").or_else(|| line.strip_prefix("> "));
                commands.extend(command.into_iter().flat_map(|command| [command, "\n"]));
            }
            _ => {}
        }
    }
    commands
}

#[test]
fn command_verbs_name_nodes_and_end_with_codes_that_say_what_happened() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let cluster = Cluster::start(3).await;
        wait_voters(&cluster.any(), 3).await;
        let url = cluster.nodes[0].url();
        let run = |arguments: &[&str]| {
            let output = command()
                .args(["cluster"])
                .args(arguments)
                .args(["--url", &url, "--token", support::cluster::ADMIN_TOKEN])
                .output()
                .expect("the command runs");
            let text = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8_lossy(&text).into_owned())
        };
        let (code, text) = run(&["status"]);
        assert_eq!(code, Some(0), "{text}");
        for heading in ["membership", "joint", "LAG", "VOTER", "CONTACT MS", "node-3"] {
            assert!(text.contains(heading), "{heading} in {text}");
        }
        assert_eq!(run(&["remove", "nobody"]).0, Some(3));
        assert_eq!(run(&["remove", "node-3", "--expect", "1"]).0, Some(4));
        assert_eq!(run(&["remove", "node-3", "--force"]).0, Some(2));
        assert_eq!(run(&["init"]).0, Some(4));
        let (code, text) = run(&["transfer", "--to", "node-2"]);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(cluster.leader().await, 1);
    });
}
