//! The genesis of a mesh: the seed from which everything secret about it is derived.
//!
//! ```text
//!   u16 LE name length │ name │ 32 seed │ 32 authority secret │ u64 LE created (ms) │ u8 policy
//! ```
//!
//! The authority key is normally derived from the seed, but may come from elsewhere (a hardware
//! module). So decoding takes it from the bytes and never derives it again.

use std::fmt;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use crate::derive::derive;
use crate::policy::Policy;
use crate::reader::{Missing, Reader};

/// Longest name that [`Genesis::create`] accepts, in bytes; a longer one is refused. The wire could
/// carry 65535, but names travel in certificates, logs and file names.
pub const MESH_NAME_BYTES_MAX: usize = 128;

/// Bytes of an encoded genesis besides its name.
const FIXED_BYTES: usize = 75;

/// The genesis of a mesh. Whoever has it owns the mesh; `Debug` shows nothing secret.
#[derive(Clone)]
pub struct Genesis {
    mesh_name: String,
    mesh_seed: Zeroizing<[u8; 32]>,
    authority: SigningKey,
    created_at_ms: u64,
    policy: Policy,
}

/// A genesis could not be made or read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GenesisError {
    /// The name is too long.
    #[error(
        "create a genesis: the mesh name has {bytes} bytes, at most {MESH_NAME_BYTES_MAX} are \
         allowed; choose a shorter name"
    )]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The name has a control character.
    #[error("create a genesis: the mesh name has a control character; leave it out")]
    NameNotPrintable,
    /// The input is shorter than any genesis.
    #[error("decode a genesis: {bytes} bytes are fewer than the {FIXED_BYTES} of the shortest one")]
    TooShort {
        /// How many bytes there were.
        bytes: usize,
    },
    /// The input ends inside a field.
    #[error("decode a genesis: it ends inside its {field}")]
    Truncated {
        /// Which.
        field: &'static str,
    },
    /// The name is not UTF-8.
    #[error("decode a genesis: its mesh name is not UTF-8")]
    NameNotUtf8,
    /// The policy byte is unknown.
    #[error("decode a genesis: {byte} is not a policy")]
    UnknownPolicy {
        /// The byte.
        byte: u8,
    },
}

impl From<Missing> for GenesisError {
    fn from(missing: Missing) -> Self {
        Self::Truncated { field: missing.0 }
    }
}

impl Genesis {
    /// Makes the genesis of a new mesh from 32 random bytes; its authority key is derived from them.
    ///
    /// # Errors
    /// The name has more than [`MESH_NAME_BYTES_MAX`] bytes or a control character: choose another.
    pub fn create(
        mesh_name: &str,
        policy: Policy,
        created_at_ms: u64,
        seed: Zeroizing<[u8; 32]>,
    ) -> Result<Self, GenesisError> {
        if mesh_name.len() > MESH_NAME_BYTES_MAX {
            return Err(GenesisError::NameTooLong { bytes: mesh_name.len() });
        }
        if mesh_name.chars().any(char::is_control) {
            return Err(GenesisError::NameNotPrintable);
        }
        // No salt: two meshes with one seed and different names share their authority key.
        let authority =
            SigningKey::from_bytes(&derive(&[], seed.as_slice(), b"peat-mesh:authority-keypair"));
        let mesh_name = mesh_name.to_owned();
        Ok(Self { mesh_name, mesh_seed: seed, authority, created_at_ms, policy })
    }

    /// Returns the mesh's name.
    #[must_use]
    pub fn mesh_name(&self) -> &str {
        &self.mesh_name
    }

    /// Returns the seed. Secret.
    #[must_use]
    pub fn mesh_seed(&self) -> &Zeroizing<[u8; 32]> {
        &self.mesh_seed
    }

    /// Returns the key that signs certificates. Secret.
    #[must_use]
    pub fn authority(&self) -> &SigningKey {
        &self.authority
    }

    /// Returns when the mesh was made, in milliseconds since 1970.
    #[must_use]
    pub fn created_at_ms(&self) -> u64 {
        self.created_at_ms
    }

    /// Returns how the mesh admits devices.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns the mesh's id: eight upper-case hexadecimal digits.
    #[must_use]
    pub fn mesh_id(&self) -> String {
        let okm = self.derive_named(b"peat-mesh:mesh-id");
        hex::encode_upper(okm.first_chunk::<4>().expect("32 bytes have a first four"))
    }

    /// Returns the secret that every member shares.
    #[must_use]
    pub fn formation_secret(&self) -> Zeroizing<[u8; 32]> {
        self.derive_named(b"peat-mesh:formation-secret")
    }

    /// Returns the public half of the key that signs certificates.
    #[must_use]
    pub fn authority_public_key(&self) -> [u8; 32] {
        self.authority.verifying_key().to_bytes()
    }

    /// Returns what members may know: no seed, no authority secret.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials::new(self)
    }

    /// Returns the stored form. Secret.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let name_bytes = u16::try_from(self.mesh_name.len())
            .expect("create limits names to 128 bytes and decode reads a 16-bit length");
        let mut encoded = Zeroizing::new(Vec::with_capacity(FIXED_BYTES + self.mesh_name.len()));
        encoded.extend_from_slice(&name_bytes.to_le_bytes());
        encoded.extend_from_slice(self.mesh_name.as_bytes());
        encoded.extend_from_slice(self.mesh_seed.as_slice());
        encoded.extend_from_slice(self.authority.as_bytes());
        encoded.extend_from_slice(&self.created_at_ms.to_le_bytes());
        encoded.push(self.policy.byte());
        encoded
    }

    /// Reads the stored form. Bytes after it are ignored, as published libraries do.
    ///
    /// # Errors
    /// The input is not a genesis: nothing can be done with it.
    pub fn decode(input: &[u8]) -> Result<Self, GenesisError> {
        if input.len() < FIXED_BYTES {
            return Err(GenesisError::TooShort { bytes: input.len() });
        }
        let mut reader = Reader::new(input);
        let name_bytes = usize::from(reader.u16_le("name length")?);
        let mesh_name = reader.take(name_bytes, "mesh name")?;
        let mesh_seed = Zeroizing::new(reader.array("mesh seed")?);
        let authority_secret = Zeroizing::new(reader.array("authority secret")?);
        let created_at_ms = reader.u64_le("creation time")?;
        let policy_byte = reader.u8("policy")?;
        Ok(Self {
            mesh_name: str::from_utf8(mesh_name).map_err(|_| GenesisError::NameNotUtf8)?.to_owned(),
            mesh_seed,
            authority: SigningKey::from_bytes(&authority_secret),
            created_at_ms,
            policy: Policy::from_byte(policy_byte)
                .ok_or(GenesisError::UnknownPolicy { byte: policy_byte })?,
        })
    }

    /// Derives with the mesh's name as salt.
    fn derive_named(&self, info: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(self.mesh_name.as_bytes(), self.mesh_seed.as_slice(), info)
    }
}

impl fmt::Debug for Genesis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Genesis")
            .field("mesh_name", &self.mesh_name)
            .field("mesh_id", &self.mesh_id())
            .field("created_at_ms", &self.created_at_ms)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(name: &str) -> Result<Genesis, GenesisError> {
        Genesis::create(name, Policy::Open, 1, Zeroizing::new([0x42; 32]))
    }

    #[test]
    fn names_that_are_long_or_unprintable_are_refused() {
        assert!(create(&"n".repeat(MESH_NAME_BYTES_MAX)).is_ok());
        let longer = "n".repeat(MESH_NAME_BYTES_MAX + 1);
        assert_eq!(create(&longer).unwrap_err(), GenesisError::NameTooLong { bytes: 129 });
        assert_eq!(create("a\nb").unwrap_err(), GenesisError::NameNotPrintable);
    }

    #[test]
    fn debug_shows_no_secret() {
        let genesis = create("ALPHA").unwrap();
        let text = format!("{genesis:?} {:?}", genesis.credentials());
        for secret in [
            hex::encode(genesis.mesh_seed().as_slice()),
            hex::encode(genesis.formation_secret().as_slice()),
            hex::encode(genesis.authority().as_bytes()),
            "66, 66".to_owned(),
        ] {
            assert!(!text.contains(&secret), "{text}");
        }
    }
}
