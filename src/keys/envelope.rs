//! The envelope's bytes, and AES-256-GCM over them.
//!
//! ```text
//!   "PENV" │ 2 │ algorithm │ provider │ u8 n │ key id (n) │ u16 LE n │ wrapped data key (n)
//!          │ nonce (12) │ commitment (32) │ ciphertext │ tag (16)
//! ```
//!
//! * Additional data of the ciphertext: magic, version, algorithm, binding. A re-wrap under another
//!   key or provider therefore leaves the ciphertext as it is.
//! * Additional data of the wrapped data key: version, provider, key id, binding.
//! * The commitment is HKDF-SHA256 of the data key. GCM alone would let one ciphertext open under two
//!   keys; it is compared before anything is decrypted.

use aes_gcm::aead::{Aead, AeadInOut, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

/// First bytes of an envelope of any version.
pub const MAGIC: &[u8; 4] = b"PENV";
/// The version that is written.
pub const VERSION: u8 = 2;
/// AES-256-GCM with a 12-byte random nonce and key commitment: the only algorithm so far.
pub const ALGORITHM_AES_256_GCM: u8 = 1;
/// The provider of [`crate::keys::local`].
pub const PROVIDER_LOCAL: u8 = 1;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a key and of a commitment.
pub const KEY_BYTES: usize = 32;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// Why an envelope doesn't open.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are no envelope.
    #[error("it is no envelope")]
    NotAnEnvelope,
    /// It ends too early.
    #[error("it is truncated")]
    Truncated,
    /// A version that this path doesn't read.
    #[error("it has version {0}, which is not read here")]
    Version(u8),
    /// An algorithm that this build doesn't know.
    #[error("it names algorithm {0}, which this build doesn't know")]
    Algorithm(u8),
    /// Another provider wrapped it.
    #[error("it was wrapped by provider {0}, which this node wasn't given")]
    Provider(u8),
    /// Another key wrapped it.
    #[error("it was sealed with key {sealed_with}")]
    OtherKey {
        /// The id in the envelope.
        sealed_with: String,
    },
    /// The data key doesn't unwrap.
    #[error("its data key doesn't open: it is damaged, or belongs to another record or cluster")]
    DataKey,
    /// The data key isn't the one that it was sealed with.
    #[error("its data key isn't the one that it was sealed with")]
    Commitment,
    /// The ciphertext doesn't open.
    #[error("it doesn't open: it is damaged, or belongs to another record or cluster")]
    Data,
    /// The ring has no key.
    #[error("this node has no key")]
    NoKey,
}

/// A version 2 envelope, taken apart; borrows from its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Who wrapped the data key.
    pub provider: u8,
    /// With which key.
    pub key_id: &'a [u8],
    /// What the provider made of the data key.
    pub wrapped_key: &'a [u8],
    /// The ciphertext's nonce.
    pub nonce: &'a [u8; NONCE_BYTES],
    /// What the data key must commit to.
    pub commitment: &'a [u8; KEY_BYTES],
    /// The ciphertext with its tag.
    pub ciphertext: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Takes an envelope apart. Checks its form only.
    ///
    /// # Errors
    /// Says what is wrong with the form.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Fault::NotAnEnvelope)?;
        let (&[version, algorithm, provider, key_id_bytes], rest) =
            rest.split_first_chunk().ok_or(Fault::Truncated)?;
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        if algorithm != ALGORITHM_AES_256_GCM {
            return Err(Fault::Algorithm(algorithm));
        }
        let (key_id, rest) = rest.split_at_checked(key_id_bytes.into()).ok_or(Fault::Truncated)?;
        let (wrapped_bytes, rest) = rest.split_first_chunk().ok_or(Fault::Truncated)?;
        let wrapped_bytes = u16::from_le_bytes(*wrapped_bytes).into();
        let (wrapped_key, rest) = rest.split_at_checked(wrapped_bytes).ok_or(Fault::Truncated)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(Fault::Truncated)?;
        let (commitment, ciphertext) = rest.split_first_chunk().ok_or(Fault::Truncated)?;
        if ciphertext.len() < TAG_BYTES {
            return Err(Fault::Truncated);
        }
        Ok(Self { provider, key_id, wrapped_key, nonce, commitment, ciphertext })
    }

    /// Returns the bytes.
    ///
    /// # Panics
    /// A key id of more than 255 bytes or a wrapped key of more than 65 535: providers make neither.
    pub fn encode(&self) -> Vec<u8> {
        let key_id_bytes = u8::try_from(self.key_id.len()).expect("key ids are short");
        let wrapped_bytes = u16::try_from(self.wrapped_key.len()).expect("wrapped keys are short");
        [
            MAGIC.as_slice(),
            &[VERSION, ALGORITHM_AES_256_GCM, self.provider, key_id_bytes],
            self.key_id,
            &wrapped_bytes.to_le_bytes(),
            self.wrapped_key,
            self.nonce,
            self.commitment,
            self.ciphertext,
        ]
        .concat()
    }

    /// Decrypts with the unwrapped data key.
    ///
    /// # Errors
    /// The key isn't the one it was sealed with, or the bytes or the binding aren't.
    pub fn decrypt(
        &self,
        data_key: &[u8; KEY_BYTES],
        binding: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        if !bool::from(commitment(data_key).ct_eq(self.commitment)) {
            return Err(Fault::Commitment);
        }
        decrypt(data_key, self.nonce, self.ciphertext, &data_context(binding)).ok_or(Fault::Data)
    }
}

/// What a data key commits to.
pub(super) fn commitment(data_key: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
    derive(data_key, None, &[b"peat-gateway/envelope/2/commit"])
}

/// Additional data of the ciphertext.
pub(super) fn data_context(binding: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), &[VERSION, ALGORITHM_AES_256_GCM], binding].concat()
}

/// Additional data of the wrapped data key.
pub(super) fn wrap_context(provider: u8, key_id: &[u8], binding: &[u8]) -> Vec<u8> {
    let key_id_bytes = (key_id.len() as u64).to_be_bytes();
    [MAGIC.as_slice(), &[VERSION, provider], &key_id_bytes, key_id, binding].concat()
}

/// HKDF-SHA256 to 32 bytes.
pub(super) fn derive<const N: usize>(key: &[u8], salt: Option<&[u8]>, info: &[&[u8]]) -> [u8; N] {
    let mut derived = [0; N];
    Hkdf::<Sha256>::new(salt, key)
        .expand_multi_info(info, &mut derived)
        .expect("HKDF-SHA256 gives up to 8160 bytes");
    derived
}

/// AES-256-GCM; the tag follows the ciphertext.
pub(super) fn encrypt(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; NONCE_BYTES],
    plaintext: &[u8],
    context: &[u8],
) -> Vec<u8> {
    Aes256Gcm::new(key.into())
        .encrypt(&Nonce::from(*nonce), Payload { msg: plaintext, aad: context })
        .expect("secrets are far below the limit of GCM")
}

/// The reverse of [`encrypt`]; `None` where anything differs.
pub(super) fn decrypt(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; NONCE_BYTES],
    ciphertext: &[u8],
    context: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    // In place, so that no plaintext is left behind in a buffer that nobody wipes.
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    Aes256Gcm::new(key.into())
        .decrypt_in_place(&Nonce::from(*nonce), context, &mut *buffer)
        .ok()?;
    Some(buffer)
}
