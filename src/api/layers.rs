//! What surrounds every request: its id, its bounds, what is measured and what every answer carries.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::Response;

use super::auth::Source;
use super::problem::{self, Failed, Failure};
use super::{Api, REQUEST_TIMEOUT, REQUESTS_MAX};
use crate::service::{Error, Kind, Principal};

/// The header of a request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header of the index that an answer reflects.
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-peat-index");
/// Most bytes of a request's id; a longer one is replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A request's id: the client's, where it is harmless in logs, else a new one.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

impl RequestId {
    fn of(request: &Request) -> Self {
        let harmless = |text: &&str| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b))
        };
        let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
        match given.filter(harmless) {
            Some(given) => Self(given.to_owned()),
            None => Self(ulid::Ulid::generate().to_string()),
        }
    }
}

/// Outermost: gives the request its id, and every failure its document.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    let source = Source::of(&request);
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(source);
    let mut response = problem::describe(next.run(request).await, &id.0);
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Measures, counts refusals, says which index the answer reflects, and asks connections of a draining
/// node to close.
pub(super) async fn finish(State(api): State<Api>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let version = request.version();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = route.unwrap_or("unknown").to_owned();
    let source = request.extensions().get::<Source>().cloned().unwrap_or_default();
    let mut response = next.run(request).await;
    let status = response.status();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let code = response.extensions().get::<Failed>().map(|failed| failed.0.code.to_string());
        let principal = response.extensions().get::<Principal>().copied();
        let principal = principal.unwrap_or(Principal::Anonymous);
        let target = format!("{method} {route}");
        api.shared.refusals.count(&source.0, principal, target, code.unwrap_or_default());
    }
    if !response.headers().contains_key(INDEX) {
        // Nothing newer was read for this answer than what is applied here by now.
        response.headers_mut().insert(INDEX, api.service.applied_index().into());
    }
    // HTTP/2 has no such header; its connections get a GOAWAY when the server drains.
    if version <= Version::HTTP_11 && api.shared.draining.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    api.shared.metrics.observe(&route, &method, status, began.elapsed());
    response
}

/// Lets only so many requests in, and none for too long.
pub(super) async fn bound(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let Ok(_place) = api.shared.requests.try_acquire() else {
        return Err(Failure(Error::new(
            Kind::TooMany,
            "overloaded",
            format!("{REQUESTS_MAX} requests are being worked on; nothing happened, try again"),
        )));
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await.map_err(|_| {
        let seconds = REQUEST_TIMEOUT.as_secs();
        Failure(if reads {
            let detail = format!("the request was not answered within {seconds} s; try again");
            Error::new(Kind::Unavailable, "timeout", detail)
        } else {
            let detail = format!(
                "the request was not answered within {seconds} s: it may have happened; ask again \
                 with the same Idempotency-Key, or look before you try again"
            );
            Error::new(Kind::UnknownOutcome, "unknown_outcome", detail)
        })
    })
}
