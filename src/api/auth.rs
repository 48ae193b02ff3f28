//! Who asks: a token where one is configured, else the node's own machine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderMap, Uri, header};
use reqwest::Url;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::service::access::unauthenticated;
use crate::service::{Error, Kind, Principal};

/// Routes that anybody may ask: what probes and scrapers need. Nothing here shows an organisation.
pub(super) const PUBLIC: &[&str] = &["/livez", "/readyz", "/health", "/metrics"];

/// Headers that show that a request came through a proxy, so that its connection says nothing.
const PROXY_HEADERS: &[&str] = &["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Who is let in.
#[derive(Clone, Debug)]
pub enum Access {
    /// Holders of one of these tokens.
    Tokens(Tokens),
    /// Processes on this machine: a loopback address, a loopback `Host` (so that no web page can
    /// reach in by a name that it resolves to loopback), no foreign `Origin`, no proxy.
    Loopback,
    /// Everybody. For closed test networks only.
    Open,
}

/// Administrators' tokens. Only their hashes are kept. Clones share them: a replacement counts for all.
#[derive(Clone)]
pub struct Tokens(Arc<RwLock<Vec<[u8; 32]>>>);

impl Tokens {
    /// Takes tokens; an empty one lets nobody in.
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        Self(Arc::new(RwLock::new(hashes(tokens))))
    }

    /// Lets these in from now on, and no others; `false` where they are the same.
    pub fn replace<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) -> bool {
        let new = hashes(tokens);
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *kept != new;
        *kept = new;
        changed
    }

    /// Compares with every token, each in constant time.
    fn contain(&self, presented: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().fold(Choice::from(0), |found, token| found | token.ct_eq(&digest));
        found.into()
    }

    fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn hashes<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Vec<[u8; 32]> {
    let kept = tokens.into_iter().filter(|token| !token.is_empty());
    kept.map(|token| Sha256::digest(token.as_bytes()).into()).collect()
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tokens({} redacted)", self.len())
    }
}

/// The client's address without port; empty where it is unknown.
pub(super) fn source(request: &Request) -> String {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or_else(String::new, |peer| peer.0.ip().to_canonical().to_string())
}

/// Finds out who asks. Unknown paths are told so to anybody.
///
/// # Errors
/// Who asks may ask nothing.
pub(super) fn authenticate(
    access: &Access,
    route: Option<&MatchedPath>,
    request: &Request,
) -> Result<Principal, Error> {
    match route {
        Some(route) if !PUBLIC.contains(&route.as_str()) => identify(access, request),
        _ => Ok(Principal::Anonymous),
    }
}

fn identify(access: &Access, request: &Request) -> Result<Principal, Error> {
    match access {
        Access::Open => Ok(Principal::Open),
        Access::Loopback => check_loopback(request).map(|()| Principal::Loopback).map_err(|why| {
            let detail = format!(
                "no token is configured, so only this machine is served, and {why}; set \
                     PEAT_ADMIN_TOKEN to serve others"
            );
            Error::new(Kind::Forbidden, "loopback_only", detail)
        }),
        Access::Tokens(tokens) => match bearer(request.headers()) {
            Some(token) if tokens.contain(token) => Ok(Principal::Admin),
            _ => Err(unauthenticated()),
        },
    }
}

/// The token of the one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn check_loopback(request: &Request) -> Result<(), &'static str> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if !peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback()) {
        return Err("the request came from another one");
    }
    if PROXY_HEADERS.iter().any(|name| request.headers().contains_key(*name)) {
        return Err("the request came through a proxy");
    }
    if !host(request.uri(), request.headers()).is_some_and(is_loopback_host) {
        return Err("the request's Host is not a loopback name");
    }
    let origin = request.headers().get(header::ORIGIN);
    if origin.is_some_and(|origin| !is_loopback_origin(origin.as_bytes())) {
        return Err("the request was made by a web page of another host");
    }
    Ok(())
}

/// The host that the client named, without port.
fn host<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Option<&'r str> {
    if let Some(host) = uri.host() {
        return Some(host);
    }
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let value = value.to_str().ok()?;
    match value.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, _)| host),
        None => Some(value.split(':').next().unwrap_or(value)),
    }
}

fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn is_loopback_origin(origin: &[u8]) -> bool {
    std::str::from_utf8(origin)
        .ok()
        .and_then(|origin| Url::parse(origin).ok())
        .and_then(|origin| origin.host_str().map(is_loopback_host))
        .unwrap_or(false)
}
