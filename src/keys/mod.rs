//! Sealed secrets: the envelope, the key providers, and the ring that holds them.
//!
//! ```text
//!   secret ──AES-256-GCM(data key)──► ciphertext          bound to: seal domain, org, kind, record, version
//!               data key ──provider──► wrapped data key   bound to the same, and to provider and key id
//!
//!   envelope = header │ wrapped data key │ nonce │ commitment │ ciphertext and tag
//! ```
//!
//! Secrets are sealed before they are proposed: the log, the snapshots and the wire hold envelopes
//! only. Every envelope has a data key of its own. An envelope that was moved to another record, put
//! back from an older version, or taken to another cluster doesn't open.
//!
//! * [`envelope`]: the bytes, version 2, and the older version 1 that is only read.
//! * [`local`]: the provider with one key-encryption key on every node.

pub mod envelope;
pub mod local;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use envelope::{Envelope, Fault};
pub use local::{Kek, KekFileError, NotAKek};

/// Most bytes of a secret; a larger one is refused.
pub const SECRET_BYTES_MAX: usize = 256 << 10;

/// First bytes of what the plaintext provider writes; never those of a sealed envelope.
const PLAINTEXT_MAGIC: &[u8; 5] = b"PRAW\x01";

/// What a sealed secret is bound to: it opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The cluster's seal domain, which a restore keeps.
    pub seal_domain: [u8; 16],
    /// The organisation; empty for the cluster's own.
    pub org: &'a str,
    /// What kind of secret.
    pub kind: SecretKind,
    /// The record's id within its kind: an app id, a sink id.
    pub record: &'a str,
    /// The record version; an envelope of another version doesn't open.
    pub version: u64,
}

impl Binding<'_> {
    /// Returns the bytes that go into additional data: every part with its length in front.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.org.len() + self.record.len());
        for part in [
            self.seal_domain.as_slice(),
            self.org.as_bytes(),
            self.kind.name().as_bytes(),
            self.record.as_bytes(),
            &self.version.to_be_bytes(),
        ] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// Kinds of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A formation's genesis.
    Genesis,
    /// A sink's credentials (JSON).
    SinkCredentials,
    /// The known plaintext that shows a wrong key at start.
    KeyCheck,
}

impl SecretKind {
    /// The name that is bound into envelopes and shown in errors; never changed.
    pub const fn name(self) -> &'static str {
        match self {
            SecretKind::Genesis => "genesis",
            SecretKind::SinkCredentials => "sink credentials",
            SecretKind::KeyCheck => "key check",
        }
    }
}

/// Seals and opens. Cheap to clone; `Debug` shows the provider and the key id only.
#[derive(Clone)]
pub struct Keyring {
    provider: Provider,
}

#[derive(Clone)]
enum Provider {
    Plaintext,
    Local(Arc<local::Local>),
}

/// A secret could not be sealed or opened.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The envelope is damaged, or bound to another record, version or cluster.
    #[error("could not open the sealed {kind} of {record}: {reason}")]
    Refused {
        /// What kind of secret.
        kind: &'static str,
        /// Which record.
        record: String,
        /// What is wrong.
        reason: String,
    },
    /// The key provider has another key.
    #[error(
        "could not open the sealed {kind} of {record}: it was sealed with key {sealed_with}, this node has {have}"
    )]
    WrongKey {
        /// What kind of secret.
        kind: &'static str,
        /// Which record.
        record: String,
        /// Key id in the envelope.
        sealed_with: String,
        /// Key id of the provider.
        have: String,
    },
    /// The secret is larger than [`SECRET_BYTES_MAX`].
    #[error("could not seal a secret of {bytes} bytes: at most {SECRET_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The key provider doesn't answer; nothing happened.
    #[error("the key provider is not reachable: {0}")]
    Unavailable(String),
}

#[expect(clippy::unused_async, reason = "remote providers wait; callers are written for them")]
impl Keyring {
    /// Returns a ring that wraps data keys with a key-encryption key on this node.
    pub fn local(kek: Kek) -> Self {
        Self { provider: Provider::Local(Arc::new(local::Local::new(kek))) }
    }

    /// Returns a ring that seals nothing. For experiments only: secrets stand in clear on every disk.
    pub fn plaintext() -> Self {
        Self { provider: Provider::Plaintext }
    }

    /// Returns the provider's name: `local` or `plaintext`.
    pub fn provider(&self) -> &'static str {
        match &self.provider {
            Provider::Plaintext => "plaintext",
            Provider::Local(_) => "local",
        }
    }

    /// Returns the id of the key that new secrets are sealed with: 16 hexadecimal digits; empty for
    /// `plaintext`. The id says nothing about the key.
    pub fn key_id(&self) -> &str {
        match &self.provider {
            Provider::Plaintext => "",
            Provider::Local(local) => local.key_id(),
        }
    }

    /// Seals a secret under a fresh data key.
    ///
    /// # Errors
    /// `TooLarge`; `Unavailable` where the provider or the system's randomness doesn't answer.
    pub async fn seal(&self, binding: &Binding<'_>, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        if secret.len() > SECRET_BYTES_MAX {
            return Err(KeyError::TooLarge { bytes: secret.len() });
        }
        match &self.provider {
            Provider::Plaintext => {
                let digest = Sha256::digest(binding.bytes());
                Ok([PLAINTEXT_MAGIC.as_slice(), digest.as_slice(), secret].concat())
            }
            Provider::Local(local) => {
                let random = local::Random::fresh().map_err(KeyError::Unavailable)?;
                Ok(local.seal(&binding.bytes(), secret, &random))
            }
        }
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn open(
        &self,
        binding: &Binding<'_>,
        envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let refused = |reason: String| KeyError::Refused {
            kind: binding.kind.name(),
            record: binding.record.to_owned(),
            reason,
        };
        let local = match &self.provider {
            Provider::Plaintext => return open_plaintext(binding, envelope).map_err(refused),
            Provider::Local(_) if envelope.starts_with(PLAINTEXT_MAGIC) => {
                return Err(refused(
                    "it isn't sealed at all, but this node was told to seal; it may have been \
                     planted"
                        .to_owned(),
                ));
            }
            Provider::Local(local) => local,
        };
        let parsed = Envelope::parse(envelope).map_err(|fault| refused(fault.to_string()))?;
        match local.open(&binding.bytes(), &parsed) {
            Err(Fault::OtherKey { sealed_with }) => Err(KeyError::WrongKey {
                kind: binding.kind.name(),
                record: binding.record.to_owned(),
                sealed_with,
                have: local.key_id().to_owned(),
            }),
            opened => opened.map_err(|fault| refused(fault.to_string())),
        }
    }

    /// Opens an envelope of version 1, as the earlier single-node gateway wrote it.
    ///
    /// Such an envelope is bound to nothing, so only a migration may call this, on what it read from
    /// that gateway's own store; `record` is for the error's text. [`Keyring::open`] never falls back
    /// to it.
    ///
    /// # Errors
    /// `Refused` for anything but a version 1 envelope under this ring's local key.
    pub async fn open_v1(
        &self,
        record: &str,
        envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let opened = match &self.provider {
            Provider::Plaintext => Err(Fault::NoKey),
            Provider::Local(local) => local.open_v1(envelope),
        };
        opened.map_err(|fault| KeyError::Refused {
            kind: "version 1 secret",
            record: record.to_owned(),
            reason: fault.to_string(),
        })
    }
}

fn open_plaintext(binding: &Binding<'_>, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    let Some(rest) = blob.strip_prefix(PLAINTEXT_MAGIC) else {
        return Err("it is sealed, but this node was told to seal nothing; set its key".to_owned());
    };
    let (digest, secret) = rest.split_at_checked(32).ok_or("it is truncated")?;
    if !bool::from(digest.ct_eq(Sha256::digest(binding.bytes()).as_slice())) {
        return Err("it belongs to another record, version or cluster".to_owned());
    }
    Ok(Zeroizing::new(secret.to_vec()))
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Keyring")
            .field("provider", &self.provider())
            .field("key_id", &self.key_id())
            .finish()
    }
}
