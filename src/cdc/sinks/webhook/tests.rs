//! Tests of the webhook sink against a receiver on loopback.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use peat_gateway_state::ids::{AppId, DocumentKey, Epoch, Hash32};
use standardwebhooks::Webhook;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{FailureClass, WebhookDestination, address, retry_after};
use crate::cdc::sinks::{Delivery, Destination, Failure};
use crate::cdc::tests::{Received, Target, check_contract};
use crate::service::credentials::{SecretText, SinkCredentials};

const FIRST_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
const SECOND_SECRET: &str = "whsec_YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNk";

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

type Answer = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

/// An HTTP server that records what it gets and answers as told.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn start(
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answer: Answer = Arc::new(answer);
        let router =
            axum::Router::new().fallback(record).with_state((Arc::clone(&requests), answer));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, requests, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn record(
    State((requests, answer)): State<(Arc<Mutex<Vec<Request>>>, Answer)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Request { path: uri.path().to_owned(), headers, body: body.to_vec() };
    requests.lock().unwrap().push(request.clone());
    answer(&request)
}

impl Target for Receiver {
    fn destination(&self, epoch: Epoch) -> Arc<dyn Destination> {
        Arc::new(WebhookDestination::new(&self.url(), None, epoch, true).unwrap())
    }

    fn received(&self) -> BoxFuture<'_, Vec<Received>> {
        let requests = self.requests.lock().unwrap().clone();
        async move { requests.iter().map(|request| Received::parse(&request.body)).collect() }
            .boxed()
    }
}

fn delivery() -> Delivery {
    Delivery {
        sequence: 1,
        event_id: Hash32([0xab; 32]),
        app: AppId::from_trusted("alpha"),
        document: DocumentKey::from_trusted("a:1"),
        observed_at: 0,
        body: Bytes::from_static("{\"text\":\"grüße\"}".as_bytes()),
    }
}

fn destination(url: &str, credentials: Option<&str>) -> WebhookDestination {
    WebhookDestination::new(url, credentials.map(str::as_bytes), Epoch(42), true).unwrap()
}

async fn failure(url: &str) -> Failure {
    destination(url, None).deliver(&[delivery()]).await.unwrap_err()
}

#[tokio::test]
async fn webhook_sink_honours_the_contract() {
    check_contract("webhook", async || Receiver::start(|_| StatusCode::OK.into_response()).await)
        .await;
}

#[tokio::test]
async fn requests_carry_signatures_that_an_independent_verifier_accepts() {
    let receiver = Receiver::start(|_| StatusCode::NO_CONTENT.into_response()).await;
    let credentials = format!(
        r#"{{"signing_secrets":["{FIRST_SECRET}","{SECOND_SECRET}"],
            "headers":{{"x-team":"blue"}},"bearer":"t0ken"}}"#
    );
    let destination = destination(&receiver.url(), Some(&credentials));
    destination.deliver(&[delivery()]).await.unwrap();
    let request = receiver.requests.lock().unwrap()[0].clone();
    for secret in [FIRST_SECRET, SECOND_SECRET] {
        Webhook::new(secret).unwrap().verify(&request.body, &request.headers).unwrap();
    }
    let stranger = Webhook::new("whsec_c3RyYW5nZXJzdHJhbmdlcnN0cmFuZ2Vy").unwrap();
    assert!(stranger.verify(&request.body, &request.headers).is_err());
    let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("webhook-id"), "ab".repeat(32));
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("user-agent"), concat!("peat-gateway/", env!("CARGO_PKG_VERSION")));
    assert_eq!(header("x-peat-epoch"), "42");
    assert_eq!(header("x-team"), "blue");
    assert_eq!(header("authorization"), "Bearer t0ken");
    assert_eq!(request.body, delivery().body);
}

#[tokio::test]
async fn credentials_as_the_service_seals_them_are_understood() {
    let receiver = Receiver::start(|_| StatusCode::OK.into_response()).await;
    let sealed = SinkCredentials {
        signing_secrets: vec![SecretText::new(FIRST_SECRET)],
        bearer_token: Some(SecretText::new("t0ken")),
        headers: [("x-team".to_owned(), SecretText::new("blue"))].into(),
        ..SinkCredentials::default()
    };
    for credentials in [sealed, SinkCredentials::default()] {
        let json = credentials.encode();
        let url = receiver.url();
        let built = WebhookDestination::new(&url, Some(&json), Epoch(1), true).unwrap();
        built.deliver(&[delivery()]).await.unwrap();
    }
    let requests = receiver.requests.lock().unwrap().clone();
    let verifier = Webhook::new(FIRST_SECRET).unwrap();
    verifier.verify(&requests[0].body, &requests[0].headers).unwrap();
    assert_eq!(requests[0].headers["authorization"], "Bearer t0ken");
    assert_eq!(requests[0].headers["x-team"], "blue");
    assert!(!requests[1].headers.contains_key("webhook-signature"));
}

#[test]
fn credentials_that_cannot_be_used_are_refused_without_showing_them() {
    for credentials in [
        r#"{"signing_secrets":["s3cret"]}"#,
        r#"{"signing_secrets":["whsec_s3cret!"]}"#,
        r#"{"signing_secrets":"s3cret"}"#,
        r#"{"unknown":"s3cret"}"#,
        r#"{"headers":{"webhook-id":"s3cret"}}"#,
        r#"{"headers":{"bad name":"s3cret"}}"#,
        r#"{"bearer":"s3cret\n"}"#,
    ] {
        let url = "https://example.com/";
        let built = WebhookDestination::new(url, Some(credentials.as_bytes()), Epoch(1), false);
        let reason = built.err().unwrap().to_string();
        assert!(!reason.contains("s3cret"), "{reason}");
    }
    for url in ["ftp://example.com/", "example.com", ""] {
        assert!(WebhookDestination::new(url, None, Epoch(1), false).is_err(), "{url}");
    }
}

#[tokio::test]
async fn answers_are_classified() {
    let receiver = Receiver::start(|request| {
        let code: u16 = request.path.trim_start_matches('/').parse().unwrap();
        StatusCode::from_u16(code).unwrap().into_response()
    })
    .await;
    for (code, class) in [
        (400, FailureClass::Rejected),
        (401, FailureClass::Down),
        (403, FailureClass::Down),
        (404, FailureClass::Rejected),
        (408, FailureClass::Transient),
        (410, FailureClass::Gone),
        (413, FailureClass::Rejected),
        (429, FailureClass::Transient),
        (500, FailureClass::Transient),
        (503, FailureClass::Transient),
        (304, FailureClass::Rejected),
    ] {
        let failure = failure(&format!("http://{}/{code}", receiver.address)).await;
        assert_eq!(failure.class, class, "{code}: {failure}");
    }
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(failure(&format!("http://{refused}/")).await.class, FailureClass::Down);
}

#[tokio::test]
async fn retry_after_is_read_from_the_answer() {
    let receiver = Receiver::start(|_| {
        (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], "slow down").into_response()
    })
    .await;
    let failure = failure(&receiver.url()).await;
    assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
    assert!(failure.reason.contains("slow down"), "{failure}");
}

#[test]
fn retry_after_takes_seconds_and_dates() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
    let parse = |text| retry_after::parse(text, now);
    assert_eq!(parse("0"), Some(Duration::ZERO));
    assert_eq!(parse(" 120 "), Some(Duration::from_secs(120)));
    assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
    assert_eq!(parse("Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO));
    let leap = UNIX_EPOCH + Duration::from_secs(1_709_164_800);
    let next = retry_after::parse("Fri, 01 Mar 2024 00:00:00 GMT", leap);
    assert_eq!(next, Some(Duration::from_secs(86_400)), "2024 has a 29 February");
    for text in ["", "soon", "-1", "Sun, 06 Xyz 1994 08:49:37 GMT", "Sun, 06 Nov 1994"] {
        assert_eq!(retry_after::parse(text, SystemTime::now()), None, "{text}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let receiver = Receiver::start(|request| {
        if request.path == "/hook" {
            (StatusCode::FOUND, [("location", "/elsewhere")]).into_response()
        } else {
            StatusCode::OK.into_response()
        }
    })
    .await;
    let failure = failure(&receiver.url()).await;
    assert_eq!(failure.class, FailureClass::Rejected);
    assert!(failure.reason.contains("redirects are not followed"), "{failure}");
    assert_eq!(receiver.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn private_hosts_get_no_request() {
    let receiver = Receiver::start(|_| StatusCode::OK.into_response()).await;
    let port = receiver.address.port();
    // Literal addresses in several notations, and a name that resolves to loopback.
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433", "localhost"] {
        let url = format!("http://{host}:{port}/hook");
        let guarded = WebhookDestination::new(&url, None, Epoch(1), false).unwrap();
        let failure = guarded.deliver(&[delivery()]).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Down);
        assert!(failure.reason.contains("no public address"), "{host}: {failure}");
    }
    assert!(receiver.requests.lock().unwrap().is_empty());
    let allowed = destination(&format!("http://localhost:{port}/hook"), None);
    allowed.deliver(&[delivery()]).await.unwrap();
}

#[test]
fn only_addresses_of_the_internet_are_public() {
    let is_public = |text: &str| address::is_public(text.parse::<IpAddr>().unwrap());
    for text in ["1.1.1.1", "93.184.216.34", "100.63.0.1", "172.32.0.1", "2606:4700::1111"] {
        assert!(is_public(text), "{text}");
    }
    for text in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
    ] {
        assert!(!is_public(text), "{text}");
    }
}

#[tokio::test]
async fn endless_response_body_is_read_only_to_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let mut read = Vec::new();
        while !read.ends_with(&delivery().body) {
            let count = stream.read(&mut request).await.unwrap();
            read.extend_from_slice(&request[..count]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n").await.unwrap();
        let mut sent = 0;
        // Ends when the client closes the connection.
        while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {
            sent += 64 << 10;
        }
        sent
    });
    destination(&format!("http://{address}/"), None).deliver(&[delivery()]).await.unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(20), server).await.unwrap().unwrap();
    assert!(sent < 64 << 20, "{sent} bytes, what the buffers between hold");
}
