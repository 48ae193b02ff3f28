//! What surrounds every request: its id, its bounds, what is measured and what every answer carries.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use super::auth::{authenticate, source};
use super::problem::{self, Failed, Failure};
use super::{Api, REQUEST_TIMEOUT, REQUESTS_MAX};
use crate::service::{Error, Kind, Principal};

/// The header of a request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header of the index that an answer reflects.
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-peat-index");
/// Most bytes of a request's id; a longer one is replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Who asks, and how the request is called in logs.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) principal: Principal,
    /// The client's address without port; empty where it is unknown.
    pub(super) source: String,
    pub(super) request_id: String,
}

/// A request's id: the client's, where it is harmless in logs, else a new one.
fn request_id(request: &Request) -> String {
    let harmless = |text: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given.filter(harmless) {
        Some(given) => given.to_owned(),
        None => ulid::Ulid::generate().to_string(),
    }
}

/// What surrounds every request, in this order: its id; who asks; a place and a limit in time; the handler;
/// then the count of refusals, the document of a failure, the index, and what is measured.
///
/// One function and not a layer for each: every layer has its own box and is cloned for every request.
pub(super) async fn surround(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let version = request.version();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let principal = authenticate(&api.shared.access, route.as_ref(), &request);
    let asker = Asker {
        principal: principal.as_ref().copied().unwrap_or(Principal::Anonymous),
        source: source(&request),
        request_id: request_id(&request),
    };
    request.extensions_mut().insert(asker.clone());
    let answer = bound(&api, &method, async {
        match principal {
            Ok(_) => next.run(request).await,
            Err(error) => Failure(error).into_response(),
        }
    });
    let mut response = answer.await;
    let status = response.status();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let code = response.extensions().get::<Failed>().map(|failed| failed.0.code.to_string());
        let target = format!("{method} {route}");
        api.shared.refusals.count(&asker.source, asker.principal, target, code.unwrap_or_default());
    }
    response = problem::describe(response, &asker.request_id);
    let headers = response.headers_mut();
    if !headers.contains_key(INDEX) {
        // Nothing newer was read for this answer than what is applied here by now.
        headers.insert(INDEX, api.service.applied_index().into());
    }
    // HTTP/2 has no such header; its connections get a GOAWAY when the server drains.
    if version <= Version::HTTP_11 && api.shared.draining.is_cancelled() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(mut value) = HeaderValue::from_str(&asker.request_id) {
        // No two are alike: HTTP/2 needn't remember it, and it would push out what comes again.
        value.set_sensitive(true);
        headers.insert(REQUEST_ID, value);
    }
    api.shared.metrics.observe(route, &method, status, began.elapsed());
    response
}

/// Lets only so many requests in, and none for too long; a panic is a failure like others.
async fn bound(api: &Api, method: &Method, handler: impl Future<Output = Response>) -> Response {
    let Ok(_place) = api.shared.requests.try_acquire() else {
        let detail =
            format!("{REQUESTS_MAX} requests are being worked on; nothing happened, try again");
        return Failure(Error::new(Kind::TooMany, "overloaded", detail)).into_response();
    };
    let handler = AssertUnwindSafe(handler).catch_unwind();
    match tokio::time::timeout(REQUEST_TIMEOUT, handler).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => problem::panicked(&*panic),
        Err(_) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            Failure(if matches!(*method, Method::GET | Method::HEAD) {
                let detail = format!("the request was not answered within {seconds} s; try again");
                Error::new(Kind::Unavailable, "timeout", detail)
            } else {
                let detail = format!(
                    "the request was not answered within {seconds} s: it may have happened; ask \
                     again with the same Idempotency-Key, or look before you try again"
                );
                Error::new(Kind::UnknownOutcome, "unknown_outcome", detail)
            })
            .into_response()
        }
    }
}
