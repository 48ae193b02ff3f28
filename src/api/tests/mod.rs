//! The router over the real `apply`, without consensus and without sockets, but for the last ones.

mod access;
mod bodies;
mod document;
mod routes;
mod serving;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use prometheus::Registry;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::keys::{Kek, Keyring};
use crate::service::Settings;
use crate::service::memory::Memory;

const TOKEN: &str = "a-token-of-the-administrator";

/// An answer, read to its end.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Checks that this is a problem document with this status and code, and returns it.
    fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.json();
        assert_eq!(self.status.as_u16(), status, "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:peat-gateway:problem:{code}"));
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem
    }
}

/// A router over a fresh cluster.
struct Gateway {
    router: Router,
    cluster: Arc<Memory>,
}

fn service() -> (Service, Arc<Memory>) {
    let cluster = Arc::new(Memory::start());
    let keyring = Keyring::local(Kek::from_bytes(&[9; 32]));
    (Service::over(cluster.clone(), keyring, Settings::default()), cluster)
}

fn settings(access: Access) -> ApiSettings {
    ApiSettings {
        access,
        registry: Registry::new(),
        draining: CancellationToken::new(),
        notices: Notices::default(),
    }
}

impl Gateway {
    fn new(access: Access) -> Self {
        let (service, cluster) = service();
        Self { router: router(service, settings(access)), cluster }
    }

    /// One that knows the token, with the organisation `acme`.
    async fn with_acme() -> Self {
        let gateway = Self::new(Access::Tokens(Tokens::new([TOKEN])));
        let body = r#"{"org_id":"acme","display_name":"Acme"}"#;
        assert_eq!(gateway.post("/orgs", body).await.status, StatusCode::CREATED);
        gateway
    }

    async fn send(&self, mut request: Request<Body>, from: &str) -> Answered {
        let peer: SocketAddr = from.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 16 << 20).await.unwrap().to_vec();
        Answered { status: parts.status, headers: parts.headers, body }
    }

    /// Sends a request with the token and these further headers.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", format!("Bearer {TOKEN}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap(), "192.0.2.1:1000").await
    }

    async fn get(&self, path: &str) -> Answered {
        self.ask(Method::GET, path, &[], "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answered {
        self.ask(Method::POST, path, &[("content-type", "application/json")], body).await
    }

    async fn patch(&self, path: &str, body: &str) -> Answered {
        self.ask(Method::PATCH, path, &[("content-type", "application/json")], body).await
    }

    async fn delete(&self, path: &str) -> Answered {
        self.ask(Method::DELETE, path, &[], "").await
    }
}
