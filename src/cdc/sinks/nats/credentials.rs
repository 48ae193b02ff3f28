//! The credentials of a NATS sink, as `service::credentials` seals them:
//! `{"user":"…","password":"…"}`, `{"token":"…"}` or `{"creds":"<contents of a .creds file>"}`.

use async_nats::ConnectOptions;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::BuildError;

/// How to authenticate.
pub(super) enum Credentials {
    /// Not at all.
    None,
    /// User name and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A token.
    Token(Zeroizing<String>),
    /// A JWT and its nkey seed, as `nsc` writes them.
    Creds(Zeroizing<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    creds: Option<String>,
}

impl Credentials {
    /// Reads the sealed JSON.
    ///
    /// # Errors
    /// Says what is wrong, without showing a secret.
    pub(super) fn parse(json: Option<&[u8]>) -> Result<Self, BuildError> {
        let refused = |why: &str| BuildError(format!("NATS credentials: {why}"));
        let Some(json) = json else {
            return Ok(Self::None);
        };
        // The parser's own message may quote a value.
        let json: Json = serde_json::from_slice(json)
            .map_err(|_| refused("not the JSON object that this version writes"))?;
        let credentials = match (json.user, json.password, json.token, json.creds) {
            (None, None, None, None) => Self::None,
            (Some(user), Some(password), None, None) => {
                Self::Password { user, password: Zeroizing::new(password) }
            }
            (None, None, Some(token), None) => Self::Token(Zeroizing::new(token)),
            (None, None, None, Some(creds)) => Self::Creds(Zeroizing::new(creds)),
            _ => return Err(refused("must hold user and password, or token, or creds")),
        };
        // Checked once here, so that a broken creds text is found at the start of the sink.
        credentials.options()?;
        Ok(credentials)
    }

    /// Returns connect options that use them.
    ///
    /// # Errors
    /// The creds text is not what `nsc` writes.
    pub(super) fn options(&self) -> Result<ConnectOptions, BuildError> {
        let options = ConnectOptions::new();
        Ok(match self {
            Self::None => options,
            Self::Password { user, password } => {
                options.user_and_password(user.clone(), password.to_string())
            }
            Self::Token(token) => options.token(token.to_string()),
            Self::Creds(creds) => options.credentials(creds).map_err(|_| {
                BuildError("NATS credentials: creds must hold a JWT and an nkey seed".into())
            })?,
        })
    }
}
