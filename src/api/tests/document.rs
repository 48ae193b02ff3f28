use std::path::Path;

use super::*;

/// Where the document is committed.
const FILE: &str = "docs/reference/openapi.json";

#[test]
fn the_committed_openapi_document_is_the_one_that_is_served() {
    let (_, document) = routes().split_for_parts();
    let text = openapi::render(&document);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{FILE} is stale; run this test again with UPDATE=1");
}

#[tokio::test]
async fn the_document_is_served_and_complete() {
    let gateway = Gateway::with_acme().await;
    let document = gateway.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{what}");
            assert!(operation["responses"]["default"]["content"].is_object(), "{what}");
            let public = auth::PUBLIC.contains(&path.as_str()) || path == "/openapi.json";
            assert_eq!(operation["security"].is_array(), !public, "{what}");
            let named: Vec<_> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .collect();
            assert_eq!(named.len(), path.matches('{').count(), "{what}");
        }
    }
}
