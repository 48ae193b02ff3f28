//! Subjects and the stream's name.

use std::fmt::Write;

use peat_gateway_state::ids::{AppId, DocumentKey};

use super::Target;

/// Returns the subject of a document's events. The document's key is one token.
pub(super) fn subject(target: &Target, app: &AppId, document: &DocumentKey) -> String {
    let Target { org, prefix, .. } = target;
    format!("{}.{prefix}.{}.{}", token(org.as_str()), token(app.as_str()), token(document.as_str()))
}

/// Returns the subjects that the stream must hold.
pub(super) fn wildcard(target: &Target) -> String {
    format!("{}.{}.>", token(target.org.as_str()), target.prefix)
}

/// Returns the stream's name: dots of the prefix become dashes, since names may hold none.
pub(super) fn stream_name(target: &Target) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let text = format!("peat-gw-cdc-{}-{}", target.org, target.prefix);
    text.chars().map(clean).collect()
}

/// Checks a prefix: `[A-Za-z0-9_-]+` tokens joined by dots.
///
/// # Errors
/// Says what is wrong.
pub(super) fn check_prefix(prefix: &str) -> Result<(), String> {
    let is_token = |token: &str| {
        !token.is_empty() && token.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    if prefix.split('.').all(is_token) {
        return Ok(());
    }
    Err("NATS subject prefix: must be tokens of letters, digits, '_' and '-', joined by dots"
        .into())
}

/// Writes text as one subject token, reversibly: what may not stand in a token, and `%` itself, as
/// `%` and two hex digits per byte.
pub(super) fn token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'>' | b'%');
        if is_plain {
            token.push(char::from(byte));
        } else {
            write!(token, "%{byte:02X}").expect("writing to a string has no failure");
        }
    }
    token
}

/// Whether a stream's subject pattern takes all that `wanted` (itself a pattern) takes.
pub(super) fn covers(pattern: &str, wanted: &str) -> bool {
    let mut wanted = wanted.split('.');
    for token in pattern.split('.') {
        match (token, wanted.next()) {
            (">", Some(_)) => return true,
            ("*", Some(other)) if other != ">" => {}
            (same, Some(other)) if same == other => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}
