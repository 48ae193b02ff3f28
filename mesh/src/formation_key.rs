//! Proof of membership: a keyed answer to a random nonce.
//!
//! ```text
//!   key      = HKDF(salt = formation id, secret, "peat-protocol-v1-formation")
//!   response = HMAC-SHA256(key, nonce ‖ formation id)
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::derive::derive;

/// Bytes of a challenge's nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of the answer to a challenge.
pub const RESPONSE_BYTES: usize = 32;
/// Longest formation id in bytes: with it a challenge just fits into the 1024 bytes that connectors
/// accept. A longer one is refused.
pub const FORMATION_ID_BYTES_MAX: usize = 990;

/// What a member needs to prove that it is one. `Debug` does not show the key.
#[derive(Clone)]
pub struct FormationKey {
    formation_id: String,
    key: Zeroizing<[u8; 32]>,
}

/// A formation key could not be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FormationKeyError {
    /// The id does not fit into a challenge.
    #[error(
        "make a formation key: the formation id has {bytes} bytes, at most \
         {FORMATION_ID_BYTES_MAX} fit into a challenge; choose a shorter one"
    )]
    IdTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The shared key is not base64.
    #[error("make a formation key: the shared key is not standard base64")]
    NotBase64,
}

impl FormationKey {
    /// Derives the key of a formation from its 32-byte secret.
    ///
    /// # Errors
    /// The id has more than [`FORMATION_ID_BYTES_MAX`] bytes: no peer could be challenged with it.
    pub fn from_secret(
        formation_id: impl Into<String>,
        secret: &[u8; 32],
    ) -> Result<Self, FormationKeyError> {
        let formation_id = formation_id.into();
        if formation_id.len() > FORMATION_ID_BYTES_MAX {
            return Err(FormationKeyError::IdTooLong { bytes: formation_id.len() });
        }
        let key = derive(formation_id.as_bytes(), secret, b"peat-protocol-v1-formation");
        Ok(Self { formation_id, key })
    }

    /// Derives the key from a shared key as configured on nodes: standard base64, surrounding space
    /// ignored. What does not decode to 32 bytes is hashed first, as published libraries do.
    ///
    /// # Errors
    /// As [`Self::from_secret`], and text that is not base64: correct the configuration.
    pub fn from_base64(
        formation_id: impl Into<String>,
        shared_key: &str,
    ) -> Result<Self, FormationKeyError> {
        let decoded = Zeroizing::new(
            STANDARD.decode(shared_key.trim()).map_err(|_| FormationKeyError::NotBase64)?,
        );
        let secret: Zeroizing<[u8; 32]> = match <&[u8; 32]>::try_from(decoded.as_slice()) {
            Ok(secret) => Zeroizing::new(*secret),
            Err(_) => Zeroizing::new(Sha256::digest(decoded.as_slice()).into()),
        };
        Self::from_secret(formation_id, &secret)
    }

    /// Returns the formation's id.
    #[must_use]
    pub fn formation_id(&self) -> &str {
        &self.formation_id
    }

    /// Returns the answer to a nonce.
    #[must_use]
    pub fn respond(&self, nonce: &[u8; NONCE_BYTES]) -> [u8; RESPONSE_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice())
            .expect("HMAC takes keys of every length");
        mac.update(nonce);
        mac.update(self.formation_id.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Whether `response` answers `nonce`; takes the same time either way.
    #[must_use]
    pub fn verify(&self, nonce: &[u8; NONCE_BYTES], response: &[u8; RESPONSE_BYTES]) -> bool {
        self.respond(nonce).ct_eq(response).into()
    }
}

impl fmt::Debug for FormationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FormationKey")
            .field("formation_id", &self.formation_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_verify_only_for_their_nonce_formation_and_secret() {
        let key = FormationKey::from_secret("acme", &[1; 32]).unwrap();
        let response = key.respond(&[9; 32]);
        assert!(key.verify(&[9; 32], &response));
        assert!(!key.verify(&[8; 32], &response));
        for other in [("acme2", [1; 32]), ("acme", [2; 32])] {
            let other = FormationKey::from_secret(other.0, &other.1).unwrap();
            assert!(!other.verify(&[9; 32], &response));
        }
    }

    #[test]
    fn ids_that_fit_no_challenge_and_text_that_is_not_base64_are_refused() {
        assert!(FormationKey::from_secret("i".repeat(FORMATION_ID_BYTES_MAX), &[0; 32]).is_ok());
        let error = FormationKey::from_secret("i".repeat(991), &[0; 32]).unwrap_err();
        assert_eq!(error, FormationKeyError::IdTooLong { bytes: 991 });
        let error = FormationKey::from_base64("i", "not base64!").unwrap_err();
        assert_eq!(error, FormationKeyError::NotBase64);
    }
}
