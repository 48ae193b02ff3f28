//! Snapshots that nodes save by themselves: whole, few, and never at the node's cost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::support::api::{Api, Written};
use crate::support::cli::{run, text};
use crate::support::cluster::Cluster;
use crate::support::disks::{self, Disk, FileSystem};
use crate::support::{self, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

async fn metric(api: &Api, name: &str) -> Result<f64, String> {
    let text = api.get("/metrics").await?.body;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.ok_or_else(|| format!("there is no {name}"))
}

async fn wait_metric(api: &Api, name: &str, above: f64) -> f64 {
    wait_for(&format!("{name} above {above}"), LIMIT, || async {
        match metric(api, name).await? {
            value if value > above => Ok(value),
            value => Err(value.to_string()),
        }
    })
    .await
}

fn snapshots(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "snapshot"))
        .collect();
    found.sort();
    found
}

async fn rename(api: &Api, name: &str) {
    let written = api.patch_once("/orgs/acme", &json!({ "display_name": name })).await;
    assert_eq!(written, Written::Done);
}

#[test]
fn every_node_with_the_directory_set_saves_its_own_and_keeps_the_newest() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let shared = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::prepare(3);
        // One of the three nodes saves nothing.
        for node in &mut cluster.nodes[..2] {
            node.set("PEAT_BACKUP_DIR", text(shared.path()));
            node.set("PEAT_BACKUP_INTERVAL_S", "1");
            node.set("PEAT_BACKUP_KEEP", "2");
        }
        cluster.start_all();
        cluster.wait_ready().await;
        let any = cluster.any();
        any.create("/orgs", &json!({ "org_id": "acme", "display_name": "Acme" })).await;
        for node in 0..2 {
            let api = cluster.api(node);
            for round in 0..5 {
                let saved = metric(&api, "peat_snapshot_saved_total").await.unwrap_or_default();
                rename(&api, &format!("round {round}")).await;
                wait_metric(&api, "peat_snapshot_saved_total", saved).await;
            }
            assert!(metric(&api, "peat_snapshot_last_bytes").await.expect("a number") > 1e5);
            assert!(
                metric(&api, "peat_snapshot_last_duration_seconds").await.expect("a time") > 0.0
            );
            let last = metric(&api, "peat_snapshot_last_success_timestamp_seconds").await;
            assert!(last.expect("a time") > 1.7e9);
            assert_eq!(metric(&api, "peat_snapshot_failures_total").await, Ok(0.0));
        }
        assert!(metric(&cluster.api(2), "peat_snapshot_saved_total").await.is_err());
        let ids: Vec<_> = any.read("/cluster").await["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .map(|node| node["node_id"].as_str().expect("an id").to_owned())
            .collect();
        wait_for("two snapshots of each of two nodes", LIMIT, || async {
            let found = snapshots(shared.path());
            let of = |id: &String| found.iter().filter(|path| text(path).contains(id)).count();
            let mut counts: Vec<_> = ids.iter().map(of).collect();
            counts.sort_unstable();
            if counts == [0, 2, 2] { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        cluster.nodes.iter_mut().for_each(|node| {
            node.stop();
        });
        let files = snapshots(shared.path());
        assert_eq!(files.len(), 4);
        for file in &files {
            run(&["snapshot", "inspect", text(file), "-o", "json"]).json();
        }
        let newest = files.last().expect("a snapshot");
        let data = shared.path().join("restored");
        assert_eq!(run(&["snapshot", "restore", text(newest), "--data-dir", text(&data)]).code, 0);
    });
}

#[test]
fn a_full_backup_disk_is_said_and_counted_and_the_node_goes_on() {
    let _alone = support::alone();
    if let Err(reason) = disks::available(FileSystem::Ext4) {
        println!("NOT RUN: {reason}");
        return;
    }
    support::runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::make(folder.path(), "backups", FileSystem::Ext4).expect("a disk");
        let mut cluster = Cluster::prepare(1);
        cluster.set("PEAT_BACKUP_DIR", text(&disk.mount));
        cluster.set("PEAT_BACKUP_INTERVAL_S", "1");
        cluster.set("PEAT_BACKUP_KEEP", "3");
        cluster.start_all();
        cluster.wait_ready().await;
        let api = cluster.api(0);
        api.create("/orgs", &json!({ "org_id": "acme", "display_name": "Acme" })).await;
        wait_metric(&api, "peat_snapshot_saved_total", 0.0).await;
        let before = snapshots(&disk.mount);
        assert!(!before.is_empty());

        let filler = disk.mount.join("filler");
        fill(&filler);
        rename(&api, "while it is full").await;
        let failures = wait_metric(&api, "peat_snapshot_failures_total", 0.0).await;
        let log = std::fs::read_to_string(&cluster.nodes[0].log).expect("the log");
        assert!(log.contains("is full") && log.contains("PEAT_BACKUP_KEEP"), "{log}");
        // The node works, the old snapshots are there, and nothing half-done is beside them.
        rename(&api, "still while it is full").await;
        assert_eq!(api.get("/readyz").await.expect("an answer").status, 200);
        let left = snapshots(&disk.mount);
        assert!(left.contains(before.last().expect("a snapshot")), "{left:?}");
        for file in &left {
            run(&["snapshot", "inspect", text(file), "-o", "json"]).json();
        }

        std::fs::remove_file(&filler).expect("room again");
        let saved = metric(&api, "peat_snapshot_saved_total").await.expect("a number");
        wait_metric(&api, "peat_snapshot_saved_total", saved).await;
        println!("{failures} attempts failed while the disk was full");
        cluster.nodes[0].stop();
        drop(cluster);
    });
}

/// Takes all room but a little, without writing it.
fn fill(path: &Path) {
    let file = std::fs::File::create(path).expect("a file");
    let mut taken = 0;
    for step in [64u64 << 20, 1 << 20, 64 << 10, 4 << 10] {
        let flags = rustix::fs::FallocateFlags::empty();
        while rustix::fs::fallocate(&file, flags, taken, step).is_ok() {
            taken += step;
        }
    }
    assert!(taken > 64 << 20, "the disk could not be filled");
}
