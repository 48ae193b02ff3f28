//! Disks that don't answer, are full, or forget: real processes (INV-1, INV-10, INV-11).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::cluster::{self, ADMIN_TOKEN, Cluster};
use crate::support::disks::{self, Disk, FileSystem};
use crate::support::load::Load;
use crate::support::random::Random;
use crate::support::{self, not_run, wait_for};

/// Writers while the disks fail.
const WRITERS: usize = 8;
/// Longest that any change of state may take here.
const LIMIT: Duration = Duration::from_secs(60);
/// A sync that doesn't end.
const STUCK: Duration = Duration::from_secs(60);
/// A sync of a node that is slow, but not so slow that it is called stuck.
const SLOW: Duration = Duration::from_millis(1_500);
/// Writes, one after the other, beside a slow node.
const SERIAL_WRITES: u32 = 100;
/// Size of the disks that fill up, MiB: room for a write-ahead log, and little more.
const SMALL_DISK_MIB: u64 = 768;

/// Every sync of a process begins later, until this is dropped.
struct LateSyncs(Child);

impl LateSyncs {
    fn of(pid: u32, by: Duration) -> Result<Self, String> {
        let delay = format!("inject=fdatasync,fsync:delay_enter={}ms", by.as_millis());
        let child = Command::new("strace")
            .args(["-f", "-q", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(["-e", "trace=fdatasync,fsync"])
            .args(["-e", &delay])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        Ok(Self(child))
    }
}

impl Drop for LateSyncs {
    fn drop(&mut self) {
        // SIGTERM, so that it lets go of the process.
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.0.wait().ok();
    }
}

/// Whether a process may be slowed down here.
fn strace_available() -> Result<(), String> {
    let mut probe = Command::new("sleep").arg("30").spawn().map_err(|error| error.to_string())?;
    let attached = Command::new("timeout")
        .args(["1", "strace", "-q", "-o", "/dev/null", "-p", &probe.id().to_string()])
        .output();
    probe.kill().ok();
    probe.wait().ok();
    let output = attached.map_err(|error| format!("strace: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // 124: it was attached until the time was up.
    match output.status.code() {
        Some(124) => Ok(()),
        _ => Err(format!("strace can't attach: {said}")),
    }
}

/// The alarms of a node by its name, as another node shows them.
fn alarms(cluster: &Value, name: &str) -> Vec<String> {
    let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
    let node = nodes.into_iter().find(|node| node["name"] == name).unwrap_or(Value::Null);
    let alarms = node["alarms"].as_array().cloned().unwrap_or_default();
    alarms.iter().filter_map(|alarm| alarm["code"].as_str().map(str::to_owned)).collect()
}

async fn progress(load: &Load, what: &str) {
    let goal = load.acknowledged() + 20;
    wait_for(what, LIMIT, || async {
        match load.acknowledged() {
            now if now >= goal => Ok(()),
            now => Err(format!("{now} of {goal}")),
        }
    })
    .await;
}

#[test]
fn leader_whose_disk_does_not_answer_gives_up_leadership_and_comes_back_by_itself() {
    if let Err(reason) = strace_available() {
        not_run("a leader whose disk doesn't answer", &reason);
        return;
    }
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::prepare(3);
        cluster.set("PEAT_DISK_STALL_MS", "1000");
        cluster.start_all();
        cluster.wait_ready().await;
        let load = Load::start(&cluster.any(), WRITERS).await;
        let stuck = cluster.leader().await;
        let api = cluster.api(stuck);
        let others = cluster.api((stuck + 1) % 3);
        let pid = cluster.nodes[stuck].pid().expect("it runs");
        let syncs = LateSyncs::of(pid, STUCK).expect("strace attaches");
        let name = format!("node-{}", stuck + 1);
        wait_for("the node to say that its disk is stuck", LIMIT, || async {
            let answer = api.get("/readyz").await?;
            let said = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            match (answer.status, said.contains("a sync of the data directory")) {
                (503, true) => Ok(()),
                _ => Err(format!("{answer:?}")),
            }
        })
        .await;
        wait_for("another leader, and the alarm on it", LIMIT, || async {
            let seen = others.get_json("/cluster").await?;
            let address = cluster.nodes[stuck].url();
            let nodes = seen["nodes"].as_array().cloned().unwrap_or_default();
            let leads = nodes
                .iter()
                .any(|node| node["role"] == "leader" && node["address"] != address.as_str());
            match leads && alarms(&seen, &name) == ["disk_stalled"] {
                true => Ok(()),
                false => Err(format!("{seen}")),
            }
        })
        .await;
        let livez = api.get("/livez").await.expect("the process answers");
        assert_eq!(livez.status, 200, "a restart helps nobody yet: {livez:?}");
        let metrics = api.get("/metrics").await.expect("the process answers").body;
        assert!(metrics.contains("\npeat_storage_stalled 1\n"), "{metrics}");
        progress(&load, "writes without the stuck node").await;
        drop(syncs);
        cluster.wait_ready().await;
        progress(&load, "writes with the node that came back").await;
        load.check(&cluster.any()).await;
        load.stop().await;
        cluster.wait_equal().await;
        let metrics = api.get("/metrics").await.expect("the process answers").body;
        assert!(metrics.contains("\npeat_storage_stalled 0\n"), "{metrics}");
        assert!(metrics.contains("peat_storage_sync_seconds_bucket{le=\"0.01\"}"), "{metrics}");
    });
}

#[test]
fn slow_follower_holds_up_no_write_and_catches_up() {
    if let Err(reason) = strace_available() {
        not_run("a slow follower", &reason);
        return;
    }
    let _alone = support::alone();
    support::runtime().block_on(async {
        let cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let api = cluster.api(leader);
        api.create("/orgs", &json!({ "org_id": "acme", "display_name": "0" })).await;
        let slow = (leader + 1) % 3;
        let pid = cluster.nodes[slow].pid().expect("it runs");
        let syncs = LateSyncs::of(pid, SLOW).expect("strace attaches");
        let begun = std::time::Instant::now();
        let mut last = 0;
        for number in 1..=SERIAL_WRITES {
            let body = json!({ "display_name": number.to_string() });
            last = wait_for("a write", LIMIT, || async {
                let answer = api.send(Method::PATCH, "/orgs/acme", Some(&body), &[]).await?;
                let index = answer.header("x-peat-index").and_then(|text| text.parse::<u64>().ok());
                let index = index.filter(|_| answer.status == 200);
                index.ok_or_else(|| format!("{answer:?}"))
            })
            .await;
        }
        // Had every write waited for it, they would have taken twice as long as this.
        let took = begun.elapsed();
        assert!(took < SLOW * SERIAL_WRITES / 2, "{SERIAL_WRITES} writes took {took:?}");
        let synced = matched_of(&api.read("/cluster").await, slow);
        println!("{SERIAL_WRITES} writes took {took:?}, up to {last}; the slow node has {synced}");
        assert!(synced < last, "the node was not slow: it has {synced} of {last} already");
        drop(syncs);
        cluster.wait_equal().await;
        assert!(matched_of(&api.read("/cluster").await, slow) >= last);
    });
}

/// Up to where a node has the leader's log on its disk, as the leader knows.
fn matched_of(cluster: &Value, node: usize) -> u64 {
    let name = format!("node-{}", node + 1);
    let nodes = cluster["nodes"].as_array().expect("nodes");
    let row = nodes.iter().find(|row| row["name"] == name.as_str()).expect("the node");
    row["matched_index"].as_u64().unwrap_or(0)
}

struct SmallDisks {
    cluster: Cluster,
    disks: Vec<Disk>,
    _mounts: tempfile::TempDir,
}

impl SmallDisks {
    /// Three nodes, each on a small disk of its own.
    fn prepare() -> Self {
        let mounts = tempfile::tempdir().expect("a temporary directory");
        let disks = (1..=3)
            .map(|number| {
                let name = format!("disk-{number}");
                Disk::make_sized(mounts.path(), &name, FileSystem::Ext4, SMALL_DISK_MIB)
                    .expect("a disk")
            })
            .collect();
        let cluster = Cluster::prepare_with(3, |_, number| {
            mounts.path().join(format!("disk-{number}")).join("data")
        });
        Self { cluster, disks, _mounts: mounts }
    }
}

#[test]
fn writes_are_refused_while_the_disks_are_nearly_full_and_taken_again_when_they_are_not() {
    if let Err(reason) = disks::available(FileSystem::Ext4) {
        not_run("nearly full disks", &reason);
        return;
    }
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut small = SmallDisks::prepare();
        small.cluster.start_all();
        small.cluster.wait_ready().await;
        let any = small.cluster.any();
        any.create("/orgs", &json!({ "org_id": "acme", "display_name": "Acme" })).await;
        // The file system's own reserve isn't ours: 5 % of what we may use is some 35 MiB.
        small.disks.iter().for_each(|disk| disk.fill_up_to(20));
        let body = json!({ "display_name": "Larger" });
        for node in 0..3 {
            let api = small.cluster.api(node);
            let refused = wait_for("a refusal for want of space", LIMIT, || async {
                let answer = api.send(Method::PATCH, "/orgs/acme", Some(&body), &[]).await?;
                if answer.status == 507 { Ok(answer) } else { Err(format!("{answer:?}")) }
            })
            .await;
            assert_eq!(refused.json()["code"], "no_space", "{refused:?}");
            assert!(refused.header("retry-after").is_some(), "{refused:?}");
            let org = api.read("/orgs/acme").await;
            assert!(org["display_name"].is_string());
        }
        // Two short disks are enough to refuse: the third node may not have looked yet.
        wait_for("the alarm of each node", LIMIT, || async {
            let seen = any.get_json("/cluster").await?;
            let short = |number| alarms(&seen, &format!("node-{number}"));
            let all = (1..=3).all(|number| short(number).contains(&"no_space".to_owned()));
            if all { Ok(()) } else { Err(format!("{seen}")) }
        })
        .await;
        let shown = client(&small.cluster, &["cluster", "status"]);
        assert!(shown.contains("no_space") && shown.contains("MiB free"), "{shown}");
        small.disks.iter().for_each(Disk::free);
        wait_for("a write", LIMIT, || async {
            let answer = any.send(Method::PATCH, "/orgs/acme", Some(&body), &[]).await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        small.cluster.wait_ready().await;
        let ballast = small.disks[0].mount.join("data/ballast");
        wait_for("the ballast", LIMIT, || async { ballast.metadata().map(drop) }).await;
        small.cluster.wait_equal().await;
        drop(small.cluster);
    });
}

#[test]
fn node_whose_table_files_have_flipped_bits_serves_nothing_and_loses_nothing() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut random = Random::announced("flipped bits");
        let mut cluster = Cluster::prepare(3);
        cluster.set("PEAT_SCRUB_INTERVAL_S", "1");
        cluster.start_all();
        cluster.wait_ready().await;
        let load = Load::start(&cluster.any(), WRITERS).await;
        progress(&load, "writes").await;
        let damaged = random.between(0, 3) as usize;
        // A restart writes what was only in the write-ahead log into table files.
        cluster.nodes[damaged].stop();
        cluster.nodes[damaged].start();
        cluster.wait_ready().await;
        cluster.nodes[damaged].stop();
        let flipped = flip_tables(&cluster.nodes[damaged].data.join("db"), &mut random);
        println!("{flipped} bits flipped in the table files of node {}", damaged + 1);
        cluster.nodes[damaged].start();
        // Either the start finds it, or a reader does.
        let api = cluster.api(damaged);
        let refused = wait_for("the damage to be found", LIMIT, || async {
            match api.get("/readyz").await {
                Ok(answer) if answer.json()["detail"].to_string().contains("remove this node") => {
                    Ok(true)
                }
                Ok(answer) => Err(format!("{answer:?}")),
                Err(_) if said(&cluster, damaged).contains("remove") => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await;
        if refused {
            for path in ["/orgs", "/orgs?consistency=stale"] {
                let answer = api.get(path).await.expect("the process answers");
                assert_eq!(answer.status, 503, "{answer:?}");
                assert_eq!(answer.json()["code"], "out_of_service", "{answer:?}");
            }
            cluster.nodes[damaged].kill();
            cluster.nodes[damaged].start();
        }
        let status = cluster.nodes[damaged].wait_exit(LIMIT).await;
        assert!(!status.success(), "{status:?}");
        assert!(said(&cluster, damaged).contains("remove"), "{}", said(&cluster, damaged));
        progress(&load, "writes without the damaged node").await;
        load.check(&cluster.any()).await;
        // The way back: an empty directory is another node.
        load.stop().await;
    });
}

fn said(cluster: &Cluster, node: usize) -> String {
    cluster.nodes[node].log_tail()
}

/// Flips one bit in each 4 KiB of each table file, so that whatever is read first is damaged.
fn flip_tables(database: &Path, random: &mut Random) -> u64 {
    let mut flipped = 0;
    let tables: Vec<PathBuf> = std::fs::read_dir(database)
        .expect("the database is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    assert!(!tables.is_empty(), "there are table files");
    for table in tables {
        let mut bytes = std::fs::read(&table).expect("readable");
        for block in bytes.chunks_mut(4096) {
            let at = random.between(0, block.len() as u64) as usize;
            block[at] ^= 1 << random.between(0, 8);
            flipped += 1;
        }
        std::fs::write(&table, bytes).expect("writable");
    }
    flipped
}

/// Runs a client's verb against the first node and returns what it prints.
fn client(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster::command()
        .args(arguments)
        .env("PEAT_URL", cluster.nodes[0].url())
        .env("PEAT_ADMIN_TOKEN", ADMIN_TOKEN)
        .output()
        .expect("the client runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn page_on_disks_runs_as_written() {
    let directory = tempfile::tempdir().expect("a directory");
    crate::membership::run_page_in("disk-full.md", directory.path(), &[]);
}
