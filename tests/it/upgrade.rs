//! Two builds side by side: a rolling upgrade from the one before, and back (INV-1, INV-10).

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::membership::run_page_in;
use crate::support::cluster::{BINARY, Cluster};
use crate::support::load::Load;
use crate::support::random::Random;
use crate::support::{self, previous, wait_for};

/// Writers while nodes are exchanged.
const WRITERS: usize = 6;
/// How long a step may take on a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// Most changes of leader until each node has led.
const TURNS_MAX: usize = 40;

/// A cluster under load whose nodes are exchanged one by one.
struct Rolling {
    cluster: Cluster,
    load: Load,
    random: Random,
    old: PathBuf,
}

#[test]
fn previous_build_and_this_one_run_side_by_side_until_the_upgrade_is_finished() {
    let old = match previous::binary() {
        Ok(binary) => binary,
        Err(reason) => {
            support::not_run("a mixed cluster of two builds", &reason);
            return;
        }
    };
    let _alone = support::alone();
    support::runtime().block_on(async {
        let random = Random::announced("two builds");
        let mut cluster = Cluster::prepare(3);
        cluster.nodes.iter_mut().for_each(|node| node.binary = old.clone());
        cluster.start_all();
        cluster.wait_ready().await;
        let load = Load::start(&cluster.any(), WRITERS).await;
        let mut rolling = Rolling { cluster, load, random, old: old.clone() };
        rolling.settle("three nodes of the previous build").await;

        rolling.exchange(0, Path::new(BINARY)).await;
        rolling.each_leads("one node of this build").await;
        rolling.refuses_version_2(0, &["node-2", "node-3"]).await;
        rolling.settle("one node of this build").await;

        // Until the upgrade is finished there is a way back, on the same data directory.
        rolling.exchange(0, &old).await;
        rolling.each_leads("gone back to the previous build").await;
        rolling.settle("gone back to the previous build").await;
        rolling.exchange(0, Path::new(BINARY)).await;

        rolling.exchange(1, Path::new(BINARY)).await;
        rolling.each_leads("two nodes of this build").await;
        rolling.refuses_version_2(1, &["node-3"]).await;
        rolling.settle("two nodes of this build").await;

        rolling.exchange(2, Path::new(BINARY)).await;
        rolling.each_leads("three nodes of this build").await;
        rolling.refuses_version_2(2, &["cluster upgrade"]).await;
        rolling.exchange(1, &old).await;
        rolling.settle("one node gone back").await;
        rolling.exchange(1, Path::new(BINARY)).await;

        rolling.finish().await;
        rolling.each_leads("the upgrade is finished").await;
        rolling.settle("the upgrade is finished").await;
        rolling.previous_build_is_kept_out().await;
        rolling.settle("all is done").await;
        let total = rolling.load.stop().await;
        println!("{total} acknowledged writes survived the upgrade");
    });
}

#[test]
fn page_on_upgrading_runs_as_written() {
    let old = match previous::binary() {
        Ok(binary) => binary,
        Err(reason) => {
            support::not_run("the page on upgrading", &reason);
            return;
        }
    };
    let directory = tempfile::tempdir().expect("a directory");
    let former = directory.path().join("former");
    std::fs::create_dir(&former).expect("a directory");
    std::os::unix::fs::symlink(old, former.join("peat-gateway")).expect("a link");
    run_page_in("upgrade.md", directory.path(), &[]);
}

impl Rolling {
    /// Exchanges a node's build: it stops, and starts again from the same data directory.
    async fn exchange(&mut self, node: usize, binary: &Path) {
        let status = self.cluster.nodes[node].stop().expect("the node ran");
        assert!(status.success(), "{status}: {}", self.cluster.nodes[node].log_tail());
        self.cluster.nodes[node].binary = binary.to_owned();
        self.cluster.start_all();
        self.cluster.wait_ready().await;
        self.progress().await;
    }

    /// Waits for acknowledged writes that were begun after this call.
    async fn progress(&self) {
        let goal = self.load.acknowledged() + 2 * WRITERS as u64;
        wait_for("acknowledged writes", STEP_LIMIT, || async {
            match self.load.acknowledged() {
                now if now >= goal => Ok(()),
                now => Err(format!("{now} of {goal}")),
            }
        })
        .await;
    }

    /// Changes the leader, by stops and kills, until each node has led and taken writes.
    async fn each_leads(&mut self, step: &str) {
        let mut has_led = [false; 3];
        for _ in 0..TURNS_MAX {
            let leader = self.cluster.leader().await;
            if !std::mem::replace(&mut has_led[leader], true) {
                self.progress().await;
            }
            if has_led == [true; 3] {
                println!("{step}: each node has led");
                return;
            }
            // A stopping leader chooses its successor; after a kill chance does.
            if self.random.between(0, 2) == 0 {
                self.cluster.nodes[leader].stop();
            } else {
                self.cluster.nodes[leader].kill();
            }
            // Not before another one leads, or it could come back as the leader.
            self.cluster.leader().await;
            self.cluster.start_all();
            self.cluster.wait_ready().await;
        }
        panic!("{step}: after {TURNS_MAX} changes of leader only {has_led:?} have led");
    }

    /// The state is the same everywhere, and nothing acknowledged is missing.
    async fn settle(&self, step: &str) {
        self.progress().await;
        let paused = self.load.pause().await;
        self.cluster.wait_equal().await;
        drop(paused);
        self.load.check(&self.cluster.any()).await;
        println!("{step}: equal state, {} acknowledged writes are there", self.load.acknowledged());
    }

    /// A command of version 2 is refused through a node of this build, which says who holds it back.
    async fn refuses_version_2(&self, node: usize, held_back_by: &[&str]) {
        let api = self.cluster.api(node);
        let hold = json!({ "upgrade": "manual" });
        let refused = api.send(Method::PATCH, "/cluster/settings", Some(&hold), &[]).await;
        let refused = refused.expect("an answer");
        assert_eq!(refused.status, 409, "{refused:?}");
        let problem = refused.json();
        assert_eq!(problem["code"], "version_not_enabled");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("needs cluster version 2, the cluster has 1"), "{detail}");
        for name in held_back_by {
            assert!(detail.contains(name), "{name} in: {detail}");
        }
        let shown = api.read("/cluster").await;
        assert_eq!(shown["version"], 1, "{shown}");
        assert_eq!(shown["upgrade"]["to"], 2, "{shown}");
        let nodes = shown["nodes"].as_array().expect("nodes").iter();
        let supports: Vec<&Value> = nodes.map(|node| &node["supports"]).collect();
        let held = held_back_by.iter().filter(|name| name.starts_with("node-")).count();
        let old = supports.iter().filter(|versions| ***versions == json!([1, 1])).count();
        let new = supports.iter().filter(|versions| ***versions == json!([1, 2])).count();
        assert_eq!((old, new), (held, 3 - held), "{shown}");
        if held > 0 {
            let answer = api.send(Method::POST, "/cluster/upgrade", None, &[]).await;
            let answer = answer.expect("an answer");
            let code = answer.json()["code"].clone();
            assert_eq!((answer.status, &code), (409, &json!("upgrade_held_back")), "{answer:?}");
        }
    }

    /// Finishes the upgrade through some node, and uses what it brings.
    async fn finish(&mut self) {
        let node = self.random.between(0, 3) as usize;
        let raised = wait_for("the upgrade to be finished", STEP_LIMIT, || async {
            let answer =
                self.cluster.api(node).send(Method::POST, "/cluster/upgrade", None, &[]).await?;
            if answer.status == 200 { Ok(answer.json()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        assert_eq!(raised["to"], 2, "{raised}");
        for node in 0..3 {
            let hold = json!({ "upgrade": "manual" });
            let api = self.cluster.api(node);
            wait_for("a command of version 2", STEP_LIMIT, || async {
                let answer = api.send(Method::PATCH, "/cluster/settings", Some(&hold), &[]).await?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
            })
            .await;
        }
    }

    /// After the upgrade the previous build refuses the data directory, and says what to start.
    async fn previous_build_is_kept_out(&mut self) {
        let node = self.random.between(0, 3) as usize;
        let data = self.cluster.nodes[node].data.join("FORMAT");
        wait_for("the data directory to be marked", STEP_LIMIT, || async {
            let text = std::fs::read_to_string(&data).map_err(|error| error.to_string())?;
            if text.contains("cluster version 2") { Ok(()) } else { Err(text) }
        })
        .await;
        self.cluster.nodes[node].stop();
        self.cluster.nodes[node].binary = self.old.clone();
        self.cluster.nodes[node].start();
        let status = self.cluster.nodes[node].wait_exit(STEP_LIMIT).await;
        let log = self.cluster.nodes[node].log_tail();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("start the newer version that wrote it"), "{log}");
        self.cluster.nodes[node].binary = PathBuf::from(BINARY);
        self.cluster.start_all();
        self.cluster.wait_ready().await;
    }
}
