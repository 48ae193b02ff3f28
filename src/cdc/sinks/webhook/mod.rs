//! The webhook sink: an HTTP POST per event, signed as Standard Webhooks 1.0.0 says.
//!
//! ```text
//!  POST <url>
//!  content-type: application/json            webhook-id: <event id, hex>
//!  webhook-timestamp: <unix s>               webhook-signature: v1,<base64 HMAC-SHA256> …
//!  user-agent: peat-gateway/<version>        x-peat-epoch: <epoch of the sending leader>
//! ```
//!
//! Only a 2xx acknowledges. Redirects are never followed, since they would lead past the address
//! check in [`address`]. Receivers deduplicate by `webhook-id`, and may fence by `x-peat-epoch`.

mod address;
mod credentials;
mod retry_after;
mod signature;

#[cfg(test)]
pub(crate) mod tests;

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use peat_gateway_state::ids::Epoch;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, Url};

use super::{BuildError, Delivery, Destination, Failure, FailureClass, Receipt, Shape};
use credentials::Credentials;

/// How long connecting may take, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt may take, the response's body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes of a response's body that are read; then the connection is closed.
const RESPONSE_BYTES_MAX: usize = 64 << 10;
/// Most characters of a refusing response's body that are shown in the log.
const EXCERPT_CHARACTERS: usize = 200;
/// Requests that run at the same time.
const REQUESTS_MAX: usize = 16;
/// Lanes; more than requests, so that parked ones take no request's place.
const LANES: usize = 256;
/// Connections that are kept open without a request, and for how long.
const IDLE_CONNECTIONS_MAX: usize = 8;
const IDLE_CONNECTION_TIME: Duration = Duration::from_secs(60);

/// An HTTP endpoint.
pub(crate) struct WebhookDestination {
    client: Client,
    url: Url,
    credentials: Credentials,
    /// Sent with every request.
    headers: HeaderMap,
    allow_private: bool,
}

impl WebhookDestination {
    /// Checks the URL and the credentials.
    ///
    /// # Errors
    /// One of them can't be used.
    pub(crate) fn new(
        url: &str,
        credentials: Option<&[u8]>,
        epoch: Epoch,
        allow_private: bool,
    ) -> Result<Self, BuildError> {
        let url = Url::parse(url).map_err(|error| BuildError(format!("webhook url: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BuildError("webhook url: the scheme must be http or https".into()));
        }
        let credentials = match credentials {
            Some(json) => Credentials::parse(json)?,
            None => Credentials::default(),
        };
        let mut headers = custom_headers(&credentials)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-peat-epoch", HeaderValue::from(epoch.0));
        // Another part of the process may have installed it already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .user_agent(concat!("peat-gateway/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION_TIME)
            .dns_resolver(address::GuardedResolver { allow_private })
            .build()
            .map_err(|error| BuildError(format!("could not build the HTTP client: {error}")))?;
        Ok(Self { client, url, credentials, headers, allow_private })
    }

    async fn post(&self, delivery: &Delivery) -> Result<Receipt, Failure> {
        if !self.allow_private {
            // A literal address is never resolved, so the resolver can't refuse it.
            address::check_host(&self.url)
                .map_err(|reason| Failure::new(FailureClass::Down, reason))?;
        }
        let id = delivery.event_id.to_string();
        let timestamp = unix_seconds();
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp);
        if !self.credentials.secrets.is_empty() {
            let secrets = &self.credentials.secrets;
            let signature = signature::sign(secrets, &id, timestamp, &delivery.body);
            request = request.header("webhook-signature", signature);
        }
        let response = request.body(delivery.body.clone()).send().await;
        let response = response.map_err(|error| transport_failure(&error.without_url()))?;
        answer(response).await
    }
}

impl Destination for WebhookDestination {
    fn shape(&self) -> Shape {
        Shape { lanes: LANES, attempts_max: REQUESTS_MAX, batch_events: 1, batch_bytes: usize::MAX }
    }

    fn deliver<'a>(&'a self, batch: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, Failure>> {
        Box::pin(async move {
            for delivery in batch {
                self.post(delivery).await?;
            }
            Ok(Receipt::default())
        })
    }
}

/// Reads a bounded part of the response and decides what it means.
async fn answer(mut response: Response) -> Result<Receipt, Failure> {
    let status = response.status();
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = asked.and_then(|text| retry_after::parse(text, SystemTime::now()));
    let body = read_bounded(&mut response).await;
    if status.is_success() {
        return Ok(Receipt::default());
    }
    let class = match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => FailureClass::Transient,
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED => FailureClass::Down,
        StatusCode::GONE => FailureClass::Gone,
        _ if status.is_server_error() => FailureClass::Transient,
        _ => FailureClass::Rejected,
    };
    let what = if status.is_redirection() { " (redirects are not followed)" } else { "" };
    let text = String::from_utf8_lossy(&body);
    let excerpt: String = text.chars().take(EXCERPT_CHARACTERS).collect();
    let reason = format!("the endpoint answered {status}{what}: {excerpt:?}");
    Err(Failure { class, reason, retry_after })
}

/// Reads at most [`RESPONSE_BYTES_MAX`] of the body. An unfinished body changes no answer.
async fn read_bounded(response: &mut Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = RESPONSE_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() >= RESPONSE_BYTES_MAX {
            break;
        }
    }
    body
}

/// What a request that got no response says about other events.
fn transport_failure(error: &reqwest::Error) -> Failure {
    let class = if error.is_connect() { FailureClass::Down } else { FailureClass::Transient };
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        reason = format!("{reason}: {next}");
        cause = next.source();
    }
    Failure::new(class, reason)
}

/// The headers that the credentials ask for. Those that carry the protocol can't be chosen.
fn custom_headers(credentials: &Credentials) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &credentials.headers {
        let refused = |why: &str| BuildError(format!("webhook header '{name}': {why}"));
        let header: HeaderName = name.parse().map_err(|_| refused("not a header name"))?;
        // `content-type` and `x-peat-epoch` may stand here: our own replace them.
        let is_ours = matches!(
            header.as_str(),
            "connection"
                | "content-length"
                | "host"
                | "transfer-encoding"
                | "webhook-id"
                | "webhook-signature"
                | "webhook-timestamp"
        );
        if is_ours {
            return Err(refused("it is set by the gateway"));
        }
        headers.insert(header, secret_value(value).ok_or_else(|| refused("not a header value"))?);
    }
    if let Some(bearer) = &credentials.bearer {
        let value = secret_value(&format!("Bearer {}", bearer.as_str()));
        let value = value.ok_or_else(|| BuildError("webhook bearer: not a header value".into()))?;
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// A header value that is not shown in logs.
fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
