//! The credentials of a webhook sink, as `service::credentials` seals them.
//!
//! ```json
//! {"signing_secrets":["whsec_<base64>"],"bearer":"…","headers":{"x-team":"blue"}}
//! ```
//!
//! All fields are optional. Every secret signs: while one is replaced, receivers that know either of
//! two go on.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::BuildError;

/// What marks a symmetric Standard Webhooks secret.
const SECRET_PREFIX: &str = "whsec_";

/// Opened credentials; wiped from memory when dropped.
#[derive(Default)]
pub(super) struct Credentials {
    /// Keys of the signatures, in the order in which they are sent.
    pub(super) secrets: Vec<Zeroizing<Vec<u8>>>,
    /// Further headers.
    pub(super) headers: BTreeMap<String, Zeroizing<String>>,
    /// Sent as `authorization: Bearer …`.
    pub(super) bearer: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    #[serde(default)]
    signing_secrets: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    bearer: Option<String>,
}

impl Credentials {
    /// Reads the sealed JSON.
    ///
    /// # Errors
    /// Says what is wrong, without showing a secret.
    pub(super) fn parse(json: &[u8]) -> Result<Self, BuildError> {
        let refused = |why: &str| BuildError(format!("webhook credentials: {why}"));
        // The parser's own message may quote a value.
        let json: Json = serde_json::from_slice(json)
            .map_err(|_| refused("not the JSON object that this version writes"))?;
        let mut secrets = Vec::new();
        for secret in json.signing_secrets.into_iter().map(Zeroizing::new) {
            let encoded = secret
                .strip_prefix(SECRET_PREFIX)
                .ok_or_else(|| refused("a signing secret must begin with whsec_"))?;
            let key = STANDARD.decode(encoded).map(Zeroizing::new);
            let key = key.map_err(|_| refused("a signing secret must be base64 after whsec_"))?;
            if key.is_empty() {
                return Err(refused("a signing secret is empty"));
            }
            secrets.push(key);
        }
        let headers =
            json.headers.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).collect();
        Ok(Self { secrets, headers, bearer: json.bearer.map(Zeroizing::new) })
    }
}
