//! What all routes read alike: ids, query parameters, bodies and conditions.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::LengthLimitError;
use peat_gateway_cluster::Consistency;
use peat_gateway_state::command::{IDEMPOTENCY_KEY_BYTES_MAX, Idempotency};
use peat_gateway_state::ids::Hash32;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use super::Api;
use super::layers::Asker;
use super::problem::Failure;
use crate::service::{Call, Error, Kind, Principal};

/// The header of a demanded index.
const MIN_INDEX: HeaderName = HeaderName::from_static("x-peat-min-index");
/// The header of an idempotency key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Entries of a page where the request names no limit.
const PAGE_LIMIT_DEFAULT: usize = 100;
/// Most entries of a page; a larger limit is refused.
const PAGE_LIMIT_MAX: usize = 1000;

/// Ids from the path.
pub(super) struct Ids<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Ids<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failure> {
        let ids = Path::from_request_parts(parts, api).await;
        ids.map(|Path(ids)| Self(ids)).map_err(|rejection| {
            Failure(Error::new(Kind::Invalid, "invalid_path", rejection.body_text()))
        })
    }
}

/// A read: who asks, how new the answer must be, and the route's own parameters.
pub(super) struct Ask<P> {
    pub(super) call: Call,
    pub(super) parameters: P,
}

impl<P: Parameters> FromRequestParts<Api> for Ask<P> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Failure> {
        let mut pairs = Pairs::of(&parts.uri)?;
        let consistency = Consistency {
            min_index: min_index(&mut pairs, &parts.headers)?,
            ..staleness(&mut pairs)?
        };
        let parameters = P::take(&mut pairs, &parts.headers)?;
        pairs.finish()?;
        Ok(Self { call: call(parts, consistency, None), parameters })
    }
}

/// A write: who asks, the body, and the condition.
pub(super) struct Order<B> {
    pub(super) call: Call,
    pub(super) body: B,
    /// The revision of `If-Match`; `None` where there is no condition.
    pub(super) expected_revision: Option<u64>,
}

impl<B: Readable> FromRequest<Api> for Order<B> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let bytes = axum::body::to_bytes(body, super::BODY_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| Failure(unreadable(&error)))?;
        let mut pairs = Pairs::of(&parts.uri)?;
        let min_index = min_index(&mut pairs, &parts.headers)?;
        pairs.finish()?;
        let expected_revision = if_match(&parts.headers)?;
        let idempotency = idempotency(&parts, &bytes)?;
        let body = B::read(&parts.headers, &bytes)?;
        let consistency = Consistency { min_index, ..Consistency::default() };
        Ok(Self { call: call(&parts, consistency, idempotency), body, expected_revision })
    }
}

fn call(parts: &Parts, consistency: Consistency, idempotency: Option<Idempotency>) -> Call {
    let asker = parts.extensions.get::<Asker>();
    Call {
        principal: asker.map_or(Principal::Anonymous, |asker| asker.principal),
        source: asker.map(|asker| asker.source.clone()).unwrap_or_default(),
        request_id: asker.map(|asker| asker.request_id.clone()).unwrap_or_default(),
        idempotency,
        consistency,
    }
}

/// What a body may be.
pub(super) trait Readable: Sized {
    fn read(headers: &HeaderMap, bytes: &Bytes) -> Result<Self, Error>;
}

/// No body, or an empty object.
pub(super) struct Empty;

impl Readable for Empty {
    fn read(_: &HeaderMap, bytes: &Bytes) -> Result<Self, Error> {
        match bytes.trim_ascii() {
            b"" | b"{}" => Ok(Self),
            _ => Err(Error::new(
                Kind::Invalid,
                "unexpected_body",
                "this request takes no body; leave it empty",
            )),
        }
    }
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> Readable for Body<T> {
    fn read(headers: &HeaderMap, bytes: &Bytes) -> Result<Self, Error> {
        if !is_json(headers) {
            return Err(Error::new(
                Kind::UnsupportedMediaType,
                "unsupported_media_type",
                "the body must be JSON: send `Content-Type: application/json`",
            ));
        }
        Json::from_bytes(bytes).map(|Json(value)| Self(value)).map_err(|rejection| {
            let detail = cause(&rejection);
            match rejection {
                JsonRejection::JsonDataError(_) => {
                    let pointer = pointer(&detail);
                    let error = Error::new(Kind::Unprocessable, "invalid_body", detail);
                    Error { pointer, ..error }
                }
                _ => Error::new(Kind::Invalid, "malformed_json", detail),
            }
        })
    }
}

/// A JSON body, or none: then the type's default.
pub(super) struct BodyOrNothing<T>(pub(super) T);

impl<T: DeserializeOwned + Default> Readable for BodyOrNothing<T> {
    fn read(headers: &HeaderMap, bytes: &Bytes) -> Result<Self, Error> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        Body::read(headers, bytes).map(|Body(value)| Self(value))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The innermost cause: what the parser itself says.
fn cause(rejection: &dyn std::error::Error) -> String {
    match rejection.source() {
        Some(source) => source.to_string(),
        None => rejection.to_string(),
    }
}

/// The JSON pointer in a parser's text `sink_type.Webhook.url: invalid type …`.
fn pointer(detail: &str) -> Option<String> {
    let (path, _) = detail.split_once(": ")?;
    let named =
        path != "." && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.[]-".contains(&b));
    named.then(|| format!("/{}", path.replace(['.', '['], "/").replace(']', "")))
}

fn unreadable(error: &axum::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            let detail = format!("the body is larger than {} bytes", super::BODY_BYTES_MAX);
            return Error::new(Kind::TooLarge, "too_large", detail);
        }
        cause = error.source();
    }
    Error::new(Kind::Invalid, "unreadable_body", format!("could not read the body: {error}"))
}

/// Reads `If-Match`: one strong entity tag of ours, or `*`.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = || {
        Error::new(
            Kind::Invalid,
            "invalid_if_match",
            "If-Match must be one entity tag as in the header ETag: a number in double quotes",
        )
    };
    let tag = value.to_str().map_err(|_| malformed())?.trim();
    if values.next().is_some() {
        return Err(malformed());
    }
    if tag == "*" {
        return Ok(None);
    }
    let (weak, tag) = tag.strip_prefix("W/").map_or((false, tag), |tag| (true, tag));
    let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let digits = quoted.filter(|tag| tag.bytes().all(|b| b.is_ascii_digit()));
    let revision: u64 = digits.and_then(|tag| tag.parse().ok()).ok_or_else(malformed)?;
    if weak {
        // Weak tags never match in If-Match. (RFC 9110 §13.1.1)
        let detail = "a weak entity tag never matches; send the header ETag as it was";
        return Err(Error::new(Kind::PreconditionFailed, "precondition_failed", detail));
    }
    Ok(Some(revision))
}

fn idempotency(parts: &Parts, body: &[u8]) -> Result<Option<Idempotency>, Error> {
    let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.to_str().ok().filter(|_| values.next().is_none());
    let key = key.filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    let Some(key) = key else {
        let detail = format!(
            "Idempotency-Key must be one value of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable \
             ASCII characters"
        );
        return Err(Error::new(Kind::Invalid, "invalid_idempotency_key", detail));
    };
    let mut hasher = Sha256::new();
    for part in [parts.method.as_str().as_bytes(), parts.uri.path().as_bytes(), body] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let request_digest = Hash32(hasher.finalize().into());
    Ok(Some(Idempotency { key: key.to_owned(), request_digest }))
}

/// The query's parameters; each may occur once, and none may be left over.
pub(super) struct Pairs(BTreeMap<String, String>);

impl Pairs {
    fn of(uri: &Uri) -> Result<Self, Error> {
        if uri.query().is_none_or(str::is_empty) {
            return Ok(Self(BTreeMap::new()));
        }
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|rejection| {
            Error::new(Kind::Invalid, "invalid_query", rejection.body_text())
        })?;
        let mut kept = BTreeMap::new();
        for (name, value) in pairs.0 {
            if kept.contains_key(&name) {
                return Err(invalid_parameter(&name, "was given twice"));
            }
            kept.insert(name, value);
        }
        Ok(Self(kept))
    }

    /// Takes a parameter.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Takes a number.
    pub(super) fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| invalid_parameter(name, "is not a number in its range"))
    }

    fn finish(self) -> Result<(), Error> {
        match self.0.keys().next() {
            Some(name) => Err(invalid_parameter(name, "is not known here")),
            None => Ok(()),
        }
    }
}

pub(super) fn invalid_parameter(name: &str, why: &str) -> Error {
    let name = name.get(..name.floor_char_boundary(64)).unwrap_or_default();
    Error::new(Kind::Invalid, "invalid_query", format!("the query parameter '{name}' {why}"))
}

fn min_index(pairs: &mut Pairs, headers: &HeaderMap) -> Result<u64, Error> {
    let from_query: Option<u64> = pairs.number("min_index")?;
    let from_header = match headers.get(MIN_INDEX) {
        Some(value) => {
            let number = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
            Some(number.ok_or_else(|| {
                let detail = "the header x-peat-min-index is not a number";
                Error::new(Kind::Invalid, "invalid_min_index", detail)
            })?)
        }
        None => None,
    };
    Ok(from_query.max(from_header).unwrap_or_default())
}

fn staleness(pairs: &mut Pairs) -> Result<Consistency, Error> {
    let max_staleness_ms: Option<u64> = pairs.number("max_staleness_ms")?;
    let stale = match pairs.take("consistency").as_deref() {
        None | Some("linearizable") => false,
        Some("stale") => true,
        Some(_) => {
            return Err(invalid_parameter("consistency", "must be 'linearizable' or 'stale'"));
        }
    };
    if max_staleness_ms.is_some() && !stale {
        return Err(invalid_parameter("max_staleness_ms", "needs consistency=stale"));
    }
    let max_staleness = max_staleness_ms.map(Duration::from_millis);
    Ok(Consistency { stale, max_staleness, min_index: 0 })
}

/// A route's own query parameters.
pub(super) trait Parameters: Sized {
    fn take(pairs: &mut Pairs, headers: &HeaderMap) -> Result<Self, Error>;
}

impl Parameters for () {
    fn take(_: &mut Pairs, _: &HeaderMap) -> Result<Self, Error> {
        Ok(())
    }
}

/// Which part of a listing is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Most entries: 1 to 1000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    pub(super) limit: usize,
    /// Where the page before ended: opaque, from its header `Link`.
    pub(super) cursor: Option<String>,
}

impl Parameters for PageQuery {
    fn take(pairs: &mut Pairs, _: &HeaderMap) -> Result<Self, Error> {
        let cursor = match pairs.take("cursor") {
            Some(opaque) => Some(
                URL_SAFE_NO_PAD
                    .decode(opaque)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or_else(|| {
                        invalid_parameter("cursor", "is not one that a header Link gave")
                    })?,
            ),
            None => None,
        };
        Ok(Self { limit: limit(pairs)?, cursor })
    }
}

/// Takes the limit of a page.
pub(super) fn limit(pairs: &mut Pairs) -> Result<usize, Error> {
    let limit = pairs.number("limit")?.unwrap_or(PAGE_LIMIT_DEFAULT);
    if (1..=PAGE_LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(invalid_parameter("limit", &format!("must be 1 to {PAGE_LIMIT_MAX}")))
}

/// Makes the cursor of the page after an entry.
pub(super) fn cursor_after(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}
