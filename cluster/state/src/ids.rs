//! A type per identifier, with the rules for what users may choose.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::Serialize;
use thiserror::Error;

/// Most bytes in an organisation's or formation's id.
pub const NAME_BYTES_MAX: usize = 128;
/// Most bytes in a display name.
pub const DISPLAY_NAME_BYTES_MAX: usize = 1024;
/// Most bytes in a document key (`<collection>:<id>`).
pub const DOCUMENT_KEY_BYTES_MAX: usize = 1024;

/// Ids that users may not choose for organisations and formations: they are routes, subjects or
/// system names of this product and of the brokers it speaks to.
pub const RESERVED: &[&str] = &["_org", "_", "ctl", "peat", "_INBOX", "cluster", "system"];

/// An id that breaks the rules; the text says which.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidId(pub String);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
        #[cbor(transparent)]
        #[serde(transparent)]
        pub struct $name(#[n(0)] String);

        impl $name {
            /// Returns the id as text.
            pub fn as_str(&self) -> &str { &self.0 }

            /// Wraps text that is known to be valid, such as one read from the state.
            pub fn from_trusted(text: impl Into<String>) -> Self { Self(text.into()) }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    };
}

text_id! {
    /// An organisation's id: 1–128 bytes of `A–Z a–z 0–9 _ -`, the first a letter or digit; case-sensitive.
    OrgId
}
text_id! {
    /// A formation's id within its organisation; same rules as [`OrgId`].
    AppId
}
text_id! {
    /// A sink's id: a ULID that the proposing node made.
    SinkId
}
text_id! {
    /// A document's key in its formation: `<collection>:<id>`, 1–1024 bytes of UTF-8.
    DocumentKey
}

/// Checks a name that a user chose.
///
/// # Errors
/// Says which rule it breaks.
fn check_name(kind: &str, text: &str) -> Result<(), InvalidId> {
    let refuse = |why: &str| Err(InvalidId(format!("{kind} {why}")));
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return refuse(&format!("must have 1 to {NAME_BYTES_MAX} bytes, not {}", text.len()));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return refuse("may hold only letters, digits, '_' and '-'");
    }
    if RESERVED.contains(&text) {
        return refuse(&format!("'{text}' is reserved by the gateway"));
    }
    if !text.as_bytes()[0].is_ascii_alphanumeric() {
        return refuse("must begin with a letter or digit");
    }
    Ok(())
}

impl OrgId {
    /// Checks and wraps a user's choice.
    ///
    /// # Errors
    /// Says which rule of the type it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check_name("org_id", text).map(|()| Self(text.to_owned()))
    }
}

impl AppId {
    /// Checks and wraps a user's choice.
    ///
    /// # Errors
    /// Says which rule of the type it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check_name("app_id", text).map(|()| Self(text.to_owned()))
    }
}

impl SinkId {
    /// Checks and wraps an id from a request path: 1–64 letters and digits.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(InvalidId("sink_id must have 1 to 64 letters and digits".into()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl DocumentKey {
    /// Checks and wraps a key that came over the mesh or in a request path.
    ///
    /// # Errors
    /// Says which rule of the type it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() || text.len() > DOCUMENT_KEY_BYTES_MAX {
            return Err(InvalidId(format!(
                "document key must have 1 to {DOCUMENT_KEY_BYTES_MAX} bytes, not {}",
                text.len()
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text before the first `:`, or the whole key where there is none.
    pub fn collection(&self) -> &str {
        self.0.split(':').next().unwrap_or(&self.0)
    }
}

/// A node's id: random, minted once per data directory, never used again for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct NodeId(#[n(0)] pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The epoch of a leader: the log index of the `ClaimEpoch` entry that it committed first.
///
/// Every command of leader work carries it; [`crate::apply()`] refuses an older one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Epoch(#[n(0)] pub u64);

/// 32 bytes: an Automerge change hash, an event id, a BLAKE3 or SHA-256 digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Hash32(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
