//! Failures as RFC 9457 problem documents, and the one table that maps kinds to statuses.
//!
//! A handler fails with a [`Failure`]; the outermost layer, which knows the request's id, turns it
//! into the document and logs what only the operator should see.

use std::any::Any;
use std::error::Error as _;
use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::{Error, Kind};

/// The content type of problem documents.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// A failure on its way out, in a response's extensions.
#[derive(Clone)]
pub(super) struct Failed(pub(super) Arc<Error>);

/// What went wrong. (RFC 9457)
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Names the kind of problem: `urn:peat-gateway:problem:<code>`.
    r#type: String,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was attempted, what is wrong, what to do.
    detail: String,
    /// Stable and snake_case: what scripts compare.
    code: String,
    /// The request's id, as in the header `x-request-id`.
    request_id: String,
    /// The fields of the body that are wrong, where it is the body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
}

/// What is wrong with a field.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FieldProblem {
    /// JSON pointer of the field.
    pointer: String,
    /// What is wrong with it.
    detail: String,
}

/// The status of each kind of failure.
pub(super) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Kind::UnknownOutcome => StatusCode::GATEWAY_TIMEOUT,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = status(self.0.kind).into_response();
        response.extensions_mut().insert(Failed(Arc::new(self.0)));
        response
    }
}

/// Gives a failed response its document, and logs what is the gateway's own fault.
pub(super) fn describe(response: Response, request_id: &str) -> Response {
    let Some(Failed(error)) = response.extensions().get().cloned() else { return response };
    if error.kind == Kind::Internal {
        tracing::error!(request_id, error = chain(&error), "a request failed");
    }
    let status = status(error.kind);
    let pointer = error.pointer.clone();
    let problem = Problem {
        r#type: format!("urn:peat-gateway:problem:{}", error.code),
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail: error.detail.clone(),
        code: error.code.to_string(),
        request_id: request_id.to_owned(),
        errors: pointer
            .map(|pointer| FieldProblem { pointer, detail: error.detail.clone() })
            .into_iter()
            .collect(),
    };
    let body = serde_json::to_vec(&problem).expect("a problem is texts and numbers");
    let (mut parts, _) = response.into_parts();
    let headers = &mut parts.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.remove(header::CONTENT_LENGTH);
    if let Some(seconds) = error.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if error.kind == Kind::TooLarge {
        // The rest of the body stays unread, so the connection ends; the client must not use it again.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if error.kind == Kind::Unauthenticated {
        let challenge = HeaderValue::from_static("Bearer realm=\"peat-gateway\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    Response::from_parts(parts, Body::from(body))
}

/// An error with all its causes, for the log.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        write!(text, ": {next}").expect("writing to memory has no failure");
        cause = next.source();
    }
    text
}

pub(super) async fn unknown_path() -> Failure {
    Failure(Error::new(
        Kind::NotFound,
        "unknown_path",
        "there is nothing at this path; /openapi.json lists all paths",
    ))
}

pub(super) async fn wrong_method(method: Method) -> Failure {
    let detail = format!("{method} can't be done on this path; the header Allow says what can");
    Failure(Error::new(Kind::MethodNotAllowed, "method_not_allowed", detail))
}

pub(super) fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Failure(Error::internal(format!("a handler panicked: {text}"))).into_response()
}
