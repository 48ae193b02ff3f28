//! Over real sockets on loopback.

use std::time::Duration;

use reqwest::Client;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    url: String,
    cluster: Arc<Memory>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

async fn start() -> Served {
    // One provider for the process; another test may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (service, cluster) = service();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let settings = settings(Access::Tokens(Tokens::new([TOKEN])));
    let task = tokio::spawn(serve(listener, service, settings, shutdown.clone()));
    Served { url, cluster, shutdown, task }
}

#[tokio::test]
async fn a_live_stream_ends_and_refusals_are_written_when_the_node_drains() {
    let served = start().await;
    let client = Client::new();
    let orgs = format!("{}/orgs", served.url);
    let body = serde_json::json!({"org_id": "acme", "display_name": "Acme"});
    let created = client.post(&orgs).bearer_auth(TOKEN).json(&body).send().await.unwrap();
    assert_eq!(created.status(), 201);
    for _ in 0..3 {
        assert_eq!(client.get(&orgs).send().await.unwrap().status(), 401);
    }
    let stream = format!("{orgs}/acme/journal/stream");
    let stream = client.get(stream).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    served.shutdown.cancel();
    let body = tokio::time::timeout(PATIENCE, stream.bytes()).await.unwrap().unwrap();
    assert!(body.is_empty());
    tokio::time::timeout(PATIENCE, served.task).await.unwrap().unwrap().unwrap();
    assert!(client.get(&orgs).send().await.is_err());
    let keyring = Keyring::plaintext();
    let service = Service::over(served.cluster, keyring, Settings::default());
    let call = crate::service::Call {
        principal: crate::service::Principal::Admin,
        source: String::new(),
        request_id: String::new(),
        idempotency: None,
        consistency: peat_gateway_cluster::Consistency::default(),
    };
    let entries = service.cluster_audit(&call, None, 10).await.unwrap().value.entries;
    let refused = entries.iter().find(|entry| entry.target == "GET /orgs").unwrap();
    assert_eq!((refused.count, refused.result.as_str()), (3, "unauthenticated"));
    assert_eq!(refused.actor.source, "127.0.0.1");
}
