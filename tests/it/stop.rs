//! Planned stops: no request of a client behind a proxy that follows `/readyz` fails (INV-11).

use std::time::Duration;

use crate::membership::run_page_in;
use crate::support::api::Api;
use crate::support::cluster::Cluster;
use crate::support::proxy::{PROBE_INTERVAL, Proxy};
use crate::support::steady::Steady;
use crate::support::{self, wait_for};

/// Writers behind the proxy; as many readers besides.
const CLIENTS: usize = 24;

/// Starts three nodes and a proxy before them.
async fn cluster_behind_proxy() -> (Cluster, Proxy) {
    let mut cluster = Cluster::prepare(3);
    // Many times what the proxy needs to see it, so that a busy machine doesn't matter.
    cluster.set("PEAT_DRAIN_LEAD_MS", &(PROBE_INTERVAL * 10).as_millis().to_string());
    cluster.start_all();
    cluster.wait_ready().await;
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.http_port).collect();
    let proxy = Proxy::start(&ports).await;
    let api = Api::new(vec![proxy.url.clone()]);
    wait_for("the proxy", Duration::from_secs(10), || api.get_json("/cluster")).await;
    (cluster, proxy)
}

/// Stops a node by SIGTERM without blocking the clients of this process, and starts it again.
async fn restart(cluster: &mut Cluster, position: usize) {
    cluster.nodes[position].terminate();
    let ended = cluster.nodes[position].wait_exit(Duration::from_secs(60)).await;
    assert!(ended.success(), "{ended}: {}", cluster.nodes[position].log_tail());
    cluster.nodes[position].start();
    let api = cluster.api(position);
    wait_for("the node to be ready again", Duration::from_secs(60), || async {
        let answer = api.get("/readyz").await?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[test]
fn stopping_the_leader_and_a_follower_fails_no_request_and_loses_nothing() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let (mut cluster, proxy) = cluster_behind_proxy().await;
        let steady = Steady::start(std::slice::from_ref(&proxy.url), CLIENTS).await;
        for round in 0..2 {
            for leads in [true, false] {
                let leader = cluster.leader().await;
                let stopped = if leads { leader } else { (leader + 1) % 3 };
                let what = if leads { "the leader" } else { "a follower" };
                steady.go_on(100).await;
                steady.reset_gap();
                restart(&mut cluster, stopped).await;
                println!(
                    "round {round}: {what} was stopped, longest gap {:?}",
                    steady.longest_gap()
                );
                steady.go_on(100).await;
                steady.check(what);
            }
        }
        steady.finish(&cluster.any()).await;
        cluster.wait_equal().await;
    });
}

#[test]
fn two_rolling_restarts_of_all_nodes_fail_no_request_and_lose_nothing() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let (mut cluster, proxy) = cluster_behind_proxy().await;
        let steady = Steady::start(std::slice::from_ref(&proxy.url), CLIENTS).await;
        for round in 0..2 {
            for position in 0..3 {
                steady.go_on(50).await;
                steady.reset_gap();
                restart(&mut cluster, position).await;
                println!(
                    "round {round}: node {} was restarted, longest gap {:?}",
                    position + 1,
                    steady.longest_gap()
                );
                steady.check("a rolling restart");
            }
        }
        steady.finish(&cluster.any()).await;
        cluster.wait_equal().await;
    });
}

#[test]
fn draining_node_is_not_ready_serves_on_and_asks_connections_to_close() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::prepare(3);
        cluster.set("PEAT_DRAIN_LEAD_MS", "20000");
        cluster.start_all();
        cluster.wait_ready().await;
        let leader = cluster.leader().await;
        let api = cluster.api(leader);
        api.read("/orgs").await;
        let before = api.get("/readyz").await.expect("an answer");
        assert_eq!((before.status, before.header("connection")), (200, None));
        cluster.nodes[leader].terminate();
        wait_for("the node not to be ready", Duration::from_secs(15), || async {
            let answer = api.get("/readyz").await?;
            if answer.status == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        let created = api
            .create("/orgs", &serde_json::json!({ "org_id": "late", "display_name": "late" }))
            .await;
        assert_eq!(created["org_id"], "late");
        api.read("/orgs/late").await;
        let health = api.get("/health").await.expect("an answer");
        assert_eq!((health.status, health.header("connection")), (200, Some("close")));
        // A second signal ends the wait.
        cluster.nodes[leader].terminate();
        cluster.nodes[leader].wait_exit(Duration::from_secs(15)).await;
    });
}

#[test]
fn page_on_stopping_runs_as_written() {
    let directory = tempfile::tempdir().expect("a directory");
    // What a busy machine may need between the signal and the last command that asks the node.
    run_page_in("stop.md", directory.path(), &[("PEAT_DRAIN_LEAD_MS", "5000")]);
}
