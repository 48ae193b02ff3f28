use super::*;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn bodies_that_can_not_be_read_are_refused_with_their_reason() {
    let gateway = Gateway::with_acme().await;
    let body = r#"{"org_id":"beta","display_name":"B"}"#;
    let post = |headers: &'static [(&'static str, &'static str)], body: &str| {
        let (gateway, body) = (&gateway, body.to_owned());
        async move { gateway.ask(Method::POST, "/orgs", headers, &body).await }
    };
    post(&[], body).await.problem(415, "unsupported_media_type");
    post(&[("content-type", "text/plain")], body).await.problem(415, "unsupported_media_type");
    post(&[JSON], "{").await.problem(400, "malformed_json");
    post(&[JSON], "").await.problem(400, "malformed_json");
    post(&[JSON], &format!("{body} x")).await.problem(400, "malformed_json");
    post(&[JSON], r#"{"org_id":"beta"}"#).await.problem(422, "invalid_body");
    let unknown = r#"{"org_id":"b","display_name":"B","unknown":1}"#;
    let problem = post(&[JSON], unknown).await.problem(422, "invalid_body");
    assert!(problem["detail"].as_str().unwrap().contains("unknown field `unknown`"), "{problem}");
    let wrong = r#"{"org_id":"b","display_name":"B","quotas":{"max_formations":"many"}}"#;
    let problem = post(&[JSON], wrong).await.problem(422, "invalid_body");
    assert_eq!(problem["errors"][0]["pointer"], "/quotas/max_formations");
    let long = format!(r#"{{"org_id":"b","display_name":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
    post(&[JSON], &long).await.problem(413, "too_large");
    let problem = post(&[JSON], r#"{"org_id":"_org","display_name":"B"}"#).await;
    assert_eq!(problem.problem(400, "invalid_org_id")["errors"][0]["pointer"], "/org_id");
    let problem = post(&[JSON], r#"{"org_id":"b","display_name":""}"#).await;
    let problem = problem.problem(400, "invalid_display_name");
    assert_eq!(problem["errors"][0]["pointer"], "/display_name");
    let path = "/orgs/acme/formations/alpha/suspend";
    gateway.post(path, r#"{"a":1}"#).await.problem(400, "unexpected_body");
    // Nothing of all this happened.
    assert_eq!(gateway.get("/orgs").await.json().as_array().unwrap().len(), 1);
    let charset = &[("content-type", "application/merge-patch+json; charset=utf-8")];
    assert_eq!(post(charset, body).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn paths_methods_and_queries_that_are_not_known_are_refused() {
    let gateway = Gateway::with_acme().await;
    gateway.get("/nothing").await.problem(404, "unknown_path");
    gateway.get("/orgs/").await.problem(404, "unknown_path");
    let wrong = gateway.ask(Method::PUT, "/orgs", &[], "").await;
    wrong.problem(405, "method_not_allowed");
    assert!(wrong.header("allow").contains("POST"), "{:?}", wrong.headers);
    gateway.get("/orgs/none").await.problem(404, "not_found");
    gateway.get("/orgs/a%20b").await.problem(404, "not_found");
    gateway.get("/orgs/%ff").await.problem(400, "invalid_path");
    for query in [
        "unknown=1",
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1&limit=2",
        "cursor=%20",
        "consistency=some",
        "max_staleness_ms=1",
        "min_index=-1",
    ] {
        gateway.get(&format!("/orgs?{query}")).await.problem(400, "invalid_query");
    }
    gateway
        .ask(Method::GET, "/orgs", &[("x-peat-min-index", "x")], "")
        .await
        .problem(400, "invalid_min_index");
}

#[tokio::test]
async fn conditions_decide_which_version_is_changed() {
    let gateway = Gateway::with_acme().await;
    let read = gateway.get("/orgs/acme").await;
    let tag = read.header("etag").to_owned();
    assert_eq!(tag, format!("\"{}\"", read.json()["revision"]));
    let patch = |tag: String| {
        let gateway = &gateway;
        async move {
            let body = r#"{"display_name":"New"}"#;
            gateway.ask(Method::PATCH, "/orgs/acme", &[JSON, ("if-match", &tag)], body).await
        }
    };
    for malformed in ["1", "\"x\"", "\"1\", \"2\"", "\"", ""] {
        patch(malformed.to_owned()).await.problem(400, "invalid_if_match");
    }
    patch("\"999\"".to_owned()).await.problem(412, "precondition_failed");
    patch(format!("W/{tag}")).await.problem(412, "precondition_failed");
    let changed = patch(tag.clone()).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_ne!(changed.header("etag"), tag);
    patch(tag).await.problem(412, "precondition_failed");
    assert_eq!(patch("*".to_owned()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_repeated_request_with_the_same_key_is_done_once() {
    let gateway = Gateway::with_acme().await;
    let post = |key: String, body: &'static str| {
        let gateway = &gateway;
        async move {
            let headers = [JSON, ("idempotency-key", key.as_str())];
            gateway.ask(Method::POST, "/orgs", &headers, body).await
        }
    };
    let body = r#"{"org_id":"beta","display_name":"B"}"#;
    let first = post("k".to_owned(), body).await;
    let again = post("k".to_owned(), body).await;
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!(first.json(), again.json());
    let other = r#"{"org_id":"gamma","display_name":"B"}"#;
    post("k".to_owned(), other).await.problem(409, "idempotency_key_reused");
    post("l".to_owned(), body).await.problem(409, "already_exists");
    post("x".repeat(256), body).await.problem(400, "invalid_idempotency_key");
    post(String::new(), body).await.problem(400, "invalid_idempotency_key");
}
