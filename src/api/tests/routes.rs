use std::sync::atomic::Ordering;

use super::*;

#[tokio::test]
async fn an_organisation_lives_from_creation_to_deletion() {
    let gateway = Gateway::new(Access::Tokens(Tokens::new([TOKEN])));
    let body = r#"{"org_id":"acme","display_name":"Acme","quotas":{"max_cdc_sinks":1}}"#;
    let created = gateway.post("/orgs", body).await;
    assert_eq!((created.status, created.header("location")), (StatusCode::CREATED, "/orgs/acme"));
    let shown = created.json();
    assert_eq!(shown["quotas"]["max_cdc_sinks"], 1);
    assert_eq!(shown["quotas"]["max_formations"], 10);
    gateway.post("/orgs", body).await.problem(409, "already_exists");
    let changed = gateway.patch("/orgs/acme", r#"{"quotas":{"max_formations":2}}"#).await.json();
    assert_eq!(changed["quotas"]["max_formations"], 2);
    assert_eq!(changed["quotas"]["max_cdc_sinks"], 1);
    let deleted = gateway.delete("/orgs/acme").await;
    assert_eq!((deleted.status, deleted.body.len()), (StatusCode::NO_CONTENT, 0));
    gateway.get("/orgs/acme").await.problem(404, "not_found");
    let chain = gateway.get("/orgs/acme/audit").await.json();
    let actions: Vec<_> = chain.as_array().unwrap().iter().map(|e| &e["action"]).collect();
    assert_eq!(actions[0], "delete_organization");
    assert_eq!(chain[0]["actor"]["principal"], "admin");
    assert_eq!(chain[0]["actor"]["source"], "192.0.2.1");
    assert_eq!(gateway.get("/orgs/acme/audit/verify").await.json()["intact"], true);
}

#[tokio::test]
async fn a_formation_is_created_suspended_resumed_and_exported() {
    let gateway = Gateway::with_acme().await;
    let path = "/orgs/acme/formations/alpha";
    let created = gateway.post("/orgs/acme/formations", r#"{"app_id":"alpha"}"#).await;
    assert_eq!((created.status, created.header("location")), (StatusCode::CREATED, path));
    let shown = created.json();
    assert_eq!(shown["enrollment_policy"], "Controlled");
    assert_eq!(shown["mesh_id"].as_str().unwrap().len(), 8);
    let suspended = gateway.post(&format!("{path}/suspend"), "").await.json();
    assert_eq!(suspended["status"], "suspended");
    let resumed = gateway.post(&format!("{path}/resume"), "{}").await.json();
    assert_eq!(resumed["status"], "active");
    let patch = r#"{"enrollment_policy":"Open","static_peers":["a@127.0.0.1:1"]}"#;
    assert_eq!(gateway.patch(path, patch).await.json()["static_peers"][0], "a@127.0.0.1:1");
    let wrong = gateway.patch(path, r#"{"enrollment_policy":"open"}"#).await;
    assert_eq!(wrong.problem(422, "invalid_body")["errors"][0]["pointer"], "/enrollment_policy");
    let exported = gateway.get(&format!("{path}/credentials")).await;
    assert_eq!(exported.json()["mesh_id"], shown["mesh_id"]);
    assert_eq!(exported.header("cache-control"), "no-store");
    for list in ["peers", "documents"] {
        assert_eq!(gateway.get(&format!("{path}/{list}")).await.json(), Value::Array(Vec::new()));
    }
    let key = "tracks%3Aa%2Fb";
    gateway.get(&format!("{path}/documents/{key}")).await.problem(404, "not_found");
    assert_eq!(gateway.delete(path).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_sinks_secret_is_shown_once_and_never_again() {
    let gateway = Gateway::with_acme().await;
    let body = r#"{"sink_type":{"Webhook":{"url":"https://example.com/"}},
        "credentials":{"bearer_token":"very-secret-token"},"filter":{"app_ids":["alpha"]}}"#;
    let created = gateway.post("/orgs/acme/sinks", body).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(created.header("cache-control"), "no-store");
    let shown = created.json();
    let secret = shown["signing_secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    let path = format!("/orgs/acme/sinks/{}", shown["sink_id"].as_str().unwrap());
    let cursor = gateway.get(&format!("{path}/cursor")).await.json();
    assert_eq!((&cursor["lag"], &cursor["ahead"]), (&0.into(), &Value::Array(Vec::new())));
    assert_eq!(gateway.post(&format!("{path}/pause"), "").await.json()["enabled"], false);
    assert_eq!(gateway.post(&format!("{path}/resume"), "").await.json()["enabled"], true);
    assert_eq!(gateway.patch(&path, r#"{"enabled":false}"#).await.json()["enabled"], false);
    for path in [path.as_str(), "/orgs/acme/sinks", "/orgs/acme/audit"] {
        let text = String::from_utf8(gateway.get(path).await.body).unwrap();
        assert!(!text.contains(&secret) && !text.contains("very-secret-token"), "{path}");
    }
    let unknown = r#"{"sink_type":{"Redis":{"url":"redis://x"}}}"#;
    gateway.post("/orgs/acme/sinks", unknown).await.problem(422, "invalid_body");
    let private = r#"{"sink_type":{"Webhook":{"url":"http://169.254.169.254/"}}}"#;
    let private = gateway.post("/orgs/acme/sinks", private).await;
    let problem = private.problem(400, "invalid_sink_type");
    assert_eq!(problem["errors"][0]["pointer"], "/sink_type/Webhook/url");
    let nats = r#"{"sink_type":{"Nats":{"subject_prefix":"cdc"}},"start":"earliest"}"#;
    let nats = gateway.post("/orgs/acme/sinks", nats).await;
    assert_eq!(nats.json()["sink_type"], serde_json::json!({"Nats": {"subject_prefix": "cdc"}}));
    assert_eq!(gateway.delete(&path).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn quotas_answer_429_without_asking_to_retry() {
    let gateway = Gateway::with_acme().await;
    gateway.patch("/orgs/acme", r#"{"quotas":{"max_cdc_sinks":0}}"#).await;
    let full = gateway.post("/orgs/acme/sinks", r#"{"sink_type":{"File":{"name":"a"}}}"#).await;
    full.problem(429, "quota_exceeded");
    assert_eq!(full.header("retry-after"), "");
}

#[tokio::test]
async fn listings_name_their_next_page() {
    let gateway = Gateway::with_acme().await;
    for id in ["b", "c"] {
        gateway.post("/orgs", &format!(r#"{{"org_id":"{id}","display_name":"x"}}"#)).await;
    }
    let mut path = "/orgs?limit=2".to_owned();
    let mut found = Vec::new();
    loop {
        let page = gateway.get(&path).await;
        let items = page.json();
        found.extend(items.as_array().unwrap().iter().map(|o| o["org_id"].to_string()));
        let link = page.header("link");
        if link.is_empty() {
            break;
        }
        path = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
        assert!(link.ends_with("; rel=\"next\""));
    }
    assert_eq!(found, ["\"acme\"", "\"b\"", "\"c\""]);
}

#[tokio::test]
async fn settings_and_cluster_are_shown() {
    let gateway = Gateway::with_acme().await;
    let cluster = gateway.get("/cluster").await.json();
    assert_eq!(cluster["nodes"][0]["role"], "leader");
    assert_eq!(cluster["leader"], cluster["nodes"][0]["node_id"]);
    let path = "/cluster/settings";
    let changed = gateway.patch(path, r#"{"journal_retention_ms":5}"#).await.json();
    assert_eq!(changed["journal_retention_ms"], 5);
    assert_eq!(gateway.get(path).await.json(), changed);
    let wrong = gateway.patch(path, r#"{"idempotency_retention_ms":1}"#).await;
    wrong.problem(400, "invalid_settings");
    let entry = &gateway.get("/cluster/audit?limit=1").await.json()[0];
    assert_eq!(entry["action"], "update_settings");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_streamed_with_its_index_and_a_failure_breaks_it_off() {
    let gateway = Gateway::with_acme().await;
    let path = "/cluster/snapshot";
    let answer = gateway.get(path).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body == crate::service::memory::SNAPSHOT_BYTES);
    assert_eq!(answer.header("cache-control"), "no-store");
    let index = answer.header("x-peat-index");
    assert_eq!(
        answer.header("content-disposition"),
        format!("attachment; filename=\"peat-gateway-{index}.snapshot\"")
    );
    gateway.get(&format!("{path}?min_index=1000")).await.problem(503, "behind");

    gateway.cluster.loses_answers.store(true, Ordering::Relaxed);
    let request = Request::get(path).header("authorization", format!("Bearer {TOKEN}"));
    let response = gateway.router.clone().oneshot(request.body(Body::empty()).unwrap()).await;
    let body = axum::body::to_bytes(response.unwrap().into_body(), 16 << 20).await;
    assert!(body.is_err(), "a snapshot that failed must not look complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_snapshots_are_read_at_once() {
    let gateway = Gateway::with_acme().await;
    let mut open = Vec::new();
    for _ in 0..SNAPSHOTS_MAX {
        let request = Request::get("/cluster/snapshot");
        let request = request.header("authorization", format!("Bearer {TOKEN}"));
        open.push(gateway.router.clone().oneshot(request.body(Body::empty()).unwrap()).await);
    }
    // The bodies are not read, so their places stay taken.
    let refused = gateway.get("/cluster/snapshot").await;
    refused.problem(429, "overloaded");
    assert_eq!(refused.header("retry-after"), "1");
    drop(open);
}

#[tokio::test]
async fn every_answer_carries_its_index_and_a_demanded_one_is_kept() {
    let gateway = Gateway::with_acme().await;
    let written = gateway.patch("/orgs/acme", r#"{"display_name":"A"}"#).await;
    let index: u64 = written.header("x-peat-index").parse().unwrap();
    assert_eq!(written.json()["revision"], index);
    let demand = index.to_string();
    let read = gateway.ask(Method::GET, "/orgs/acme", &[("x-peat-min-index", &demand)], "").await;
    assert_eq!((read.status, read.header("x-peat-index")), (StatusCode::OK, demand.as_str()));
    let ahead = gateway.get(&format!("/orgs/acme?min_index={}", index + 1)).await;
    ahead.problem(503, "behind");
    assert_eq!(ahead.header("retry-after"), "1");
    assert!(gateway.get("/nothing").await.header("x-peat-index").parse::<u64>().is_ok());
}

#[tokio::test]
async fn without_a_leader_writes_and_fresh_reads_wait_and_stale_reads_go_on() {
    let gateway = Gateway::with_acme().await;
    gateway.cluster.has_no_leader.store(true, Ordering::Relaxed);
    let write = gateway.delete("/orgs/acme").await;
    write.problem(503, "unavailable");
    assert_eq!(write.header("retry-after"), "1");
    gateway.get("/orgs/acme").await.problem(503, "unavailable");
    let stale = gateway.get("/orgs/acme?consistency=stale&max_staleness_ms=1000").await;
    assert_eq!(stale.status, StatusCode::OK);
    gateway.get("/readyz").await.problem(503, "not_ready");
    assert_eq!(gateway.get("/health").await.json()["status"], "degraded");
    gateway.cluster.has_no_leader.store(false, Ordering::Relaxed);
    gateway.cluster.loses_answers.store(true, Ordering::Relaxed);
    let problem = gateway.delete("/orgs/acme").await.problem(504, "unknown_outcome");
    assert!(problem["detail"].as_str().unwrap().contains("Idempotency-Key"));
}

#[tokio::test]
async fn request_ids_are_kept_where_they_are_harmless() {
    let gateway = Gateway::with_acme().await;
    let long = "x".repeat(129);
    for (given, kept) in
        [("abc-1:2/3", true), ("a b", false), ("a\"b", false), (long.as_str(), false), ("", false)]
    {
        let answer = gateway.ask(Method::GET, "/orgs", &[("x-request-id", given)], "").await;
        let id = answer.header("x-request-id");
        assert_eq!(id == given, kept, "{given}");
        assert!(!id.is_empty());
    }
}

#[tokio::test]
async fn metrics_count_requests_by_route() {
    let gateway = Gateway::with_acme().await;
    gateway.get("/orgs/acme").await;
    gateway.get("/orgs/none").await;
    gateway.get("/anything/at/all").await;
    let text = String::from_utf8(gateway.get("/metrics").await.body).unwrap();
    for line in [
        r#"peat_http_requests_total{method="GET",route="/orgs/{org_id}",status="200"} 1"#,
        r#"peat_http_requests_total{method="GET",route="/orgs/{org_id}",status="404"} 1"#,
        r#"peat_http_requests_total{method="GET",route="unknown",status="404"} 1"#,
        "peat_cluster_is_leader 1",
        "peat_http_request_duration_seconds_bucket",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
