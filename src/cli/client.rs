//! The HTTP client of the client verbs and of `dev`.
//!
//! Several URLs are tried in turn. A write carries one `Idempotency-Key` through all attempts, so that
//! trying the next node after a lost connection can't do it twice.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value;
use thiserror::Error;

use super::exit::Exit;
use crate::config::Secret;

/// Longest time to connect; the next URL is tried then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time for one answer. The server's own limits are shorter.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time without a byte in an answer that is streamed; the node counts rows before it begins.
pub const STREAM_STALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Largest body that is read; a larger answer is refused.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A call that brought no result.
#[derive(Debug, Error)]
pub enum CallError {
    /// The URL or the token can't be used.
    #[error("{0}")]
    Usage(String),
    /// No node was reached; nothing happened.
    #[error("could not reach {urls}: {reason}")]
    Unreachable {
        /// All that were tried.
        urls: String,
        /// Of the last one.
        reason: String,
    },
    /// A connection was lost after a write was sent; it may have happened.
    #[error("the connection to {url} was lost, the outcome is unknown: {reason}")]
    Lost {
        /// Which.
        url: String,
        /// Why.
        reason: String,
    },
    /// The gateway answered with a problem document.
    #[error("{detail} ({code})")]
    Problem {
        /// HTTP status.
        status: u16,
        /// The stable code.
        code: String,
        /// The reason for people.
        detail: String,
    },
    /// The answer is not what the API promises.
    #[error("{url} gave an answer that is not the gateway's: {reason}")]
    Unexpected {
        /// Which.
        url: String,
        /// What.
        reason: String,
    },
}

impl CallError {
    /// The exit code of a command that ends with this.
    pub fn exit(&self) -> Exit {
        match self {
            CallError::Usage(_) => Exit::Usage,
            CallError::Unreachable { .. } => Exit::Unavailable,
            CallError::Lost { .. } => Exit::UnknownOutcome,
            CallError::Problem { code, .. } if code == "unknown_outcome" => Exit::UnknownOutcome,
            CallError::Problem { status, .. } => Exit::of_status(*status),
            CallError::Unexpected { .. } => Exit::Failed,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The JSON body; `Null` where there is none.
    pub body: Value,
    /// Target of the `Link` header with `rel="next"`.
    pub next: Option<String>,
}

/// A request, before it is sent.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    segments: Vec<String>,
    query: Vec<(String, String)>,
    body: Option<Value>,
    revision: Option<u64>,
}

impl Call {
    /// A request on a path given by its segments, which are escaped.
    pub fn new(method: Method, segments: &[&str]) -> Self {
        let segments = segments.iter().map(|segment| (*segment).to_owned()).collect();
        Self { method, segments, query: Vec::new(), body: None, revision: None }
    }

    /// A read.
    pub fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a JSON body.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Demands a revision (`If-Match`).
    #[must_use]
    pub fn revision(mut self, revision: Option<u64>) -> Self {
        self.revision = revision;
        self
    }

    fn url(&self, base: &Url) -> Result<Url, CallError> {
        let mut url = base.clone();
        url.path_segments_mut()
            .map_err(|()| CallError::Usage(format!("{base} can't be a base of requests")))?
            .pop_if_empty()
            .extend(&self.segments);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

/// Talks to the nodes of one cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    urls: Vec<Url>,
    token: Option<Secret>,
}

/// An answer that is still arriving.
pub struct Streamed {
    response: reqwest::Response,
    url: String,
}

impl Streamed {
    /// Waits for the next bytes; `None` at the end.
    ///
    /// # Errors
    /// The connection was lost or nothing came for [`STREAM_STALL_TIMEOUT`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        let broken = |reason| CallError::Unexpected { url: self.url.clone(), reason };
        match tokio::time::timeout(STREAM_STALL_TIMEOUT, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(broken(format!("the stream broke off: {}", reason(&error)))),
            Err(_) => {
                let seconds = STREAM_STALL_TIMEOUT.as_secs();
                Err(broken(format!("nothing arrived for {seconds} s")))
            }
        }
    }
}

impl Client {
    /// Builds a client for `http(s)://host:port` URLs, tried in this order.
    ///
    /// # Errors
    /// A URL is malformed, or TLS can't start.
    pub fn new(urls: &[String], token: Option<Secret>) -> Result<Self, CallError> {
        let urls = urls
            .iter()
            .map(|text| match Url::parse(text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
                _ => Err(CallError::Usage(format!("{text:?} is not an http or https URL"))),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CallError::Usage(format!("could not start TLS: {error}")))?;
        Ok(Self { http, urls, token })
    }

    /// Sends a request to the first node that answers.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let key = ulid::Ulid::generate().to_string();
        let mut lost = None;
        let mut unreachable = String::from("no URL was given");
        for base in &self.urls {
            match self.request(base, &call, &key).send().await {
                Ok(response) => return read(base, response).await,
                Err(error) if error.is_builder() => {
                    return Err(CallError::Usage(reason(&error)));
                }
                // Only a connection that was never made is sure to have done nothing.
                Err(error) if error.is_connect() || call.method == Method::GET => {
                    unreachable = reason(&error);
                }
                Err(error) => {
                    lost = Some(CallError::Lost { url: base.to_string(), reason: reason(&error) });
                }
            }
        }
        Err(lost.unwrap_or_else(|| CallError::Unreachable {
            urls: self.urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", "),
            reason: unreachable,
        }))
    }

    /// Asks for an answer that is streamed, of the first node that gives it. It may take as long as
    /// something arrives within [`STREAM_STALL_TIMEOUT`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn stream(&self, call: Call) -> Result<Streamed, CallError> {
        let mut unreachable = String::from("no URL was given");
        for base in &self.urls {
            let url = call.url(base)?;
            let mut request = self.http.get(url);
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.expose());
            }
            match tokio::time::timeout(REQUEST_TIMEOUT, request.send()).await {
                Ok(Ok(response)) if response.status().is_success() => {
                    return Ok(Streamed { response, url: base.to_string() });
                }
                Ok(Ok(response)) => {
                    return Err(match read(base, response).await {
                        Err(error) => error,
                        Ok(_) => CallError::Unexpected {
                            url: base.to_string(),
                            reason: "the status changed".into(),
                        },
                    });
                }
                Ok(Err(error)) => unreachable = reason(&error),
                Err(_) => unreachable = "no answer in time".to_owned(),
            }
        }
        Err(CallError::Unreachable {
            urls: self.urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", "),
            reason: unreachable,
        })
    }

    /// Returns the items of one page of a list.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn page(&self, call: Call) -> Result<Vec<Value>, CallError> {
        let mut answer = self.call(call).await?;
        page_items(&mut answer.body).ok_or_else(|| self.no_list())
    }

    /// Follows a list from page to page and returns all its items.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn list(&self, call: Call) -> Result<Vec<Value>, CallError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = match &cursor {
                Some(cursor) => call.clone().query("cursor", cursor),
                None => call.clone(),
            };
            let mut answer = self.call(page).await?;
            let Some(page) = page_items(&mut answer.body) else {
                return Err(self.no_list());
            };
            items.extend(page);
            cursor = next_cursor(&answer);
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    fn no_list(&self) -> CallError {
        CallError::Unexpected {
            url: self.urls.first().map(Url::to_string).unwrap_or_default(),
            reason: "expected a list".into(),
        }
    }

    fn request(&self, base: &Url, call: &Call, key: &str) -> reqwest::RequestBuilder {
        // A path that can't be built shows up as a builder error when it is sent.
        let url = call.url(base).map(|url| url.to_string()).unwrap_or_default();
        let mut request = self.http.request(call.method.clone(), url).timeout(REQUEST_TIMEOUT);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let mut headers = HeaderMap::new();
        if call.method != Method::GET
            && let Ok(key) = HeaderValue::from_str(key)
        {
            headers.insert("idempotency-key", key);
        }
        if let Some(revision) = call.revision
            && let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\""))
        {
            headers.insert("if-match", tag);
        }
        request.headers(headers)
    }
}

fn page_items(body: &mut Value) -> Option<Vec<Value>> {
    match body.take() {
        Value::Array(items) => Some(items),
        Value::Object(mut object) => match object.remove("items") {
            Some(Value::Array(items)) => {
                *body = Value::Object(object);
                Some(items)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The cursor of the next page: in the body, or in the `Link` header.
fn next_cursor(answer: &Answer) -> Option<String> {
    if let Some(cursor) = answer.body.get("next_cursor").and_then(Value::as_str) {
        return Some(cursor.to_owned());
    }
    let base = Url::parse("http://localhost").ok()?;
    let next = base.join(answer.next.as_deref()?).ok()?;
    next.query_pairs().find(|(name, _)| name == "cursor").map(|(_, cursor)| cursor.into_owned())
}

async fn read(base: &Url, response: reqwest::Response) -> Result<Answer, CallError> {
    let status = response.status();
    let next = response.headers().get("link").and_then(|link| next_link(link.to_str().ok()?));
    let unexpected = |reason: String| CallError::Unexpected { url: base.to_string(), reason };
    let body = read_body(response).await.map_err(unexpected)?;
    let json: Value = if body.is_empty() {
        Value::Null
    } else {
        match serde_json::from_slice(&body) {
            Ok(json) => json,
            Err(error) => return Err(unexpected(format!("status {status}, {error}"))),
        }
    };
    if status.is_success() {
        return Ok(Answer { body: json, next });
    }
    let text = |field: &str| json.get(field).and_then(Value::as_str).map(str::to_owned);
    Err(CallError::Problem {
        status: status.as_u16(),
        code: text("code").unwrap_or_else(|| status.as_str().to_owned()),
        detail: text("detail")
            .or_else(|| text("title"))
            .unwrap_or_else(|| format!("the gateway answered {status}")),
    })
}

async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("more than {BODY_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The target of `rel="next"` in a `Link` header.
fn next_link(header: &str) -> Option<String> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.split_once('>')?;
        parameters
            .contains("rel=\"next\"")
            .then(|| target.trim().trim_start_matches('<').to_owned())
    })
}

/// The last cause: reqwest's own text says only that something went wrong, and where.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_escaped_and_a_base_path_is_kept() {
        let base = Url::parse("http://localhost:1/office/").unwrap();
        let call = Call::get(&["orgs", "a/b", "units:é"]).query("limit", 5);
        let url = call.url(&base).unwrap();
        assert_eq!(url.as_str(), "http://localhost:1/office/orgs/a%2Fb/units:%C3%A9?limit=5");
    }

    #[test]
    fn the_next_page_is_found_in_header_or_body() {
        let answer = Answer {
            body: Value::Null,
            next: next_link("</a>; rel=\"prev\", </orgs?cursor=a%20b&limit=2>; rel=\"next\""),
        };
        assert_eq!(next_cursor(&answer).as_deref(), Some("a b"));
        let answer = Answer { body: serde_json::json!({"next_cursor": "x"}), next: None };
        assert_eq!(next_cursor(&answer).as_deref(), Some("x"));
        let answer = Answer { body: serde_json::json!([]), next: None };
        assert_eq!(next_cursor(&answer), None);
    }

    #[test]
    fn every_failure_has_the_exit_code_of_its_kind() {
        let problem = |status, code: &str| {
            CallError::Problem { status, code: code.into(), detail: String::new() }.exit()
        };
        assert_eq!(problem(404, "not_found"), Exit::NotFound);
        assert_eq!(problem(409, "already_exists"), Exit::Refused);
        assert_eq!(problem(401, "unauthenticated"), Exit::Forbidden);
        assert_eq!(problem(429, "quota_exceeded"), Exit::Unavailable);
        assert_eq!(problem(503, "unknown_outcome"), Exit::UnknownOutcome);
        assert_eq!(problem(500, "internal"), Exit::Failed);
    }

    #[tokio::test]
    async fn the_next_url_is_tried_and_all_failing_is_unavailable() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let closed = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
        let live = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", live.local_addr().unwrap());
        let router = axum::Router::new()
            .route("/orgs", axum::routing::get(|| async { axum::Json(serde_json::json!([1, 2])) }));
        let server = tokio::spawn(async move { axum::serve(live, router).await });
        let client = Client::new(&[closed(), url], None).unwrap();
        assert_eq!(client.list(Call::get(&["orgs"])).await.unwrap().len(), 2);
        server.abort();
        let client = Client::new(&[closed(), closed()], None).unwrap();
        let error = client.call(Call::get(&["orgs"])).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Unavailable, "{error}");
    }
}
