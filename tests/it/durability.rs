//! Promise 1: an acknowledged write survives, whatever is cut (INV-1, INV-10).

use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::disks::{self, Disk, FileSystem};
use crate::support::load::Load;
use crate::support::random::Random;
use crate::support::{self, wait_for};

/// Power cuts in one run on each file system; `PEAT_TEST_POWER_CUTS` asks for more.
const POWER_CUTS: u64 = 5;
/// Whole-cluster kills in one run.
const KILLS: u64 = 5;
/// Writers while the cluster is abused.
const WRITERS: usize = 8;

#[test]
fn acknowledged_writes_survive_kill_9_of_all_nodes_at_once() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut random = Random::announced("kill 9 of all nodes");
        let mut cluster = Cluster::start(3).await;
        let load = Load::start(&cluster.any(), WRITERS).await;
        for _ in 0..KILLS {
            some_progress(&load, &mut random).await;
            cluster.nodes.iter_mut().for_each(support::cluster::NodeProcess::kill);
            cluster.start_all();
            cluster.wait_ready().await;
            load.check(&cluster.any()).await;
        }
        let total = load.stop().await;
        cluster.wait_equal().await;
        println!("{total} acknowledged writes survived {KILLS} kills of all nodes");
    });
}

#[test]
fn acknowledged_writes_survive_power_cuts_of_all_nodes_at_once() {
    power_cuts(FileSystem::Ext4);
}

#[test]
fn acknowledged_writes_survive_power_cuts_of_all_nodes_at_once_on_xfs() {
    power_cuts(FileSystem::Xfs);
}

fn power_cuts(kind: FileSystem) {
    if let Err(reason) = disks::available(kind) {
        support::not_run(&format!("power cuts of all nodes on {kind:?}"), &reason);
        return;
    }
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut random = Random::announced(&format!("power cuts on {kind:?}"));
        let cuts = std::env::var("PEAT_TEST_POWER_CUTS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(POWER_CUTS);
        let mounts = tempfile::tempdir().expect("a temporary directory");
        let disks: Vec<_> = (1..=3)
            .map(|number| {
                let name = format!("disk-{number}");
                Disk::make(mounts.path(), &name, kind).expect("a disk")
            })
            .collect();
        let mut cluster = Cluster::prepare_with(3, |_, number| {
            mounts.path().join(format!("disk-{number}")).join("data")
        });
        cluster.start_all();
        cluster.wait_ready().await;
        let load = Load::start(&cluster.any(), WRITERS).await;
        for cut in 1..=cuts {
            some_progress(&load, &mut random).await;
            cluster.nodes.iter().for_each(support::cluster::NodeProcess::freeze);
            for disk in &disks {
                disk.cut().expect("the file system can be shut down");
            }
            for (node, disk) in cluster.nodes.iter_mut().zip(&disks) {
                node.kill();
                disk.unmount().expect("the file system can be unmounted");
                disk.mount().expect("the file system can be mounted again");
            }
            cluster.start_all();
            cluster.wait_ready().await;
            load.check(&cluster.any()).await;
            println!("power cut {cut}: {} acknowledged writes are there", load.acknowledged());
        }
        let total = load.stop().await;
        cluster.wait_equal().await;
        println!("{total} acknowledged writes survived {cuts} power cuts of all nodes on {kind:?}");
        drop(cluster);
    });
}

#[test]
fn a_retry_after_an_unknown_outcome_with_the_same_key_has_one_effect() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let any = cluster.any();
        let body = json!({ "org_id": "once", "display_name": "Once" });
        let key = [("idempotency-key", "retry-1")];
        let first = any.send(reqwest::Method::POST, "/orgs", Some(&body), &key).await;
        assert_eq!(first.expect("an answer").status, 201);
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill();
        let again = wait_for("the retried answer", Duration::from_secs(20), || async {
            let answer = any.send(reqwest::Method::POST, "/orgs", Some(&body), &key).await?;
            if answer.status == 201 { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
        .await;
        assert_eq!(again.json()["org_id"], "once");
        let other = json!({ "org_id": "twice", "display_name": "Twice" });
        let reused = any.send(reqwest::Method::POST, "/orgs", Some(&other), &key).await;
        let reused = match reused {
            Ok(answer) => answer,
            Err(_) => any
                .send(reqwest::Method::POST, "/orgs", Some(&other), &key)
                .await
                .expect("the next node answers"),
        };
        assert_eq!(
            (reused.status, &reused.json()["code"]),
            (409, &json!("idempotency_key_reused"))
        );
    });
}

/// Waits until some more writes were acknowledged, a random number of them.
async fn some_progress(load: &Load, random: &mut Random) {
    let goal = load.acknowledged() + random.between(50, 400);
    wait_for("acknowledged writes", Duration::from_secs(60), || async {
        match load.acknowledged() {
            now if now >= goal => Ok(()),
            now => Err(format!("{now} of {goal}")),
        }
    })
    .await;
}
