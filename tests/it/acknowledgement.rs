//! Promise 1, seen from the kernel: no acknowledgement before a quorum's `fdatasync` (INV-1).

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::support::api::{Api, Written};
use crate::support::cluster::Cluster;
use crate::support::random::Random;
use crate::support::trace::{self, Trace, marker};
use crate::support::{self, wait_for};

/// Writes with all nodes, and again with only a quorum of them.
const WRITES: usize = 300;
/// Clients that write at the same time.
const CLIENTS: usize = 6;
/// One node's syncs begin this much later, as on a slow disk: what that node, or the others, do without
/// waiting for them is seen long before they end.
const SLOW: [&str; 2] = ["-e", "inject=fdatasync:delay_enter=15000"];
/// Syncs that do nothing and say that they have done it.
const LIE: [&str; 2] = ["-e", "inject=fdatasync:retval=0"];

#[test]
fn no_acknowledgement_leaves_before_a_quorum_has_synced_it() {
    let mut random = Random::announced("acknowledgements");
    let slow = random.between(0, 3) as usize;
    let more = |node| if node == slow { &SLOW[..] } else { &[] };
    let Some(mut traced) = Traced::prepare(more) else { return };
    let _alone = support::alone();
    support::runtime().block_on(async {
        traced.start().await;
        let written = traced.write(0, &mut random).await;
        // With two of three nodes each of them is needed, the slow one too.
        let leader = traced.cluster.leader().await;
        let dies = (0..3).find(|node| *node != slow && *node != leader).expect("one of three");
        println!("node {slow} is slow, node {leader} leads, node {dies} dies");
        traced.cluster.nodes[dies].kill();
        let written = written + traced.write(WRITES, &mut random).await;
        let checked = traced.check().expect("no acknowledgement before a quorum's fdatasync");
        assert_eq!(checked, written, "an acknowledgement was not seen in the traces");
        println!("{checked} acknowledgements, each after fdatasync on two of three nodes");
    });
}

#[test]
fn a_node_whose_syncs_do_nothing_is_found_by_its_acknowledgements() {
    let mut random = Random::announced("syncs that do nothing");
    let Some(mut traced) = Traced::prepare(|_| &LIE[..]) else { return };
    let _alone = support::alone();
    support::runtime().block_on(async {
        traced.start().await;
        traced.write(0, &mut random).await;
        let early = traced.check().expect_err("nothing was synced, and it was acknowledged");
        assert!(early.len() >= WRITES / 2, "only {}: {:?}", early.len(), early.first());
    });
}

/// Three nodes, each under a tracer of its own.
struct Traced {
    cluster: Cluster,
    traces: Vec<PathBuf>,
    _directory: tempfile::TempDir,
}

impl Traced {
    /// Prepares the nodes, with what each one's tracer is to do besides; `None`, and says so, where processes
    /// can't be traced.
    fn prepare(more: impl Fn(usize) -> &'static [&'static str]) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let probe = trace::strace(&directory.path().join("probe"), more(0));
        let ran = std::process::Command::new(&probe[0]).args(&probe[1..]).arg("true").output();
        let problem = match ran {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(format!("strace can't be run: {error}")),
        };
        if let Some(reason) = problem {
            support::not_run("traces of system calls", &reason);
            return None;
        }
        let mut cluster = Cluster::prepare(3);
        let mut traces = Vec::new();
        for (number, node) in cluster.nodes.iter_mut().enumerate() {
            let path = directory.path().join(format!("node-{number}.trace"));
            node.through = trace::strace(&path, more(number));
            traces.push(path);
        }
        Some(Self { cluster, traces, _directory: directory })
    }

    async fn start(&mut self) {
        self.cluster.start_all();
        self.cluster.wait_ready().await;
        self.cluster
            .any()
            .create("/orgs", &json!({ "org_id": "traced", "display_name": "0" }))
            .await;
    }

    /// Writes values with the markers from `first` on, through all nodes that run; returns how many were
    /// acknowledged.
    async fn write(&self, first: usize, random: &mut Random) -> usize {
        let running = self.cluster.nodes.iter().filter(|node| node.runs());
        let apis: Vec<_> = running.map(|node| Api::new(vec![node.url()])).collect();
        let writers = (0..CLIENTS).map(|client| {
            let mut random = Random::seeded(random.next());
            let apis = apis.clone();
            tokio::spawn(async move {
                let mut acknowledged = 0;
                for number in (first..first + WRITES).filter(|number| number % CLIENTS == client) {
                    let api = &apis[random.between(0, apis.len() as u64) as usize];
                    // Twice, so that the WAL's block boundary never cuts both.
                    let text = format!("{0} and again {0}", marker(number));
                    let body = json!({ "display_name": text });
                    let done = api.patch_once("/orgs/traced", &body).await == Written::Done;
                    acknowledged += usize::from(done);
                }
                acknowledged
            })
        });
        let mut total = 0;
        for writer in writers.collect::<Vec<_>>() {
            total += writer.await.expect("a writer doesn't panic");
        }
        assert!(total >= WRITES / 2, "only {total} of {WRITES} writes were acknowledged");
        total
    }

    /// Ends the nodes, and checks what their tracers saw.
    fn check(&mut self) -> Result<usize, Vec<String>> {
        for node in &mut self.cluster.nodes {
            node.kill();
        }
        let traces: Vec<_> = self.traces.iter().map(|path| read_whole(path)).collect();
        trace::check(&traces, 2, |target, bytes| {
            target.starts_with("socket:") && bytes.contains("HTTP/1.1 200")
        })
    }
}

/// The tracer writes the end of its trace after the traced process has ended.
fn read_whole(path: &std::path::Path) -> Trace {
    let runtime = tokio::runtime::Handle::current();
    let text = tokio::task::block_in_place(|| {
        runtime.block_on(wait_for("the end of a trace", Duration::from_secs(30), || async {
            let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.ends_with("+++ killed by SIGKILL +++\n") {
                Ok(text)
            } else {
                Err("not yet".to_owned())
            }
        }))
    });
    Trace::parse(&text)
}
