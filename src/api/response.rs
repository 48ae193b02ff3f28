//! What all routes answer alike: JSON, the index, the entity tag and the next page.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::layers::INDEX;
use super::problem::Failure;
use crate::service::{Error, Reply};

/// Room for the headers of an answer, those that layers and HTTP add included.
const HEADERS: usize = 8;

/// What a handler gives back.
pub(super) type Answer<T> = Result<Shown<T>, Failure>;

/// A value on its way out.
#[derive(Debug)]
pub(super) struct Shown<T> {
    status: StatusCode,
    value: Option<T>,
    headers: HeaderMap,
}

impl<T> Shown<T> {
    /// Shows a use case's answer.
    pub(super) fn of<V>(reply: Reply<V>, show: impl FnOnce(V) -> T) -> Self {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(INDEX, reply.index.into());
        Self { status: StatusCode::OK, value: Some(show(reply.value)), headers }
    }

    /// Shows that something is gone.
    pub(super) fn nothing(reply: Reply<()>) -> Self {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(INDEX, reply.index.into());
        Self { status: StatusCode::NO_CONTENT, value: None, headers }
    }

    /// Says that it was created, and where.
    pub(super) fn created(mut self, location: &str) -> Self {
        self.status = StatusCode::CREATED;
        self.header(header::LOCATION, location);
        self
    }

    /// Adds the entity tag.
    pub(super) fn tagged(mut self, revision: u64) -> Self {
        self.header(header::ETAG, &format!("\"{revision}\""));
        self
    }

    /// Forbids storing: the answer shows a secret.
    pub(super) fn secret(mut self) -> Self {
        self.header(header::CACHE_CONTROL, "no-store");
        self
    }

    /// Says where the next page is; `None` where there is none.
    pub(super) fn followed_by(mut self, next: Option<String>) -> Self {
        if let Some(next) = next {
            self.header(header::LINK, &format!("<{next}>; rel=\"next\""));
        }
        self
    }

    fn header(&mut self, name: header::HeaderName, value: &str) {
        // Ids are plain ASCII and cursors base64; anything else is left out, not sent broken.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }
}

impl<T: Serialize> IntoResponse for Shown<T> {
    fn into_response(self) -> Response {
        let Self { status, value, mut headers } = self;
        let mut response = match value.map(|value| serde_json::to_vec(&value)) {
            Some(Ok(json)) => {
                let json_type = HeaderValue::from_static("application/json");
                headers.insert(header::CONTENT_TYPE, json_type);
                Response::new(Body::from(json))
            }
            Some(Err(error)) => {
                let error = format!("could not write the answer as JSON: {error}");
                return Failure(Error::internal(error)).into_response();
            }
            None => Response::new(Body::empty()),
        };
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
