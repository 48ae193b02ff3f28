//! Over real sockets on loopback.

use std::time::Duration;

use reqwest::Client;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    url: String,
    cluster: Arc<Memory>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
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
    tokio::time::timeout(PATIENCE, served.task).await.unwrap().unwrap();
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

/// One HTTP/2 connection; the task drives it.
async fn connect(
    served: &Served,
) -> (hyper::client::conn::http2::SendRequest<Body>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let address = served.url.strip_prefix("http://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    (client, tokio::spawn(connection))
}

fn get(served: &Served, path: &str) -> Request<Body> {
    let request = Request::get(format!("{}{path}", served.url));
    request.header("authorization", format!("Bearer {TOKEN}")).body(Body::empty()).unwrap()
}

/// Creates an organisation, and opens the live stream of its journal.
async fn live_stream(
    served: &Served,
    client: &mut hyper::client::conn::http2::SendRequest<Body>,
) -> hyper::Response<hyper::body::Incoming> {
    let body = r#"{"org_id":"acme","display_name":"Acme"}"#;
    let create = Request::post(format!("{}/orgs", served.url))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    assert_eq!(client.send_request(create).await.unwrap().status(), 201);
    let stream = client.send_request(get(served, "/orgs/acme/journal/stream")).await.unwrap();
    assert_eq!(stream.status(), 200);
    stream
}

#[tokio::test]
async fn a_live_stream_holds_up_no_other_request_of_its_connection_and_ends_with_it_when_the_node_drains()
 {
    let served = start().await;
    let (mut client, connection) = connect(&served).await;
    let stream = live_stream(&served, &mut client).await;
    // More than the connection may have under way at once: each waits for its turn, none for the stream.
    let asked = (0..400).map(|_| {
        let mut client = client.clone();
        let request = get(&served, "/orgs/acme");
        async move { client.send_request(request).await.unwrap().status() }
    });
    let answers = tokio::time::timeout(PATIENCE, futures_util::future::join_all(asked)).await;
    assert!(answers.unwrap().iter().all(|status| *status == 200));
    served.shutdown.cancel();
    let ended =
        tokio::time::timeout(PATIENCE, axum::body::to_bytes(Body::new(stream.into_body()), 1));
    assert!(ended.await.unwrap().unwrap().is_empty());
    drop(client);
    tokio::time::timeout(PATIENCE, served.task).await.unwrap().unwrap();
    // The server said goodbye before it closed.
    tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_a_client_that_went_away_had_asked_for_is_dropped() {
    let served = start().await;
    let (mut client, connection) = connect(&served).await;
    let stream = live_stream(&served, &mut client).await;
    connection.abort();
    drop((client, stream));
    // Nothing of it holds up the drain, which would wait for a stream that runs on.
    served.shutdown.cancel();
    tokio::time::timeout(PATIENCE / 2, served.task).await.unwrap().unwrap();
}
