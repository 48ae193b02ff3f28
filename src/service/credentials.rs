//! A sink's credentials: what is given, checked, sealed, and opened again by delivery.
//!
//! The JSON that is sealed, by kind of sink; delivery reads the same (`cdc/sinks/*/credentials.rs`):
//!
//! ```text
//!   Webhook  {"signing_secrets":["whsec_…"], "bearer"?:"…", "headers"?:{"X-Name":"…"}}
//!   Nats     {"user":"…","password":"…"} | {"token":"…"} | {"creds":"<text of a .creds file>"}
//!   File     none
//! ```

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peat_gateway_state::record::SinkKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::Error;

/// What a webhook's signing secret begins with. (Standard Webhooks 1.0.0)
const SIGNING_SECRET_PREFIX: &str = "whsec_";
/// Bytes that a signing secret may have, decoded. (Standard Webhooks 1.0.0)
const SIGNING_SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of a signing secret that is made here.
const FRESH_SIGNING_SECRET_BYTES: usize = 32;
/// Most custom headers of a webhook; more are refused.
pub const HEADERS_MAX: usize = 16;
/// Most bytes of one credential; a longer one is refused.
pub const CREDENTIAL_BYTES_MAX: usize = 8 << 10;

/// Headers that a webhook can't have as custom ones: the request's own, or those of its signature.
const HEADERS_OF_THE_REQUEST: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// A secret text. Wiped on drop; `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the secret itself; the caller must not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// A sink's credentials. Which fields may stand depends on the kind of sink; see the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SinkCredentials {
    /// Sign webhooks: each `whsec_` and 24–64 bytes in base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signing_secrets: Vec<SecretText>,
    /// Sent with webhooks as `Authorization: Bearer`.
    #[serde(rename = "bearer", skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<SecretText>,
    /// Sent with webhooks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, SecretText>,
    /// User at the NATS server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<SecretText>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretText>,
    /// Token at the NATS server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretText>,
    /// Text of a NATS `.creds` file: a JWT and the seed of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creds: Option<SecretText>,
}

impl SinkCredentials {
    /// Reads what was sealed.
    ///
    /// # Errors
    /// The bytes are no credentials; the error doesn't show them.
    pub fn decode(sealed: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(sealed)
            .map_err(|_| Error::internal("sealed credentials are not the JSON that is sealed"))
    }

    /// Returns what is sealed.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).expect("credentials are texts under text keys"))
    }

    /// Whether a stranger who received them could use them elsewhere. A signing secret is never sent.
    pub fn are_sent(&self) -> bool {
        *self != Self { signing_secrets: self.signing_secrets.clone(), ..Self::default() }
    }

    /// Checks that these credentials fit this kind of sink.
    ///
    /// # Errors
    /// `invalid_credentials`, with the field.
    pub fn check(&self, kind: &SinkKind) -> Result<(), Error> {
        let webhook = matches!(kind, SinkKind::Webhook { .. });
        let nats = matches!(kind, SinkKind::Nats { .. });
        for (field, fits, value) in [
            ("bearer_token", webhook, &self.bearer_token),
            ("user", nats, &self.user),
            ("password", nats, &self.password),
            ("token", nats, &self.token),
            ("creds", nats, &self.creds),
        ] {
            let Some(value) = value else { continue };
            if !fits {
                return Err(invalid(field, "doesn't belong to this kind of sink"));
            }
            check_length(field, value)?;
        }
        if !self.headers.is_empty() && !webhook {
            return Err(invalid("headers", "don't belong to this kind of sink"));
        }
        if !self.signing_secrets.is_empty() && !webhook {
            return Err(invalid("signing_secret", "doesn't belong to this kind of sink"));
        }
        self.signing_secrets.iter().try_for_each(check_signing_secret)?;
        if let Some(token) = &self.bearer_token
            && HeaderValue::from_str(token.expose()).is_err()
        {
            return Err(invalid("bearer_token", "may hold only printable characters"));
        }
        self.check_headers()?;
        self.check_nats()
    }

    fn check_headers(&self) -> Result<(), Error> {
        if self.headers.len() > HEADERS_MAX {
            return Err(invalid("headers", &format!("may be at most {HEADERS_MAX}")));
        }
        for (name, value) in &self.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| invalid("headers", "must have names that HTTP allows"))?;
            let taken = HEADERS_OF_THE_REQUEST.contains(&parsed.as_str())
                || (parsed == "authorization" && self.bearer_token.is_some());
            if taken {
                let why = format!("may not name '{parsed}', which the gateway sets itself");
                return Err(invalid("headers", &why));
            }
            check_length("headers", value)?;
            HeaderValue::from_str(value.expose())
                .map_err(|_| invalid("headers", "must have values that HTTP allows"))?;
        }
        Ok(())
    }

    fn check_nats(&self) -> Result<(), Error> {
        if self.user.is_some() != self.password.is_some() {
            return Err(invalid("user", "and password must be given together"));
        }
        let ways = [self.user.is_some(), self.token.is_some(), self.creds.is_some()];
        if ways.into_iter().filter(|given| *given).count() > 1 {
            return Err(invalid("", "must name one way: user and password, token, or creds"));
        }
        Ok(())
    }
}

/// Makes a signing secret.
///
/// # Errors
/// The system has no randomness.
pub fn fresh_signing_secret() -> Result<SecretText, Error> {
    let mut bytes = Zeroizing::new([0; FRESH_SIGNING_SECRET_BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| Error::internal(error.to_string()))?;
    let encoded = Zeroizing::new(STANDARD.encode(bytes.as_slice()));
    Ok(SecretText::new(format!("{SIGNING_SECRET_PREFIX}{}", *encoded)))
}

fn check_signing_secret(secret: &SecretText) -> Result<(), Error> {
    let decoded = secret
        .expose()
        .strip_prefix(SIGNING_SECRET_PREFIX)
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .map(Zeroizing::new);
    if decoded.is_some_and(|bytes| SIGNING_SECRET_BYTES.contains(&bytes.len())) {
        return Ok(());
    }
    let (least, most) = (SIGNING_SECRET_BYTES.start(), SIGNING_SECRET_BYTES.end());
    let why = format!("must be 'whsec_' and {least} to {most} bytes in base64");
    Err(invalid("signing_secret", &why))
}

fn check_length(field: &str, value: &SecretText) -> Result<(), Error> {
    if (1..=CREDENTIAL_BYTES_MAX).contains(&value.expose().len()) {
        return Ok(());
    }
    Err(invalid(field, &format!("must have 1 to {CREDENTIAL_BYTES_MAX} bytes")))
}

fn invalid(field: &str, why: &str) -> Error {
    let (pointer, name) = match field {
        "" => ("/credentials".to_owned(), "credentials"),
        field => (format!("/credentials/{field}"), field),
    };
    Error::field("invalid_credentials", &pointer, format!("{name} {why}"))
}
