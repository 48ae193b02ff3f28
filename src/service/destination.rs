//! Where a sink may send: what is checked before it is proposed.
//!
//! A webhook is a request that the gateway makes for whoever may create a sink. So a URL that names
//! an address of the gateway's own surroundings is refused. A name that resolves to such an address
//! can only be seen when it is resolved: the delivering client checks each address again with
//! [`is_public`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use peat_gateway_state::ids::AppId;
use peat_gateway_state::record::{SINK_TEXT_BYTES_MAX, SinkKind};
use reqwest::Url;

use super::{Error, Settings};

/// Checks a destination.
///
/// # Errors
/// `invalid_sink_type`, with the field.
pub fn check(kind: &SinkKind, settings: &Settings) -> Result<(), Error> {
    match kind {
        SinkKind::File { name } => AppId::parse(name).map(drop).map_err(|invalid| {
            let why = invalid.0.replacen("app_id", "name", 1);
            refuse("File/name", &why)
        }),
        SinkKind::Webhook { url } => check_webhook(url, settings),
        SinkKind::Nats { url, subject_prefix } => {
            check_nats(url)?;
            check_subject_prefix(subject_prefix)
        }
    }
}

/// Whether two destinations are the same server: credentials for one may go to the other.
pub fn same_server(one: &SinkKind, other: &SinkKind) -> bool {
    match (one, other) {
        (SinkKind::Webhook { url: one }, SinkKind::Webhook { url: other })
        | (SinkKind::Nats { url: one, .. }, SinkKind::Nats { url: other, .. }) => {
            let server = |url: &str| {
                Url::parse(url).ok().map(|url| {
                    let host = url.host_str().unwrap_or_default().to_owned();
                    (url.scheme().to_owned(), host, url.port_or_known_default())
                })
            };
            one == other || server(one).is_some_and(|one| Some(one) == server(other))
        }
        _ => true,
    }
}

fn check_webhook(url: &str, settings: &Settings) -> Result<(), Error> {
    const FIELD: &str = "Webhook/url";
    let url = parse(FIELD, url, &["http", "https"])?;
    if url.fragment().is_some() {
        return Err(refuse(FIELD, "the URL must not have a fragment"));
    }
    if settings.webhook_allow_private {
        return Ok(());
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local_name = host == "localhost" || host.ends_with(".localhost");
    // The parser has turned every spelling of an address (octal, hexadecimal, short) into this one.
    let private = bare.parse::<IpAddr>().is_ok_and(|address| !is_public(address));
    if local_name || private {
        return Err(refuse(
            FIELD,
            "the URL must not name a loopback, link-local, private or otherwise special address; \
             set PEAT_WEBHOOK_ALLOW_PRIVATE to allow it",
        ));
    }
    Ok(())
}

fn check_nats(url: &str) -> Result<(), Error> {
    if url.is_empty() {
        return Ok(());
    }
    let parsed = parse("Nats/url", url, &["nats", "tls"])?;
    if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
        return Err(refuse("Nats/url", "the URL must be only nats://host:port or tls://host:port"));
    }
    Ok(())
}

fn check_subject_prefix(prefix: &str) -> Result<(), Error> {
    let token = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if prefix.len() <= SINK_TEXT_BYTES_MAX && prefix.split('.').all(token) {
        return Ok(());
    }
    Err(refuse(
        "Nats/subject_prefix",
        "the subject prefix must be tokens of letters, digits, '_' and '-', joined by dots",
    ))
}

fn parse(field: &str, text: &str, schemes: &[&str]) -> Result<Url, Error> {
    if text.len() > SINK_TEXT_BYTES_MAX {
        let why = format!("the URL must have at most {SINK_TEXT_BYTES_MAX} bytes");
        return Err(refuse(field, &why));
    }
    let url = Url::parse(text)
        .map_err(|error| refuse(field, &format!("the URL must be absolute: {error}")))?;
    if !schemes.contains(&url.scheme()) {
        let why = format!("the URL must begin with {}", schemes.join(":// or ") + "://");
        return Err(refuse(field, &why));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse(field, "the URL must name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The URL stands in clear in the state and in answers.
        return Err(refuse(field, "the URL must not hold credentials; use the field credentials"));
    }
    Ok(url)
}

fn refuse(field: &str, why: &str) -> Error {
    Error::field("invalid_sink_type", &format!("/sink_type/{field}"), why)
}

/// Whether an address is one of the public internet: not loopback, private, link-local, shared,
/// multicast, reserved or unspecified, in IPv4, IPv6 or IPv4 carried in IPv6.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0 // "this network"
        || a >= 240 // reserved, and broadcast
        || (a == 100 && (64..128).contains(&b)) // shared by carriers (RFC 6598)
        || (a == 192 && b == 0 && c == 0) // IETF protocols (RFC 6890)
        || (a == 198 && (18..20).contains(&b)); // benchmarks (RFC 2544)
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [first, second, ..] = segments;
    let [.., high, low] = segments;
    let carried = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if address.to_ipv4_mapped().is_some() || segments.starts_with(&[0x64, 0xff9b, 0, 0, 0, 0]) {
        return is_public_v4(carried);
    }
    if first == 0x2002 {
        // 6to4 carries the address in the two segments after the prefix.
        let [_, high, low, ..] = segments;
        return is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    }
    let global_unicast = first & 0xe000 == 0x2000;
    let documentation = first == 0x2001 && second == 0x0db8;
    let protocols = first == 0x2001 && second < 0x0200;
    global_unicast && !documentation && !protocols
}
