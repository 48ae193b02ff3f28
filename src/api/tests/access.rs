use super::*;

/// Every route that isn't public. A new route fails the test below until it stands here.
const PROTECTED: &[(&str, &str)] = &[
    ("GET", "/cluster"),
    ("GET", "/cluster/audit"),
    ("POST", "/cluster/init"),
    ("POST", "/cluster/join"),
    ("POST", "/cluster/members"),
    ("DELETE", "/cluster/members/{node_id}"),
    ("POST", "/cluster/members/{node_id}/promote"),
    ("GET", "/cluster/settings"),
    ("PATCH", "/cluster/settings"),
    ("GET", "/cluster/snapshot"),
    ("POST", "/cluster/transfer"),
    ("POST", "/cluster/upgrade"),
    ("GET", "/openapi.json"),
    ("GET", "/orgs"),
    ("POST", "/orgs"),
    ("DELETE", "/orgs/{org_id}"),
    ("GET", "/orgs/{org_id}"),
    ("PATCH", "/orgs/{org_id}"),
    ("GET", "/orgs/{org_id}/audit"),
    ("GET", "/orgs/{org_id}/audit/verify"),
    ("GET", "/orgs/{org_id}/formations"),
    ("POST", "/orgs/{org_id}/formations"),
    ("DELETE", "/orgs/{org_id}/formations/{app_id}"),
    ("GET", "/orgs/{org_id}/formations/{app_id}"),
    ("PATCH", "/orgs/{org_id}/formations/{app_id}"),
    ("GET", "/orgs/{org_id}/formations/{app_id}/credentials"),
    ("GET", "/orgs/{org_id}/formations/{app_id}/documents"),
    ("GET", "/orgs/{org_id}/formations/{app_id}/documents/{document_id}"),
    ("GET", "/orgs/{org_id}/formations/{app_id}/peers"),
    ("POST", "/orgs/{org_id}/formations/{app_id}/resume"),
    ("POST", "/orgs/{org_id}/formations/{app_id}/suspend"),
    ("GET", "/orgs/{org_id}/journal"),
    ("GET", "/orgs/{org_id}/journal/stream"),
    ("GET", "/orgs/{org_id}/sinks"),
    ("POST", "/orgs/{org_id}/sinks"),
    ("DELETE", "/orgs/{org_id}/sinks/{sink_id}"),
    ("GET", "/orgs/{org_id}/sinks/{sink_id}"),
    ("PATCH", "/orgs/{org_id}/sinks/{sink_id}"),
    ("GET", "/orgs/{org_id}/sinks/{sink_id}/cursor"),
    ("POST", "/orgs/{org_id}/sinks/{sink_id}/pause"),
    ("POST", "/orgs/{org_id}/sinks/{sink_id}/resume"),
];

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[test]
fn every_route_has_an_authorisation_case() {
    let (_, document) = routes().split_for_parts();
    let document: Value = serde_json::from_str(&openapi::render(&document)).unwrap();
    let mut served = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if !auth::PUBLIC.contains(&path.as_str()) {
                served.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    served.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    let cases: Vec<_> =
        PROTECTED.iter().map(|(method, path)| ((*method).into(), (*path).into())).collect();
    assert_eq!(served, cases);
}

#[tokio::test]
async fn every_protected_route_needs_the_token() {
    let gateway = Gateway::with_acme().await;
    for (method, path) in PROTECTED {
        let path = path.replace(['{', '}'], "");
        for headers in [
            vec![],
            vec![("authorization", "Bearer wrong")],
            vec![("authorization", "Bearer ")],
            vec![("authorization", "Basic YTpi")],
            vec![("authorization", TOKEN)],
        ] {
            // Loopback is no substitute for a token once there is one.
            let request = request(method, &path, &[headers, vec![("host", "localhost")]].concat());
            let answer = gateway.send(request, "127.0.0.1:1000").await;
            answer.problem(401, "unauthenticated");
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{method} {path}");
        }
    }
    for path in auth::PUBLIC {
        let answer = gateway.send(request("GET", path, &[]), "192.0.2.1:1000").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn any_of_several_tokens_lets_in_and_an_empty_one_never() {
    let gateway = Gateway::new(Access::Tokens(Tokens::new(["", "one", "two"])));
    for (token, status) in [("one", 200), ("two", 200), ("", 401), ("three", 401)] {
        let header = format!("Bearer {token}");
        let request = request("GET", "/orgs", &[("authorization", &header)]);
        let answer = gateway.send(request, "192.0.2.1:1000").await;
        assert_eq!(answer.status.as_u16(), status, "{token}");
    }
    assert!(!format!("{:?}", Tokens::new(["secret"])).contains("secret"));
}

#[tokio::test]
async fn without_a_token_only_this_machine_is_served() {
    let gateway = Gateway::new(Access::Loopback);
    let local = "127.0.0.1:1000";
    for (from, headers) in [
        (local, vec![("host", "localhost:8080")]),
        (local, vec![("host", "127.0.0.1")]),
        ("[::1]:1000", vec![("host", "[::1]:8080")]),
        ("[::ffff:127.0.0.1]:1000", vec![("host", "LOCALHOST")]),
        (local, vec![("host", "localhost"), ("origin", "http://localhost:8080")]),
    ] {
        let answer = gateway.send(request("GET", "/orgs", &headers), from).await;
        assert_eq!(answer.status, StatusCode::OK, "{from} {headers:?}");
    }
    for (from, headers) in [
        ("192.0.2.1:1000", vec![("host", "localhost")]),
        (local, vec![]),
        (local, vec![("host", "evil.example")]),
        (local, vec![("host", "localhost.evil.example")]),
        (local, vec![("host", "localhost"), ("host", "localhost")]),
        (local, vec![("host", "localhost"), ("origin", "http://evil.example")]),
        (local, vec![("host", "localhost"), ("origin", "null")]),
        (local, vec![("host", "localhost"), ("x-forwarded-for", "192.0.2.1")]),
        (local, vec![("host", "localhost"), ("forwarded", "for=192.0.2.1")]),
    ] {
        let answer = gateway.send(request("GET", "/orgs", &headers), from).await;
        answer.problem(403, "loopback_only");
    }
}

#[tokio::test]
async fn an_open_gateway_serves_everybody_but_no_mesh_credentials_and_no_snapshot() {
    let gateway = Gateway::new(Access::Open);
    let from = "192.0.2.1:1000";
    assert_eq!(gateway.send(request("GET", "/orgs", &[]), from).await.status, StatusCode::OK);
    let path = "/orgs/acme/formations/alpha/credentials";
    gateway.send(request("GET", path, &[]), from).await.problem(403, "forbidden");
    let snapshot = gateway.send(request("GET", "/cluster/snapshot", &[]), from).await;
    snapshot.problem(403, "forbidden");
}
