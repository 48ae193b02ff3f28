//! The local provider: one key-encryption key (KEK), the same on every node of a cluster.
//!
//! Each wrap has a key of its own: HKDF-SHA256(KEK, salt = 32 random bytes, info = context). So the
//! KEK never meets GCM's limit of 2³² messages, however long it lives.
//!
//! ```text
//!   wrapped data key = salt (32) │ nonce (12) │ AES-256-GCM(wrap key, data key) (32) │ tag (16)
//! ```

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

use super::envelope::{
    Envelope, Fault, KEY_BYTES, MAGIC, NONCE_BYTES, PROVIDER_LOCAL, commitment, data_context,
    decrypt, derive, encrypt, wrap_context,
};

/// Bytes of the salt of each wrap.
const SALT_BYTES: usize = 32;
/// The version byte of what [`Local::open_v1`] reads.
const VERSION_1: u8 = 1;
/// Most bytes of a key file; a larger one is refused.
const KEK_FILE_BYTES_MAX: u64 = 4096;

/// A key-encryption key: 32 bytes. Wiped on drop; `Debug` shows nothing.
#[derive(Clone)]
pub struct Kek(Zeroizing<[u8; KEY_BYTES]>);

/// The text is no key. Says nothing about what it was.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "could not read the key-encryption key: it must be 64 hexadecimal digits, or 32 bytes in base64"
)]
pub struct NotAKek;

/// A key file could not be used.
#[derive(Debug, Error)]
pub enum KekFileError {
    /// The file system refused.
    #[error("could not {action} the key file {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("the key file {} has mode {mode:o}: others may read it; make it 0600", path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no key.
    #[error("the key file {} holds no key", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: NotAKek,
    },
    /// The system has no randomness for a new key.
    #[error("could not make a key: {0}")]
    Random(String),
}

impl Kek {
    /// Wraps 32 bytes.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// Reads 64 hexadecimal digits, or 32 bytes in standard base64; white space around is ignored.
    ///
    /// # Errors
    /// The text is neither; the error doesn't show it.
    pub fn parse(text: &str) -> Result<Self, NotAKek> {
        let text = text.trim();
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if hex::decode_to_slice(text, key.as_mut_slice()).is_ok() {
            return Ok(Self(key));
        }
        let decoded = Zeroizing::new(STANDARD.decode(text).map_err(|_| NotAKek)?);
        key.copy_from_slice(decoded.first_chunk::<KEY_BYTES>().ok_or(NotAKek)?);
        if decoded.len() == KEY_BYTES { Ok(Self(key)) } else { Err(NotAKek) }
    }

    /// Makes a new key.
    ///
    /// # Errors
    /// The system has no randomness; the text says why.
    pub fn generate() -> Result<Self, String> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(key.as_mut_slice()).map_err(|error| error.to_string())?;
        Ok(Self(key))
    }

    /// Reads the key in a file, or makes a key and writes it there (mode 0600, synced) where there is
    /// no file yet. Returns whether it was made now. Blocks; for start only.
    ///
    /// # Errors
    /// See [`KekFileError`]. A file that others may read is refused.
    pub fn load_or_create(path: &Path) -> Result<(Self, bool), KekFileError> {
        let failed = |action, source| KekFileError::File { action, path: path.to_owned(), source };
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match created {
            Ok(mut file) => {
                let kek = Self::generate().map_err(KekFileError::Random)?;
                let mut line = Zeroizing::new(hex::encode(kek.0.as_slice()));
                line.push('\n');
                file.write_all(line.as_bytes()).map_err(|error| failed("write", error))?;
                file.sync_all().map_err(|error| failed("sync", error))?;
                // The name must survive a power cut too: secrets sealed from now on depend on it.
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                File::open(parent.unwrap_or_else(|| Path::new(".")))
                    .and_then(|directory| directory.sync_all())
                    .map_err(|error| failed("sync the directory of", error))?;
                Ok((kek, true))
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Self::load(path).map(|kek| (kek, false))
            }
            Err(error) => Err(failed("create", error)),
        }
    }

    /// Reads the key in a file. Blocks; for start only.
    ///
    /// # Errors
    /// See [`KekFileError`]. A file that others may read is refused.
    pub fn load(path: &Path) -> Result<Self, KekFileError> {
        let failed = |action, source| KekFileError::File { action, path: path.to_owned(), source };
        let file = File::open(path).map_err(|error| failed("open", error))?;
        let mode = file.metadata().map_err(|error| failed("examine", error))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KekFileError::TooOpen { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(KEK_FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| failed("read", error))?;
        Self::parse(&text)
            .map_err(|source| KekFileError::Malformed { path: path.to_owned(), source })
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Kek([redacted])")
    }
}

/// What one seal needs of chance.
pub(super) struct Random {
    pub(super) data_key: Zeroizing<[u8; KEY_BYTES]>,
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) wrap_nonce: [u8; NONCE_BYTES],
    pub(super) data_nonce: [u8; NONCE_BYTES],
}

impl Random {
    /// Draws all of it.
    pub(super) fn fresh() -> Result<Self, String> {
        let mut random = Self {
            data_key: Zeroizing::new([0; KEY_BYTES]),
            salt: [0; SALT_BYTES],
            wrap_nonce: [0; NONCE_BYTES],
            data_nonce: [0; NONCE_BYTES],
        };
        for target in [
            random.data_key.as_mut_slice(),
            &mut random.salt,
            &mut random.wrap_nonce,
            &mut random.data_nonce,
        ] {
            getrandom::fill(target).map_err(|error| error.to_string())?;
        }
        Ok(random)
    }
}

/// A KEK at work.
pub(super) struct Local {
    kek: Kek,
    key_id: String,
}

impl Local {
    pub(super) fn new(kek: Kek) -> Self {
        let id: [u8; 8] = derive(kek.0.as_slice(), None, &[b"peat-gateway/kek/key id"]);
        Self { kek, key_id: hex::encode(id) }
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Seals; equal arguments give equal bytes.
    pub(super) fn seal(&self, binding: &[u8], secret: &[u8], random: &Random) -> Vec<u8> {
        let wrapped_key = self.wrap(binding, random);
        let ciphertext =
            encrypt(&random.data_key, &random.data_nonce, secret, &data_context(binding));
        Envelope {
            provider: PROVIDER_LOCAL,
            key_id: self.key_id.as_bytes(),
            wrapped_key: &wrapped_key,
            nonce: &random.data_nonce,
            commitment: &commitment(&random.data_key),
            ciphertext: &ciphertext,
        }
        .encode()
    }

    /// Wraps a data key for this binding.
    pub(super) fn wrap(&self, binding: &[u8], random: &Random) -> Vec<u8> {
        let context = wrap_context(PROVIDER_LOCAL, self.key_id.as_bytes(), binding);
        let wrap_key = self.wrap_key(&random.salt, &context);
        let wrapped = encrypt(&wrap_key, &random.wrap_nonce, random.data_key.as_slice(), &context);
        [random.salt.as_slice(), &random.wrap_nonce, &wrapped].concat()
    }

    pub(super) fn open(
        &self,
        binding: &[u8],
        envelope: &Envelope<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        envelope.decrypt(&*self.unwrap(binding, envelope)?, binding)
    }

    /// Unwraps an envelope's data key.
    pub(super) fn unwrap(
        &self,
        binding: &[u8],
        envelope: &Envelope<'_>,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, Fault> {
        if envelope.provider != PROVIDER_LOCAL {
            return Err(Fault::Provider(envelope.provider));
        }
        if envelope.key_id != self.key_id.as_bytes() {
            let sealed_with = envelope.key_id.escape_ascii().to_string();
            return Err(Fault::OtherKey { sealed_with });
        }
        let (salt, rest) = envelope.wrapped_key.split_first_chunk().ok_or(Fault::DataKey)?;
        let (nonce, wrapped) = rest.split_first_chunk().ok_or(Fault::DataKey)?;
        let context = wrap_context(PROVIDER_LOCAL, envelope.key_id, binding);
        let wrap_key = self.wrap_key(salt, &context);
        data_key(decrypt(&wrap_key, nonce, wrapped, &context))
    }

    /// Opens a version 1 envelope: `"PENV" │ 1 │ u16 LE n │ wrapped data key (n) │ nonce (12) │
    /// ciphertext and tag`, without additional data; the data key is wrapped as
    /// `nonce (12) │ AES-256-GCM(KEK, data key) (32) │ tag (16)`.
    pub(super) fn open_v1(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Fault::NotAnEnvelope)?;
        let (&version, rest) = rest.split_first().ok_or(Fault::Truncated)?;
        if version != VERSION_1 {
            return Err(Fault::Version(version));
        }
        let (wrapped_bytes, rest) = rest.split_first_chunk().ok_or(Fault::Truncated)?;
        let wrapped_bytes = u16::from_le_bytes(*wrapped_bytes).into();
        let (wrapped, rest) = rest.split_at_checked(wrapped_bytes).ok_or(Fault::Truncated)?;
        let (nonce, ciphertext) = rest.split_first_chunk().ok_or(Fault::Truncated)?;
        let (wrap_nonce, wrapped) = wrapped.split_first_chunk().ok_or(Fault::DataKey)?;
        let key = data_key(decrypt(&self.kek.0, wrap_nonce, wrapped, &[]))?;
        decrypt(&key, nonce, ciphertext, &[]).ok_or(Fault::Data)
    }

    fn wrap_key(&self, salt: &[u8; SALT_BYTES], context: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        let info: &[&[u8]] = &[b"peat-gateway/envelope/2/wrap", context];
        Zeroizing::new(derive(self.kek.0.as_slice(), Some(salt), info))
    }
}

/// A data key from what was unwrapped.
fn data_key(opened: Option<Zeroizing<Vec<u8>>>) -> Result<Zeroizing<[u8; KEY_BYTES]>, Fault> {
    let opened = opened.ok_or(Fault::DataKey)?;
    let key: &[u8; KEY_BYTES] = opened.as_slice().try_into().map_err(|_| Fault::DataKey)?;
    Ok(Zeroizing::new(*key))
}
