//! Sealed secrets: the envelope, the key providers, and the ring that holds them.

use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

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

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    _inner: Arc<()>,
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
    /// The key provider doesn't answer; nothing happened.
    #[error("the key provider is not reachable: {0}")]
    Unavailable(String),
}

#[allow(clippy::unused_async, reason = "remote providers wait")]
impl Keyring {
    /// Seals a secret under a fresh data key.
    ///
    /// # Errors
    /// `Unavailable` where the provider doesn't answer.
    pub async fn seal(&self, _binding: &Binding<'_>, _secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        unimplemented!("seam")
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn open(
        &self,
        _binding: &Binding<'_>,
        _envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        unimplemented!("seam")
    }
}
