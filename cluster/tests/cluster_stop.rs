//! Leadership that is handed on and nodes that leave, while all nodes propose: no outcome is unknown.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(
    clippy::print_stdout,
    reason = "how long a change took belongs into the output of a test run"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use peat_gateway_cluster::Handle;
use support::{Cluster, has, wait, write};

/// Proposers per node.
const PROPOSERS: usize = 16;

/// Tasks that create organisations through their node until they are told to stop.
struct Proposers {
    running: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Proposers {
    fn start(handles: &[Handle], name: &str) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let done = Arc::new(AtomicU64::new(0));
        let tasks = handles
            .iter()
            .enumerate()
            .flat_map(|(node, handle)| (0..PROPOSERS).map(move |number| (node, handle, number)))
            .map(|(node, handle, number)| {
                let (running, done, handle) = (running.clone(), done.clone(), handle.clone());
                let name = format!("{name}-{node}-{number}");
                tokio::spawn(async move {
                    let mut created = Vec::new();
                    while running.load(Ordering::SeqCst) {
                        let name = format!("{name}-{}", created.len());
                        // Not even "nothing happened": the node waits for the next leader by itself.
                        write(&handle, &name).await.unwrap();
                        done.fetch_add(1, Ordering::SeqCst);
                        created.push(name);
                    }
                    created
                })
            })
            .collect();
        Self { running, done, tasks }
    }

    async fn go_on(&self, more: u64) {
        let target = self.done.load(Ordering::SeqCst) + more;
        wait("proposals are decided", || {
            let done = self.done.load(Ordering::SeqCst);
            if done >= target { Ok(()) } else { Err(format!("{done} of {target}")) }
        })
        .await;
    }

    async fn finish(self) -> Vec<String> {
        self.running.store(false, Ordering::SeqCst);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_handed_on_again_and_again_fails_no_proposal() {
    let cluster = Cluster::of_three().await;
    let proposers = Proposers::start(&cluster.running(), "org");
    for round in 0..10 {
        proposers.go_on(200).await;
        let leader = cluster.leader().await;
        let began = Instant::now();
        cluster.nodes[leader].as_ref().unwrap().hand_on_leadership().await;
        let handed = began.elapsed();
        proposers.go_on(1).await;
        println!("round {round}: handed on after {handed:?}, first decision {:?}", began.elapsed());
        wait("another node leads", || match cluster.handle(leader).leader() {
            Some(node) if node != cluster.handle(leader).node_id() => Ok(()),
            other => Err(other),
        })
        .await;
    }
    let all = proposers.finish().await;
    cluster.wait_agreement().await;
    let view = cluster.handle(0).local_view();
    assert!(all.iter().all(|name| has(&view, name)));
    println!("{} proposals", all.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_leaves_answers_what_others_forwarded_and_leaves_nothing_unknown() {
    for round in 0..3 {
        let mut cluster = Cluster::of_three().await;
        let leader = cluster.leader().await;
        let others: Vec<_> =
            (0..3).filter(|place| *place != leader).map(|place| cluster.handle(place)).collect();
        let proposers = Proposers::start(&others, &format!("org{round}"));
        proposers.go_on(300).await;
        let began = Instant::now();
        cluster.stop(leader).await;
        println!("round {round}: the leader left in {:?}", began.elapsed());
        proposers.go_on(300).await;
        let all = proposers.finish().await;
        cluster.wait_agreement().await;
        let view = others[0].local_view();
        assert!(all.iter().all(|name| has(&view, name)));
    }
}
