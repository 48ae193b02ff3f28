//! What members of a mesh may know of it: no seed, no authority secret.
//!
//! ```text
//!   u16 LE name length │ name │ 8 mesh id │ 32 formation secret │ 32 authority public key │ u8 policy
//! ```

use std::fmt;

use zeroize::Zeroizing;

use crate::genesis::Genesis;
use crate::policy::Policy;
use crate::reader::{Missing, Reader};

/// Bytes of encoded credentials besides the name.
const FIXED_BYTES: usize = 75;
/// Bytes of a mesh id: eight hexadecimal digits.
const MESH_ID_BYTES: usize = 8;

/// What a member is given. The formation secret in it admits to the mesh; `Debug` does not show it.
#[derive(Clone)]
pub struct Credentials {
    mesh_name: String,
    mesh_id: String,
    formation_secret: Zeroizing<[u8; 32]>,
    authority_public_key: [u8; 32],
    policy: Policy,
}

/// Credentials could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CredentialsError {
    /// The input is shorter than any credentials.
    #[error("decode credentials: {bytes} bytes are fewer than the {FIXED_BYTES} of the shortest")]
    TooShort {
        /// How many bytes there were.
        bytes: usize,
    },
    /// The input ends inside a field.
    #[error("decode credentials: they end inside the {field}")]
    Truncated {
        /// Which.
        field: &'static str,
    },
    /// The name or the mesh id is not UTF-8.
    #[error("decode credentials: the {field} is not UTF-8")]
    NotUtf8 {
        /// Which.
        field: &'static str,
    },
    /// The policy byte is unknown.
    #[error("decode credentials: {byte} is not a policy")]
    UnknownPolicy {
        /// The byte.
        byte: u8,
    },
}

impl From<Missing> for CredentialsError {
    fn from(missing: Missing) -> Self {
        Self::Truncated { field: missing.0 }
    }
}

impl Credentials {
    /// Derives the credentials of a mesh.
    #[must_use]
    pub fn new(genesis: &Genesis) -> Self {
        Self {
            mesh_name: genesis.mesh_name().to_owned(),
            mesh_id: genesis.mesh_id(),
            formation_secret: genesis.formation_secret(),
            authority_public_key: genesis.authority_public_key(),
            policy: genesis.policy(),
        }
    }

    /// Returns the mesh's name.
    #[must_use]
    pub fn mesh_name(&self) -> &str {
        &self.mesh_name
    }

    /// Returns the mesh's id: eight bytes of text, hexadecimal if the mesh is well made.
    #[must_use]
    pub fn mesh_id(&self) -> &str {
        &self.mesh_id
    }

    /// Returns the secret that every member shares.
    #[must_use]
    pub fn formation_secret(&self) -> &Zeroizing<[u8; 32]> {
        &self.formation_secret
    }

    /// Returns the key against which certificates verify.
    #[must_use]
    pub fn authority_public_key(&self) -> [u8; 32] {
        self.authority_public_key
    }

    /// Returns how the mesh admits devices.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns the form that is handed to members. Secret.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let name_bytes = u16::try_from(self.mesh_name.len())
            .expect("genesis limits names, and decode reads a 16-bit length");
        let mut encoded = Zeroizing::new(Vec::with_capacity(FIXED_BYTES + self.mesh_name.len()));
        encoded.extend_from_slice(&name_bytes.to_le_bytes());
        encoded.extend_from_slice(self.mesh_name.as_bytes());
        encoded.extend_from_slice(self.mesh_id.as_bytes());
        encoded.extend_from_slice(self.formation_secret.as_slice());
        encoded.extend_from_slice(&self.authority_public_key);
        encoded.push(self.policy.byte());
        encoded
    }

    /// Reads what was handed out. Bytes after it are ignored, as published libraries do.
    ///
    /// # Errors
    /// The input is not credentials: nothing can be done with it.
    pub fn decode(input: &[u8]) -> Result<Self, CredentialsError> {
        if input.len() < FIXED_BYTES {
            return Err(CredentialsError::TooShort { bytes: input.len() });
        }
        let mut reader = Reader::new(input);
        let name_bytes = usize::from(reader.u16_le("name length")?);
        let mesh_name = reader.take(name_bytes, "mesh name")?;
        let mesh_id = reader.take(MESH_ID_BYTES, "mesh id")?;
        let formation_secret = Zeroizing::new(reader.array("formation secret")?);
        let authority_public_key = reader.array("authority public key")?;
        let policy_byte = reader.u8("policy")?;
        Ok(Self {
            mesh_name: text(mesh_name, "mesh name")?,
            mesh_id: text(mesh_id, "mesh id")?,
            formation_secret,
            authority_public_key,
            policy: Policy::from_byte(policy_byte)
                .ok_or(CredentialsError::UnknownPolicy { byte: policy_byte })?,
        })
    }
}

fn text(bytes: &[u8], field: &'static str) -> Result<String, CredentialsError> {
    Ok(str::from_utf8(bytes).map_err(|_| CredentialsError::NotUtf8 { field })?.to_owned())
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("mesh_name", &self.mesh_name)
            .field("mesh_id", &self.mesh_id)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
