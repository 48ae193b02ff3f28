//! Who is who: device ids, keys derived from seeds, endpoint ids.
//!
//! Everyone who has the formation secret can compute every member's endpoint key. So an endpoint id
//! says which *name* a peer claims, not which device it is; the formation key says that it is a member.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::SigningKey;
pub use iroh::EndpointId;
use iroh::SecretKey;
use sha2::{Digest, Sha256};

use crate::derive::derive;

/// A device: the first 16 bytes of SHA-256 of its Ed25519 public key; 32 hexadecimal digits as text.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceId([u8; 16]);

impl DeviceId {
    /// Returns the id of the device with this public key.
    #[must_use]
    pub fn of_public_key(public_key: &[u8; 32]) -> Self {
        let digest: [u8; 32] = Sha256::digest(public_key).into();
        Self(*digest.first_chunk().expect("32 bytes have a first 16"))
    }

    /// Returns the id's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// The text is not a device id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("read a device id: {0:?} is not 32 hexadecimal digits")]
pub struct NotADeviceId(pub String);

impl FromStr for DeviceId {
    type Err = NotADeviceId;

    fn from_str(text: &str) -> Result<Self, NotADeviceId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotADeviceId(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

/// Derives a device's signing key from a seed of any length; `context` separates keys of one seed.
#[must_use]
pub fn signing_key_from_seed(seed: &[u8], context: &str) -> SigningKey {
    SigningKey::from_bytes(&derive(&[], seed, context.as_bytes()))
}

/// Derives the endpoint key of the member named `node_name`.
///
/// `formation_secret` is the shared key as decoded from base64, whatever its length (unlike the
/// formation key, which hashes what is not 32 bytes).
#[must_use]
pub fn endpoint_secret(formation_secret: &[u8], node_name: &str) -> SecretKey {
    let info = format!("iroh:{node_name}");
    SecretKey::from_bytes(&derive(&[], formation_secret, info.as_bytes()))
}

/// Returns the endpoint id of the member named `node_name`; see [`endpoint_secret`].
#[must_use]
pub fn endpoint_id(formation_secret: &[u8], node_name: &str) -> EndpointId {
    endpoint_secret(formation_secret, node_name).public()
}

/// Derives the endpoint key that peat-protocol nodes before 0.9.0-rc.18 use with a textual seed.
#[must_use]
pub fn endpoint_secret_before_rc18(seed: &str) -> SecretKey {
    let mut digest = Sha256::new_with_prefix(b"peat-iroh-key-v1:");
    digest.update(seed.as_bytes());
    SecretKey::from_bytes(&digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_survive_text_and_nothing_else_is_read() {
        let id = DeviceId::of_public_key(&[7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "00", "zz27d11858866c6a4414f9be2e30c420", &"0".repeat(34)] {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }
}
