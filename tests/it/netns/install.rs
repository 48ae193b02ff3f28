//! A follower that was away past the purge gets a snapshot, and dies while it installs it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{LIMIT, finish, leader_of, other, own, scenario, start};
use crate::support::api::{Api, Written};
use crate::support::cluster::Cluster;
use crate::support::random::Random;
use crate::support::registers::Registers;

/// Entries that the leader keeps behind a snapshot; the follower must be further behind.
const ENTRIES_KEPT: u64 = 1_000;
/// Entries between two snapshots.
const SNAPSHOT_ENTRIES: u64 = 200;
/// Writers that fill the log.
const FILLERS: usize = 64;
/// Times that the follower dies on the way.
const DEATHS: u64 = 4;
/// Calls by which an install changes the disk.
const CALLS: [&str; 4] = ["fdatasync", "fsync", "unlink", "rename"];

#[test]
fn a_follower_that_dies_while_it_installs_a_snapshot_gets_there_in_the_end() {
    let test = "a_follower_that_dies_while_it_installs_a_snapshot_gets_there_in_the_end";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        let mut cluster = start(&network, |cluster| {
            cluster.set("PEAT_SNAPSHOT_ENTRIES", &SNAPSHOT_ENTRIES.to_string());
            cluster.set("PEAT_LOG_ENTRIES_KEPT", &ENTRIES_KEPT.to_string());
        })
        .await;
        let (leader, _) = leader_of(&cluster, &[1, 2, 3]).await;
        let away = other(&network, leader, &mut random);
        let behind = own(&cluster, away).await.expect("it answers").applied;
        cluster.nodes[away - 1].kill();
        let running: Vec<_> = (1..=3).filter(|node| *node != away).collect();
        let api = Api::new(running.iter().map(|node| cluster.nodes[node - 1].url()).collect());
        fill(&api, ENTRIES_KEPT + 5 * SNAPSHOT_ENTRIES).await;
        let registers = Registers::start(&cluster, &mut random).await;

        let through = cluster.nodes[away - 1].through.clone();
        for _ in 0..DEATHS {
            let call = CALLS[random.between(0, CALLS.len() as u64) as usize];
            let when = random.between(1, 12);
            let probe = cluster.nodes[away - 1].data.with_extension("strace");
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            let strace = ["strace", "-D", "-f", "-qq", "-o"].map(str::to_owned);
            let rest = ["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), inject];
            let strace = strace.into_iter().chain([probe.display().to_string()]).chain(rest);
            cluster.nodes[away - 1].through = through.iter().cloned().chain(strace).collect();
            cluster.nodes[away - 1].start();
            // It dies at that call, or has caught up without so many of them.
            let died = died_or_caught_up(&mut cluster, away, &running).await;
            println!("killed at {call} {when}: {died}");
            cluster.nodes[away - 1].kill();
        }
        cluster.nodes[away - 1].through = through;
        cluster.nodes[away - 1].start();
        cluster.wait_ready().await;
        registers.progress(50, LIMIT).await;
        let now = own(&cluster, away).await.expect("it answers").applied;
        assert!(now > behind + ENTRIES_KEPT, "it is at {now} and was at {behind}");
        finish(&cluster, registers).await;
        let log = std::fs::read_to_string(&cluster.nodes[away - 1].log).expect("its log");
        assert!(!log.contains("panicked"), "{}", cluster.nodes[away - 1].log_tail());
        assert_eq!(unfinished(&cluster.nodes[away - 1].data), Vec::<String>::new());
    });
}

/// Appends so many entries.
async fn fill(api: &Api, entries: u64) {
    let goal = Arc::new(AtomicU64::new(entries));
    let mut fillers = Vec::new();
    for number in 0..FILLERS {
        let org = format!("filler-{number}");
        api.create("/orgs", &json!({ "org_id": org, "display_name": "0" })).await;
        let (api, goal) = (api.clone(), goal.clone());
        fillers.push(tokio::spawn(async move {
            let path = format!("/orgs/{org}");
            while goal.load(Ordering::Relaxed) > 0 {
                let left = goal.load(Ordering::Relaxed);
                let body = json!({ "display_name": left.to_string() });
                if api.patch_once(&path, &body).await == Written::Done {
                    goal.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                        left.checked_sub(1)
                    })
                    .ok();
                }
            }
        }));
    }
    for filler in fillers {
        filler.await.expect("a filler doesn't panic");
    }
}

/// Waits until the node has died, or has applied what the others had when this began.
async fn died_or_caught_up(cluster: &mut Cluster, node: usize, others: &[usize]) -> bool {
    let goal = own(cluster, others[0]).await.map_or(0, |own| own.applied);
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if cluster.nodes[node - 1].has_ended() {
            return true;
        }
        if own(cluster, node).await.is_ok_and(|own| own.applied >= goal) {
            return false;
        }
        tokio::time::sleep(crate::support::POLL_INTERVAL).await;
    }
    panic!("neither dead nor there:\n{}", cluster.nodes[node - 1].log_tail());
}

/// Files of unfinished work in a data directory.
fn unfinished(data: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(data.join("snapshots")).into_iter().flatten().flatten();
    let names = listed.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".tmp")).collect()
}
