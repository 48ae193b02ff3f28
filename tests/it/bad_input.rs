//! Promise 11: bad input gets a 4xx with a reason and changes nothing.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support;
use crate::support::cluster::{Cluster, command};

#[test]
fn bad_requests_get_a_problem_document_and_change_nothing() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let cluster = Cluster::start(1).await;
        let api = cluster.any();
        api.create("/orgs", &json!({ "org_id": "acme", "display_name": "Acme" })).await;
        let hash = |document: Value| document["nodes"][0]["state_hash"].clone();
        let before = api.read("/orgs").await;
        let long = "x".repeat(2000);
        let cases: Vec<(Method, &str, Value, u16)> = vec![
            (Method::POST, "/orgs", json!({ "org_id": "b" }), 422),
            (Method::POST, "/orgs", json!({ "org_id": "b", "display_name": 7 }), 422),
            (Method::POST, "/orgs", json!({ "org_id": "b", "display_name": "B", "x": 1 }), 422),
            (Method::POST, "/orgs", json!({ "org_id": "a b", "display_name": "B" }), 400),
            (Method::POST, "/orgs", json!({ "org_id": "_org", "display_name": "B" }), 400),
            (Method::POST, "/orgs", json!({ "org_id": "", "display_name": "B" }), 400),
            (Method::POST, "/orgs", json!({ "org_id": "b", "display_name": "" }), 400),
            (Method::POST, "/orgs", json!({ "org_id": "b", "display_name": long }), 400),
            (Method::POST, "/orgs", json!({ "org_id": "acme", "display_name": "B" }), 409),
            (Method::PATCH, "/orgs/acme", json!({ "display_name": "" }), 400),
            (Method::PATCH, "/orgs/nobody", json!({ "display_name": "N" }), 404),
            (Method::GET, "/orgs/nobody", Value::Null, 404),
            (Method::GET, "/no/such/path", Value::Null, 404),
            (Method::PUT, "/orgs", json!({}), 405),
            (Method::POST, "/orgs/acme/formations", json!({ "app_id": "a/b" }), 400),
            (
                Method::POST,
                "/orgs/acme/formations",
                json!({ "app_id": "a", "enrollment_policy": "open" }),
                422,
            ),
            (
                Method::POST,
                "/orgs/acme/sinks",
                json!({ "sink_type": { "Webhook": { "url": "ftp://x" } } }),
                400,
            ),
            (Method::POST, "/orgs/acme/sinks", json!({ "sink_type": { "Tape": {} } }), 422),
            (Method::GET, "/orgs/acme/journal?limit=0", Value::Null, 400),
            (Method::GET, "/orgs/acme/journal?after=x", Value::Null, 400),
        ];
        for (method, path, body, status) in cases {
            let body = (!body.is_null()).then_some(&body);
            let answer = api.send(method.clone(), path, body, &[]).await.expect("an answer");
            assert_eq!(answer.status, status, "{method} {path} {body:?}: {}", answer.body);
            let problem = answer.json();
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json"),
                "{method} {path}"
            );
            for field in ["type", "title", "detail", "code", "request_id"] {
                assert!(problem[field].is_string(), "{method} {path}: no {field} in {problem}");
            }
            assert_eq!(problem["status"], status);
        }
        let oversize = json!({ "org_id": "b", "display_name": "y".repeat(3 << 20) });
        let answer = api.send(Method::POST, "/orgs", Some(&oversize), &[]).await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 413));
        for (name, value, status) in [("if-match", "soon", 400), ("if-match", "\"999999\"", 412)] {
            let body = json!({ "display_name": "Other" });
            let answer = api
                .send(Method::PATCH, "/orgs/acme", Some(&body), &[(name, value)])
                .await
                .expect("an answer");
            assert_eq!(answer.status, status, "{}", answer.body);
        }
        let after = api.read("/orgs").await;
        assert_eq!(before, after);
        assert!(hash(api.read("/cluster").await).is_string());
    });
}

#[test]
fn wrong_and_missing_tokens_are_refused_and_audited() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let cluster = Cluster::start(1).await;
        let api = cluster.any();
        for token in ["Bearer wrong", "Basic eDp5"] {
            let headers = [("authorization", token)];
            let answer = api.send(Method::GET, "/orgs", None, &headers).await.expect("an answer");
            assert_eq!(answer.status, 401, "{}", answer.body);
        }
        support::wait_for("audited refusals", Duration::from_secs(90), || async {
            let entries = api.get_json("/cluster/audit").await?;
            let found = entries
                .as_array()
                .is_some_and(|list| list.iter().any(|entry| entry["action"] == "refused"));
            if found { Ok(()) } else { Err(entries.to_string()) }
        })
        .await;
    });
}

#[test]
fn a_bad_configuration_names_every_problem_and_ends_the_start() {
    let output = command()
        .arg("serve")
        .env("PEAT_GATEWAY_BIND", "nowhere")
        .env("PEAT_KEK", "short")
        .env("PEAT_TYPO", "1")
        .output()
        .expect("the gateway runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for name in ["PEAT_GATEWAY_BIND", "PEAT_KEK", "PEAT_TYPO"] {
        assert!(text.contains(name), "{name} is not named in:\n{text}");
    }
    assert!(!text.contains("short"), "the key is shown:\n{text}");
}

#[test]
fn an_open_bind_without_credentials_is_refused() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let output = command()
        .arg("serve")
        .env("PEAT_GATEWAY_BIND", "0.0.0.0:0")
        .env("PEAT_GATEWAY_DATA_DIR", data.path())
        .output()
        .expect("the gateway runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("--insecure-open"), "{text}");
}

#[test]
fn a_wrong_key_ends_the_start_with_a_clear_error() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::start(1).await;
        cluster.any().create("/orgs", &json!({ "org_id": "o", "display_name": "O" })).await;
        cluster.nodes[0].stop();
        cluster.set("PEAT_KEK", &"ab".repeat(32));
        cluster.start_all();
        let status = cluster.nodes[0].wait_exit(Duration::from_secs(30)).await;
        assert!(!status.success());
        let log = cluster.nodes[0].log_tail();
        assert!(log.contains("key"), "{log}");
        assert!(!log.contains(&"ab".repeat(32)));
    });
}

#[test]
fn foreign_and_newer_data_directories_are_refused() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let mut cluster = Cluster::prepare(1);
        std::fs::create_dir_all(&cluster.nodes[0].data).expect("the directory");
        std::fs::write(cluster.nodes[0].data.join("photos.txt"), "mine").expect("a file");
        cluster.start_all();
        let status = cluster.nodes[0].wait_exit(Duration::from_secs(30)).await;
        assert!(!status.success(), "{}", cluster.nodes[0].log_tail());
        let kept = std::fs::read_to_string(cluster.nodes[0].data.join("photos.txt"));
        assert_eq!(kept.expect("the file is still there"), "mine");
    });
}

#[test]
fn a_node_of_another_cluster_is_not_served() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        let first = Cluster::start(1).await;
        let mut second = Cluster::start(1).await;
        second.any().create("/orgs", &json!({ "org_id": "theirs", "display_name": "T" })).await;
        second.nodes[0].stop();
        // The second cluster's node comes back with the first one's peer address among its own: its
        // data directory already belongs to a cluster, so the list is not used and nothing mixes.
        let peers = format!(
            "127.0.0.1:{},127.0.0.1:{}",
            first.nodes[0].peer_port, second.nodes[0].peer_port
        );
        second.set("PEAT_INITIAL_PEERS", &peers);
        second.start_all();
        second.wait_ready().await;
        let ids = (
            first.any().read("/cluster").await["cluster_id"].clone(),
            second.any().read("/cluster").await["cluster_id"].clone(),
        );
        assert_ne!(ids.0, ids.1);
        let orgs = first.any().read("/orgs").await;
        assert_eq!(orgs, json!([]));
    });
}
