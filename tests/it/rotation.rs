//! Certificates and tokens are taken up while the nodes run and clients are served.

use std::time::Duration;

use crate::membership::run_page_in;
use crate::support::api::Api;
use crate::support::certificates::{self, Authority, CA, CERT};
use crate::support::cluster::{ADMIN_TOKEN, Cluster};
use crate::support::steady::Steady;
use crate::support::{self, wait_for};

/// Writers; as many readers besides.
const CLIENTS: usize = 6;
/// How long a change of a file may take to be seen on a busy machine.
const NOTICE_LIMIT: Duration = Duration::from_secs(30);

/// Seconds since 1970 at which this year began; good enough for the years used here.
fn year_begins(year: i64) -> i64 {
    let leap_days = (1972..year).step_by(4).filter(|y| y % 100 != 0 || y % 400 == 0).count() as i64;
    ((year - 1970) * 365 + leap_days) * 86_400
}

/// Reads one number of a node's metrics.
async fn metric(api: &Api, line_start: &str) -> Result<i64, String> {
    let text = api.get("/metrics").await?.body;
    let line = text.lines().find(|line| line.starts_with(line_start));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.ok_or_else(|| format!("no metric {line_start}"))
}

/// Waits until a metric has a value on every node.
async fn wait_metric(cluster: &Cluster, line_start: &str, expected: impl Fn(i64) -> bool) {
    for position in 0..cluster.nodes.len() {
        let api = cluster.api(position);
        wait_for(&format!("{line_start} on node {}", position + 1), NOTICE_LIMIT, || async {
            let value = metric(&api, line_start).await?;
            if expected(value) { Ok(()) } else { Err(value.to_string()) }
        })
        .await;
    }
}

/// Waits until no node has anything to complain about any more.
async fn wait_accepted(cluster: &Cluster) {
    wait_metric(cluster, REFUSED, |value| value == 0).await;
}

const REFUSED: &str = "peat_file_refused{what=\"peer_certificates\"}";
const DONE: &str = "peat_file_reloads_total{result=\"done\",what=\"peer_certificates\"}";
const EXPIRES: &str = "peat_peer_certificate_expiry_timestamp_seconds";

#[test]
fn authority_and_certificates_are_rotated_under_load_and_no_request_fails() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::prepare(3);
        cluster.set("PEAT_RELOAD_CHECK_MS", "200");
        let root = cluster.directory().to_owned();
        let old = Authority::new("old");
        let new = Authority::new("new");
        certificates::write(&root, CA, &old.pem);
        old.sign(2090).write(&root);
        cluster.start_all();
        cluster.wait_ready().await;
        wait_metric(&cluster, EXPIRES, |at| at == year_begins(2090)).await;
        let urls: Vec<_> = cluster.nodes.iter().map(|node| node.url()).collect();
        let steady = Steady::start(&urls, CLIENTS).await;

        // Both authorities are believed, before anybody has a certificate of the new one.
        certificates::write(&root, CA, &format!("{}{}", old.pem, new.pem));
        wait_metric(&cluster, DONE, |count| count == 1).await;
        steady.go_on(50).await;
        new.sign(2091).write(&root);
        wait_metric(&cluster, EXPIRES, |at| at == year_begins(2091)).await;
        steady.go_on(50).await;
        // Files that nobody could use are refused, said so, and the ones in use go on.
        certificates::write(&root, CERT, "garbage");
        refused(&cluster, "no certificate in PEM form").await;
        steady.go_on(50).await;
        new.sign(2001).write(&root);
        refused(&cluster, "expired").await;
        steady.go_on(50).await;
        new.sign(2092).write(&root);
        wait_metric(&cluster, EXPIRES, |at| at == year_begins(2092)).await;
        wait_accepted(&cluster).await;
        certificates::write(&root, CA, &new.pem);
        wait_metric(&cluster, DONE, |count| count >= 4).await;
        wait_accepted(&cluster).await;
        steady.go_on(50).await;
        steady.check("the rotation");
        steady.finish(&cluster.any()).await;

        // A node that starts now knows only the new authority: it joins only where the others show
        // certificates that the new one has signed.
        for position in 0..3 {
            let stopped = cluster.nodes[position].stop();
            assert!(stopped.is_some_and(|status| status.success()));
            cluster.nodes[position].start();
            cluster.wait_ready().await;
        }
        cluster.wait_equal().await;
    });
}

/// Waits until every node refuses the files, and says why.
async fn refused(cluster: &Cluster, why: &str) {
    for position in 0..cluster.nodes.len() {
        let api = cluster.api(position);
        wait_for("the refusal", NOTICE_LIMIT, || async {
            let health = api.get_json("/health").await?;
            let said = health["problems"].to_string().to_lowercase().contains(&why.to_lowercase());
            let degraded = health["status"] == "degraded";
            if said && degraded { Ok(()) } else { Err(health.to_string()) }
        })
        .await;
    }
    wait_metric(cluster, REFUSED, |value| value == 1).await;
    for node in &cluster.nodes {
        let log = std::fs::read_to_string(&node.log).expect("the log");
        assert!(log.contains("can't be used; the old content goes on"), "it is not in the log");
    }
}

#[test]
fn admin_token_is_replaced_without_a_restart_and_without_a_gap() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::prepare(1);
        cluster.set("PEAT_RELOAD_CHECK_MS", "3600000");
        let path = cluster.directory().join("admin-token");
        let next = "another-admin-token-5af0";
        std::fs::write(&path, ADMIN_TOKEN).expect("the token's file");
        cluster.nodes[0].unset("PEAT_ADMIN_TOKEN");
        cluster.nodes[0].set("PEAT_ADMIN_TOKEN_FILE", &path.display().to_string());
        cluster.start_all();
        cluster.wait_ready().await;
        let api = cluster.api(0);
        let status = async |token: &str| {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];
            let answer = api.send(reqwest::Method::GET, "/orgs", None, &headers).await;
            answer.expect("an answer").status
        };
        assert_eq!((status(ADMIN_TOKEN).await, status(next).await), (200, 401));

        std::fs::write(&path, format!("{ADMIN_TOKEN}\n{next}\n")).expect("the token's file");
        cluster.nodes[0].hang_up();
        wait_for("the second token", NOTICE_LIMIT, || async {
            if status(next).await == 200 { Ok(()) } else { Err("refused") }
        })
        .await;
        assert_eq!(status(ADMIN_TOKEN).await, 200);

        std::fs::write(&path, "short").expect("the token's file");
        cluster.nodes[0].hang_up();
        let refused = "peat_file_refused{what=\"admin_token\"} 1";
        wait_for("the refusal", NOTICE_LIMIT, || async {
            let text = api.get("/metrics").await?.body;
            if text.contains(refused) { Ok(()) } else { Err("not refused".to_owned()) }
        })
        .await;
        assert_eq!((status(ADMIN_TOKEN).await, status(next).await), (200, 200));

        std::fs::write(&path, next).expect("the token's file");
        cluster.nodes[0].hang_up();
        wait_for("the end of the first token", NOTICE_LIMIT, || async {
            if status(ADMIN_TOKEN).await == 401 { Ok(()) } else { Err("let in") }
        })
        .await;
        assert_eq!(status(next).await, 200);
    });
}

#[test]
fn page_on_certificates_runs_as_written() {
    let directory = tempfile::tempdir().expect("a directory");
    run_page_in("certificates.md", directory.path(), &[]);
}
